"""Publishing and taking back: readers see one night's shelves, whole, and shelf_status says which and why."""

import dataclasses
import datetime as dt
from pathlib import Path

import duckdb
import pytest

from nightshelf.errors import EngineError, GateError, InputError
from nightshelf.exports import ParquetDrop, RedisKeys
from nightshelf.identity import ensure_key
from nightshelf.paths import views_file
from pipelines.exports import parquet_drop
from pipelines.rollback import rollback
from pipelines.shelf_status import tell_status
from pipelines.sql import write_views
from pipelines.stage import lease, run_stage
from pipelines.warehouse import Warehouse

D1, D2, D3 = (dt.date(2026, 2, n) for n in (5, 6, 7))


def shelves(score=0.5, reason="Popular"):
    place = {"scenario": "search", "user_key": "u1", "p_click": 0.1, "source": "popular", "reason": reason}
    place |= {"placed_by": "score", "propensity": 1.0}
    rows = [{**place, "rank": n, "item_id": f"i{n}", "score": score / n, "rank_by_score": n} for n in (1, 2)]
    rows += [{**row, "scenario": "home_feed"} for row in rows]
    return rows + [{**row, "user_key": "*"} for row in rows]


@pytest.fixture
def publish_night(night, publish):
    """Return publish_night(day, rows): the stage `publish` over these drafts."""

    def run(day, rows):
        ensure_key(night.shop)  # as the night that found these users did
        publish(night, "items", [{"item_id": "i1"}, {"item_id": "i2"}], day)
        publish(night, "users", [{"user_key": "u1"}], day)
        publish(night, "shelf_drafts", rows, day)
        run_stage("publish", night.shop, day)

    return run


def served(shop):
    """Return the newest night of recommendations and the score of its first row."""
    rows = Warehouse(shop).read("recommendations").sort_by([("as_of_date", "descending"), ("rank", "ascending")])
    return (rows["as_of_date"][0].as_py(), rows["score"][0].as_py()) if rows.num_rows else None


def exporting(shop):
    """Return the shop as one that exports its shelves to the folder `drop`."""
    return shop.model_copy(update={"exports": [ParquetDrop(to="parquet", folder=Path("drop"))]})


def told(shop):
    rows = Warehouse(shop).read("shelf_status").sort_by("told_at").to_pylist()
    return [(row["as_of_date"].day, row["status"], row["serves"] and row["serves"].day) for row in rows]


def test_a_night_is_rolled_back_and_the_way_back_is_open(night, publish_night):
    publish_night(D1, shelves(0.5))
    publish_night(D2, shelves(0.6))
    publish_night(D3, shelves(0.7))
    newest = Warehouse(night.shop).snapshot_id("recommendations")
    assert rollback(night.shop, "2026-02-06", "prices were wrong").startswith(
        f"shop {night.shop.shop} serves the shelves of 2026-02-06 again"
    )
    assert served(night.shop) == (D2, 0.6)
    rollback(night.shop, str(newest))
    assert served(night.shop) == (D3, 0.7)
    rollback(night.shop, "2026-02-05")
    publish_night(D2, shelves(0.8))  # the next night builds on what is there
    assert served(night.shop) == (D2, 0.8)
    assert Warehouse(night.shop).partitions("recommendations") == [D1, D2]
    published = [(5, "published", 5), (6, "published", 6), (7, "published", 7)]
    assert told(night.shop) == [
        *published, (6, "rolled_back", 6), (7, "rolled_back", 7), (5, "rolled_back", 5), (6, "published", 6)
    ]  # fmt: skip
    reasons = Warehouse(night.shop).read("shelf_status")["reason"].to_pylist()
    assert reasons.count("prices were wrong") == 1


def test_the_file_of_views_shows_what_is_served(night, publish_night):
    def shown():
        with duckdb.connect(str(views_file(night.shop)), read_only=True) as file:
            return file.execute(
                "SELECT DISTINCT as_of_date, max(score) FROM recommendations GROUP BY 1 ORDER BY 1"
            ).fetchall()

    publish_night(D1, shelves(0.5))
    assert shown() == [(D1, 0.5)]
    with duckdb.connect(str(views_file(night.shop)), read_only=True) as held:
        publish_night(D2, shelves(0.6))  # whoever has the file open does not keep the night from writing it anew
        assert held.execute("SELECT count(DISTINCT as_of_date) FROM recommendations").fetchall() == [(1,)]
    assert shown() == [(D1, 0.5), (D2, 0.6)]
    rollback(night.shop, "2026-02-05")
    assert shown() == [(D1, 0.5)]


