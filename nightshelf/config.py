"""The shop file: the contract with the person who brings logs. One YAML file is one shop (see conf/shops/demo.yaml)."""

import datetime as dt
import os
from pathlib import Path
from typing import Annotated, Literal
from zoneinfo import ZoneInfo

from pydantic import Field, field_validator, model_validator

from nightshelf.checks import Checks
from nightshelf.closed_days import WEEKDAYS, Closed
from nightshelf.dates import parse_duration
from nightshelf.engines import Serving, Spark, Training
from nightshelf.errors import InputError
from nightshelf.exclusions import acted_on, highest_price
from nightshelf.exports import Export, check_folders
from nightshelf.generators import GENERATOR_ORDER
from nightshelf.quarantine import Quarantine
from nightshelf.raw_logs import FINITE, ITEM_COLUMNS, Dimension, Duration, Graph, Source
from nightshelf.rebuy import Rebuy
from nightshelf.retention import Keep
from nightshelf.scenarios import Scenario
from nightshelf.tasks import Sampled, Task
from nightshelf.yamlfile import Name, Strict, load_model, nearest


class Vocabularies(Strict):
    """Which categorical values get an id of their own, and for how long.

    min_count: vocabulary → the fewest events of a user, the fewest queries with a word (3 unless told), or the fewest items
    (or users) that bear the value in one day's table; rarer values share ids. A value that nobody has seen for
    `evict_after_days`, nor in any day that the night still reads, loses its id; another value gets that id no sooner
    than `reuse_after_days`, or `history_days`, later.
    """

    min_count: dict[str, Annotated[int, Field(ge=1)]] = Field({})
    evict_after_days: int = Field(90, ge=1)
    reuse_after_days: int = Field(30, ge=0)


class Privacy(Strict):
    """Where the key for user ids comes from: an environment variable that holds it, or else a file below home."""

    key_env: str = "NIGHTSHELF_ID_KEY"


