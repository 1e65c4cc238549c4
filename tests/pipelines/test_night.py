"""One whole night of a small simulated shop, all stages, twice; and what a night must refuse."""

import csv
import datetime as dt
import json
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import pytest

from benchmarks.sql_features import TABLES, make_tables
from nightshelf.config import Shop, load_shop
from nightshelf.engines import Serving
from nightshelf.errors import EngineError, GateError, InputError
from nightshelf.exclusions import acted_on, common_rules
from nightshelf.exports import ParquetDrop
from nightshelf.generators import Candidates
from nightshelf.lineage import MADE, RAW
from nightshelf.paths import artifact_dir, report_file, shelf_parts_dir, tracking_uri, truth_dir, views_file
from nightshelf.scenarios import Rerank
from pipelines.anchor_lifts import nearness_lifts, read_shown
from pipelines.models import registered_name
from pipelines.night import run_night
from pipelines.publish import content_hash
from pipelines.serve_parts import serve_share
from pipelines.shelf_rows import RowMaker
from pipelines.sql import connect, write_views
from pipelines.stage import STAGES, Night, night_of, run_stage
from pipelines.warehouse import Warehouse
from pipelines.weights import find_weights
from simulation.simulate import simulate_shop

ROOT = Path(__file__).resolve().parents[2]
FIRST, NIGHT, TOMORROW = dt.date(2026, 2, 9), dt.date(2026, 2, 13), dt.date(2026, 2, 14)
pytestmark = [pytest.mark.night, pytest.mark.long]


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory, spark) -> Iterator[Shop]:  # type: ignore[no-untyped-def]
    """The demo shop, small, after one night, with retrieval and an export."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NIGHTSHELF_HOME", str(tmp_path_factory.mktemp("night")))
        patch.setenv(
            "NIGHTSHELF_ID_KEY", "a key of the test alone, 32 bytes or more"
        )  # keys order rows: the same night each time
        shop = load_shop(ROOT / "conf/shops/demo.yaml")
        recipe = tmp_path_factory.mktemp("recipe") / "two_tower.yaml"
        recipe.write_text(
            "name: small\nembedding_size: 8\nvector_size: 16\nepochs: 2\nnegatives: 100\ncandidates: 30\n"
        )
        drop = ParquetDrop(to="parquet", folder=Path("drop"))
        shop = shop.model_copy(update={"retrieval": recipe, "exports": [drop]})
        simulate_shop(shop, FIRST, 6, 1200, 150, 3)
        with remembered_reads(patch):
            run_night(shop, NIGHT)
        yield shop


READ: dict[str, set[str]] = {}  # stage → the tables that it asked the warehouse for


@contextmanager
def remembered_reads(patch: pytest.MonkeyPatch) -> Iterator[None]:
    """Write down in READ which tables each stage reads."""
    with patch.context() as inner:
        for method in ("files", "read"):
            inner.setattr(Warehouse, method, remembering(getattr(Warehouse, method)))

        def run(name: str, *rest: object) -> object:
            READ.update({name: set(), "": {name}})
            return run_stage(name, *rest)  # type: ignore[arg-type]

        inner.setattr("pipelines.night.run_stage", run)
        inner.setattr("pipelines.stage.write_views", unremembered)
        yield


def unremembered(*asked: object) -> None:
    """Write the views after a stage, which reads no row."""
    READ[""] = set()
    write_views(*asked)  # type: ignore[arg-type]


def remembering(method: Callable) -> Callable:  # type: ignore[type-arg]
    def call(self: Warehouse, table: str, *rest: object, **named: object) -> object:
        for stage in READ.get("", ()):
            READ[stage].add(table)
        return method(self, table, *rest, **named)

    return call


def ask(shop: Shop, query: str) -> list[tuple]:  # type: ignore[type-arg]
    return connect(Warehouse(shop)).execute(query).fetchall()


def test_every_known_user_has_a_shelf_without_gap_or_repeat_in_every_scenario(shop: Shop) -> None:
    served = ask(
        shop,
        """SELECT scenario, count(DISTINCT user_key), max(rank), bool_or(user_key = '*')
           FROM recommendations GROUP BY scenario ORDER BY scenario""",
    )
    known = ask(shop, f"SELECT count(*) FROM users WHERE as_of_date = DATE '{NIGHT}'")[0][0]
    expected = [
        (name, known + 1, True) for name in sorted(shop.scenarios)
    ]  # and `*`, for whoever comes for the first time
    assert [(name, users, for_strangers) for name, users, _, for_strangers in served] == expected
    assert all(longest <= shop.scenarios[name].top_n for name, _, longest, _ in served)
    seen = ask(
        shop,
        "SELECT count(*) FROM (SELECT DISTINCT user_key FROM events) e ANTI JOIN recommendations r USING (user_key)",
    )
    assert seen == [(0,)]
    shelves = """SELECT user_key, scenario, count(*) n, max(rank) top, min(rank) low, count(DISTINCT item_id) items
                 FROM recommendations GROUP BY ALL"""
    assert ask(shop, f"SELECT count(*) FROM ({shelves}) WHERE n != top OR low != 1 OR items != n") == [(0,)]
    falls = (
        "SELECT score - lag(score) OVER (PARTITION BY user_key, scenario ORDER BY rank) AS rise FROM recommendations"
    )
    assert ask(shop, f"SELECT count(*) FROM ({falls}) WHERE rise > 1e-9") == [(0,)]


def test_the_notebook_runs_and_draws(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    import matplotlib

    with matplotlib.rc_context(), monkeypatch.context() as patch:
        matplotlib.use("Agg")
        import matplotlib.pyplot as plt

        patch.setenv("NIGHTSHELF_VIEWS", str(views_file(shop)))
        plt.close("all")
        cells = json.loads((ROOT / "docs/analyst.ipynb").read_text())["cells"]
        names: dict[str, object] = {}
        for cell in cells:
            if cell["cell_type"] == "code":
                exec("".join(cell["source"]), names)
                if len(names) > 5:
                    plt.figure()  # a notebook begins a new picture in each cell
        drawn = [
            figure for figure in map(plt.figure, plt.get_fignums()) if any(axes.has_data() for axes in figure.axes)
        ]
        assert len(drawn) >= 6
        plt.close("all")
        names["shop"].close()  # type: ignore[attr-defined]


def test_no_shelf_shows_what_its_scenario_excludes(shop: Shop) -> None:
    sold_out = "SELECT count(*) FROM recommendations JOIN items USING (as_of_date, item_id) WHERE stock <= 0"
    assert ask(shop, sold_out) == [(0,)]
    names = ", ".join(f"'{name}'" for name, s in shop.scenarios.items() if "purchased_30d" in s.exclude)
    bought = f"""SELECT count(*) FROM recommendations r JOIN events e USING (user_key, item_id)
                 WHERE e.event_type = 'purchase' AND r.scenario IN ({names})"""
    assert ask(shop, bought) == [(0,)]


def test_rows_are_conserved_for_every_source_on_every_day(shop: Shop) -> None:
    rows = ask(
        shop, "SELECT as_of_date, source, rows_read, kept + quarantined + duplicates + other_days FROM source_counts"
    )
    assert len(rows) == len(shop.sources) * 5
    assert all(read == accounted for _, _, read, accounted in rows)
    assert sum(read for _, _, read, _ in rows) > 0


def test_each_planted_kind_of_dirt_ends_under_its_own_reason(shop: Shop) -> None:
    """To the row: what was planted in a source's log of a day, and what was set aside there, under each reason."""
    planted = f"""SELECT source, event_date, replace(reason, 'near_', '') reason, count(*)
                  FROM '{truth_dir(shop) / "dirt.parquet"}'
                  WHERE event_date <= DATE '{NIGHT}' AND {{}} reason LIKE '%duplicate' GROUP BY ALL ORDER BY ALL"""
    found = f"WHERE as_of_date <= DATE '{NIGHT}'"
    set_aside = ask(
        shop, f"SELECT source, as_of_date, reason, count(*) FROM quarantine {found} GROUP BY ALL ORDER BY ALL"
    )
    assert set_aside == duckdb.sql(planted.format("NOT")).fetchall()
    assert len({reason for _, _, reason, _ in set_aside}) >= 10
    repeated = f"SELECT source, as_of_date, 'duplicate', duplicates FROM source_counts {found} AND duplicates > 0"
    assert ask(shop, f"{repeated} ORDER BY ALL") == duckdb.sql(planted.format("")).fetchall()