def test_the_file_of_views_tells_how_every_stage_ended(night, publish_night, caplog):
    def shown(query):
        with duckdb.connect(str(views_file(night.shop)), read_only=True) as file:
            return file.execute(query).fetchall()

    publish_night(D1, shelves(0.5))
    with pytest.raises(GateError):
        publish_night(D2, shelves(reason=""))
    assert shown("SELECT status, serves FROM shelf_status ORDER BY told_at") == [("published", D1), ("refused", D1)]
    assert shown("SELECT count(*) > 0 FROM data_checks WHERE NOT success AND column_name = 'empty_reasons'") == [
        (True,)
    ]
    assert shown("SELECT DISTINCT as_of_date FROM shelf_drafts ORDER BY 1") == [(D1,), (D2,)]
    with pytest.raises(InputError):
        run_stage("publish", night.shop, D3)
    run_stage("export", night.shop, D1)
    with pytest.raises(InputError):
        run_stage("export", exporting(night.shop), D2)
    assert shown("SELECT stage, status FROM stage_runs ORDER BY started_at") == [
        ("publish", "done"), ("publish", "failed"), ("publish", "failed"), ("export", "done"), ("export", "failed")
    ]  # fmt: skip
    assert shown("SELECT DISTINCT as_of_date, max(score) FROM recommendations GROUP BY 1") == [(D1, 0.5)]
    views_file(night.shop).write_text("no views")
    run_stage("export", night.shop, D1)  # a broken copy stops no stage
    assert "shows what it did before" in caplog.text
    publish_night(D2, shelves(0.6))
    assert shown("SELECT serves FROM shelf_status ORDER BY told_at DESC LIMIT 1") == [(D2,)]


def test_storefronts_follow_a_rollback(night, publish_night):
    shop = exporting(night.shop)
    for day, score in ((D1, 0.5), (D2, 0.6)):
        publish_night(day, shelves(score))
        run_stage("export", shop, day)
    told_of = rollback(shop, "2026-02-05")
    exported = duckdb.sql(f"SELECT as_of_date, max(score) FROM '{shop.home}/drop/current/*.parquet' GROUP BY 1")
    assert exported.fetchall() == [(D1, 0.5)]
    assert told_of.endswith(f"; {shop.home}/drop/current")


def test_an_export_that_fails_is_told_and_does_not_undo_the_rollback(night, publish_night, monkeypatch):
    for day, score in ((D1, 0.5), (D2, 0.6)):
        publish_night(day, shelves(score))
    (night.shop.home / "drop").write_text("a file where the folder should be")
    remedy = "run `nightshelf stage export --as-of-date 2026-02-05`"
    with pytest.raises(
        EngineError, match=f"serves the shelves of 2026-02-05 again .*not every export followed.*{remedy}"
    ):
        rollback(exporting(night.shop), "2026-02-05")
    assert (served(night.shop), told(night.shop)[-1]) == ((D1, 0.5), (5, "rolled_back", 5))
    monkeypatch.delenv("SHELVES_URL", raising=False)
    redis = RedisKeys(to="redis", url_env="SHELVES_URL")
    newest = Warehouse(night.shop).load("recommendations").snapshots()[-1].snapshot_id
    with pytest.raises(InputError, match=r"serves the shelves of 2026-02-06 again .*\$SHELVES_URL is not set"):
        rollback(night.shop.model_copy(update={"exports": [redis]}), str(newest))
    assert served(night.shop) == (D2, 0.6)


def test_of_a_night_that_was_published_twice_the_last_state_is_meant(night, publish_night):
    publish_night(D1, shelves(0.5))
    publish_night(D1, shelves(0.55))
    publish_night(D2, shelves(0.6))
    publish_night(D1, shelves(0.57))  # run again later: readers still see the newer night's
    assert served(night.shop) == (D2, 0.6)
    rollback(night.shop, "2026-02-05")
    assert served(night.shop) == (D1, 0.55)


