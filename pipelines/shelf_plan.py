"""All that the shelves of users are made of, known before the first of them is made.

Whoever has the plan makes the same rows, in whatever process, on whatever machine that reads the shop's home: it names the files,
and the files of published tables never change.
"""

import datetime as dt
import hashlib
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
from pyarrow import dataset

from nightshelf.blocked import blocked_items
from nightshelf.config import Shop
from nightshelf.dates import days_back
from nightshelf.errors import InputError
from nightshelf.exclusions import acted_on
from nightshelf.features import request_scenarios
from nightshelf.logs import get_logger
from nightshelf.paths import artifact_dir, shelf_parts_dir, tracking_uri
from pipelines.anchor_lifts import nearness_lifts
from pipelines.candidate_lists import CANDIDATE_TABLES
from pipelines.candidate_quotas import quotas_of
from pipelines.code_version import code_version
from pipelines.example_days import example_window_of
from pipelines.models import champion_of, registered_name
from pipelines.stage import Night
from pipelines.user_shards import UserShard, user_shards
from pipelines.validate import connect

POPULARITY = "popularity"
FEATURE_TABLES = ("user_features", "item_features", "item_scenario_features", "user_sequences", "vocabularies")


@dataclass(frozen=True)
class ShelfPlan:
    """The shelves of users of one night.

    scenarios: those whose shelves are wanted, in the order of the shop file. version: the champion, None while there is none.
    model: its folder, wherever that lies. files: table → the files of the night. acted: rule → event type, and the files of
    `events` that tell who did it. blocked: items. beside: scenario with an anchor → lifts by nearness
    (pipelines/anchor_lifts.py). quotas: scenario → generator → how many of its best proposals to a user are ranked, of those
    that are cut. leaning: scenario → share of the first scenario's score in its own. The last three are of all scenarios,
    whatever is wanted: one shelf is the same alone and among all. shards: of the users. code: the version of the code.
    """

    shop: Shop
    as_of_date: dt.date
    scenarios: tuple[str, ...]
    version: str | None
    model: Path | None
    files: dict[str, tuple[str, ...]]
    acted: dict[str, tuple[str, tuple[str, ...]]]
    blocked: frozenset[str]
    beside: dict[str, tuple[float, ...]]
    quotas: dict[str, dict[str, int]]
    leaning: dict[str, float]
    shards: tuple[UserShard, ...]
    code: str = field(default_factory=code_version)

    @property
    def folder(self) -> Path:
        """Return the folder of the plan's parts; a plan that differs in anything has another one."""
        rules = [
            {name: rule.model_dump(mode="json") for name, rule in of.items()}
            for of in (self.shop.scenarios, self.shop.tasks)
        ]
        told = [
            rules,
            self.scenarios,
            self.version,
            self.files,
            self.acted,
            sorted(self.blocked),
            self.beside,
            self.quotas,
            self.leaning,
            self.shards,
            self.code,
        ]
        name = hashlib.sha256(repr(told).encode()).hexdigest()[:16]
        return shelf_parts_dir(self.shop) / f"{self.as_of_date}-{name}"

    @property
    def ranked(self) -> tuple[str, ...]:
        """Return the scenarios that the wanted shelves hang on, in the order of the shop file.

        Those are their own; the first, in which the first look is taken; and all before one whose `repeats` counts their shelves.
        """
        names, wanted = list(self.shop.scenarios), self.scenarios
        counting = [
            place for place, name in enumerate(names) if name in wanted and self.shop.scenarios[name].rerank.repeats
        ]
        before = names[: max([1, *counting])]
        return tuple(name for name in names if name in before or name in wanted)

    @property
    def model_version(self) -> str:
        """Return what rows tell of who ranked them."""
        return self.version or POPULARITY

    def part(self, number: int) -> Path:
        """Return the folder of the finished shelves of a shard."""
        return self.folder / f"{number:05}"

    def missing(self) -> list[int]:
        """Return the shards whose shelves nobody has finished."""
        return [number for number in range(len(self.shards)) if not self.part(number).exists()]

    def read(self, table: str, columns: tuple[str, ...]) -> pa.Table:
        """Return columns of a table of the night, small enough to be held as a whole."""
        return dataset.dataset(list(self.files[table])).to_table(columns=list(columns))


