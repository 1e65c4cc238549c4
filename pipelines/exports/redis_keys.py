"""Keys of Redis: PREFIX:VERSION:SCENARIO:OWNER holds a shelf as JSON, and PREFIX:current the version that is whole.

The owner is a user_key, or an item for the shelves of items.
A reader gets PREFIX:current and then the shelf of that version, in a script or in two steps: the one before stays for an hour.
"""

import json
from collections.abc import Iterator
from contextlib import suppress
from itertools import groupby
from typing import Any

import redis
from redis.connection import parse_url

from nightshelf.errors import EngineError, InputError
from nightshelf.exports import RedisKeys
from pipelines.exports.version import Version, address

_AT_ONCE = 2000
_GRACE_SECONDS = 3600


def export(target: RedisKeys, version: Version) -> str:
    """Replace the version that PREFIX:current names; return what was written.

    What a run that failed wrote goes at once, what a killed one left within an hour from the next run on: where there is no room
    for it, there is none for anything else that uses the server.

    Raises:
        InputError: the address is not set or none of Redis, or a column is unknown.
        EngineError: the server is away, or holds less than was written.
    """
    unknown = [name for name in target.columns if name not in version.schema.names]
    if unknown:
        known = ", ".join(version.schema.names)
        raise InputError(f"{target.table} have no column {unknown[0]!r}; known: {known}")
    url = address(target.url_env)
    place, pointer = _place(url, target.url_env), f"{target.prefix}:current"
    try:
        with redis.Redis.from_url(url, decode_responses=True) as server:
            _forget_others(server, target.prefix, server.get(pointer), pointer)
            written = _fill(server, target, version, place)
            server.set(pointer, version.name)
            _forget_others(server, target.prefix, version.name, pointer)
    except redis.RedisError as error:
        raise EngineError(f"Redis at {place}: {error}; what {pointer} names is whole") from None
    return f"{pointer} names {version.name}, {written} shelves"


def _place(url: str, url_env: str) -> str:
    """Return of an address what may stand in a log.

    Raises:
        InputError: it is none of Redis; what it is may hold a password.
    """
    try:
        parts = parse_url(url)
        redis.ConnectionPool.from_url(
            url
        ).make_connection()  # without a connection yet: a TypeError if an option is unknown
    except (ValueError, TypeError):
        raise InputError(
            f"${url_env} is no address of Redis, or has an option that is none; write redis://:password@host:6379/0"
        ) from None
    if "path" in parts:
        return f"unix://{parts['path']}"
    return f"redis://{parts.get('host', 'localhost')}:{parts.get('port', 6379)}/{parts.get('db', 0)}"


def _fill(server: "redis.Redis", target: RedisKeys, version: Version, place: str) -> int:
    """Write all shelves of a version and return how many; or none.

    Raises:
        EngineError: the server holds less than was written.
    """
    mine = f"{target.prefix}:{version.name}:*"
    try:
        written = sum(_write(server, part) for part in _parts(_shelves(target, version)))
        found = sum(1 for _ in server.scan_iter(mine, count=_AT_ONCE))
        if found != written:
            raise EngineError(f"Redis at {place} holds {found} of {written} shelves; is its memory full?")
    except BaseException:
        with suppress(redis.RedisError):  # of a server that is away
            for key in server.scan_iter(mine, count=_AT_ONCE):
                server.unlink(key)
        raise
    return written


def _shelves(target: RedisKeys, version: Version) -> Iterator[tuple[str, str]]:
    """Yield key and value of each shelf; a file has a shelf's places one after the other, batches may part them."""
    names = list(dict.fromkeys(["scenario", version.owner, "rank", *target.columns]))

    def places() -> Iterator[dict[str, Any]]:
        """Yield the places of all shelves, each as name → value, with a batch of them in memory at a time."""
        for batch in version.batches(names):
            yield from batch.to_pylist()

    for (scenario, owner), of_shelf in groupby(places(), key=lambda row: (row["scenario"], row[version.owner])):
        rows = sorted(of_shelf, key=lambda row: row["rank"])
        shown = [{name: row[name] for name in target.columns} for row in rows]
        yield f"{target.prefix}:{version.name}:{scenario}:{owner}", json.dumps(shown, ensure_ascii=False, default=str)


def _parts(shelves: Iterator[tuple[str, str]]) -> Iterator[dict[str, str]]:
    part: dict[str, str] = {}
    for key, value in shelves:
        part[key] = value
        if len(part) == _AT_ONCE:
            yield part
            part = {}
    if part:
        yield part


def _write(server: "redis.Redis", part: dict[str, str]) -> int:
    server.mset(part)
    return len(part)


def _forget_others(server: "redis.Redis", prefix: str, name: str | None, pointer: str) -> None:
    """Let the keys of all versions but one go within an hour, those that are not on their way already."""
    pipeline = server.pipeline(transaction=False)
    for number, key in enumerate(server.scan_iter(f"{prefix}:*", count=_AT_ONCE), 1):
        if key != pointer and not key.startswith(f"{prefix}:{name}:"):
            pipeline.expire(key, _GRACE_SECONDS, nx=True)
        if number % _AT_ONCE == 0:
            pipeline.execute()
    pipeline.execute()
