"""Stage `export`: copies of the published shelves for storefronts, as the shop file asks for them."""

from nightshelf.errors import EngineError, InputError, NightshelfError
from nightshelf.exports import Export, ParquetDrop, PostgresView
from nightshelf.logs import get_logger
from pipelines.arrow_schema import arrow_schema
from pipelines.exports.version import Version
from pipelines.shelf_status import TABLE
from pipelines.stage import Night, StageResult


def run(night: Night) -> StageResult:
    """Write the night's shelves to every place that `exports` names, one after the other, whatever becomes of the others.

    Of a night that is run again after later ones nothing is written: storefronts show what is served.

    Raises:
        InputError: nothing of this night is published that these places show, or a server's address is missing, or the like.
        EngineError: a server is away, or a disk is full; the stage may be run again.
    """
    targets = night.shop.exports
    if not targets:
        return StageResult(message="the shop file has no `exports`")
    newer = [day for day in night.warehouse.partitions(TABLE) if day > night.as_of_date]
    if newer:
        told = f"nothing is exported: readers see the shelves of {newer[-1]}, which are newer"
        get_logger("export").warning("%s: %s", night.as_of_date, told)
        return StageResult(message=told)
    versions: dict[str, Version] = {}
    places, failed, written = [], {}, 0
    for target in targets:
        try:
            version = versions[target.table] = _version(night, target.table)
            places.append(_export(night, target, version))
            written += version.rows
            get_logger("export").info("%s", places[-1])
        except Exception as error:
            failed[target.place] = error
            is_strange = not isinstance(error, NightshelfError)
            get_logger("export").error("%s: %s", target.place, error, exc_info=is_strange)
    if failed:
        raise _failure(failed, len(targets))
    read = sum(version.rows for version in versions.values())
    return StageResult(read, written, inputs=list(versions), message="; ".join(places))


def _version(night: Night, table: str) -> Version:
    files = night.warehouse.files(table, [night.as_of_date])
    if not files:
        raise InputError(f"no {table} of {night.as_of_date} are published; run `nightshelf stage publish` first")
    return Version(f"{night.as_of_date:%Y%m%d}_{night.run_id[-8:]}", files, arrow_schema(night.warehouse.specs[table]))


def _failure(failed: dict[str, Exception], count: int) -> NightshelfError:
    """Return what names each place that failed, and why: an InputError where no retry can help any of them."""
    reasons = "; ".join(f"{place}: {_reason(error)}" for place, error in failed.items())
    kind = InputError if all(isinstance(error, InputError) for error in failed.values()) else EngineError
    return kind(f"exports: {len(failed)} of {count} failed: {reasons}")


def _reason(error: Exception) -> str:
    if isinstance(error, NightshelfError):
        return str(error)
    return f"{type(error).__name__}: {next(iter(str(error).splitlines()), '')}"


def _export(night: Night, target: Export, version: Version) -> str:
    if isinstance(target, ParquetDrop):
        from pipelines.exports import parquet_drop

        return parquet_drop.export(target, version, night.shop.home)
    if isinstance(target, PostgresView):
        from pipelines.exports import postgres_view

        return postgres_view.export(target, version)
    from pipelines.exports import redis_keys

    return redis_keys.export(target, version)
