"""Stage `publish`: audit the drafts, then make them the night's recommendations in one atomic commit, and read them back.

How it ended, and which night's shelves readers see since, stands in shelf_status."""

import hashlib
import os
from pathlib import Path

import duckdb

from nightshelf.errors import EngineError, GateError, InputError
from pipelines.audit import audit_shelves
from pipelines.shelf_status import TABLE, tell_status
from pipelines.sql import write_views
from pipelines.stage import Night, StageResult
from pipelines.warehouse import DAY_FOLDER


def run(night: Night) -> StageResult:
    """Publish the drafts of this night.

    Raises:
        InputError: there are no drafts of this night.
        GateError: the audit said no; yesterday's shelves stay in place.
        EngineError: the rows read back differ from the drafts; the shelves before are back.
    """
    drafts = night.warehouse.files("shelf_drafts", [night.as_of_date])
    if not drafts:
        raise InputError(f"there are no shelf drafts of {night.as_of_date}; run `nightshelf stage recommend` first")
    try:
        audit_shelves(night, drafts)
    except GateError as refused:
        tell_status(night.warehouse, night.as_of_date, night.run_id, "refused", str(refused))
        raise
    before = night.warehouse.snapshot_id(TABLE)
    folder = _new_folder(night)
    for draft in map(Path, drafts):  # the same bytes under a second name: the two tables own their files apart
        os.link(draft, folder / f"{DAY_FOLDER}={night.as_of_date}" / draft.name)
    rows = night.warehouse.publish(TABLE, folder, [night.as_of_date], night.summary)
    wrote, reads = content_hash(drafts), content_hash(night.warehouse.files(TABLE, [night.as_of_date]))
    if wrote != reads:
        _take_back(night, before)
        told = f"recommendations {night.as_of_date}: reads back as {reads}, but {wrote} was written"
        tell_status(night.warehouse, night.as_of_date, night.run_id, "refused", told)
        raise EngineError(f"{told}; the shelves before are back; run the stage again")
    night.warehouse.tag(TABLE, f"night-{night.as_of_date}")
    tell_status(night.warehouse, night.as_of_date, night.run_id, "published")
    write_views(night.warehouse)
    return StageResult(rows_in=rows, rows_out=rows, inputs=["shelf_drafts"], message=f"content {reads}")


def _new_folder(night: Night) -> Path:
    folder = night.warehouse.new_run_dir(TABLE, night.run_id)
    (folder / f"{DAY_FOLDER}={night.as_of_date}").mkdir()
    return folder


def _take_back(night: Night, before: int | None) -> None:
    """Make what readers saw before the commit current again; nothing, in a shop's first night."""
    if before is None:
        night.warehouse.publish(TABLE, _new_folder(night), [night.as_of_date], night.summary)
    else:
        night.warehouse.restore(TABLE, before)


def content_hash(files: list[str]) -> str:
    """Return a hash of the shelves in these files, whatever the order of rows; run_id and model_version do not count."""
    names = duckdb.read_parquet(files).columns
    counted = ", ".join(f'"{name}"' for name in names if name not in ("run_id", "model_version"))
    query = f"SELECT count(*), sum(hash({counted})::HUGEINT) FROM read_parquet({files!r})"
    total = duckdb.execute(query).fetchall()
    return hashlib.sha256(str(total).encode()).hexdigest()[:16]
