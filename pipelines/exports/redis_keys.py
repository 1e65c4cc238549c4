"""Keys of Redis: PREFIX:VERSION:SCENARIO:OWNER holds a shelf as JSON, and PREFIX:current the version that is whole.

The owner is a user_key, or an item for the shelves of items.
A reader gets PREFIX:current and then the shelf of that version, in a script or in two steps: the one before stays for an hour.
"""

import json
from collections.abc import Iterator
from itertools import groupby
from typing import Any

import redis

from nightshelf.errors import EngineError, InputError
from nightshelf.exports import RedisKeys
from pipelines.exports.version import Version, address, without_password

_AT_ONCE = 2000
_GRACE_SECONDS = 3600


def export(target: RedisKeys, version: Version) -> str:
    """Replace the version that PREFIX:current names; return what was written.

    What killed runs left of other versions goes within an hour.

    Raises:
        InputError: the address is not set, or a column is unknown.
        EngineError: the server is away, or holds less than was written.
    """
    unknown = [name for name in target.columns if name not in version.schema.names]
    if unknown:
        known = ", ".join(version.schema.names)
        raise InputError(f"{target.table} have no column {unknown[0]!r}; known: {known}")
    url = address(target.url_env)
    pointer = f"{target.prefix}:current"
    try:
        with redis.Redis.from_url(url, decode_responses=True) as server:
            written = sum(_write(server, part) for part in _parts(_shelves(target, version)))
            found = sum(1 for _ in server.scan_iter(f"{target.prefix}:{version.name}:*", count=_AT_ONCE))
            if found != written:
                raise EngineError(
                    f"Redis at {without_password(url)} holds {found} of {written} shelves; is its memory full?"
                )
            server.set(pointer, version.name)
            _forget_others(server, target.prefix, version.name, pointer)
    except redis.RedisError as error:
        raise EngineError(f"Redis at {without_password(url)}: {error}; {pointer} names what it did") from None
    return f"{pointer} names {version.name}, {written} shelves"


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


def _forget_others(server: "redis.Redis", prefix: str, name: str, pointer: str) -> None:
    pipeline = server.pipeline(transaction=False)
    for number, key in enumerate(server.scan_iter(f"{prefix}:*", count=_AT_ONCE), 1):
        if key != pointer and not key.startswith(f"{prefix}:{name}:"):
            pipeline.expire(key, _GRACE_SECONDS, nx=True)
        if number % _AT_ONCE == 0:
            pipeline.execute()
    pipeline.execute()