@pytest.mark.parametrize(
    ("to", "message"),
    [
        ("2026-02-06", "the shelves of 2026-02-06 are the newest already"),
        (
            "2026-02-04",
            r"no state is left in which its shelves were the newest; there are those of 2026-02-05, 2026-02-06",
        ),
        ("123", "no such state of recommendations; .*from shelf_status"),
        ("yesterday", "yesterday"),
    ],
)
def test_what_cannot_be_rolled_back_to_is_told(night, publish_night, to, message):
    publish_night(D1, shelves())
    publish_night(D2, shelves(0.6))
    with pytest.raises(InputError, match=message):
        rollback(night.shop, to)
    assert served(night.shop) == (D2, 0.6)


def test_a_shop_without_shelves_and_a_busy_one_are_told(night, publish_night):
    with pytest.raises(InputError, match="has published no shelves"):
        rollback(night.shop, "2026-02-05")
    publish_night(D1, shelves())
    with lease(night.shop), pytest.raises(EngineError, match="another run holds"):
        rollback(night.shop, "2026-02-05")


def test_a_refused_night_leaves_the_shelves_and_says_so(night, publish_night):
    publish_night(D1, shelves())
    with pytest.raises(GateError):
        publish_night(D2, shelves(reason=""))
    assert served(night.shop) == (D1, 0.5)
    (row,) = Warehouse(night.shop).read("shelf_status", [D2]).to_pylist()
    assert (row["status"], row["serves"]) == ("refused", D1)
    assert "empty_reasons" in row["reason"]


@pytest.fixture
def publish_both(publish):
    """Return publish_both(night, day, score): the stage `publish` over shelves of users, and of items in the scenario search."""

    def run(night, day, score):
        ensure_key(night.shop)
        place = {"scenario": "search", "anchor_item_id": "i1", "item_id": "i2", "score": score, "lift": 1.0, "rank": 1}
        place |= {"source": "popular", "reason": "Popular", "rank_by_score": 1}
        publish(night, "items", [{"item_id": "i1"}, {"item_id": "i2"}], day)
        publish(night, "users", [{"user_key": "u1"}], day)
        publish(night, "shelf_drafts", shelves(score), day)
        publish(night, "item_shelf_drafts", [place, {**place, "anchor_item_id": "i2", "item_id": "i1"}], day)
        run_stage("publish", night.shop, day)

    return run


@pytest.fixture
def with_anchor(night):
    """Return the night of a shop whose items have shelves, too."""
    scenarios = dict(night.shop.scenarios)
    scenarios["search"] = scenarios["search"].model_copy(update={"anchor": "click"})
    shop = night.shop.model_copy(update={"scenarios": scenarios})
    return dataclasses.replace(night, shop=shop, warehouse=Warehouse(shop))


def beside(shop):
    rows = Warehouse(shop).read("item_recommendations").sort_by("as_of_date").to_pylist()
    return [row["score"] for row in rows if row["anchor_item_id"] == "i1"]


def test_shelves_of_items_are_rolled_back_with_those_of_users(with_anchor, publish_both, caplog):
    shop = with_anchor.shop
    for day, score in ((D1, 0.5), (D1, 0.55), (D2, 0.59), (D2, 0.6)):
        publish_both(with_anchor, day, score)
    assert beside(shop) == [0.55, 0.6]
    newest = Warehouse(shop).snapshot_id("recommendations")
    rollback(shop, "2026-02-05")
    assert (served(shop), beside(shop)) == ((D1, 0.55), [0.55])
    rollback(shop, str(newest))
    assert (served(shop), beside(shop)) == ((D2, 0.6), [0.55, 0.6])


def failing(call, table=None, is_after=False):
    """Return a step of a rollback that breaks, for one table or for all: before it does anything, or after."""

    def step(first, *rest):
        is_meant = table is None or rest[0] == table
        result = None if is_meant and not is_after else call(first, *rest)
        if is_meant:
            raise OSError("the disk is full\nand more")
        return result

    return step