def plan_shelves(night: Night) -> ShelfPlan:
    """Return the plan of a night's shelves as things stand: its champion, its files.

    Raises:
        InputError: candidates or features are missing, or the file of blocked items is.
        EngineError: the registry cannot be read.
    """
    from training.tracking import ensure_tracker

    shop, day = night.shop, night.as_of_date
    tables = (*CANDIDATE_TABLES, *FEATURE_TABLES, "items")
    files = {table: tuple(night.warehouse.files(table, [day])) for table in tables}
    if not any(files[table] for table in CANDIDATE_TABLES):
        raise InputError(f"there are no candidates of {day}; run `nightshelf stage features` first")
    _check_scenarios(night, files["candidates"])
    if not files["user_features"]:
        raise InputError(f"table user_features: no rows of {day}; run the features stage for that night first")
    ensure_tracker(tracking_uri(shop), artifact_dir(shop))
    version, model = _champion(night)
    keys = dataset.dataset(list(files["user_features"])).to_table(columns=["user_key"])["user_key"].combine_chunks()
    rules = {rule for scenario in shop.scenarios.values() for rule in scenario.exclude}
    acted = {rule: found for rule in sorted(rules) if (found := acted_on(rule))}
    return ShelfPlan(
        shop=shop,
        as_of_date=day,
        scenarios=tuple(name for name in shop.scenarios if name in (night.scenarios or shop.scenarios)),
        version=version,
        model=model,
        files=files,
        acted={
            rule: (event, tuple(night.warehouse.files("events", days_back(day, days))))
            for rule, (event, days) in acted.items()
        },
        blocked=frozenset(blocked_items(shop)),
        beside=_beside(night) if version is not None else {},
        quotas=quotas_of(night),
        leaning=_leaning(night) if version is not None else {},
        shards=user_shards(keys, shop.serving.users_at_once),
    )


def _champion(night: Night) -> tuple[str | None, Path | None]:
    """Return the version that ranks and its folder, None while there is none, or none that fits the shop file."""
    from training.artifact import SERVING, load_spec
    from training.shop_fit import why_not_ranking
    from training.tracking import download

    version = champion_of(night)
    if version is None:
        why = "no version has passed the gate yet"
    else:
        model = download(registered_name(night), version) / SERVING
        other = why_not_ranking(load_spec(model), night.shop)
        if not other:
            return version, model
        why = f"the champion, version {version}, is of another shop file ({other}) and no later one has passed the gate yet"
    get_logger("recommend").warning("%s: the shelves show what is popular in the scenario and near to the user", why)
    return None, None


def _check_scenarios(night: Night, candidates: tuple[str, ...]) -> None:
    """Refuse candidates that were made for other scenarios than the shop file has."""
    if not candidates:
        return
    of_all = dataset.dataset(list(candidates)).to_table(columns=["scenario"], filter=dataset.field("user_key") == "*")
    found = set(of_all["scenario"].unique().to_pylist())
    lacking = [name for name in night.scenarios or night.shop.scenarios if name not in found]
    if found and lacking:
        raise InputError(
            f"scenario {lacking[0]!r} has no candidates of {night.as_of_date}: they were made with another shop file; "
            "run the features stage again with this one"
        )


def _beside(night: Night) -> dict[str, tuple[float, ...]]:
    """Return the lifts of the scenarios with an anchor that no request names, which the ranker has learnt of otherwise."""
    asked = request_scenarios(night.shop)
    return {name: nearness_lifts(night, name) for name in night.shop.anchors if name not in asked}


def _leaning(night: Night) -> dict[str, float]:
    """Return how much of the first scenario's score, moved to another one, is in that one's own.

    The model knows a user's taste in a scenario the worse, the fewer examples it has learnt from there; with n of the one, and m
    of the first of users who came to both, the share is m / (n + m); all of it where nobody has come yet. What a request is about
    the first scenario does not know: those that answer one go by their own.
    """
    first, *others = night.shop.scenarios
    asked = request_scenarios(night.shop)
    files = night.warehouse.files("training_examples", example_window_of(night).days)
    if first in asked or not files:
        return {}
    query = """
        WITH by_user AS (
            SELECT scenario, user_key, count(*) AS rows FROM read_parquet($files, union_by_name = true) GROUP BY ALL
        )
        SELECT own.scenario, sum(own.rows), coalesce(sum(firsts.rows), 0)
        FROM by_user own LEFT JOIN by_user firsts ON firsts.user_key = own.user_key AND firsts.scenario = $first
        GROUP BY own.scenario"""
    found = connect(night).execute(query, {"files": files, "first": first}).fetchall()
    shares = {name: round(float(of_first / (own + of_first)), 6) for name, own, of_first in found}
    return {name: shares.get(name, 1.0) for name in others if name not in asked}
