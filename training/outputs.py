"""Which numbers the towers say, and which outcomes are products of others: both follow from the tasks, their losses and relation.

The first outputs are the tasks' own logits, in the order of the tasks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from training.recipe import TaskRelation
    from training.spec import TaskSpec


# Relations by which a binary task with `given` is predicted as one number of its own, not as a product of the chain.
_DIRECT: tuple[TaskRelation, ...] = ("independent", "aitm")

Role = Literal["own", "imputation", "counterfactual", "positive", "spread"]
# What a relation's towers say of a task with `given` beside its own logit.
_ROLES: dict[TaskRelation, tuple[Role, ...]] = {"escm2_dr": ("imputation",), "dcmt": ("counterfactual",)}
# And of a value that is 0 or lognormal beside the mean of its log.
_VALUE_ROLES: tuple[Role, ...] = ("positive", "spread")


@dataclass(frozen=True)
class Output:
    """One number that a tower says of a task."""

    task: int  # the place of the task whose mixture the tower reads
    role: Role = "own"
    hears_position: bool = False


def factors(tasks: list[TaskSpec], relation: TaskRelation) -> list[int | None]:
    """Return for each task the place of the task whose probability is a factor of its outcome; None if it has none.

    A regression keeps the chain in every relation: a value is expected after what it is given.
    """
    names = [task.name for task in tasks]
    return [
        None if task.given is None or (task.kind == "binary" and relation in _DIRECT) else names.index(task.given)
        for task in tasks
    ]


def conversions(tasks: list[TaskSpec]) -> dict[int, int]:
    """Return binary task → the task that it is given, by their places; each stands behind that one."""
    names = [task.name for task in tasks]
    return {place: names.index(t.given) for place, t in enumerate(tasks) if t.given and t.kind == "binary"}


def outputs_of(tasks: list[TaskSpec], relation: TaskRelation) -> list[Output]:
    """Return what the towers of a model say.

    A place in the list decides whether an item is seen, not what follows a click: probabilities without a factor hear it.
    """
    each = enumerate(zip(tasks, factors(tasks, relation), strict=True))
    own = [Output(place, hears_position=factor is None and task.kind == "binary") for place, (task, factor) in each]
    of_relation = [Output(place, role) for place in conversions(tasks) for role in _ROLES.get(relation, ())]
    values = [place for place, task in enumerate(tasks) if task.loss == "zero_inflated_lognormal"]
    return [*own, *of_relation, *(Output(place, role) for place in values for role in _VALUE_ROLES)]