class Shop(Strict):
    """One shop: its logs, its tasks, its scenarios."""

    shop: Name
    home: Path
    timezone: str
    sources: list[Source] = Field(min_length=1)
    closed: Closed = Closed()
    items: Dimension | None = None
    users: Dimension | None = None
    graph: Graph | None = None
    blocked: str | None = None
    negatives: Literal["impressions"] | Sampled = "impressions"
    attribution: Literal["last_touch", "first_touch"] = "last_touch"
    session_gap: Duration = "30m"
    tasks: dict[Name, Task] = Field(min_length=1)
    scenarios: dict[Name, Scenario] = Field(min_length=1)
    model: Path = Path("conf/models/ple.yaml")
    retrieval: Path | None = None
    history_days: int = Field(14, ge=2, le=400)
    rebuy: Rebuy | None = None
    quarantine: Quarantine = Quarantine()
    checks: Checks = Checks()
    vocabularies: Vocabularies = Vocabularies()
    spark: Spark = Spark()
    training: Training = Training()
    serving: Serving = Serving()
    keep: Keep = Keep()
    exports: list[Export] = Field([])
    privacy: Privacy = Privacy()

    @field_validator("timezone")
    @classmethod
    def _zone(cls, value: str) -> str:
        try:
            ZoneInfo(value)
        except (ValueError, OSError, KeyError):
            raise ValueError("is no time zone; write a name such as Asia/Shanghai or UTC") from None
        return value

    @field_validator("session_gap")
    @classmethod
    def _a_minute_at_least(cls, gap: str) -> str:
        if parse_duration(gap) < dt.timedelta(minutes=1):
            raise ValueError(f"{gap!r} is shorter than a minute; write a pause such as 30m")
        return gap

    @model_validator(mode="after")
    def _names_agree(self) -> "Shop":
        for name, task in self.tasks.items():
            if task.event not in self.event_types:
                known = ", ".join(self.event_types)
                raise ValueError(f"tasks.{name}.event: no log has {task.event!r}; event types: {known}")
            if task.given is not None and (task.given not in self.tasks or task.given == name):
                raise ValueError(
                    f"tasks.{name}.given = {task.given!r} is no other task; known: {', '.join(self.tasks)}"
                )
        for name, scenario in self.scenarios.items():
            if not any(scenario.utility.values()):
                raise ValueError(
                    f"scenarios.{name}.utility weighs nothing; write what a task is worth, e.g. {{{next(iter(self.tasks))}: 1}}"
                )
            if scenario.rank_by and not any(scenario.rank_by.values()):
                raise ValueError(f"scenarios.{name}.rank_by weighs nothing; give a task a weight, or take rank_by out")
            for key, weights in (("utility", scenario.utility), ("rank_by", scenario.rank_by)):
                for task_name, weight in weights.items():
                    if not abs(weight) <= FINITE:
                        raise ValueError(f"scenarios.{name}.{key}.{task_name} = {weight}; write a number")
                    if task_name not in self.tasks:
                        known = ", ".join(self.tasks)
                        raise ValueError(f"scenarios.{name}.{key}: {task_name!r} is no task; known: {known}")
            for rule in scenario.exclude:
                acted = acted_on(rule)
                if acted and acted[0] not in self.event_types:
                    known = ", ".join(self.event_types)
                    raise ValueError(
                        f"scenarios.{name}.exclude: {rule!r}: no log has {acted[0]!r}; event types: {known}"
                    )
            self._check_catalogue(name, scenario)
            groups = ["category_1", "category_2", "category_3", "brand"]
            groups += [f"attribute_{attribute}" for attribute in (self.items.attributes if self.items else [])]
            for rule in ("most_per", "least"):
                for column in getattr(scenario.rerank, rule):
                    if column not in groups:
                        raise ValueError(
                            f"scenarios.{name}.rerank.{rule}: {column!r} is unknown; known: {', '.join(groups)}"
                        )
            self._check_anchor(name, scenario)
            self._check_quotas(name, scenario)
        for source in self.sources:
            for scenario_name in source.scenarios:
                if scenario_name not in self.scenarios:
                    known = ", ".join(self.scenarios)
                    raise ValueError(
                        f"sources.{source.name}.scenario: {scenario_name!r} is no scenario; known: {known}"
                    )
        if self.negatives == "impressions" and "impression" not in self.event_types:
            raise ValueError(
                "no log has impressions; write `negatives: {sampled: 4}`, so that what was not chosen is drawn"
            )
        for name in self.quarantine.orphans:
            if name == "impression" or name not in self.event_types or "impression" not in self.event_types:
                raise ValueError(
                    f"quarantine.orphans: {name!r} is no outcome beside impressions; event types: {', '.join(self.event_types)}"
                )
        chosen = [event for event in self.event_types if event != "impression"]
        if self.rebuy and self.rebuy.event not in chosen:
            raise ValueError(f"rebuy.event: no log tells of {self.rebuy.event!r}; known: {', '.join(chosen)}")
        self._check_cuts()
        self._check_exports()
        self._check_dimensions()
        if self.items and self.items.consent:
            raise ValueError("items.consent: an item does not agree; write it below users")
        if len({source.name for source in self.sources}) < len(self.sources):
            raise ValueError("two sources bear one name; give each its own")
        for source in self.sources:
            if source.name in ("items", "users", "graph"):
                raise ValueError(f"sources: {source.name!r} is the name of another part of the shop file; give another")
        return self

    def _check_dimensions(self) -> None:
        for table, needed in (("items", "item_id"), ("users", "user_id")):
            dimension: Dimension | None = getattr(self, table)
            if dimension and needed not in dimension.columns:
                raise ValueError(
                    f"{table}.columns: the column for {needed!r} is missing; add it, e.g. {{{needed}: id}}"
                )
        for name in self.items.columns if self.items else {}:
            if name not in ITEM_COLUMNS:
                raise ValueError(
                    f"items.columns: {name!r} is no column of a catalogue; {nearest(name, list(ITEM_COLUMNS))} What else it has "
                    "can stand below items.attributes"
                )

    def _check_catalogue(self, name: str, scenario: Scenario) -> None:
        known = self.items.columns if self.items else {}
        asks = [("price", f"exclude: {rule!r}") for rule in scenario.exclude if highest_price(rule) is not None]
        asks += [("launch_date", "rerank.fresh")] if scenario.rerank.fresh else []
        for column, where in asks:
            if column not in known:
                raise ValueError(
                    f"scenarios.{name}.{where} asks the catalogue's {column}, of which the shop file says nothing; write it "
                    f"below items.columns, e.g. {{{column}: {column}}}"
                )

    def _check_anchor(self, name: str, scenario: Scenario) -> None:
        known = [event for event in self.event_types if event != "impression"]
        if any("anchor_item_id" in source.columns for source in self.sources):
            known.append("viewed")
        if scenario.anchor is not None and scenario.anchor not in known:
            raise ValueError(f"scenarios.{name}.anchor: no log tells of {scenario.anchor!r}; known: {', '.join(known)}")

    def _check_quotas(self, name: str, scenario: Scenario) -> None:
        quotas, place = scenario.candidates.quotas, f"scenarios.{name}.candidates.quotas"
        if "two_tower" in quotas and self.retrieval is None:
            raise ValueError(
                f"{place}: nobody proposes 'two_tower' without a model; add `retrieval: conf/retrieval/two_tower.yaml`, or take "
                "it out"
            )
        if "rebuy" in quotas and self.rebuy is None:
            raise ValueError(
                f"{place}: nobody proposes 'rebuy' until the shop file says what is bought again; add "
                "`rebuy: {event: purchase}`, or take it out"
            )
        if quotas.get("popular", scenario.top_n) < scenario.top_n:
            raise ValueError(
                f"{place}: 'popular' = {quotas['popular']} fills no shelf of {scenario.top_n} for whoever has no history; write "
                f"{scenario.top_n} or more, or take it out"
            )
        if quotas.get("fresh") == 0 and scenario.rerank.explore:
            raise ValueError(f"{place}: 'fresh' = 0 leaves rerank.explore nothing to draw from; take one of them out")

    def _check_exports(self) -> None:
        places = [export.place for export in self.exports]
        for export in self.exports:
            if places.count(export.place) > 1:
                raise ValueError(f"exports: two write to {export.place}; give each its own")
            if export.table == "item_recommendations" and not self.anchors:
                raise ValueError(
                    "exports: there are no item_recommendations; give a scenario an `anchor`, or take that export out"
                )

    def _check_cuts(self) -> None:
        from nightshelf.features import QUERY_TOKEN, index_features

        known = [*(feature.vocabulary for feature in index_features(self) if feature.vocabulary), QUERY_TOKEN]
        for name in self.vocabularies.min_count:
            if name == "item":
                raise ValueError(
                    "vocabularies.min_count: histories tell items apart by their ids, so that each needs its own; take 'item' out"
                )
            if name not in known:
                raise ValueError(f"vocabularies.min_count: {name!r} is no vocabulary; known: {', '.join(known)}")

    @property
    def anchors(self) -> dict[str, str]:
        """Return scenario → act, of the scenarios whose items get shelves."""
        return {name: scenario.anchor for name, scenario in self.scenarios.items() if scenario.anchor}

    @property
    def event_types(self) -> list[str]:
        """Return every event type that the sources can write."""
        return sorted({name for source in self.sources for name in source.event_types})

    @property
    def generators(self) -> list[str]:
        """Return who proposes candidates, in the order of GENERATOR_ORDER."""
        asked = {"two_tower": self.retrieval, "rebuy": self.rebuy}
        return [name for name in GENERATOR_ORDER if asked.get(name, True)]

    def is_closed(self, day: dt.date) -> bool:
        """Say whether the shop was closed on `day`, so that a day without logs is no fault."""
        return day in self.closed.dates or WEEKDAYS[day.weekday()] in self.closed.weekdays


