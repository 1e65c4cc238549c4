"""Keep the warehouse small: merge the ledgers' little files, forget old states, delete the files that nobody can read any more.

A partition that is written anew leaves its old files behind, for those who look at earlier states; so does an attempt that
was killed. Expiring (PyIceberg's expire_snapshots) takes old states out of a table's metadata; the sweep then deletes what no
state that is left refers to, as Iceberg's `remove_orphan_files` does. The shop's lease keeps every writer away meanwhile.
"""

import datetime as dt
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pyiceberg.table import Table

from nightshelf.config import Shop
from nightshelf.logs import get_logger
from nightshelf.paths import warehouse_dir
from nightshelf.shelf_tables import ledgers
from pipelines.stage import lease
from pipelines.warehouse import Warehouse, conform, write_days

# A ledger gains a file a row; from so many in a partition on they are merged.
_MANY_FILES = 8
# Whoever writes holds the lease, but a killed engine's last tasks may still be at it.
_GRACE_SECONDS = 3600.0


@dataclass
class Kept:
    """What was done to one table: states and files before and after, bytes freed, partitions merged or dropped."""

    table: str
    states: int
    states_left: int
    files: int = 0
    files_deleted: int = 0
    bytes_freed: int = 0
    merged: int = 0
    dropped: int = 0


def maintain(shop: Shop, now: dt.datetime, dry_run: bool = False) -> list[Kept]:
    """Merge, expire and sweep every table of a shop.

    Args:
        shop: its `keep` says how long states and partitions are kept.
        now: the moment from which their age is counted.
        dry_run: only tell what would be deleted of what is there; nothing is merged, expired or dropped.

    Raises:
        EngineError: another run holds the shop.
    """
    with lease(shop):
        warehouse, log = Warehouse(shop), get_logger("maintain")
        done = []
        for name in warehouse.tables():
            table = warehouse.load(name)
            if table is None:
                continue
            kept = Kept(name, len(table.snapshots()), len(table.snapshots()))
            if not dry_run:
                kept.merged = _merge(warehouse, name) if name in {spec.name for spec in ledgers()} else 0
                kept.dropped = _drop_partitions(warehouse, name, now)
                kept.states_left = _expire(warehouse, name, now - dt.timedelta(days=shop.keep.snapshot_days))
            _sweep(warehouse, name, kept, dry_run)
            done.append(kept)
            log.info(
                "%s: %d of %d states left, %d files deleted", name, kept.states_left, kept.states, kept.files_deleted
            )
    return done


def told(done: list[Kept], dry_run: bool) -> str:
    """Return what was done, a line a table where something was, and a line for all."""
    lines = [
        f"{kept.table}: {kept.files_deleted} of {kept.files} files, {kept.bytes_freed / 1e6:.1f} MB; "
        f"{kept.states - kept.states_left} of {kept.states} states; {kept.merged} partitions merged, {kept.dropped} dropped"
        for kept in done
        if kept.files_deleted or kept.merged or kept.dropped or kept.states > kept.states_left
    ]
    files, size = sum(kept.files_deleted for kept in done), sum(kept.bytes_freed for kept in done)
    lines.append(
        f"{len(done)} tables: {files} files, {size / 1e6:.1f} MB {'would be deleted' if dry_run else 'deleted'}"
    )
    return "\n".join(lines)


def _merge(warehouse: Warehouse, name: str) -> int:
    """Write the partitions of a ledger that have many files anew, as one file each."""
    table = warehouse.load(name)
    days = warehouse.partitions(name)
    if table is None or not days:
        return 0
    many = [day for day in days if len(warehouse.files(name, [day])) > _MANY_FILES]
    if many:
        run_id = f"{days[-1]}-maintain-{uuid.uuid4().hex[:12]}"
        folder = warehouse.new_run_dir(name, run_id)
        write_days(conform(warehouse.read(name, many), warehouse.specs[name]), folder, many)
        # By the newest night, so that no look at an earlier one takes this state for its own
        warehouse.publish(name, folder, many, {"run_id": run_id, "as_of_date": str(days[-1])})
    return len(many)


def _drop_partitions(warehouse: Warehouse, name: str, now: dt.datetime) -> int:
    """Drop the partitions that are older than the shop file wants to keep; their files go with the states that have them."""
    days = warehouse.partitions(name)
    most = warehouse.shop.keep.partition_days.get(name)
    if most is None or not days:
        return 0
    old = [day for day in days if day < now.date() - dt.timedelta(days=most)]
    if old:
        run_id = f"{days[-1]}-maintain-{uuid.uuid4().hex[:12]}"
        folder = warehouse.new_run_dir(name, run_id)
        warehouse.publish(name, folder, old, {"run_id": run_id, "as_of_date": str(days[-1])})
    return len(old)


def _expire(warehouse: Warehouse, name: str, before: dt.datetime) -> int:
    """Forget the states from before a moment, tagged ones too, but never the current one; return how many are left."""
    table = warehouse.load(name)
    assert table is not None
    limit = int(before.timestamp() * 1000)
    old = {snapshot.snapshot_id for snapshot in table.snapshots() if snapshot.timestamp_ms < limit}
    tags = [ref for ref, at in table.metadata.refs.items() if ref != "main" and at.snapshot_id in old]
    for tag in tags:
        table.manage_snapshots().remove_tag(tag).commit()
    if old:
        table.maintenance.expire_snapshots().older_than(before).commit()
    return len(table.refresh().snapshots())


def _sweep(warehouse: Warehouse, name: str, kept: Kept, dry_run: bool) -> None:
    table = warehouse.load(name)
    assert table is not None
    wanted = {path.removeprefix("file://") for path in _referenced(table)}
    youngest = time.time() - _GRACE_SECONDS
    folders = (warehouse_dir(warehouse.shop) / "data" / name, Path(table.location().removeprefix("file://")))
    for file in [file for folder in folders for file in folder.rglob("*") if file.is_file()]:
        kept.files += 1
        told = file.stat()
        if str(file) in wanted or told.st_mtime > youngest:
            continue
        kept.files_deleted += 1
        kept.bytes_freed += told.st_size if told.st_nlink == 1 else 0  # shelves share their bytes with their drafts
        if not dry_run:
            file.unlink()
    if not dry_run:
        _remove_empty(folders[0])


def _referenced(table: Table) -> Iterator[str]:
    """Yield the path of every file that a state of the table, or its metadata, refers to."""
    yield table.metadata_location
    yield from (entry.metadata_file for entry in table.metadata.metadata_log)
    seen: set[str] = set()
    for snapshot in table.snapshots():
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
