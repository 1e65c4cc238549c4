"""A warm start: the parent's weights where they fit. Vocabulary ids are stable, so a grown table keeps its old rows."""

import torch

from training.encoders import FieldEmbedding
from training.ranking_model import RankingModel
from training.spec import ModelSpec


def why_incompatible(parent: ModelSpec, child: ModelSpec) -> str:
    """Return why a parent's weights mean something else in the child; empty if they do not."""
    same_shape = (
        "embedding_size",
        "attention_size",
        "match_decay_days",
        "ple",
        "tower_sizes",
        "sequence_encoder",
        "backbone",
    )
    for name in same_shape:
        if getattr(parent.recipe, name) != getattr(child.recipe, name):
            return f"recipe.{name} was {getattr(parent.recipe, name)!r} and is {getattr(child.recipe, name)!r}"
    for name in ("tasks", "scenarios", "events", "user_dense", "target_dense"):
        if getattr(parent, name) != getattr(child, name):
            return f"the shop's {name} have changed"
    for name in ("user_fields", "item_fields"):
        if list(getattr(parent, name)) != list(getattr(child, name)):
            return f"the shop's {name} have changed"
    return ""


@torch.no_grad()
def copy_weights(parent: RankingModel, child: RankingModel) -> int:
    """Copy the parent's weights into a compatible child.

    Returns:
        the number of embedding rows that are new in the child and keep their fresh values.
    """
    grown = _copy_rows(parent.fields, child.fields)
    theirs = parent.state_dict()
    # The table has grown; topics are fitted anew each night.
    kept = {name: tensor for name, tensor in theirs.items() if not name.startswith(("fields.", "topics."))}
    child.load_state_dict({**child.state_dict(), **kept})
    return grown


def _copy_rows(parent: FieldEmbedding, child: FieldEmbedding) -> int:
    rows = torch.minimum(parent.sizes, child.sizes).tolist()
    for count, old, new in zip(rows, parent.offsets.tolist(), child.offsets.tolist(), strict=True):
        child.table.weight[new : new + count] = parent.table.weight[old : old + count]
    return int(child.sizes.sum()) - sum(rows)
