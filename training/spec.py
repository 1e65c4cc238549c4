"""What a trained ranker is made of, by name and size: enough to build it again and to read its inputs in order."""

from typing import Literal

from pydantic import BaseModel, ConfigDict

from nightshelf.config import Shop
from nightshelf.errors import InputError
from nightshelf.feature_tables import OOV_BUCKETS
from nightshelf.features import (
    PRICE_BANDS,
    index_features,
    item_dense,
    item_scenario_dense,
    sequence_events,
    user_dense,
)
from nightshelf.tasks import Sampled
from training.drawn import corrects_draws
from training.normalization import NormalizationSpec
from training.recipe import Recipe, TaskRelation
from training.vocabulary import Vocabulary

# The first of a kind is its own: what it is measured by, and trained by unless the recipe chooses another.
LOSSES = {
    "binary": ("cross_entropy", "focal", "pairwise"),
    "regression": ("tweedie", "huber", "squared_error", "zero_inflated_lognormal"),
}


class TaskSpec(BaseModel):
    """A task as the heads see it, and what its error costs in training."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    kind: Literal["binary", "regression"]
    given: str | None = None
    chosen_loss: str | None = None

    @property
    def loss(self) -> str:
        """Return the name of its loss."""
        return self.chosen_loss or LOSSES[self.kind][0]

    def measured(self) -> "TaskSpec":
        """Return the task with the loss of its kind."""
        return self.model_copy(update={"chosen_loss": None})


class ModelSpec(BaseModel):
    """Everything but the weights. Fields are categorical features; `sizes` count their ids with 0 = unknown."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    recipe: Recipe
    tasks: list[TaskSpec]
    scenarios: list[str]
    events: list[str]
    user_fields: dict[str, int]
    item_fields: dict[str, int]
    user_dense: list[str]
    target_dense: list[str]
    normalization: NormalizationSpec
    as_of_date: str
    oov_buckets: int = 0  # a model from before there were any
    corrects_draws: bool = False  # whether training makes up for how readily an item is drawn as a negative
    rebuys: bool = False  # whether it reads what a user may want again

    def scenario_index(self, scenario: str) -> int:
        """Return 1 + the place of a scenario; 0 for one that the model has never seen."""
        return self.scenarios.index(scenario) + 1 if scenario in self.scenarios else 0


def order_tasks(shop: Shop) -> list[TaskSpec]:
    """Return the shop's tasks with every `given` before those that build on it.

    Raises:
        InputError: tasks are given in a circle, or one is given a regression.
    """
    ordered: dict[str, TaskSpec] = {}
    waiting = dict(shop.tasks)
    while waiting:
        ready = [name for name, task in waiting.items() if task.given is None or task.given in ordered]
        if not ready:
            raise InputError(
                f"tasks {', '.join(waiting)}: each is given another; let one of them stand without `given`"
            )
        for name in ready:
            task = waiting.pop(name)
            if task.given and ordered[task.given].kind == "regression":
                raise InputError(f"tasks.{name}.given = {task.given!r} is a regression; name a binary task")
            ordered[name] = TaskSpec(name=name, kind=task.kind, given=task.given)
    return list(ordered.values())


def field_names(shop: Shop) -> tuple[list[str], list[str]]:
    """Return the categorical columns of users and of items, in the order of nightshelf.features."""
    features = index_features(shop)
    return [f.name for f in features if f.owner == "user"], [f.name for f in features if f.owner == "item"]


def field_sizes(shop: Shop, vocabularies: dict[str, Vocabulary]) -> dict[str, int]:
    """Return column → number of ids; a field without a vocabulary is the price band."""
    return {f.name: len(vocabularies[f.name]) if f.vocabulary else PRICE_BANDS + 1 for f in index_features(shop)}


def dense_names(shop: Shop) -> tuple[list[str], list[str]]:
    """Return the dense columns of the user and of the target (the item, and the item inside the scenario)."""
    return [f.name for f in user_dense(shop)], [f.name for f in [*item_dense(shop), *item_scenario_dense(shop)]]


def model_spec(
    shop: Shop,
    recipe: Recipe,
    vocabularies: dict[str, Vocabulary],
    normalization: NormalizationSpec,
    as_of_date: str,
) -> ModelSpec:
    """Describe the ranker of a shop.

    Raises:
        InputError: the recipe chooses a loss for a task that the shop has not, or one of another kind of task; or a relation
            that means nothing for the shop's tasks.
    """
    tasks = order_tasks(shop)
    _check_relation(shop, tasks, recipe.task_relation)
    sizes = field_sizes(shop, vocabularies)
    users, items = field_names(shop)
    for name in recipe.unread:
        sizes[name] = 1  # every id is unknown; history matching still sees it
    user_names, target_names = dense_names(shop)
    return ModelSpec(
        recipe=recipe,
        tasks=_with_losses(tasks, recipe),
        scenarios=list(shop.scenarios),
        events=sequence_events(shop),
        user_fields={name: sizes[name] for name in users},
        item_fields={name: sizes[name] for name in items},
        user_dense=user_names,
        target_dense=target_names,
        normalization=normalization,
        as_of_date=as_of_date,
        oov_buckets=OOV_BUCKETS,
        corrects_draws=corrects_draws(shop),
        rebuys=shop.rebuy is not None,
    )


def _check_relation(shop: Shop, tasks: list[TaskSpec], relation: TaskRelation) -> None:
    given = [task.name for task in tasks if task.given and task.kind == "binary"]
    if relation not in ("esmm", "independent") and not given:
        raise InputError(
            f"task_relation = {relation!r} is about binary tasks that are `given` another, and this shop has none: "
            "say in the shop file what a task is `given`, or take esmm"
        )
    drawn = isinstance(shop.negatives, Sampled)
    partly = [name for name in given if drawn or shop.tasks[name].on == "any_item"]
    if relation in ("escm2_ipw", "escm2_dr", "dcmt") and partly:
        why = "negatives are drawn" if drawn else "`on: any_item`"
        raise InputError(
            f"task_relation = {relation!r} needs the labels of all impressions, and those of {', '.join(partly)} ({why}) are "
            "known only where what it is given happened: take esmm, independent or aitm"
        )


def _with_losses(tasks: list[TaskSpec], recipe: Recipe) -> list[TaskSpec]:
    kinds = {task.name: task.kind for task in tasks}
    for name, loss in recipe.losses.items():
        if name not in kinds:
            raise InputError(f"losses: {name!r} is no task of this shop; known: {', '.join(kinds)}")
        if loss not in LOSSES[kinds[name]]:
            allowed = ", ".join(LOSSES[kinds[name]])
            raise InputError(f"losses.{name} = {loss!r} is none of a {kinds[name]} task; known: {allowed}")
    return [task.model_copy(update={"chosen_loss": recipe.losses.get(task.name)}) for task in tasks]
