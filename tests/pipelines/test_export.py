"""The stage export, and the folder of Parquet files: whole versions, the one before kept, nothing left of killed runs."""

import datetime as dt
import threading
from dataclasses import replace
from pathlib import Path

import duckdb
import pytest

from nightshelf.config import Shop
from nightshelf.errors import EngineError, InputError
from nightshelf.exports import ParquetDrop, RedisKeys
from pipelines.export import run
from pipelines.exports import parquet_drop


def place(user, rank, score=1.0):
    return {
        "user_key": user, "scenario": "search", "rank": rank, "item_id": f"i{rank}", "score": score, "source": "popular",
        "reason": "Popular", "rank_by_score": rank, "placed_by": "score", "propensity": 1.0, "model_version": "1", "run_id": "r",
    }  # fmt: skip


@pytest.fixture
def exporting(night, publish):
    """Return exporting(score, **export): a night with two shelves of that score and a shop that exports them."""

    def make(score=1.0, run="00000001", **export) -> object:
        publish(night, "recommendations", [place(user, rank, score) for user in ("u1", "*") for rank in (1, 2, 3)])
        shop = Shop.model_validate({**night.shop.model_dump(), "exports": [export] if export else []})
        return replace(night, shop=shop, run_id=f"2026-02-05-export-0000{run}")

    return make


def read(home: Path) -> list[tuple]:
    files = f"read_parquet('{home}/drop/current/*.parquet')"
    return duckdb.sql(f"SELECT user_key, rank, item_id, score FROM {files} ORDER BY ALL").fetchall()


def test_a_folder_shows_the_newest_version_and_keeps_the_one_before(exporting):
    for number in (1, 2, 3):
        night = exporting(float(number), f"0000000{number}", to="parquet", folder="drop")
        result = run(night)
    home = night.shop.home
    assert read(home) == [(user, rank, f"i{rank}", 3.0) for user in ("*", "u1") for rank in (1, 2, 3)]
    assert (result.rows_in, result.rows_out) == (6, 6)
    assert (home / "drop" / "current").readlink() == Path("20260205_00000003")
    assert sorted(p.name for p in (home / "drop").iterdir()) == ["20260205_00000002", "20260205_00000003", "current"]


def test_who_reads_while_versions_change_sees_one(exporting):
    run(exporting(0.0, "00000000", to="parquet", folder="drop"))
    home = exporting().shop.home
    seen, stop = [], threading.Event()

    def poll():
        while not stop.is_set():
            folder = (home / "drop" / "current").resolve()  # a reader that opens several files holds on to the folder
            try:
                scores = duckdb.sql(f"SELECT score FROM read_parquet('{folder}/*.parquet')").fetchall()
            except duckdb.IOException:
                continue  # two versions further on already
            seen.append(scores)

    reader = threading.Thread(target=poll)
    reader.start()
    try:
        for number in range(1, 25):
            run(exporting(float(number), f"{number:08d}", to="parquet", folder="drop"))
    finally:
        stop.set()
        reader.join()
    assert len(seen) > 5
    assert all(len(scores) == 6 and len(set(scores)) == 1 for scores in seen)


def test_what_a_killed_run_left_does_not_show(exporting):
    night = exporting(1.0, "00000001", to="parquet", folder="drop")
    run(night)
    half = night.shop.home / "drop" / "20260206_deadbeef"
    half.mkdir()
    (half / "part-0000.parquet").write_bytes(b"PAR1")
    assert len(read(night.shop.home)) == 6
    run(exporting(2.0, "00000002", to="parquet", folder="drop"))
    # The version before stays for its readers, and not what is younger but was never shown
    names = ["20260205_00000001", "20260205_00000002", "current"]
    assert sorted(path.name for path in (night.shop.home / "drop").iterdir()) == names


def test_what_else_lies_in_the_folder_stays(exporting):
    run(exporting(1.0, "00000001", to="parquet", folder="drop"))
    drop = exporting().shop.home / "drop"
    strangers = [
        "keys",
        "20260204",
        "20260204_0000000",
        "20260204_0000000g",
        "x20260204_00000000",
        "20260204_000000001",
    ]
    for name in strangers:
        (drop / name).mkdir()
    for number in (2, 3):
        run(exporting(2.0, f"0000000{number}", to="parquet", folder="drop"))
    versions = ["20260205_00000002", "20260205_00000003"]
    assert sorted(path.name for path in drop.iterdir()) == sorted([*strangers, *versions, "current"])


def test_a_shop_without_exports_exports_nothing(exporting):
    assert "no `exports`" in run(exporting()).message


@pytest.fixture
def with_items(exporting):
    """Return with_items(*exports): a night with shelves of users alone, of a shop whose items have shelves too."""

    def make(*exports):
        night = exporting()
        scenarios = {name: s.model_copy(update={"anchor": "click"}) for name, s in night.shop.scenarios.items()}
        asked = {**night.shop.model_dump(), "scenarios": scenarios, "exports": exports}
        return replace(night, shop=Shop.model_validate(asked))

    return make


USERS = {"to": "parquet", "folder": "drop"}
ITEMS = {"to": "parquet", "folder": "items", "table": "item_recommendations"}


def test_shelves_of_items_go_to_a_place_of_their_own(exporting, with_items, publish):
    night = with_items(USERS, ITEMS)
    rows = [{**place("", rank), "anchor_item_id": f"a{n}", "lift": 2.0} for n in (1, 2) for rank in (1, 2, 3)]
    publish(night, "item_recommendations", rows)
    result = run(night)
    assert (result.rows_in, result.rows_out, result.inputs) == (12, 12, ["recommendations", "item_recommendations"])
    files = f"read_parquet('{night.shop.home}/items/current/*.parquet')"
    found = duckdb.sql(f"SELECT anchor_item_id, rank, item_id FROM {files} ORDER BY ALL").fetchall()
    assert found == [(f"a{n}", rank, f"i{rank}") for n in (1, 2) for rank in (1, 2, 3)]
    with pytest.raises(ValueError, match="two write to folder drop; give each its own"):
        with_items(USERS, {**ITEMS, "folder": "drop"})
    with pytest.raises(ValueError, match="there are no item_recommendations; give a scenario an `anchor`"):
        exporting(**ITEMS)