def test_reasons_are_true_of_their_rows(shop: Shop) -> None:
    wrong = """SELECT count(*) FROM recommendations JOIN items USING (as_of_date, item_id)
               WHERE source = 'affinity' AND NOT contains(category_3, replace(reason, 'You often choose ', ''))"""
    assert ask(shop, wrong) == [(0,)]
    wrong = """SELECT count(*) FROM recommendations JOIN items USING (as_of_date, item_id)
               WHERE source = 'brand' AND NOT contains(reason, brand)"""
    assert ask(shop, wrong) == [(0,)]
    new = """SELECT count(*), count(*) FILTER (WHERE as_of_date - launch_date BETWEEN 0 AND 30)
             FROM recommendations JOIN items USING (as_of_date, item_id) WHERE reason = 'New in the shop'"""
    [(told, true)] = ask(shop, new)
    assert told == true > 0


def test_the_first_challenger_is_champion_and_every_stage_left_its_row(shop: Shop) -> None:
    promoted, evidence = ask(shop, "SELECT promoted, evidence FROM promotions")[0]
    assert promoted
    assert all(check["passed"] for check in json.loads(evidence))
    stages = ask(shop, "SELECT count(DISTINCT stage) FROM stage_runs WHERE status = 'done' AND peak_memory_mb > 0")
    assert stages == [(len(STAGES),)]
    assert report_file(shop, NIGHT).stat().st_size > 10_000


