"""Keep the warehouse small: merge little files, forget old states, delete the files that nobody can read any more.

A partition that is written anew leaves its old files behind, for those who look at earlier states; so does an attempt that
was killed. Expiring (PyIceberg's expire_snapshots) takes old states out of a table's metadata; the sweep then deletes what no
state that is left refers to, as Iceberg's `remove_orphan_files` does. The shop's lease keeps every writer away meanwhile.
Beside the tables, parts of shelves that no night will take over go.
"""

import datetime as dt
import os
import re
import shutil
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import duckdb
import pyarrow as pa
from pyiceberg.table import Table
from pyiceberg.table.snapshots import Snapshot

from nightshelf.config import Shop
from nightshelf.errors import EngineError
from nightshelf.ledger_tables import ledgers
from nightshelf.logs import get_logger
from nightshelf.paths import shelf_parts_dir, warehouse_dir
from pipelines.arrow_schema import arrow_schema, conform
from pipelines.publish import content_hash
from pipelines.shelf_status import TABLE
from pipelines.sql import write_views
from pipelines.stage import lease
from pipelines.warehouse import DAY_FOLDER, EPOCH, Warehouse, write_days

# A ledger gains a file a row; from so many in a partition on they are merged.
_MANY_FILES = 8
# Many tasks, or shards of users, leave many files of a partition of any table: more than so many, if on average they are so small
_MANY_SMALL_FILES, _SMALL_BYTES = 32, 16 << 20
# Whoever writes holds the lease, but a killed engine's last tasks may still be at it.
_GRACE_SECONDS = 3600.0


@dataclass
class Kept:
    """What was done to a table, or to shelf_parts: states and files before and after, bytes freed, partitions merged, dropped."""

    table: str
    states: int = 0
    states_left: int = 0
    files: int = 0
    files_deleted: int = 0
    bytes_freed: int = 0
    merged: int = 0
    dropped: int = 0

    @property
    def is_changed(self) -> bool:
        """Whether there was anything to do."""
        return bool(self.files_deleted or self.merged or self.dropped or self.states > self.states_left)

    def __str__(self) -> str:
        """Return it in a line."""
        return (
            f"{self.table}: {self.files_deleted} of {self.files} files, {self.bytes_freed / 1e6:.1f} MB; "
            f"{self.states - self.states_left} of {self.states} states; {self.merged} partitions merged, {self.dropped} dropped"
        )


def maintain(shop: Shop, now: dt.datetime, dry_run: bool = False) -> list[Kept]:
    """Merge, expire and sweep every table of a shop, and sweep the parts of shelves of nights that are over.

    Args:
        shop: its `keep` says how long states and partitions are kept.
        now: the moment from which the age of states is counted; that of partitions is counted from the newest of their table.
        dry_run: only tell which states and files would go of those that are there; nothing is merged or dropped.

    Raises:
        EngineError: another run holds the shop, or merged files have other rows; nothing reads them then.
    """
    with lease(shop):
        warehouse, done = Warehouse(shop), []
        for name in warehouse.tables():
            table = warehouse.load(name)
            if table is None:
                continue
            kept = Kept(name)
            if not dry_run:
                if name in {spec.name for spec in ledgers()}:
                    kept.merged = _merge(warehouse, name)
                elif name in warehouse.specs:
                    kept.merged = _merge_small(warehouse, name, table)
                kept.dropped = _drop_partitions(warehouse, name)
                table.refresh()
            left = _states_left(table, now - dt.timedelta(days=shop.keep.snapshot_days))
            kept.states, kept.states_left = len(table.snapshots()), len(left)
            _sweep(warehouse, table, left, kept, dry_run)
            done.append(kept)
            _log(kept)
        if not dry_run and done:
            write_views(warehouse)
        done.append(_sweep_parts(warehouse, dry_run))
        _log(done[-1])
    return done


def told(done: list[Kept], dry_run: bool) -> str:
    """Return what was done, a line a table where something was, and a line for all."""
    lines = [str(kept) for kept in done if kept.is_changed]
    files, size = sum(kept.files_deleted for kept in done), sum(kept.bytes_freed for kept in done)
    lines.append(f"in all: {files} files, {size / 1e6:.1f} MB {'would be deleted' if dry_run else 'deleted'}")
    return "\n".join(lines)


def _log(kept: Kept) -> None:
    if kept.is_changed:
        get_logger("maintain").info("%s", kept)


def _merge(warehouse: Warehouse, name: str) -> int:
    """Write the partitions of a ledger that have many files anew, as one file each."""
    many = [day for day in warehouse.partitions(name) if len(warehouse.files(name, [day])) > _MANY_FILES]
    if many:
        _write_anew(warehouse, name, many, warehouse.read(name, many))
    return len(many)


def _drop_partitions(warehouse: Warehouse, name: str) -> int:
    """Drop the partitions that are older than the shop file wants to keep; their files go with the states that have them.

    Their age is counted from the table's newest one, whatever the clock says: the shelves that are served stay, also those of a
    shop whose nights stopped, or of long past, or that was rolled back.
    """
    most = warehouse.shop.keep.partition_days.get(name)
    days = warehouse.partitions(name)
    if most is None or not days:
        return 0
    old = [day for day in days if day < days[-1] - dt.timedelta(days=most)]
    if old:
        _write_anew(warehouse, name, old, arrow_schema(warehouse.specs[name]).empty_table())
    return len(old)


