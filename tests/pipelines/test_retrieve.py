"""The stage retrieve: from acts and items of the warehouse to candidates of the whole catalogue."""

import datetime as dt

import pytest

from nightshelf.errors import InputError
from pipelines.candidate_recall import candidate_recall
from pipelines.retrieve import TABLE, run

DAY = dt.date(2026, 2, 5)
RECIPE = "name: small\nembedding_size: 4\nvector_size: 8\nepochs: 2\nnegatives: 5\nusers_per_batch: 8\ncandidates: 4\n"


@pytest.fixture
def shopped(night, publish, tmp_path):
    """Return a night of six users who turned to some of nine items, the last of them once and to no item of the catalogue."""
    recipe = tmp_path / "small.yaml"
    recipe.write_text(RECIPE)
    start = dt.datetime(2026, 2, 5, 3, tzinfo=dt.UTC)
    acts = [
        {
            "event_id": f"e{user}{turn}", "event_type": "click", "scenario": "search", "user_key": f"u{user}",
            "item_id": f"i{(user + turn) % 9}", "event_ts": start + dt.timedelta(minutes=user + 7 * turn), "event_date": DAY,
        }
        for user in range(5)
        for turn in range(3)
    ]  # fmt: skip
    gone = {"event_id": "x", "user_key": "u9", "item_id": "gone"}
    publish(night, "acts", [*acts, {**acts[0], **gone}])
    publish(night, "item_features", [{"item_id": f"i{n}", "item_index": 17 + n} for n in range(9)])
    words = [{"feature": "item", "value": f"i{n}", "index": 17 + n, "bucket": 1, "since": DAY} for n in range(9)]
    publish(night, "vocabularies", words)
    publish(night, "users", [{"user_key": f"u{n}"} for n in range(5)])
    publish(night, "items", [{"item_id": f"i{n}"} for n in range(8)])  # i8 is not sold any more
    object.__setattr__(night, "shop", night.shop.model_copy(update={"retrieval": recipe}))
    return night


def test_each_user_with_an_act_gets_items_that_are_new_to_him(shopped):
    result = run(shopped)
    rows = shopped.warehouse.read(TABLE, [DAY]).to_pylist()
    assert (result.rows_in, result.rows_out) == (15, len(rows))
    assert "checks held" in result.message
    by_user = {user: [row for row in rows if row["user_key"] == user] for user in {row["user_key"] for row in rows}}
    assert sorted(by_user) == ["u0", "u1", "u2", "u3", "u4"]
    for user, proposed in by_user.items():
        own = {f"i{(int(user[1]) + turn) % 9}" for turn in range(3)}
        assert len({row["item_id"] for row in proposed} - own - {"i8"}) == len(proposed) == 4
        assert {(row["generator"], row["scenario"], row["because"]) for row in proposed} == {("two_tower", "*", None)}
        scores = [row["generator_score"] for row in proposed]
        assert scores == sorted(scores, reverse=True)


def test_what_no_shelf_may_show_is_not_proposed(shopped, publish, tmp_path):
    """By a rule of all scenarios: whatever only some keep away is proposed."""
    (tmp_path / "blocked.txt").write_text("i3\n")
    scenarios = {
        name: scenario.model_copy(
            update={
                "exclude": ["out_of_stock", "click_2d", "price_over_20", *(["like_9d"] if name == "search" else [])]
            }
        )
        for name, scenario in shopped.shop.scenarios.items()
    }
    changes = {"scenarios": scenarios, "blocked": str(tmp_path / "blocked.txt")}
    object.__setattr__(shopped, "shop", shopped.shop.model_copy(update=changes))
    priced = [{"item_id": f"i{n}", "price": 90.0 if n == 7 else 9.0, "stock": 0 if n == 6 else None} for n in range(9)]
    publish(shopped, "items", priced)
    acts = [("u0", "i4", "click", 1), ("u0", "i5", "like", 1), ("u1", "i5", "click", 2), ("u2", "i5", "purchase", 0)]
    for days in (0, 1, 2):
        date = DAY - dt.timedelta(days=days)
        rows = [
            {"user_key": user, "item_id": item, "event_type": event, "event_date": date, "event_id": user + item}
            for user, item, event, before in acts
            if before == days
        ]
        publish(shopped, "events", rows, date)
    run(shopped)
    proposed = {(row["user_key"], row["item_id"]) for row in shopped.warehouse.read(TABLE, [DAY]).to_pylist()}
    own = {(f"u{user}", f"i{(user + turn) % 9}") for user in range(5) for turn in range(3)}
    everything = {(f"u{user}", f"i{item}") for user in range(5) for item in (0, 1, 2, 4, 5, 8)}
    assert proposed == everything - own - {("u0", "i4")}


def test_its_recall_is_counted_beside_the_others(shopped, publish):
    run(shopped)
    proposed = shopped.warehouse.read(TABLE, [DAY]).to_pylist()[0]
    publish(shopped, "candidates", [{"user_key": "u0", "scenario": "*", "item_id": "i8", "generator": "related"}])
    tomorrow = DAY + dt.timedelta(days=1)
    act = {"event_type": "click", "scenario": "search", "event_date": tomorrow, "user_key": proposed["user_key"]}
    publish(shopped, "acts", [{**act, "item_id": proposed["item_id"]}, {**act, "item_id": "gone"}], tomorrow)
    object.__setattr__(shopped, "as_of_date", tomorrow)
    recalls = {row["generator"]: row["recall"] for row in candidate_recall(shopped)}
    assert (recalls["two_tower"], recalls["*"]) == (0.5, 0.5)


def test_without_a_recipe_nothing_is_proposed_and_what_an_earlier_run_proposed_is_taken_away(shopped):
    run(shopped)
    object.__setattr__(shopped, "shop", shopped.shop.model_copy(update={"retrieval": None}))
    assert "no `retrieval`" in run(shopped).message
    assert shopped.warehouse.read(TABLE, [DAY]).num_rows == 0


def test_a_night_without_features_says_what_to_run(night, tmp_path):
    recipe = tmp_path / "small.yaml"
    recipe.write_text(RECIPE)
    object.__setattr__(night, "shop", night.shop.model_copy(update={"retrieval": recipe}))
    with pytest.raises(InputError, match="run `nightshelf stage features` first"):
        run(night)
