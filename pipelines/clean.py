"""Stage `clean`: raw logs → events, quarantine, items, users, and the books that prove that no row was lost.

A night cleans as_of_date and, once, the days of history before it that have not been cleaned yet. Everything is written
and checked before anything is published; source_counts come last, so that a day is done only when all of it is there.
"""

import datetime as dt
import shutil
from typing import TYPE_CHECKING

import pyarrow as pa

from nightshelf.dates import days_back, parse_duration
from nightshelf.errors import NightshelfError
from nightshelf.identity import ensure_key
from nightshelf.paths import scratch_dir, source_path
from pipelines.arrivals import find_arrivals, find_listings
from pipelines.arrow_schema import arrow_schema
from pipelines.clean_job import CleanJob
from pipelines.dimensions import write_items_of_catalogue, write_items_of_events, write_users
from pipelines.late_files import warn_of_late_files
from pipelines.schema_drift import Column, RawInput, Schema, as_rows, check_inputs, from_rows, raw_inputs
from pipelines.source_counts import as_table, check_books, count_rows
from pipelines.stage import Night, StageResult

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

_TABLES = ("events", "quarantine", "waiting_events", "items", "users")
_QUIET_DAYS = 30  # a log that was silent for longer is compared with nothing


def run(night: Night) -> StageResult:
    """Clean the logs that arrived on as_of_date and on the uncleaned days of the history before it.

    Raises:
        InputError: a file or column is missing, a day is empty, or too many rows would be set aside; nothing is published.
        EngineError: rows were lost or invented.
    """
    from feature_jobs.raw_files import find_files
    from feature_jobs.session import spark_session

    warehouse = night.warehouse
    spark = spark_session(night.shop)
    arrivals = find_arrivals(
        night.shop, night.as_of_date, warehouse.partitions("source_counts"), lambda pattern: find_files(spark, pattern)
    )
    warn_of_late_files(night.shop, night.as_of_date, warehouse, lambda pattern: find_files(spark, pattern))
    folders = {table: warehouse.new_run_dir(table, night.run_id) for table in _TABLES}
    scratch = scratch_dir(night.shop) / "clean"
    shutil.rmtree(scratch, ignore_errors=True)
    job = CleanJob(night, spark, arrivals, folders, scratch / "judged", ensure_key(night.shop))
    try:
        return _read_whole(job)
    except BaseException:
        for folder in folders.values():
            shutil.rmtree(folder, ignore_errors=True)
        raise
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _read_whole(job: CleanJob) -> StageResult:
    """Clean, and tell which file is to blame where an engine failed at a broken one."""
    from feature_jobs.raw_files import check_whole

    try:
        return _clean(job)
    except NightshelfError:
        raise
    except Exception:
        found = {**job.arrivals.by_day, **_other_files(job)}
        check_whole([file for by_day in found.values() for files in by_day.values() for file in files])
        raise


def _clean(job: CleanJob) -> StageResult:
    warehouse, night = job.night.warehouse, job.night
    schemas = _check_schemas(job)
    known = write_items_of_catalogue(job) if job.shop.items else None
    _write_judged(job, known)
    _write_events_and_quarantine(job, known)
    events = job.folders["events"]
    kept, duplicates = events / "is_duplicate=false", events / "is_duplicate=true"
    books = count_rows(job.judged, job.taken_back, kept, duplicates, job.folders["quarantine"], job.shop, job.days)
    check_books(books, job.shop, night.as_of_date)
    if not job.shop.items:
        write_items_of_events(job, kept)
    write_users(job, kept)
    for table in _TABLES:
        warehouse.publish(table, kept if table == "events" else job.folders[table], job.days, night.summary)
    warehouse.publish_arrow("source_schemas", schemas, job.days, night.run_id)
    warehouse.publish_arrow("source_counts", as_table(books), job.days, night.run_id)
    total = {
        name: sum(getattr(rows, name) for rows in books.values())
        for name in ("rows_read", "taken_back", "kept", "quarantined", "duplicates")
    }
    shutil.rmtree(duplicates, ignore_errors=True)
    message = f"{len(job.days)} days, {total['duplicates']} duplicates"
    if total["taken_back"]:
        message += f", {total['taken_back']} events taken back whose item is known now"
    return StageResult(total["rows_read"], total["kept"], total["quarantined"], [], message)


def _check_schemas(job: CleanJob) -> pa.Table:
    """Compare the schema of all that is read with that of the day before it; return the rows of source_schemas."""
    from feature_jobs.raw_schemas import seen_schema

    def look(raw: RawInput, day: dt.date, files: list[str]) -> Schema | None:
        """Return the columns of a day's files, from a sample of their rows; None if there are none."""
        seen = seen_schema(job.spark, files, raw.table)
        columns = {name: Column(c.kind, c.rows / seen.rows) for name, c in seen.columns.items()}
        return Schema(raw.name, day, seen.rows, columns) if columns else None

    warehouse = job.night.warehouse
    earlier = [day for day in warehouse.partitions("source_schemas") if day < job.days[0]]
    recent = days_back(earlier[-1], _QUIET_DAYS) if earlier else []
    known = from_rows(warehouse.read("source_schemas", recent).to_pylist())
    by_day = {**job.arrivals.by_day, **_other_files(job)}
    schemas = check_inputs(by_day, raw_inputs(job.shop), known, look)
    rows = [row for schema in schemas for row in as_rows(schema)]
    return pa.Table.from_pylist(rows, arrow_schema(warehouse.specs["source_schemas"]))


