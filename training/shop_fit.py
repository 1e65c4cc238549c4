"""Whether a model that was trained with another shop file can still be measured, or can still rank."""

from nightshelf.config import Shop
from nightshelf.feature_tables import OOV_BUCKETS
from nightshelf.features import sequence_events
from training.spec import ModelSpec, dense_names, field_names, order_tasks


def why_not_measured(spec: ModelSpec, shop: Shop) -> str:
    """Return why the shop's examples mean something else to a model; empty if they do not: they bear numbers of the shop file."""
    users, targets = dense_names(shop)
    pairs = {
        "scenarios": (spec.scenarios, list(shop.scenarios)),
        "events": (spec.events, sequence_events(shop)),
        "features of users": (spec.user_dense, users),
        "features of items": (spec.target_dense, targets),
    }
    differing = [name for name, (known, wanted) in pairs.items() if known != wanted]
    return _why_never(spec, shop) or (f"it was trained for other {differing[0]}" if differing else "")


def why_not_ranking(spec: ModelSpec, shop: Shop) -> str:
    """Return why a model cannot rank the shop's shelves; empty if it can.

    It can in a scenario that it does not know, and beside features that came later (training/score.py goes by names).
    """
    lacking = [
        name
        for known, there in zip((spec.user_dense, spec.target_dense), dense_names(shop), strict=True)
        for name in known
        if name not in there
    ]
    told = f"it reads feature {lacking[0]!r}, which this shop file no longer makes" if lacking else ""
    return _why_never(spec, shop) or told


def _why_never(spec: ModelSpec, shop: Shop) -> str:
    if [task.measured() for task in spec.tasks] != order_tasks(shop):
        return "it was trained for other tasks"
    if [list(spec.user_fields), list(spec.item_fields)] != list(field_names(shop)):
        return "it was trained for other categorical features"
    return "its ids have other buckets" if spec.oov_buckets != OOV_BUCKETS else ""
