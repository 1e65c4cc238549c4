"""A view of PostgreSQL: a version is copied into a table of its own, and the view moves to it in the same transaction.

Who reads the view sees one version, by PostgreSQL's own isolation; a run that is killed leaves nothing: nothing was committed.
"""

import io
import re
import time

import psycopg
import pyarrow as pa
import pyarrow.csv as csv
from psycopg import errors, sql
from psycopg.conninfo import conninfo_to_dict

from nightshelf.errors import EngineError, InputError
from nightshelf.exports import PostgresView
from nightshelf.logs import get_logger
from pipelines.exports.version import NAME, Version, address

_TYPES = {
    pa.date32(): "date", pa.string(): "text", pa.int32(): "integer", pa.int64(): "bigint",
    pa.float32(): "real", pa.float64(): "double precision", pa.bool_(): "boolean",
}  # fmt: skip
# The version before stays for who is reading it in a long transaction.
_KEPT = 2
_PATIENCE_MS = 5000
# Two minutes, half of which nobody waits behind the export
_ATTEMPTS, _MOMENT_MS, _PAUSE_SECONDS = 60, 1000, 1.0


def export(target: PostgresView, version: Version) -> str:
    """Replace the version that the view shows; return what was written.

    Raises:
        InputError: the address is not set, or none of PostgreSQL.
        EngineError: the server is away or refuses.
    """
    url = address(target.url_env)
    place = _place(url, target.url_env)
    table = f"{target.view}_{version.name}"
    try:
        with psycopg.connect(url) as connection:
            with connection.transaction():
                _write(connection, table, version)
                _move(connection, target.view, table)
            _sweep(connection, target.view)
    except psycopg.Error as error:
        reason = str(error).strip().splitlines()[0]
        raise EngineError(f"PostgreSQL at {place}: {reason}; what its view shows is whole") from None
    return f"view {target.view} shows table {table}"


def _place(url: str, url_env: str) -> str:
    """Return of an address what may stand in a log.

    Raises:
        InputError: it is none of PostgreSQL; what it is may hold a password, as does what libpq says of it.
    """
    try:
        parts = conninfo_to_dict(url)
    except psycopg.ProgrammingError:
        raise InputError(
            f"${url_env} is no address of PostgreSQL; write postgresql://user:password@host/database, "
            "and in the password %40 for @, %25 for %"
        ) from None
    return f"postgresql://{parts.get('host', 'localhost')}:{parts.get('port', 5432)}/{parts.get('dbname', '')}"


def _write(connection: psycopg.Connection, table: str, version: Version) -> None:
    name = sql.Identifier(table)
    columns = [
        sql.SQL("{} {}").format(sql.Identifier(field.name), sql.SQL(_TYPES[field.type])) for field in version.schema
    ]
    connection.execute(sql.SQL("DROP TABLE IF EXISTS {}").format(name))
    connection.execute(sql.SQL("CREATE TABLE {} ({})").format(name, sql.SQL(", ").join(columns)))
    options = csv.WriteOptions(include_header=False, quoting_style="needed")
    with connection.cursor() as cursor, cursor.copy(sql.SQL("COPY {} FROM STDIN (FORMAT csv)").format(name)) as copy:
        for batch in version.batches():
            text = io.BytesIO()
            csv.write_csv(batch, text, options)
            copy.write(text.getvalue())
    keys = [sql.Identifier(column) for column in ("scenario", version.owner, "rank")]
    connection.execute(sql.SQL("ALTER TABLE {} ADD PRIMARY KEY ({})").format(name, sql.SQL(", ").join(keys)))
    connection.execute(sql.SQL("ANALYZE {}").format(name))


def _move(connection: psycopg.Connection, view: str, table: str) -> None:
    """Let the view show the table. Its grants and what hangs on it stay, unless the shop's tasks have changed its columns.

    A reader whose transaction stays open holds the view, and who asks for it meanwhile stands behind whoever waits to move it: so
    this waits for moments alone, between which all of those are served.

    Raises:
        EngineError: somebody holds the view for too long.
    """
    for _ in range(_ATTEMPTS):
        try:
            with connection.transaction():
                connection.execute(sql.SQL("SET LOCAL lock_timeout = {}").format(sql.Literal(_MOMENT_MS)))
                _show(connection, view, table)
            return
        except errors.LockNotAvailable:
            time.sleep(_PAUSE_SECONDS)
    raise EngineError(
        f"view {view} is held by a transaction that reads it and stays open; end that one (pg_stat_activity has it), "
        "and run the stage again; the view shows the version before"
    )


def _show(connection: psycopg.Connection, view: str, table: str) -> None:
    shown = sql.SQL("VIEW {} AS SELECT * FROM {}").format(sql.Identifier(view), sql.Identifier(table))
    try:
        with connection.transaction():
            connection.execute(sql.SQL("CREATE OR REPLACE {}").format(shown))
    except errors.InvalidTableDefinition:
        connection.execute(sql.SQL("DROP VIEW {}").format(sql.Identifier(view)))
        connection.execute(sql.SQL("CREATE {}").format(shown))
        get_logger("export").warning("view %s has other columns now: it is made anew, grant its readers again", view)


def _sweep(connection: psycopg.Connection, view: str) -> None:
    """Drop all versions but the newest two; one that somebody reads just now goes another night."""
    rows = connection.execute(
        "SELECT relname FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace "
        "WHERE relkind = 'r' AND nspname = current_schema() ORDER BY c.oid"
    )
    versions = [name for (name,) in rows if re.fullmatch(rf"{view}_{NAME}", name)]
    for name in versions[:-_KEPT]:
        try:
            with connection.transaction():
                connection.execute(sql.SQL("SET LOCAL lock_timeout = {}").format(sql.Literal(_PATIENCE_MS)))
                connection.execute(sql.SQL("DROP TABLE {}").format(sql.Identifier(name)))
        except (errors.LockNotAvailable, errors.DependentObjectsStillExist) as error:
            get_logger("export").warning("table %s stays: %s", name, str(error).splitlines()[0])
