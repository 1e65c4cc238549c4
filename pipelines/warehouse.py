"""The warehouse: Iceberg tables below a shop's home, one partition a day, each replaced in one atomic commit.

An engine writes Parquet into a folder that nobody reads (`new_run_dir`); `publish` then replaces the partitions by those
files in one transaction: delete + add_files (PyIceberg 0.12). A reader sees the old rows or the new ones. A killed
attempt leaves an orphan folder and no trace in the table.
"""

import contextlib
import datetime as dt
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.exceptions import NamespaceAlreadyExistsError, NoSuchTableError, TableAlreadyExistsError
from pyiceberg.expressions import AlwaysTrue, BooleanExpression, In, LessThanOrEqual
from pyiceberg.table import FileScanTask, Table

from nightshelf.config import Shop
from nightshelf.errors import EngineError, InputError
from nightshelf.paths import run_dir, warehouse_dir
from nightshelf.tables import table_specs
from pipelines.arrow_schema import arrow_schema, conform

NAMESPACE = "nightshelf"
# Spark writes each day below this folder, and keeps as_of_date inside the files, where add_files needs it.
DAY_FOLDER = "_day"
EPOCH = dt.date(1970, 1, 1)


class Warehouse:
    """The tables of one shop. Opening it makes the catalogue if there is none.

    Raises:
        InputError: the home is another shop's, whose days this one would replace.
    """

    def __init__(self, shop: Shop) -> None:
        self.shop = shop
        self.specs = table_specs(shop)
        self._root = root = warehouse_dir(shop)
        root.mkdir(parents=True, exist_ok=True)
        self._catalog = SqlCatalog(
            "nightshelf", uri=f"sqlite:///{root / 'catalog.db'}", warehouse=f"file://{root / 'iceberg'}"
        )
        with contextlib.suppress(NamespaceAlreadyExistsError):
            self._catalog.create_namespace(NAMESPACE, {"shop": shop.shop})
        owner = self._catalog.load_namespace_properties(NAMESPACE).get("shop", shop.shop)
        if owner != shop.shop:
            raise InputError(
                f"home {shop.home} holds the tables of shop {owner!r}, and the shop file says {shop.shop!r}; give each shop a "
                "`home` of its own ($NIGHTSHELF_HOME, where set, is the home of all), or write its name as before"
            )

    def new_run_dir(self, table: str, run_id: str) -> Path:
        """Return an empty folder for one attempt's files of a table; nobody reads it before `publish`."""
        folder = run_dir(self.shop, table, run_id)
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        return folder

    def files(self, table: str, dates: Iterable[dt.date] | None = None) -> list[str]:
        """Return the paths of the data files that hold these partitions (all, if None), sorted."""
        found = self.load(table)
        if found is None:
            return []
        tasks = found.scan(row_filter=_in_dates(dates)).plan_files()
        return sorted(task.file.file_path.removeprefix("file://") for task in tasks)

    def files_as_of(self, table: str, as_of: str) -> tuple[list[str], bool]:
        """Return the data files of a past state, and whether the table knows it.

        `as_of` is a snapshot id (a table without it shows what is there now), or a date: the nights up to it, as the last of
        them that ran left them; or empty: what is there now.
        """
        tasks, known = self._tasks_as_of(table, as_of)
        return sorted(task.file.file_path.removeprefix("file://") for task in tasks), known

    def partitions_as_of(self, table: str, as_of: str) -> list[dt.date]:
        """Return the partitions that hold rows in a past state, which `files_as_of` explains, oldest first."""
        return sorted({_day_of(task) for task in self._tasks_as_of(table, as_of)[0]})

    def _tasks_as_of(self, table: str, as_of: str) -> tuple[list[FileScanTask], bool]:
        found = self.load(table)
        if found is None:
            return [], False
        dates = {str(s.snapshot_id): (s.summary and s.summary["as_of_date"]) or "9999" for s in found.snapshots()}
        if not as_of or as_of.isdigit():
            known = as_of in dates
            return list(found.scan(snapshot_id=int(as_of) if known else None).plan_files()), known
        earlier = [snapshot for snapshot, date in dates.items() if date <= as_of]
        if not earlier or not _is_date(as_of):
            return [], False
        # A night that is run again later leaves its rows beside those of later nights
        rows = LessThanOrEqual("as_of_date", as_of)  # type: ignore[call-arg, misc]
        return list(found.scan(rows, snapshot_id=int(earlier[-1])).plan_files()), as_of in dates.values()

    def partitions(self, table: str) -> list[dt.date]:
        """Return the partitions that hold rows, oldest first."""
        found = self.load(table)
        if found is None or found.current_snapshot() is None:
            return []
        days = found.inspect.partitions().column("partition").to_pylist()
        return sorted({day["as_of_date"] for day in days})

    def statistics(self, table: str, dates: Iterable[dt.date]) -> dict[dt.date, tuple[int, dict[str, int]]]:
        """Return each partition's rows and the empty values of each of its columns, from the manifests: no data is read.

        A column that some file of a partition lacks is left out there.
        """
        found = self.load(table)
        if found is None:
            return {}
        names = {field.field_id: field.name for field in found.schema().fields}
        days: dict[dt.date, tuple[int, dict[str, int]]] = {}
        for task in found.scan(row_filter=_in_dates(dates)).plan_files():
            day = _day_of(task)
            nulls = {names[key]: count for key, count in (task.file.null_value_counts or {}).items() if key in names}
            if day in days:
                rows, before = days[day]
                nulls = {name: before[name] + count for name, count in nulls.items() if name in before}
                days[day] = rows + task.file.record_count, nulls
            else:
                days[day] = task.file.record_count, nulls
        return days

    def read(self, table: str, dates: Iterable[dt.date] | None = None, columns: tuple[str, ...] = ("*",)) -> pa.Table:
        """Return the rows of these partitions (all, if None)."""
        found = self.load(table)
        if found is None:
            return arrow_schema(self.specs[table]).empty_table()
        return found.scan(row_filter=_in_dates(dates), selected_fields=columns).to_arrow()

    def publish(self, table: str, folder: Path, dates: Iterable[dt.date], summary: dict[str, str]) -> int:
        """Replace the partitions `dates` by the Parquet files that an engine wrote below `folder/_day=…/`, atomically.

        Returns:
            the number of rows published.

        Raises:
            EngineError: the number of rows read back differs from the number written.
        """
        days = sorted(set(dates))
        files = [str(f) for day in days for f in sorted((folder / f"{DAY_FOLDER}={day}").glob("*.parquet"))]
        counts = {f: pq.read_metadata(f).num_rows for f in files}
        files = [f for f in files if counts[f]]
        rows = sum(counts.values())
        target = self._load_or_create(table)
        with target.transaction() as transaction:
            if self.files(table, days):
                transaction.delete(_in_dates(days), snapshot_properties=summary)
            if files:
                transaction.add_files(files, snapshot_properties=summary, check_duplicate_files=False)
        seen = sum(task.file.record_count for task in target.scan(row_filter=_in_dates(days)).plan_files())
        if seen != rows:
            raise EngineError(f"{table} {days[-1]}: wrote {rows} rows but reads back {seen}; run the stage again")
        return rows

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """Let readers see all commits inside at once, as it ends; if an exception or a kill ends it, none of them.

        Inside, this object sees them, and no other thread may use it; whoever else would write waits. The catalogue is a table of
        pointers: they move in one transaction of its database, which the catalogue's own sessions join (SQLAlchemy 2, "Joining a
        Session into an External Transaction").
        """
        engine = self._catalog.engine
        with engine.begin() as connection:
            self._catalog.engine = connection  # type: ignore[assignment]
            try:
                yield
            finally:
                self._catalog.engine = engine

    def publish_arrow(self, table: str, rows: pa.Table, dates: Iterable[dt.date], run_id: str) -> int:
        """Replace the partitions `dates` by these rows (columns in any order; types are cast to the spec's)."""
        days = sorted(set(dates))
        folder = self.new_run_dir(table, run_id)
        write_days(conform(rows, self.specs[table]), folder, days)
        return self.publish(table, folder, days, {"run_id": run_id, "as_of_date": str(days[-1])})

    def append(self, table: str, rows: list[dict[str, Any]]) -> None:
        """Add rows to a ledger, e.g. stage_runs."""
        schema = arrow_schema(self.specs[table])
        summary = {"as_of_date": str(max(row["as_of_date"] for row in rows))}
        self._load_or_create(table).append(pa.Table.from_pylist(rows, schema=schema), snapshot_properties=summary)

    def tag(self, table: str, name: str) -> None:
        """Name the table's current snapshot; a tag of that name moves."""
        target = self._load_or_create(table)
        snapshot = target.current_snapshot()
        if snapshot is not None:
            target.manage_snapshots().create_tag(snapshot.snapshot_id, name).commit()

    def snapshot_id(self, table: str) -> int | None:
        """Return the id of the table's current snapshot."""
        found = self.load(table)
        snapshot = found.current_snapshot() if found else None
        return snapshot.snapshot_id if snapshot else None

    def tables(self) -> list[str]:
        """Return the tables of the catalogue, those too that the shop file no longer asks for."""
        return sorted(name for _, name in self._catalog.list_tables(NAMESPACE))

    def restore(self, table: str, snapshot_id: int) -> None:
        """Make a state of a table that was there before its current one again, in one commit."""
        self._load_or_create(table).manage_snapshots().set_current_snapshot(snapshot_id=snapshot_id).commit()

    def states_of(self, table: str, run_id: str) -> list[int]:
        """Return the ids of the states that an attempt committed to a table, oldest first."""
        found = self.load(table)
        states = found.snapshots() if found else []
        return [state.snapshot_id for state in states if state.summary and state.summary["run_id"] == run_id]

    def forget(self, table: str, snapshot_ids: Iterable[int]) -> None:
        """Take states, none of them the current one, out of a table's metadata, those too that have a tag."""
        target, old = self.load(table), set(snapshot_ids)
        if target is None:
            return
        for tag in [ref for ref, at in target.metadata.refs.items() if ref != "main" and at.snapshot_id in old]:
            target.manage_snapshots().remove_tag(tag).commit()
        if old:
            target.maintenance.expire_snapshots().by_ids(sorted(old)).commit()

    def newest_partition(self, table: str, snapshot_id: int) -> dt.date | None:
        """Return the newest partition that held rows in a state of a table."""
        found = self.load(table)
        if found is None:
            return None
        days = found.inspect.partitions(snapshot_id=snapshot_id).column("partition").to_pylist()
        return max((day["as_of_date"] for day in days), default=None)

    def load(self, table: str) -> Table | None:
        """Return a table of the catalogue, None if nothing was ever published there.

        Raises:
            EngineError: its files lie below another folder, as after the home was copied or moved, or its metadata is gone.
        """
        try:
            found = self._catalog.load_table((NAMESPACE, table))
        except NoSuchTableError:
            return None
        except FileNotFoundError as error:
            raise self._elsewhere(table, str(error)) from None
        # Iceberg names files by whole paths: a copy would write into the home that it was copied from.
        if not Path(found.location().removeprefix("file://")).resolve().is_relative_to(self._root.resolve()):
            raise self._elsewhere(table, found.location())
        return found

    def _elsewhere(self, table: str, place: str) -> EngineError:
        return EngineError(
            f"{self._root}: the files of table {table} are not here ({place}): this home was copied or moved, or they were "
            "deleted; tables know their files by whole paths: move it back, or begin another home and copy `raw` and `keys` alone"
        )

    def _create(self, table: str) -> Table:
        with contextlib.suppress(TableAlreadyExistsError):
            self._catalog.create_table((NAMESPACE, table), schema=arrow_schema(self.specs[table]))
        return self._catalog.load_table((NAMESPACE, table))

    def _load_or_create(self, table: str) -> Table:
        found = self.load(table) or self._create(table)
        wanted = arrow_schema(self.specs[table])
        if not set(wanted.names) <= {
            f.name for f in found.schema().fields
        }:  # the shop file gained a task or an attribute
            with found.update_schema() as evolution:
                evolution.union_by_name(wanted)
        if found.spec().is_unpartitioned():  # new, or its maker was killed between the two steps
            with found.update_spec() as update:
                update.add_identity("as_of_date")
        return found


def write_days(rows: pa.Table, folder: Path, days: list[dt.date]) -> None:
    """Write the partitions `days` of a table into `folder`, as `publish` reads them."""
    for day in days:
        part = rows.filter(pc.equal(rows["as_of_date"], pa.scalar(day)))
        (folder / f"{DAY_FOLDER}={day}").mkdir()
        pq.write_table(part, folder / f"{DAY_FOLDER}={day}" / "part-0.parquet", compression="zstd")


def row_count(files: Iterable[str]) -> int:
    """Return the rows of Parquet files, read from their footers."""
    return sum(pq.read_metadata(file).num_rows for file in files)


def _day_of(task: FileScanTask) -> dt.date:
    return EPOCH + dt.timedelta(days=task.file.partition[0])


def _is_date(text: str) -> bool:
    with contextlib.suppress(ValueError):
        return bool(dt.date.fromisoformat(text))
    return False


def _in_dates(dates: Iterable[dt.date] | None) -> BooleanExpression:
    # No text: PyIceberg's parser of texts fails now and then where two threads use it first
    return AlwaysTrue() if dates is None else In("as_of_date", {str(day) for day in dates})  # type: ignore[call-arg, misc]
