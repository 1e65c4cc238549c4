"""Where a night's shelves go beside the warehouse: the part `exports` of a shop file."""

import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, field_validator

from nightshelf.yamlfile import Strict

_VARIABLE = r"^[A-Za-z_][A-Za-z0-9_]*$"


class _Shelves(Strict):
    """table: whose shelves are exported, those of users or of items."""

    table: Literal["recommendations", "item_recommendations"] = "recommendations"


class ParquetDrop(_Shelves):
    """A folder of Parquet files, one folder a version; the link `current` in it names the newest."""

    to: Literal["parquet"]
    folder: Path

    @property
    def place(self) -> str:
        """Return what no other export may write to."""
        return f"folder {self.folder}"


class PostgresView(_Shelves):
    """A view of PostgreSQL. url_env: the environment variable that holds the server's address and the login."""

    to: Literal["postgres"]
    url_env: Annotated[str, Field(pattern=_VARIABLE)]
    view: Annotated[str, Field(pattern=r"^[a-z_][a-z0-9_]{0,39}$")] = "recommendations"

    @property
    def place(self) -> str:
        """Return what no other export may write to."""
        return f"view {self.view} of ${self.url_env}"


class RedisKeys(_Shelves):
    """Keys of Redis, one a scenario and user, or item. columns: what each place of a shelf tells."""

    to: Literal["redis"]
    url_env: Annotated[str, Field(pattern=_VARIABLE)]
    prefix: str = "shelf"
    columns: list[str] = Field(["item_id", "score", "reason"], min_length=1)

    @property
    def place(self) -> str:
        """Return what no other export may write to."""
        return f"prefix {self.prefix} of ${self.url_env}"

    @field_validator("prefix")
    @classmethod
    def _no_pattern(cls, value: str) -> str:
        if not re.fullmatch(r"[A-Za-z0-9_.-]+", value):
            raise ValueError(f"{value!r} is no prefix; write letters, digits, '.', '_' and '-', e.g. shelf")
        return value


Export = Annotated[ParquetDrop | PostgresView | RedisKeys, Field(discriminator="to")]
