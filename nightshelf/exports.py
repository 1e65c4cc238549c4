"""Where a night's shelves go beside the warehouse: the part `exports` of a shop file."""

import re
from collections.abc import Iterable
from itertools import combinations
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, field_validator

from nightshelf.errors import InputError
from nightshelf.yamlfile import Strict

# What nightshelf keeps below a shop's home.
OWN_FOLDERS = (
    "checkpoints", "data_docs", "download", "keys", "logs", "mlflow", "models", "raw", "reports", "shelf_parts", "tmp", "truth",
    "warehouse",
)  # fmt: skip
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

    def below(self, home: Path) -> Path:
        """Return the folder: a relative one starts at the shop's home."""
        return home / self.folder


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


def check_folders(exports: Iterable[Export], home: Path, shop_file: Path | str) -> None:
    """See to it that each folder of exports is its own: what lies in one is taken for its versions, and swept.

    Raises:
        InputError: one is the shop's home, holds it, or lies where nightshelf keeps its own; or two are one, or one in the other.
    """
    drops = [(export.place, export.below(home).resolve()) for export in exports if isinstance(export, ParquetDrop)]
    for place, drop in drops:
        taken = _taken(drop, home.resolve())
        if taken is not None:
            raise InputError(
                f"{shop_file}: exports: {place} is not its own: {taken} is nightshelf's; name one apart from it, e.g. drop"
            )
    for (one, drop), (other, second) in combinations(drops, 2):
        if _overlap(drop, second):
            raise InputError(
                f"{shop_file}: exports: {one} and {other} are one, or one lies in the other; give each its own, side by side"
            )


def _taken(drop: Path, home: Path) -> Path | None:
    if home.is_relative_to(drop):
        return home
    own = [(home / name).resolve() for name in OWN_FOLDERS]
    return next((folder for folder in own if _overlap(drop, folder)), None)


def _overlap(one: Path, other: Path) -> bool:
    return one.is_relative_to(other) or other.is_relative_to(one)