def test_the_whole_catalogue_was_searched_for_everybody_with_an_act(shop: Shop) -> None:
    with_acts = ask(shop, "SELECT count(DISTINCT user_key) FROM acts JOIN items USING (item_id)")
    assert ask(shop, "SELECT count(DISTINCT user_key) FROM retrieved_candidates") == with_acts
    known = "FROM retrieved_candidates r SEMI JOIN acts a ON a.user_key = r.user_key AND a.item_id = r.item_id"
    assert ask(shop, f"SELECT count(*) {known}") == [(0,)]
    placed = "SELECT count(*) FROM recommendations WHERE source = 'two_tower' AND reason LIKE '%a history like yours%'"
    assert ask(shop, placed)[0][0] > 0


def test_who_has_no_history_gets_the_shelf_of_his_segment(shop: Shop) -> None:
    cold = """WITH shelves AS (SELECT user_key, list((item_id, score) ORDER BY rank) AS shelf FROM recommendations
                WHERE scenario = 'home_feed' GROUP BY user_key)
              SELECT u.user_age_band, u.user_device, count(*), count(DISTINCT shelf) FROM users u JOIN shelves USING (user_key)
              WHERE user_key NOT IN (SELECT user_key FROM user_features) GROUP BY ALL"""
    segments = ask(shop, cold)
    assert len(segments) > 5
    assert {different for *_, different in segments} == {1}
    kinds = f"SELECT count(DISTINCT shelf) FROM ({cold.replace('count(*), count(DISTINCT shelf)', 'any_value(shelf) AS shelf')})"
    assert ask(shop, kinds)[0][0] > 1


def test_every_item_has_a_shelf_for_whoever_is_at_it(shop: Shop) -> None:
    items = ask(shop, f"SELECT count(*) FROM items WHERE as_of_date = DATE '{NIGHT}'")[0][0]
    shelves = (
        "SELECT scenario, count(DISTINCT anchor_item_id), min(rank), max(rank) FROM item_recommendations GROUP BY 1"
    )
    assert sorted(ask(shop, shelves)) == [(name, items, 1, shop.scenarios[name].top_n) for name in sorted(shop.anchors)]
    wrong = """SELECT count(*) FROM item_recommendations JOIN items USING (as_of_date, item_id)
               WHERE item_id = anchor_item_id OR stock <= 0 OR NOT isfinite(score)"""
    assert ask(shop, wrong) == [(0,)]
    # Worth is the same whatever the anchor
    worth = "SELECT max(score / lift) / min(score / lift) AS ratio FROM item_recommendations GROUP BY scenario, item_id"
    assert ask(shop, f"SELECT max(ratio) FROM ({worth})")[0][0] == pytest.approx(1, abs=1e-9)


