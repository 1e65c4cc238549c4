"""Stage `publish`: audit the drafts, then make them the night's recommendations in one atomic commit, once they read back.

Shelves of users, shelves of items and the row of shelf_status that says so are seen together, or none of them."""

import hashlib
import os
from pathlib import Path

import duckdb

from nightshelf.errors import EngineError, InputError, NightshelfError
from pipelines.audit import audit_item_shelves, audit_shelves
from pipelines.shelf_status import ITEM_TABLE, TABLE, tell_status
from pipelines.stage import Night, StageResult
from pipelines.warehouse import DAY_FOLDER


def run(night: Night) -> StageResult:
    """Publish the drafts of this night: all of them, or none.

    Raises:
        InputError: there are no drafts of this night.
        GateError: the audit said no; yesterday's shelves stay in place.
        EngineError: the rows read back differ from the drafts; the shelves before stay, as after whatever else fails.
    """
    drafts = {TABLE: _drafts(night, "shelf_drafts")}
    if night.shop.anchors:
        drafts[ITEM_TABLE] = _drafts(night, "item_shelf_drafts")
    try:
        audit_shelves(night, drafts[TABLE])
        if ITEM_TABLE in drafts:
            audit_item_shelves(night, drafts[ITEM_TABLE])
        wrote = {table: content_hash(files) for table, files in drafts.items()}
        with night.warehouse.together():  # an interrupt or a kill, too, must not leave shelves of two nights
            rows = sum(_publish(night, table, files) for table, files in drafts.items())
            for table in drafts:
                _check_read_back(night, table, wrote[table])
                night.warehouse.tag(table, f"night-{night.as_of_date}")
            tell_status(night.warehouse, night.as_of_date, night.run_id, "published")
    except BaseException as failure:
        told = str(failure) if isinstance(failure, NightshelfError) else f"{type(failure).__name__}: {failure}"
        tell_status(night.warehouse, night.as_of_date, night.run_id, "refused", told)
        raise
    inputs = ["shelf_drafts", *(["item_shelf_drafts"] if ITEM_TABLE in drafts else [])]
    return StageResult(rows_in=rows, rows_out=rows, inputs=inputs, message=f"content {' '.join(wrote.values())}")


def _drafts(night: Night, table: str) -> list[str]:
    files = night.warehouse.files(table, [night.as_of_date])
    if not files:
        told = table.replace("_", " ")
        raise InputError(f"there are no {told} of {night.as_of_date}; run `nightshelf stage recommend` first")
    return files


def _publish(night: Night, table: str, drafts: list[str]) -> int:
    folder = night.warehouse.new_run_dir(table, night.run_id)
    (folder / f"{DAY_FOLDER}={night.as_of_date}").mkdir()
    for draft in map(Path, drafts):  # the same bytes under a second name: the two tables own their files apart
        os.link(draft, folder / f"{DAY_FOLDER}={night.as_of_date}" / draft.name)
    return night.warehouse.publish(table, folder, [night.as_of_date], night.summary)


def _check_read_back(night: Night, table: str, wrote: str) -> None:
    found = content_hash(night.warehouse.files(table, [night.as_of_date]))
    if wrote != found:
        raise EngineError(
            f"{table} {night.as_of_date}: reads back as {found}, but {wrote} was written; the shelves before stay; "
            "run the stage again"
        )


def content_hash(files: list[str]) -> str:
    """Return a hash of the shelves in these files, whatever the order of rows; run_id and model_version do not count."""
    names = duckdb.read_parquet(files).columns
    counted = ", ".join(f'"{name}"' for name in names if name not in ("run_id", "model_version"))
    query = f"SELECT count(*), sum(hash({counted})::HUGEINT) FROM read_parquet({files!r})"
    total = duckdb.execute(query).fetchall()
    return hashlib.sha256(str(total).encode()).hexdigest()[:16]
