"""From one night to another: a warm start from a parent's weights, and a model that reads the ids of a later night.

Ids are stable, so that a grown table keeps its old rows. What got its id after the model's own night is known to that
model by its bucket alone, and if the id was another value's before, its row is that other value's.
"""

import datetime as dt
from pathlib import Path

import numpy as np
import torch

from nightshelf.errors import EngineError
from nightshelf.logs import get_logger
from training.artifact import load_model
from training.data import Examples
from training.outputs import outputs_of
from training.ranking_model import RankingModel
from training.spec import ModelSpec
from training.vocabulary import Vocabulary

log = get_logger("train")


def warm_start(model: RankingModel, parent: Path | None, examples: Examples) -> bool:
    """Copy the parent's weights where the recipe asks for it and they fit; say which."""
    if parent is None or not model.spec.recipe.warm_start:
        return False
    try:
        ancestor = load_model(parent)
    except EngineError as error:
        log.warning("fresh start: %s", error)
        return False
    reason = why_incompatible(ancestor.spec, model.spec)
    if not all(weight.isfinite().all() for weight in ancestor.state_dict().values()):
        reason = "a weight of it is not finite"
    if reason:
        log.warning("fresh start: the parent of %s does not fit: %s", ancestor.spec.as_of_date, reason)
        return False
    log.info(
        "warm start from the model of %s, %d new embedding rows",
        ancestor.spec.as_of_date,
        copy_weights(ancestor, model, examples.vocabularies),
    )
    return True


def why_incompatible(parent: ModelSpec, child: ModelSpec) -> str:
    """Return why a parent's weights mean something else in the child; empty if they do not."""
    same_shape = (
        "embedding_size",
        "attention_size",
        "match_decay_days",
        "towers",
        "tower_sizes",
        "sequence_encoder",
        "task_relation",
        "backbone",
    )
    for name in same_shape:
        if getattr(parent.recipe, name) != getattr(child.recipe, name):
            return f"recipe.{name} was {getattr(parent.recipe, name)!r} and is {getattr(child.recipe, name)!r}"
    buckets = [{name: len(edges) for name, edges in spec.normalization.edges.items()} for spec in (parent, child)]
    if buckets[0] != buckets[1]:
        return f"the number of edges between buckets was {buckets[0]} and is {buckets[1]}"
    if [task.measured() for task in parent.tasks] != [task.measured() for task in child.tasks]:
        return "the shop's tasks have changed"
    outputs = [outputs_of(spec.tasks, spec.recipe.task_relation) for spec in (parent, child)]
    if outputs[0] != outputs[1]:
        return "the towers say other numbers, as recipe.losses asks"
    for name in ("scenarios", "events", "user_dense", "target_dense", "oov_buckets", "rebuys", "corrects_draws"):
        if getattr(parent, name) != getattr(child, name):
            return f"the shop's {name} have changed"
    for name in ("user_fields", "item_fields"):
        if list(getattr(parent, name)) != list(getattr(child, name)):
            return f"the shop's {name} have changed"
    return ""


def read_night(model: RankingModel, vocabularies: dict[str, Vocabulary]) -> None:
    """Let a model read the ids of another night, given by column: values that it never met are read as their buckets."""
    model.fields.read_ids(_known_ids(model.spec, vocabularies))


@torch.no_grad()
def copy_weights(parent: RankingModel, child: RankingModel, vocabularies: dict[str, Vocabulary]) -> int:
    """Copy the parent's weights into a compatible child; a value that the parent never met begins as its bucket.

    Args:
        parent, child: the models.
        vocabularies: column → the ids of the child's night.

    Returns:
        the number of embedding rows of values that the parent never met.
    """
    grown = _copy_rows(parent, child, vocabularies)
    theirs = parent.state_dict()
    # The table has grown; topics are fitted anew each night.
    kept = {name: tensor for name, tensor in theirs.items() if not name.startswith(("fields.", "topics."))}
    child.load_state_dict({**child.state_dict(), **kept})
    return grown


def _copy_rows(parent: RankingModel, child: RankingModel, vocabularies: dict[str, Vocabulary]) -> int:
    old, new, strangers = parent.fields, child.fields, 0
    known = _known_ids(parent.spec, vocabularies)
    for field, size in enumerate(new.sizes.tolist()):
        ids, own = torch.arange(size), known[field][:size]
        is_there = own < old.sizes[field]  # what a parent left unread has no row
        rows = ids[is_there] + new.offsets[field]
        new.table.weight[rows] = old.table.weight[own[is_there] + old.offsets[field]]
        strangers += int(((own != ids) | ~is_there).sum())
    return strangers


def _known_ids(spec: ModelSpec, vocabularies: dict[str, Vocabulary]) -> list[torch.Tensor]:
    """Return per field of the model, by the ids of the night, its own ids."""
    night = dt.date.fromisoformat(spec.as_of_date)
    sizes = {**spec.user_fields, **spec.item_fields}  # a field without a vocabulary has the same ids every night
    known = [vocabularies[name].as_of(night) if name in vocabularies else np.arange(n) for name, n in sizes.items()]
    return [torch.from_numpy(ids) for ids in known]