@pytest.mark.parametrize("scenario", ["product_page", "cart"])
def test_what_was_shown_beside_an_anchor_agrees_with_pandas(shop: Shop, scenario: str) -> None:
    warehouse = Warehouse(shop)
    ids = warehouse.read("items", [NIGHT], ("item_id",))["item_id"].to_pylist()
    before = NIGHT - dt.timedelta(days=2)
    found = read_shown(Night(shop, NIGHT, warehouse, "a-test"), scenario, ids, before)
    shown = warehouse.read("training_examples").to_pandas().query("scenario == @scenario and label_click.notnull()")
    acts = warehouse.read("acts").to_pandas().query("event_type == @shop.anchors[@scenario]")
    acts = acts.groupby(["user_key", "event_ts"], as_index=False)["item_id"].min()
    together = pd.merge_asof(
        shown.sort_values("impression_ts"), acts.rename(columns={"item_id": "anchor"}).sort_values("event_ts"),
        left_on="impression_ts", right_on="event_ts", by="user_key", allow_exact_matches=scenario == "product_page",
    )  # fmt: skip
    old = together["impression_ts"] - together["event_ts"] >= pd.Timedelta(days=1)
    number = {item: place for place, item in enumerate(ids)}
    together["anchor"] = together["anchor"].where(~old).map(number).fillna(-1).astype(int)
    together = together[together["item_id"].isin(number)].assign(item=lambda rows: rows["item_id"].map(number))
    together["is_later"] = pd.to_datetime(together["as_of_date"]).dt.date > before
    sums = together.groupby(["anchor", "item", "is_later"], as_index=False).agg(
        shown=("sample_weight", "sum"), outcomes=("label_click", "sum")
    )
    assert (sums["anchor"] >= 0).sum() > 50
    assert sums["is_later"].nunique() == 2
    for column in sums.columns:
        np.testing.assert_allclose(getattr(found, column).astype(float), sums[column].astype(float), atol=1e-5)
    beside = nearness_lifts(Night(shop, NIGHT, warehouse, "a-test"), scenario)
    catalogue = warehouse.read("items", [NIGHT]).sort_by("item_id")
    levels = catalogue.select(["category_1", "category_2", "category_3"]).to_pandas().to_numpy()
    pairs = sums[(sums["anchor"] >= 0) & (sums["anchor"] != sums["item"])]
    of_item = sums.groupby("item")[["shown", "outcomes"]].sum()
    rate = of_item["outcomes"].sum() / of_item["shown"].sum()
    rates = (of_item["outcomes"] + 50 * rate) / (of_item["shown"] + 50)
    shared = levels[pairs["anchor"]] == levels[pairs["item"]]
    near = np.cumprod(shared, axis=1).sum(axis=1)
    expected = pairs["shown"].to_numpy() * rates.loc[pairs["item"]].to_numpy()
    by_hand = [
        (pairs["outcomes"].to_numpy()[near == n].sum() + 20) / (expected[near == n].sum() + 20) for n in range(4)
    ]
    assert beside == pytest.approx(by_hand, abs=1e-5)


@pytest.mark.parametrize("stage", ["features", "retrieve", "recommend", "publish"])
def test_a_stage_reads_what_its_tables_are_said_to_be_made_of(shop: Shop, stage: str) -> None:
    tables = {table for table, made in MADE.items() if made.stage == stage}
    told = {source for table in tables for source in MADE[table].of} - {RAW}
    if stage == "retrieve" and not any(map(acted_on, common_rules(shop))):
        told -= {"events"}
    assert told <= READ[stage]
    if stage in ("features", "recommend"):  # the others also check what they wrote against further tables
        ledgers = {"promotions", "example_days"}
        assert READ[stage] - told - tables - ledgers == set()


def test_the_export_holds_what_is_published(shop: Shop) -> None:
    exported = duckdb.sql(f"FROM read_parquet('{shop.home}/drop/current/*.parquet')").df()
    published = connect(Warehouse(shop)).sql("FROM recommendations").df()
    keys = ["scenario", "user_key", "rank"]
    pd.testing.assert_frame_equal(*(rows.sort_values(keys).reset_index(drop=True) for rows in (exported, published)))


def test_every_feature_and_label_agrees_with_sql(shop: Shop, differences) -> None:  # type: ignore[no-untyped-def]
    days, read = [FIRST + dt.timedelta(days=n) for n in range(5)], Warehouse(shop).read
    with duckdb.connect() as db:
        for name in ("events", "items", "users", "vocabularies"):
            db.register(name, read(name, [NIGHT] if name == "vocabularies" else days))
        db.register("shown", read("impressions", days))
        make_tables(db, shop, days, FIRST, NIGHT)
        expected = {name: db.sql(f"FROM {name}").df() for name in TABLES}
    found = {name: read(name).to_pandas() for name in TABLES}
    for tables in (found, expected):
        for name, rows in tables.items():
            spec = Warehouse(shop).specs[name]
            tables[name] = rows[spec.column_names].sort_values(["as_of_date", *spec.keys]).reset_index(drop=True)
    assert differences(shop, found, expected) == []


def test_the_scales_are_those_of_the_train_split(shop: Shop) -> None:
    fitted = ask(shop, "SELECT mean, deviation, fitted_until FROM normalization WHERE feature = 'user_click_count_7d'")
    scaled = "ln(1 + user_click_count_7d)"
    train = f"SELECT avg({scaled}), stddev_pop({scaled}) FROM training_examples WHERE event_date <= $day"
    (mean, deviation, last), (expected,) = fitted[0], [ask(shop, train.replace("$day", f"DATE '{fitted[0][2]}'"))[0]]
    assert FIRST < last < NIGHT
    assert (mean, deviation) == pytest.approx(expected, rel=1e-5)