RESTORE, TELL, VIEWS = (
    "pipelines.warehouse.Warehouse.restore",
    "pipelines.rollback.tell_status",
    "pipelines.rollback.write_views",
)
BREAKS = {
    "users": (RESTORE, failing(Warehouse.restore, "recommendations", is_after=True)),
    "items": (RESTORE, failing(Warehouse.restore, "item_recommendations")),
    "status": (TELL, failing(tell_status, is_after=True)),
    "views": (VIEWS, failing(write_views)),
    "export": ("pipelines.exports.parquet_drop.export", failing(parquet_drop.export)),
}


@pytest.mark.parametrize("step", BREAKS)
def test_a_rollback_that_stopped_half_way_is_finished_by_the_next(with_anchor, publish_both, monkeypatch, step):
    shop = exporting(with_anchor.shop)
    for day, score in ((D1, 0.5), (D2, 0.6)):
        publish_both(with_anchor, day, score)
    half_way = (
        r"--to 2026-02-05: the rollback stopped half-way \(OSError: the disk is full\); run the same command again"
    )
    said = "not every export followed.*the disk is full" if step == "export" else half_way
    with monkeypatch.context() as patch:
        patch.setattr(*BREAKS[step])
        with pytest.raises(EngineError, match=said):
            rollback(shop, "2026-02-05", "prices were wrong")
    is_done = step in ("views", "export")  # what readers see changes at once: tables and status, or nothing
    assert (served(shop), beside(shop)) == (((D1, 0.5), [0.5]) if is_done else ((D2, 0.6), [0.5, 0.6]))
    assert told(shop)[-1] == ((5, "rolled_back", 5) if is_done else (6, "published", 6))
    rollback(shop, "2026-02-05", "prices were wrong")
    assert (served(shop), beside(shop)) == ((D1, 0.5), [0.5])
    assert told(shop)[-1] == (5, "rolled_back", 5)
    with duckdb.connect(str(views_file(shop)), read_only=True) as file:
        shown = file.execute(
            "SELECT max(score) FROM recommendations UNION ALL SELECT max(score) FROM item_recommendations"
        )
        assert shown.fetchall() == [(0.5,), (0.5,)]
        assert file.execute("SELECT arg_max(status, told_at) FROM shelf_status").fetchall() == [("rolled_back",)]
    exported = duckdb.sql(f"SELECT max(score) FROM '{shop.home}/drop/current/*.parquet'")
    assert exported.fetchall() == [(0.5,)]


@pytest.mark.parametrize("table", ["recommendations", "item_recommendations"])
def test_where_a_file_of_either_kind_is_gone_nothing_is_changed(with_anchor, publish_both, table):
    shop = with_anchor.shop
    publish_both(with_anchor, D1, 0.5)
    (file,) = Warehouse(shop).files(table)
    for score in (0.6, 0.7):
        publish_both(with_anchor, D1, score)
    publish_both(with_anchor, D2, 0.8)
    state = Warehouse(shop).load("recommendations").snapshots()[0]
    Path(file).unlink()
    before = told(shop)
    with pytest.raises(InputError, match=f"{file} and with it that state is gone; give a later night"):
        rollback(shop, str(state.snapshot_id))
    assert (served(shop), beside(shop), told(shop)) == ((D2, 0.8), [0.7, 0.8], before)


def test_the_states_of_both_kinds_bear_their_night_and_a_later_attempt_takes_the_name(with_anchor, publish_both):
    for day, score in ((D1, 0.5), (D2, 0.6), (D2, 0.7)):
        publish_both(with_anchor, day, score)
    for table in ("recommendations", "item_recommendations"):
        refs = Warehouse(with_anchor.shop).load(table).metadata.refs
        assert set(refs) == {"main", "night-2026-02-05", "night-2026-02-06"}
        assert refs["night-2026-02-06"].snapshot_id == refs["main"].snapshot_id
        assert refs["night-2026-02-05"].snapshot_id != refs["main"].snapshot_id


def test_a_state_without_shelves_of_items_leaves_them_and_says_so(
    night, with_anchor, publish_night, publish_both, caplog
):
    publish_night(D1, shelves(0.5))
    publish_both(with_anchor, D2, 0.6)
    rollback(with_anchor.shop, "2026-02-05")
    assert (served(with_anchor.shop), beside(with_anchor.shop)) == ((D1, 0.5), [0.6])
    assert "item_recommendations stays as it is: it has no state of the run 2026-02-05-publish" in caplog.text


