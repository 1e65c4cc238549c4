"""Stage `export`: copies of the published shelves for storefronts, as the shop file asks for them."""

from nightshelf.errors import InputError
from nightshelf.exports import Export, ParquetDrop, PostgresView
from nightshelf.logs import get_logger
from pipelines.exports.version import Version
from pipelines.stage import Night, StageResult
from pipelines.warehouse import arrow_schema


def run(night: Night) -> StageResult:
    """Write the night's shelves to every place that `exports` names, one after the other.

    Raises:
        InputError: nothing of this night is published, or a server's address is missing.
        EngineError: a server is away; the others have what they have, and the stage may be run again.
    """
    if not night.shop.exports:
        return StageResult(message="the shop file has no `exports`")
    name = f"{night.as_of_date:%Y%m%d}_{night.run_id[-8:]}"
    versions = {}
    for table in dict.fromkeys(target.table for target in night.shop.exports):
        files = night.warehouse.files(table, [night.as_of_date])
        if not files:
            raise InputError(f"no {table} of {night.as_of_date} are published; run `nightshelf stage publish` first")
        versions[table] = Version(name, files, arrow_schema(night.warehouse.specs[table]))
    told = [_export(night, target, versions[target.table]) for target in night.shop.exports]
    for line in told:
        get_logger("export").info("%s", line)
    written = sum(versions[target.table].rows for target in night.shop.exports)
    read = sum(version.rows for version in versions.values())
    return StageResult(read, written, inputs=list(versions), message="; ".join(told))


def _export(night: Night, target: Export, version: Version) -> str:
    if isinstance(target, ParquetDrop):
        from pipelines.exports import parquet_drop

        return parquet_drop.export(target, version, night.shop.home)
    if isinstance(target, PostgresView):
        from pipelines.exports import postgres_view

        return postgres_view.export(target, version)
    from pipelines.exports import redis_keys

    return redis_keys.export(target, version)