def test_no_raw_user_id_leaves_the_logs(shop: Shop) -> None:
    with (shop.home / "raw/users.csv").open() as file:
        ids = {row["user_id"] for row in csv.DictReader(file)}
    # Values, not bytes: Parquet is compressed, and a search of its bytes would find nothing whatever was there.
    words = words_of_text_columns(shop)
    assert [column for column, found in words.items() if found & ids] == []
    known_item = ask(shop, "SELECT min(item_id) FROM events")[0][0]
    assert known_item in words["events.item_id"]  # what is there, the search finds
    page = report_file(shop, NIGHT).read_text()
    assert not [user for user in ids if f">{user}<" in page]


def words_of_text_columns(shop: Shop) -> dict[str, set[str]]:
    """Return the words of each text column of each table: ids that stand alone, and ids that a text quotes."""
    words, tables = {}, connect(Warehouse(shop))
    for table, spec in Warehouse(shop).specs.items():
        for column in (c.name for c in spec.columns if c.type == "string"):
            query = f'SELECT DISTINCT "{column}" FROM {table} WHERE "{column}" IS NOT NULL'
            told = "\n".join(value for (value,) in tables.execute(query).fetchall())
            words[f"{table}.{column}"] = set(re.findall(r"[A-Za-z0-9_-]+", told))
    return words


def test_the_same_night_again_gives_the_same_rows(shop: Shop) -> None:
    tables = ("recommendations", "item_recommendations")
    before = [content_hash(Warehouse(shop).files(table, [NIGHT])) for table in tables]
    run_night(shop, NIGHT)
    assert [content_hash(Warehouse(shop).files(table, [NIGHT])) for table in tables] == before
    assert ask(shop, "SELECT count(*) FROM promotions") == [(1,)]


@pytest.fixture(scope="module")
def two_nights(shop: Shop) -> Shop:
    """The shop after the night that follows; the tests of its first night come before."""
    run_night(shop, TOMORROW)
    return shop


def test_the_next_night_starts_from_the_champion_and_leaves_the_old_shelves(shop: Shop, request) -> None:  # type: ignore[no-untyped-def]
    before = content_hash(Warehouse(shop).files("recommendations", [NIGHT]))
    request.getfixturevalue("two_nights")
    parent = ask(shop, f"SELECT message FROM stage_runs WHERE stage = 'train' AND as_of_date = DATE '{TOMORROW}'")[0][0]
    assert "warm-started from version" in parent
    assert content_hash(Warehouse(shop).files("recommendations", [NIGHT])) == before
    assert Warehouse(shop).partitions("recommendations") == [NIGHT, TOMORROW]


QUESTIONS = re.findall(
    r"^\*\*(.+?)\*\*.*?```sql\n(.+?)```", (ROOT / "docs/queries.md").read_text(), re.MULTILINE | re.DOTALL
)


@pytest.mark.parametrize(("question", "query"), QUESTIONS, ids=[question for question, _ in QUESTIONS])
def test_an_analysts_question_has_an_answer(two_nights: Shop, question: str, query: str) -> None:
    cursor = connect(Warehouse(two_nights)).execute(query)
    names = [column[0] for column in cursor.description or []]
    rows = [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]
    assert len(QUESTIONS) >= 20
    # Nobody was shown last night's shelves here: tests/pipelines/test_exploration.py has one who was.
    assert rows or question.startswith("What would another order have earned")
    assert all(any(row[name] is not None for row in rows) for name in names) or not rows, "a column is always empty"
    assert {row["night"] for row in rows if "share_kept" in row} <= {TOMORROW}, "of the first night nobody can tell"
    for row in rows:
        assert row.get("unaccounted", 0) == 0
        assert all(0 <= value <= 1 for name, value in row.items() if "share" in name and value is not None)


WITHIN = """
    WITH proposed AS (
        SELECT *, row_number() OVER (PARTITION BY user_key, scenario, generator ORDER BY generator_score DESC, item_id) AS place
        FROM (FROM candidates UNION ALL FROM retrieved_candidates) WHERE as_of_date = $day
    ), ranked AS (
        SELECT q.scenario, user_key, item_id FROM proposed JOIN candidate_quotas q USING (as_of_date, generator)
        WHERE proposed.scenario IN (q.scenario, '*') AND (quota IS NULL OR place <= quota)
    )
    SELECT scenario, count(*) FROM shelf_drafts d WHERE as_of_date = $day AND NOT EXISTS (
        SELECT 1 FROM ranked r WHERE r.scenario = d.scenario AND r.item_id = d.item_id AND r.user_key IN (d.user_key, '*'))
    GROUP BY scenario"""