def test_a_place_that_fails_does_not_keep_the_later_ones_from_the_night(with_items, monkeypatch):
    monkeypatch.delenv("SHELVES_URL", raising=False)
    away = {"to": "postgres", "url_env": "SHELVES_URL"}
    told = (
        r"^exports: 2 of 3 failed: folder items: no item_recommendations of 2026-02-05 are published; [^;]*; "
        r"view recommendations of \$SHELVES_URL: \$SHELVES_URL is not set; .*$"
    )
    night = with_items(ITEMS, away, USERS)
    with pytest.raises(InputError, match=told):
        run(night)
    assert len(read(night.shop.home)) == 6


@pytest.mark.parametrize("strange", [True, False])
def test_a_full_disk_and_what_nobody_foresaw_are_told_in_a_line_and_may_be_tried_again(
    with_items, monkeypatch, caplog, strange
):
    night = with_items(ITEMS, {**USERS, "folder": "full"}, USERS)
    if strange:
        write_whole = parquet_drop.export

        def export(target, version, home):
            if target.folder.name == "full":
                raise ZeroDivisionError("by nothing\nand more")
            return write_whole(target, version, home)

        monkeypatch.setattr(parquet_drop, "export", export)
    else:
        (night.shop.home / "full").write_text("a file where the folder should be")
    told = (
        "ZeroDivisionError: by nothing"
        if strange
        else ".*run the stage again: what .*full/current names is whole meanwhile"
    )
    with pytest.raises(EngineError, match=rf"exports: 2 of 3 failed: folder items: .*; folder full: {told}$"):
        run(night)
    assert ("Traceback" in caplog.text) == strange
    assert len(read(night.shop.home)) == 6


def test_a_night_that_is_not_published_is_told(night):
    shop = night.shop.model_copy(update={"exports": [ParquetDrop(to="parquet", folder=Path("drop"))]})
    with pytest.raises(InputError, match="no recommendations of 2026-02-05 are published"):
        run(replace(night, shop=shop))


def test_a_night_that_is_run_again_after_a_later_one_leaves_the_storefronts_as_they_are(exporting, publish):
    night = exporting(1.0, "00000001", to="parquet", folder="drop")
    run(night)
    publish(night, "recommendations", [place("u1", 1)], night.as_of_date + dt.timedelta(days=1))
    later = replace(night, as_of_date=night.as_of_date + dt.timedelta(days=1))
    run(later)
    assert "readers see the shelves of 2026-02-06, which are newer" in run(exporting(**USERS)).message
    assert read(night.shop.home) == [("u1", 1, "i1", 1.0)]


def test_an_address_that_is_missing_and_a_column_that_is_unknown_are_told(exporting, monkeypatch):
    monkeypatch.delenv("SHELVES_URL", raising=False)
    with pytest.raises(InputError, match=r"\$SHELVES_URL is not set"):
        run(exporting(to="postgres", url_env="SHELVES_URL"))
    monkeypatch.setenv("SHELVES_URL", "redis://127.0.0.1:1/0")
    with pytest.raises(InputError, match="no column 'prize'; known: as_of_date"):
        run(exporting(to="redis", url_env="SHELVES_URL", columns=["prize"]))
    assert RedisKeys(to="redis", url_env="X").columns == ["item_id", "score", "reason"]


@pytest.mark.parametrize(
    ("kind", "url"),
    [
        ("postgres", "postgres//shop:secret@127.0.0.1:1/x"),
        ("postgres", "redis://:secret@127.0.0.1:1/0"),
        ("postgres", "postgresql://shop:%secret@127.0.0.1:1/x"),
        ("postgres", "postgresql://127.0.0.1:1/x?user=shop&password=secret"),
        ("postgres", "host=127.0.0.1 port=1 user=shop password=secret"),
        ("redis", "postgresql://shop:secret@127.0.0.1:1/x"),
        ("redis", "redis://:secret/@127.0.0.1:1/0"),
        ("redis", "redis://127.0.0.1:1/0?username=shop&password=secret"),
        ("redis", "redis://127.0.0.1:1/0?password=secret&colour=blue"),
    ],
)
def test_whatever_is_wrong_with_an_address_its_password_is_not_told(exporting, monkeypatch, caplog, kind, url):
    monkeypatch.setenv("SHELVES_URL", url)
    with pytest.raises((InputError, EngineError), match=r"is no address of|127\.0\.0\.1:1/") as failed:
        run(exporting(to=kind, url_env="SHELVES_URL"))
    assert "secret" not in str(failed.value) + caplog.text
    assert "Traceback" not in caplog.text


def test_a_version_that_failed_gives_its_room_back(exporting, monkeypatch):
    run(exporting(1.0, "00000001", to="parquet", folder="drop"))
    copy = parquet_drop._copy

    def copy_half(file, target):
        copy(file, target)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(parquet_drop, "_copy", copy_half)
    night = exporting(2.0, "00000002", to="parquet", folder="drop")
    with pytest.raises(EngineError, match="No space left"):
        run(night)
    assert sorted(path.name for path in (night.shop.home / "drop").iterdir()) == ["20260205_00000001", "current"]
    assert {score for *_, score in read(night.shop.home)} == {1.0}