def _other_files(job: CleanJob) -> dict[str, dict[dt.date, list[str]]]:
    """Return the files of items, users and graph by day; of those without days, and of the graph, the night's own."""
    shop, night = job.shop, job.night.as_of_date
    found: dict[str, dict[dt.date, list[str]]] = {}
    for name, dimension in (("items", shop.items), ("users", shop.users)):
        if dimension:
            _, files = find_listings(shop, dimension, name, job.days, job.list_files)
            found[name] = {day or night: of_day for day, of_day in files.items() if day is None or day in job.days}
    if shop.graph:
        files_of_graph = job.list_files(source_path(shop, shop.graph.path, night))
        found["graph"] = {night: files_of_graph} if files_of_graph else {}
    return found


def _write_judged(job: CleanJob, known: "DataFrame | None") -> None:
    """Write every raw row with its verdict: the one pass over the raw text."""
    from feature_jobs.events import complete_verdicts, read_events
    from feature_jobs.raw_rows import union
    from feature_jobs.storage import write_files

    read = [
        rows
        for source in job.shop.sources
        for rows in read_events(job.spark, job.shop, source, job.arrivals.files(source.name), job.days)
    ]
    if read:
        write_files(complete_verdicts(union(read), known, job.shop, job.key_path), str(job.judged))


def _write_events_and_quarantine(job: CleanJob, known: "DataFrame | None") -> None:
    from feature_jobs.bots import find_bots
    from feature_jobs.duplicates import mark_duplicates
    from feature_jobs.quarantine import quarantine
    from feature_jobs.storage import write_table

    if not job.judged.exists():
        return
    judged = _set_aside_cancelled(job, job.spark.read.parquet(str(job.judged)))
    found = find_bots(judged, job.shop.quarantine.bots)
    bots = job.spark.createDataFrame(found.collect(), found.schema)
    if known is not None:
        judged = _take_back(job, judged, bots, known)
    good = judged.where("reason is null").join(bots.hint("broadcast"), ["user_key", "as_of_date"], "left_anti")
    orphans = _write_orphans(job, good)
    if orphans is not None:
        good = good.join(orphans.select("row_id"), "row_id", "left_anti")
    specs = job.night.warehouse.specs
    write_table(quarantine(judged, bots, orphans), specs["quarantine"], job.folders["quarantine"], ["source", "reason"])
    near = {source.name: parse_duration(source.repeats_within) for source in job.shop.sources if source.repeats_within}
    marked = mark_duplicates(good, _earlier_events(job), near)
    # The tasks of the comparison write a file a day each: another shuffle would only cost
    write_table(
        marked, specs["events"], job.folders["events"], ["user_key", "event_ts", "event_id"], True, "is_duplicate"
    )


def _set_aside_cancelled(job: CleanJob, judged: "DataFrame") -> "DataFrame":
    """Return the judged rows without sales that were cancelled, written down so that they are looked for once."""
    from feature_jobs.cancellations import find_cancelled, set_aside_cancelled
    from feature_jobs.storage import write_files

    sources = [source.name for source in job.shop.sources if source.cancels]
    if not sources:
        return judged
    folder = str(job.judged.with_name("cancelled"))
    write_files(find_cancelled(judged, sources), folder)
    return set_aside_cancelled(judged, job.spark.read.parquet(folder))


def _take_back(job: CleanJob, judged: "DataFrame", bots: "DataFrame", known: "DataFrame") -> "DataFrame":
    """Write the events whose item is unknown; return the judged rows, and those that waited until an item of theirs is known."""
    from feature_jobs.storage import read_table, write_files, write_table
    from feature_jobs.waiting_events import taken_back, waiting_events

    warehouse, folder = job.night.warehouse, job.folders["waiting_events"]
    write_table(waiting_events(judged, bots), warehouse.specs["waiting_events"], folder, ["item_id", "event_ts"])
    earlier = _late_days(job, "waiting_events")
    files = [str(file) for file in folder.rglob("*.parquet")] + warehouse.files("waiting_events", earlier)
    if not files:
        return judged
    waiting = read_table(job.spark, warehouse.specs["waiting_events"], files)
    known_before = job.published("items", _late_days(job, "items")).select("item_id", "as_of_date")
    write_files(taken_back(waiting, known.unionByName(known_before), job.days, job.shop), str(job.taken_back))
    return judged.unionByName(job.spark.read.parquet(str(job.taken_back)))


def _write_orphans(job: CleanJob, good: "DataFrame") -> "DataFrame | None":
    """Return the orphans among the good rows, written down so that they are looked for once; None: nobody asks for them."""
    from feature_jobs.orphans import find_orphans
    from feature_jobs.storage import write_files

    within = {name: parse_duration(time) for name, time in job.shop.quarantine.orphans.items()}
    if not within:
        return None
    late = max(source.late_by_days for source in job.shop.sources)
    back = -(-max(within.values()) // dt.timedelta(days=1))  # an hour back may be the day before
    first = job.days[0] - dt.timedelta(days=late + back)
    days = {
        day for day in job.night.warehouse.partitions("events") if first <= day < job.days[-1] and day not in job.days
    }
    earlier = job.published("events", days).where("event_type = 'impression'") if days else None
    folder = str(job.judged.with_name("orphans"))
    write_files(find_orphans(good, earlier, within), folder)
    return job.spark.read.parquet(folder)


def _earlier_events(job: CleanJob) -> "DataFrame | None":
    """Return the ids of published events that a late row of these days could repeat, or None."""
    days = _late_days(job, "events")
    return job.published("events", days).select("event_id", "as_of_date") if days else None


def _late_days(job: CleanJob, table: str) -> set[dt.date]:
    """Return the published days that this run does not write and from which a late event of its days may come."""
    late = max(source.late_by_days for source in job.shop.sources)
    first, last = job.days[0] - dt.timedelta(days=late), job.days[-1]
    return {day for day in job.night.warehouse.partitions(table) if first <= day < last and day not in job.days}
