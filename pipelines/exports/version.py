"""What is exported: the published shelves of one night, under a name of their own."""

import os
from collections.abc import Iterator
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq

from nightshelf.errors import InputError

# What versions are called: night and run, e.g. 20260214_3f2a9c01. Only what bears such a name is ever swept.
NAME = r"\d{8}_[0-9a-f]{8}"


@dataclass(frozen=True)
class Version:
    """The files of a night's shelves. name: as NAME says, so that versions sort by night."""

    name: str
    files: list[str]
    schema: pa.Schema

    def batches(self, columns: list[str] | None = None) -> Iterator[pa.RecordBatch]:
        """Yield the rows, some ten thousand at a time, a shelf in one piece of a file after the other."""
        for file in self.files:
            with pq.ParquetFile(file) as reader:
                yield from reader.iter_batches(columns=columns)

    @property
    def owner(self) -> str:
        """Return the column that tells whose a shelf is."""
        return "anchor_item_id" if "anchor_item_id" in self.schema.names else "user_key"

    @property
    def rows(self) -> int:
        """Return how many places there are."""
        return sum(int(pq.read_metadata(file).num_rows) for file in self.files)


def address(url_env: str) -> str:
    """Return what an environment variable says of a server.

    Raises:
        InputError: it is not set.
    """
    url = os.environ.get(url_env, "")
    if not url:
        raise InputError(f"${url_env} is not set; give it the server's address, e.g. {_EXAMPLE}")
    return url


_EXAMPLE = "postgresql://user:password@host/database or redis://:password@host:6379/0"