def _merge_small(warehouse: Warehouse, name: str, table: Table) -> int:
    """Write the partitions that have very many small files anew, as one file each, the rows in their order."""
    scattered = _scattered(table)
    if scattered:
        folder, summary = _begin(warehouse, name)
        for day, files in scattered.items():
            (folder / f"{DAY_FOLDER}={day}").mkdir()
            merged = str(folder / f"{DAY_FOLDER}={day}" / "part-0.parquet")
            with duckdb.connect() as connection:  # it streams: a partition need not fit into memory
                rows = connection.read_parquet(files, union_by_name=True, hive_partitioning=False)
                rows.write_parquet(merged, compression="zstd")
            if content_hash([merged]) != content_hash(files):
                raise EngineError(f"{name} {day}: {merged} has not the rows of the {len(files)} files that it merges")
        warehouse.publish(name, folder, scattered, summary)
    return len(scattered)


def _scattered(table: Table) -> dict[dt.date, list[str]]:
    """Return the partitions that have very many small files, with these."""
    by_day: dict[dt.date, dict[str, int]] = {}
    for task in table.scan().plan_files():
        sizes = by_day.setdefault(EPOCH + dt.timedelta(days=task.file.partition[0]), {})
        sizes[task.file.file_path.removeprefix("file://")] = task.file.file_size_in_bytes
    return {
        day: sorted(sizes)
        for day, sizes in by_day.items()
        if len(sizes) > _MANY_SMALL_FILES and sum(sizes.values()) < len(sizes) * _SMALL_BYTES
    }


def _write_anew(warehouse: Warehouse, name: str, days: list[dt.date], rows: pa.Table) -> None:
    folder, summary = _begin(warehouse, name)
    write_days(conform(rows, warehouse.specs[name]), folder, days)
    warehouse.publish(name, folder, days, summary)


def _begin(warehouse: Warehouse, name: str) -> tuple[Path, dict[str, str]]:
    """Return a folder for files of a table, and what the state bears that they make: the date and the run of the state now.

    By its date no look at an earlier night takes it for its own; by its run a rollback finds the shelves of items beside it.
    """
    newest, table = warehouse.partitions(name)[-1], warehouse.load(name)
    state = table.current_snapshot() if table else None
    run_id = f"{newest}-maintain-{uuid.uuid4().hex[:12]}"
    run = (state.summary["run_id"] if state and state.summary else None) or run_id
    return warehouse.new_run_dir(name, run_id), {"run_id": run, "as_of_date": str(newest)}


def _sweep_parts(warehouse: Warehouse, dry_run: bool) -> Kept:
    """Delete the parts of shelves of nights before the newest published one; a run of that one or a later takes its own over.

    `recommend` clears its night's as it ends. Whoever makes parts holds no lease: a folder that was touched just now stays.
    """
    kept, published = Kept("shelf_parts"), warehouse.partitions(TABLE)
    youngest = time.time() - _GRACE_SECONDS
    for folder in sorted(shelf_parts_dir(warehouse.shop).glob("*")):
        named = re.fullmatch(r"(\d{4}-\d{2}-\d{2})-[0-9a-f]{16}", folder.name)
        if named is None or not published or named[1] >= str(published[-1]):
            continue
        inner = list(folder.rglob("*"))
        files = [path.stat() for path in inner if path.is_file()]
        kept.files += len(files)
        if any(path.stat().st_mtime > youngest for path in (folder, *inner)):
            continue
        kept.files_deleted += len(files)
        kept.bytes_freed += sum(file.st_size for file in files if file.st_nlink == 1)
        if not dry_run:
            shutil.rmtree(folder)
    return kept


def _states_left(table: Table, before: dt.datetime) -> list[Snapshot]:
    """Return the states from a moment on, and the current one, however old."""
    current, limit = table.current_snapshot(), int(before.timestamp() * 1000)
    return [state for state in table.snapshots() if state == current or state.timestamp_ms >= limit]


def _sweep(warehouse: Warehouse, table: Table, left: list[Snapshot], kept: Kept, dry_run: bool) -> None:
    """Expire all states but `left`, and delete the files that none of these refers to."""
    if not dry_run:
        old = {state.snapshot_id for state in table.snapshots()} - {state.snapshot_id for state in left}
        warehouse.forget(kept.table, old)
        table.refresh()
    # A home may be named by a link, or with `..`, and tables know their files by the name that it had then
    wanted = {os.path.realpath(path.removeprefix("file://")) for path in _referenced(table, left)}
    youngest = time.time() - _GRACE_SECONDS
    folders = (warehouse_dir(warehouse.shop) / "data" / kept.table, Path(table.location().removeprefix("file://")))
    for file in [file for folder in folders for file in folder.rglob("*") if file.is_file()]:
        kept.files += 1
        told = file.stat()
        if os.path.realpath(file) in wanted or told.st_mtime > youngest:
            continue
        kept.files_deleted += 1
        kept.bytes_freed += told.st_size if told.st_nlink == 1 else 0  # shelves share their bytes with their drafts
        if not dry_run:
            file.unlink()
    if not dry_run:
        _remove_empty(folders[0])


def _referenced(table: Table, states: list[Snapshot]) -> Iterator[str]:
    """Yield the path of every file that one of these states of the table, or its metadata, refers to."""
    yield table.metadata_location
    yield from (entry.metadata_file for entry in table.metadata.metadata_log)
    seen: set[str] = set()
    for snapshot in states:
        yield snapshot.manifest_list
        for manifest in snapshot.manifests(table.io):
            if manifest.manifest_path in seen:
                continue
            seen.add(manifest.manifest_path)
            yield manifest.manifest_path
            for entry in manifest.fetch_manifest_entry(table.io, discard_deleted=True):
                yield entry.data_file.file_path


def _remove_empty(folder: Path) -> None:
    """Remove the empty folders below a table's folder, the deepest first."""
    for inner in sorted((path for path in folder.rglob("*") if path.is_dir()), reverse=True):
        if not any(inner.iterdir()):
            inner.rmdir()