def test_a_shelf_holds_only_what_its_scenario_ranks_and_is_as_long_as_ever(shop: Shop) -> None:
    night, tomorrow = (f"DATE '{NIGHT + dt.timedelta(days=n)}'" for n in range(2))
    first = f"SELECT DISTINCT quota, quota_from, outcomes FROM candidate_quotas WHERE as_of_date = {night}"
    assert ask(shop, first) == [(None, "all", 0)]
    learned = f"FROM candidate_quotas WHERE as_of_date = {tomorrow} AND quota_from = 'learned' AND generator <> '*'"
    assert ask(shop, f"SELECT count(DISTINCT scenario) {learned}") == [(len(shop.scenarios),)]
    assert ask(shop, WITHIN.replace("$day", tomorrow)) == []
    lengths = (
        f"SELECT user_key, scenario, count(*) FROM shelf_drafts WHERE as_of_date = {tomorrow} GROUP BY ALL ORDER BY ALL"
    )
    places = ask(shop, lengths)

    few = {"candidates": Candidates(quotas={"related": 2, "affinity": 1, "brand": 0, "two_tower": 3, "fresh": 0})}
    cut = {**shop.scenarios, "home_feed": shop.scenarios["home_feed"].model_copy(update=few)}
    for stage in ("validate_examples", "recommend"):
        run_stage(stage, shop.model_copy(update={"scenarios": cut}), NIGHT + dt.timedelta(days=1))
    assert ask(shop, WITHIN.replace("$day", tomorrow)) == []
    assert ask(shop, lengths) == places
    as_cut = WITHIN.replace(
        "candidate_quotas q",
        "(SELECT * REPLACE ('search' AS scenario) FROM candidate_quotas WHERE scenario = 'home_feed') q",
    )
    assert dict(ask(shop, as_cut.replace("$day", tomorrow)))["search"] > 0  # its quotas are its own
    for stage in ("validate_examples", "recommend"):
        run_stage(stage, shop, NIGHT + dt.timedelta(days=1))


def test_one_scenario_without_retraining_leaves_the_others_as_they_were(shop: Shop) -> None:
    columns = "scenario, user_key, rank, item_id, run_id"
    others = f"SELECT {columns} FROM recommendations WHERE scenario NOT IN ('search', 'cart') ORDER BY ALL"
    columns = columns.replace("user_key", "anchor_item_id")
    beside = f"SELECT {columns} FROM item_recommendations WHERE scenario != 'cart' ORDER BY ALL"
    lifts_beside = "FROM anchor_lifts WHERE scenario != 'cart' ORDER BY ALL"
    before, models = ask(shop, others), ask(shop, "SELECT count(*) FROM model_metrics")
    before_items, lifts = ask(shop, beside), ask(shop, lifts_beside)
    run_night(shop, NIGHT, "train", "publish", retrain=False, scenarios=("search", "cart"))
    assert ask(shop, others) == before
    assert ask(shop, beside) == before_items
    assert ask(shop, lifts_beside) == lifts
    assert ask(shop, "SELECT count(*) FROM model_metrics") == models


def test_drafts_that_the_audit_refuses_are_not_published(shop: Shop) -> None:
    warehouse = Warehouse(shop)
    before = content_hash(warehouse.files("recommendations", [NIGHT]))
    drafts = warehouse.read("shelf_drafts", [NIGHT])
    warehouse.publish_arrow("shelf_drafts", drafts.slice(1), [NIGHT], "a-row-is-missing")
    with pytest.raises(GateError, match=r"rank|shelf"):
        run_night(shop, NIGHT, "publish", "publish")
    assert content_hash(warehouse.files("recommendations", [NIGHT])) == before


def test_a_night_that_fails_leaves_the_old_shelves_readable(shop: Shop) -> None:
    before = ask(shop, "SELECT count(*) FROM recommendations")
    shutil.move(shop.home / "raw/search/2026-02-14", shop.home / "hidden")
    try:
        with pytest.raises(InputError, match="search"):
            run_night(shop, dt.date(2026, 2, 14), "clean", "clean")
    finally:
        shutil.move(shop.home / "hidden", shop.home / "raw/search/2026-02-14")
    assert ask(shop, "SELECT count(*) FROM recommendations") == before
    failed = ask(shop, "SELECT message FROM stage_runs WHERE status = 'failed' AND stage = 'clean'")
    assert len(failed) == 1


