"""What a night's work runs on: the parts `spark`, `training` and `serving` of a shop file."""

import re
from typing import Literal

from pydantic import Field, field_validator, model_validator

from nightshelf.yamlfile import Strict


class Spark(Strict):
    """Where the feature jobs run: Spark here or on a cluster (`master`), at a Spark Connect server (`remote`), or Sail."""

    engine: Literal["spark", "sail"] = "spark"
    master: str = "local[*]"
    remote: str | None = None
    driver_memory: str = "2g"
    shuffle_partitions: int = Field(4, ge=1)

    @field_validator("remote")
    @classmethod
    def _remote(cls, value: str | None) -> str | None:
        if value is not None and not value.startswith("sc://"):
            raise ValueError("is no address of a Spark Connect server; write sc://host:port")
        return value

    @field_validator("driver_memory")
    @classmethod
    def _memory(cls, value: str) -> str:
        if not re.fullmatch(r"[1-9]\d*[kmgt]b?", value.lower()):
            raise ValueError("is no amount of memory; write one such as 512m or 2g")
        return value

    @model_validator(mode="after")
    def _one_place(self) -> "Spark":
        if self.remote is not None and self.engine == "sail":
            raise ValueError("Sail runs inside the night's own process; take `remote` out, or `engine: sail`")
        if "master" in self.model_fields_set and (self.remote is not None or self.engine == "sail"):
            other = "`engine: sail`" if self.remote is None else "`remote`"
            raise ValueError(f"`master` and {other} both say where the jobs run; take one of them out")
        return self


class Training(Strict):
    """How `train` trains. processes: how many of the machine share each batch, on an accelerator of its own each."""

    processes: int = Field(1, ge=1, le=64)


class Serving(Strict):
    """How `recommend` fills the shelves of users.

    users_at_once: how many of them a process has in memory, at most. engine: whether processes of the night's own machine serve
    them, one a core, or the tasks of a Spark job. tasks: how many Airflow tasks serve them side by side before `recommend`.
    """

    users_at_once: int = Field(25_000, ge=1)
    engine: Literal["process", "spark"] = "process"
    tasks: int = Field(1, ge=1, le=100)
