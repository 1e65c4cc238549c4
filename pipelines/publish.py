"""Stage `publish`: audit the drafts, then make them the night's recommendations in one atomic commit, and read them back."""

import hashlib
import os
from pathlib import Path

import duckdb

from nightshelf.errors import EngineError, InputError
from pipelines.audit import audit_shelves
from pipelines.stage import Night, StageResult
from pipelines.warehouse import DAY_FOLDER


def run(night: Night) -> StageResult:
    """Publish the drafts of this night.

    Raises:
        InputError: there are no drafts of this night.
        GateError: the audit said no; yesterday's shelves stay in place.
        EngineError: the rows read back differ from the drafts.
    """
    drafts = night.warehouse.files("shelf_drafts", [night.as_of_date])
    if not drafts:
        raise InputError(f"there are no shelf drafts of {night.as_of_date}; run `nightshelf stage recommend` first")
    audit_shelves(night, drafts)
    folder = night.warehouse.new_run_dir("recommendations", night.run_id)
    (folder / f"{DAY_FOLDER}={night.as_of_date}").mkdir()
    for draft in map(Path, drafts):  # the same bytes under a second name: the two tables own their files apart
        os.link(draft, folder / f"{DAY_FOLDER}={night.as_of_date}" / draft.name)
    rows = night.warehouse.publish("recommendations", folder, [night.as_of_date], night.summary)
    night.warehouse.tag("recommendations", f"night-{night.as_of_date}")
    wrote, reads = content_hash(drafts), content_hash(night.warehouse.files("recommendations", [night.as_of_date]))
    if wrote != reads:
        raise EngineError(
            f"recommendations {night.as_of_date}: reads back as {reads}, but {wrote} was written; run the stage again"
        )
    return StageResult(rows_in=rows, rows_out=rows, inputs=["shelf_drafts"], message=f"content {reads}")


def content_hash(files: list[str]) -> str:
    """Return a hash of the shelves in these files, whatever the order of rows; run_id and model_version do not count."""
    names = duckdb.read_parquet(files).columns
    counted = ", ".join(f'"{name}"' for name in names if name not in ("run_id", "model_version"))
    query = f"SELECT count(*), sum(hash({counted})::HUGEINT) FROM read_parquet({files!r})"
    total = duckdb.execute(query).fetchall()
    return hashlib.sha256(str(total).encode()).hexdigest()[:16]