def test_a_night_without_a_champion_shows_what_is_popular(shop: Shop) -> None:
    yesterday = NIGHT - dt.timedelta(days=1)  # before the first model was promoted
    run_night(shop, yesterday, "features", "publish", retrain=False)
    shelves = f"FROM recommendations WHERE as_of_date = DATE '{yesterday}'"
    assert ask(shop, f"SELECT DISTINCT model_version {shelves}") == [("popularity",)]
    assert ask(shop, f"SELECT count(DISTINCT scenario) {shelves}") == [(len(shop.scenarios),)]
    assert ask(shop, f"SELECT count(*) {shelves} AND NOT (score > 0 AND p_click > 0 AND p_spend >= 0)") == [(0,)]


SHELVES = f"""SELECT * EXCLUDE (run_id) FROM shelf_drafts WHERE as_of_date = DATE '{NIGHT}'
             ORDER BY scenario, user_key, rank"""
SHELVES_OF_ITEMS = f"""SELECT * EXCLUDE (run_id) FROM item_shelf_drafts WHERE as_of_date = DATE '{NIGHT}'
             ORDER BY scenario, anchor_item_id, rank"""


def serving(shop: Shop, explore: float = 0.2, **serving: object) -> Shop:
    """Return the shop with a rule that draws by chance, served in some way."""
    rule = {"rerank": Rerank(explore=explore, diversity=0.1, repeats=0.2)}
    scenarios = {name: scenario.model_copy(update=rule) for name, scenario in shop.scenarios.items()}
    return shop.model_copy(update={"scenarios": scenarios, "serving": Serving(**serving)})  # type: ignore[arg-type]


@pytest.mark.parametrize("rules", ["as they are", "that count earlier shelves"])
def test_the_shelves_of_some_scenarios_are_those_of_a_run_for_all(shop: Shop, rules: str) -> None:
    """In whatever order they are asked for, and whichever of the others their rows hang on."""
    if rules == "that count earlier shelves":
        shop = serving(shop)
    asked = ("cart", "product_page")

    def drafts() -> list[pd.DataFrame]:
        connection = connect(Warehouse(shop))
        of_both = (connection.execute(query).df() for query in (SHELVES, SHELVES_OF_ITEMS))
        return [rows[rows["scenario"].isin(asked)].reset_index(drop=True) for rows in of_both]

    run_stage("recommend", shop, NIGHT)
    whole = drafts()
    run_stage("recommend", shop, NIGHT, scenarios=asked)
    for found, expected in zip(drafts(), whole, strict=True):
        assert set(found["scenario"]) == set(asked)
        see_the_same(found, expected)


def see_the_same(found: pd.DataFrame, expected: pd.DataFrame) -> None:
    computed = [name for name in expected.columns if name in ("score", "lift") or name.startswith("p_")]
    others = expected.columns.drop(computed)
    assert [name for name in others if not found[name].equals(expected[name])] == []
    # Steps of float32, of which a value in money has the most, and a step of what was rounded to a millionth
    assert np.allclose(found[computed], expected[computed], rtol=2e-6, atol=1.1e-6)


@pytest.mark.parametrize("engine", ["process", "spark"])
def test_the_shelves_are_the_same_however_the_users_are_served(shop: Shop, engine: str) -> None:
    run_stage("recommend", serving(shop), NIGHT)
    whole = connect(Warehouse(shop)).execute(SHELVES).df()
    assert set(whole["placed_by"]) == {"score", "rules", "explore"}
    run_stage("recommend", serving(shop, users_at_once=317, engine=engine), NIGHT)
    parts = connect(Warehouse(shop)).execute(SHELVES).df()
    see_the_same(parts, whole)
    assert list(shelf_parts_dir(shop).glob("*")) == []


def test_parts_that_others_made_are_taken_over_if_they_are_of_the_same_plan(shop: Shop) -> None:
    few = serving(shop, users_at_once=317)
    run_stage("recommend", few, NIGHT)
    alone = ask(shop, SHELVES)
    serve_share(few, NIGHT, "2/2")
    serve_share(serving(shop, 0.3, users_at_once=317), NIGHT, "1/2")  # another rule: of no use
    found = run_stage("recommend", few, NIGHT)
    of_night = f"as_of_date = DATE '{NIGHT}'"
    makers = f"SELECT DISTINCT regexp_extract(run_id, '-([a-z]+)-[0-9a-f]+$', 1) FROM shelf_drafts WHERE {of_night} ORDER BY 1"
    assert ask(shop, makers) == [("recommend",), ("shelves",)]
    assert re.search(r"; [12] of [2-4] parts were there", found.message), found.message
    assert ask(shop, SHELVES) == alone
    told = ask(shop, "SELECT DISTINCT run_id FROM shelf_drafts ANTI JOIN stage_runs USING (run_id) WHERE " + of_night)
    assert told == []
    ((rows, said),) = ask(shop, "SELECT rows_out, message FROM stage_runs WHERE stage = 'shelves'")
    assert rows > 0
    assert "parts of the shelves" in said
    assert list(shelf_parts_dir(shop).glob("*")) == []