def load_shop(path: Path | str) -> Shop:
    """Read a shop file; `$NIGHTSHELF_HOME`, if set, overrides its home, and `$NIGHTSHELF_SPARK_MASTER` where its Spark runs.

    A relative home or model file starts at the working directory; a model file that is not there is looked for in
    nightshelf's own folder, so that a shop file may lie anywhere.

    Raises:
        InputError: the file is missing or a key in it is unknown, missing or wrong, the master has no Spark to override, or an
            export has no folder of its own below that home.
    """
    shop = load_model(Path(path), Shop)
    home = Path(os.environ.get("NIGHTSHELF_HOME") or shop.home).expanduser().absolute()
    check_folders(shop.exports, home, path)
    model, retrieval = _found(shop.model), shop.retrieval and _found(shop.retrieval)
    spark = _with_master(shop.spark, os.environ.get("NIGHTSHELF_SPARK_MASTER"), path)
    return shop.model_copy(update={"home": home, "model": model, "retrieval": retrieval, "spark": spark})


def _found(recipe: Path) -> Path:
    """Return a model file: from the working directory, or from nightshelf's own folder."""
    return recipe if recipe.exists() else Path(__file__).resolve().parent.parent / recipe


def _with_master(spark: Spark, master: str | None, path: Path | str) -> Spark:
    if not master:
        return spark
    if spark.remote or spark.engine == "sail":
        # What follows the address of a server may be a token
        place = f"remote: {spark.remote.split('/;')[0]}" if spark.remote else "engine: sail"
        raise InputError(
            f"{path}: spark: {{{place}}} and $NIGHTSHELF_SPARK_MASTER = {master} both say where the jobs run; "
            "unset the variable, or take the key out of the shop file"
        )
    return spark.model_copy(update={"master": master})