def test_where_shelves_of_items_are_refused_those_of_users_are_not_published_either(with_anchor, publish_both):
    publish_both(with_anchor, D1, 0.5)
    with pytest.raises(GateError, match="odd_scores"):
        publish_both(with_anchor, D2, float("inf"))
    assert (served(with_anchor.shop), beside(with_anchor.shop)) == ((D1, 0.5), [0.5])


@pytest.mark.parametrize(
    ("failure", "is_committed", "reason", "is_first"),
    [
        (OSError("the disk is full"), False, "OSError: the disk is full", False),
        (EngineError("wrote 1 rows but reads back 0"), True, "wrote 1 rows but reads back 0", True),
        (KeyboardInterrupt(), True, "KeyboardInterrupt: ", False),
        (KeyboardInterrupt(), True, "KeyboardInterrupt: ", True),
    ],
)
def test_where_the_second_table_fails_the_first_is_not_published_either(
    with_anchor, publish_both, monkeypatch, is_first, failure, is_committed, reason
):
    shop, publish_whole = with_anchor.shop, Warehouse.publish
    if not is_first:
        publish_both(with_anchor, D1, 0.5)
    before = served(shop)

    def publish(warehouse, table, folder, dates, summary):
        is_shelf = table == "item_recommendations" and any(folder.rglob("*.parquet"))
        rows = publish_whole(warehouse, table, folder, dates, summary) if is_committed or not is_shelf else 0
        if is_shelf:
            assert served(shop) == before  # no reader ever sees the one without the other
            raise failure
        return rows

    with monkeypatch.context() as broken:
        broken.setattr(Warehouse, "publish", publish)
        with pytest.raises((EngineError, KeyboardInterrupt)):
            publish_both(with_anchor, D2, 0.6)
    assert (served(shop), beside(shop)) == ((None, []) if is_first else ((D1, 0.5), [0.5]))
    assert told(shop)[-1] == (6, "refused", None if is_first else 5)
    assert reason in Warehouse(shop).read("shelf_status", [D2])["reason"].to_pylist()
    if not is_first:
        with pytest.raises(InputError, match="no state is left in which its shelves were the newest"):
            rollback(shop, "2026-02-06")
    publish_both(with_anchor, D2, 0.7)
    assert (served(shop), beside(shop)) == ((D2, 0.7), [0.7] if is_first else [0.5, 0.7])


@pytest.mark.parametrize("is_first", [True, False])
def test_where_either_kind_reads_back_otherwise_neither_is_published(with_anchor, publish_both, monkeypatch, is_first):
    if not is_first:
        publish_both(with_anchor, D1, 0.5)
    hashes = iter(["same", "wrote", "same", "reads"])
    monkeypatch.setattr("pipelines.publish.content_hash", lambda files: next(hashes))
    with pytest.raises(EngineError, match="item_recommendations 2026-02-06: reads back as reads"):
        publish_both(with_anchor, D2, 0.6)
    shop = with_anchor.shop
    assert (served(shop), beside(shop)) == ((None, []) if is_first else ((D1, 0.5), [0.5]))


@pytest.mark.parametrize("is_first", [True, False])
def test_shelves_that_read_back_otherwise_are_not_published(night, publish_night, monkeypatch, is_first):
    if not is_first:
        publish_night(D1, shelves())
    hashes = iter(["wrote", "reads"])
    monkeypatch.setattr("pipelines.publish.content_hash", lambda files: next(hashes))
    with pytest.raises(EngineError, match="reads back as reads, but wrote was written; the shelves before stay"):
        publish_night(D2, shelves(0.6))
    assert served(night.shop) == (None if is_first else (D1, 0.5))
    assert told(night.shop)[-1] == (6, "refused", None if is_first else 5)


@pytest.mark.parametrize("place", ["a file", "a file/below"])
def test_a_home_that_cannot_be_written_is_told(tiny_shop, tmp_path, place):
    (tmp_path / "a file").write_text("")
    shop = tiny_shop(days=0).model_copy(update={"home": tmp_path / place})
    with pytest.raises(InputError, match=r"home .*a file.* cannot be written .*name another folder"), lease(shop):
        pass