def test_a_share_that_is_none_is_refused(shop: Shop) -> None:
    for share in ("0/2", "3/2", "2", "a/b", "1/0"):
        with pytest.raises(InputError, match="which one of how many"):
            serve_share(shop, NIGHT, share)
    with pytest.raises(InputError, match=r"no candidates of 2026-03-01; run `nightshelf stage features`"):
        serve_share(shop, dt.date(2026, 3, 1), "1/2")


def test_a_part_is_there_as_a_whole_or_not_at_all(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = serving(shop)

    def breaks(*_: object) -> object:
        raise OSError("No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(RowMaker, "rows", breaks)
        with pytest.raises(EngineError, match="No space left"):
            run_stage("recommend", whole, NIGHT)
    assert list(shelf_parts_dir(shop).glob("*/*")) == []
    run_stage("recommend", whole, NIGHT)


def test_weights_are_looked_for_and_nothing_is_changed(shop: Shop) -> None:
    with pytest.raises(InputError, match="'search': 2026-02-13 knows all of click, cart, purchase of no impression"):
        find_weights(shop, NIGHT, ("search", "home_feed"))  # five days of logs, and three in which one may still buy
    worth = {"click": 1.0, "cart": 3.0}
    early = {name: scenario.model_copy(update={"utility": worth}) for name, scenario in shop.scenarios.items()}
    found = find_weights(shop.model_copy(update={"scenarios": early}), NIGHT, ("search", "home_feed"))
    assert [row["scenario"] for row in found] == ["search", "home_feed"]
    for row in found:
        assert set(row["weights"]) == {"click", "cart"}  # type: ignore[call-overload]
        assert 0 < row["now"] < 1  # type: ignore[operator]
        assert row["found"] - row["now"] == pytest.approx(row["gain"])  # type: ignore[operator]
        assert row["lower"] <= row["gain"] <= row["upper"]  # type: ignore[operator]
    with pytest.raises(InputError, match="'kiosk' is unknown"):
        find_weights(shop, NIGHT, ("kiosk",))
    with pytest.raises(InputError, match="2026-03-01"):
        find_weights(shop, dt.date(2026, 3, 1), ())


def test_a_shelf_is_ranked_by_other_weights_where_the_shop_file_has_them(shop: Shop) -> None:
    by_clicks = shop.scenarios["search"].model_copy(update={"rank_by": {"click": 2}})
    other = shop.model_copy(update={"scenarios": {**shop.scenarios, "search": by_clicks}})
    run_stage("recommend", other, NIGHT, scenarios=("search",))
    wrong = f"""SELECT count(*) FROM shelf_drafts WHERE scenario = 'search' AND as_of_date = DATE '{NIGHT}'
                AND abs(score - 2 * p_click) > 2e-6"""
    assert ask(shop, wrong) == [(0,)]
    run_stage("recommend", shop, NIGHT)
    assert ask(shop, wrong)[0][0] > 0


def test_a_training_that_fails_is_told_to_the_tracker_and_leaves_the_challenger(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    from training import tracking
    from training.failures import TrainingFailed
    from training.steps import Steps

    tracking.ensure_tracker(tracking_uri(shop), artifact_dir(shop))
    name, client = registered_name(night_of(shop, NIGHT, "fails")), tracking.MlflowClient()
    before = tracking.get_alias(name, "challenger")
    gradient = Steps.gradient
    monkeypatch.setattr(Steps, "gradient", lambda *given: float("nan") * gradient(*given))
    with pytest.raises(TrainingFailed, match="not finite after"):
        run_stage("train", shop, NIGHT)
    runs = client.search_runs([client.get_experiment_by_name(name).experiment_id], "attributes.status = 'FAILED'")
    assert len(runs) == 1 and "not finite after" in runs[0].data.tags["error"]
    assert runs[0].data.metrics["train_rows"] > 0 and not client.list_artifacts(runs[0].info.run_id)
    assert tracking.get_alias(name, "challenger") == before
