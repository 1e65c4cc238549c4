"""What ties each place on an item's shelf to the item, as a name and as a sentence that is true of that row."""

import numpy as np
import pyarrow as pa

from pipelines.anchor_lifts import Lifts, is_own
from pipelines.categories import Categories
from pipelines.item_shelves import ItemShelves

# What an item is there for that no relation ties to the anchor.
UNTIED = ("same_category", "category", "near_category", "popular")


def tie_sources(shelves: ItemShelves, categories: Categories, lifts: Lifts, relations: int) -> np.ndarray:
    """Return what ties each item to its anchor: a relation, or else one of UNTIED behind the last relation.

    `category`: what was shown of the item's category beside such anchors was acted on more than expected. `near_category`: it is
    near in the tree, and that is what lifts it.
    """
    of_anchor, of_item = categories.of_item[shelves.anchors], categories.of_item[shelves.items]
    size = len(categories.tree)
    named = np.array([name is not None for name in categories.names])
    pair = of_anchor * np.int64(size) + of_item
    place = np.searchsorted(lifts.keys, pair).clip(max=max(len(lifts.keys) - 1, 0))
    seen = lifts.keys[place] == pair if len(lifts.keys) else np.zeros(len(pair), bool)
    evident = seen & (lifts.outcomes[place] > lifts.expected[place]) if len(lifts.keys) else seen
    near = categories.tree[of_anchor, 0] == categories.tree[of_item, 0]
    same, other, nearby, popular = relations + np.arange(len(UNTIED))
    lifted = np.where(evident, other, np.where(near, nearby, popular))
    by_category = np.where(of_anchor == of_item, same, np.where(shelves.lifts > 1, lifted, popular))
    untied = np.where(named[of_anchor] & named[of_item], by_category, popular)
    return np.where(shelves.relations > 0, shelves.relations - 1, untied)


def tie_reasons(
    scenario: str,
    shelves: ItemShelves,
    source: np.ndarray,
    items: pa.Table,
    categories: Categories,
    relations: list[str],
) -> pa.Array:
    """Return one sentence a row, true of that row; each is made once."""
    of_anchor, of_item = categories.of_item[shelves.anchors], categories.of_item[shelves.items]
    size = len(categories.tree)
    tied = source < len(relations)
    about = np.where(tied, shelves.anchors, of_anchor * np.int64(size) + of_item)
    most = int(about.max(initial=0)) + 1
    keys, place = np.unique(source * np.int64(most) + about, return_inverse=True)
    sentences = []
    for kind, subject in zip(*(part.tolist() for part in np.divmod(keys, most)), strict=True):
        if kind < len(relations):
            sentences.append(
                _tied(relations[kind], items["title"][subject].as_py() or items["item_id"][subject].as_py())
            )
        else:
            anchor, item = divmod(subject, size)
            sentences.append(_untied(UNTIED[kind - len(relations)], anchor, item, categories, scenario))
    return pa.array(sentences, pa.string()).take(pa.array(place.ravel()))


def _tied(relation: str, title: str) -> str:
    if is_own(relation):
        return f"Goes with {title}"
    did = {"co_purchase": "bought", "co_cart": "put into their carts", "co_view": "looked at", "co_click": "looked at"}
    return f"Shoppers of {title} {did.get(relation, 'turned to')} this too"


def _untied(source: str, anchor: int, item: int, categories: Categories, scenario: str) -> str:
    if source == "popular":
        return f"Popular in {scenario.replace('_', ' ')}"
    if source in ("same_category", "near_category"):
        return f"Also in {_last(categories.shared(anchor, item))}"
    return f"{_last(categories.names[item])} goes with {_last(categories.names[anchor])}"


def _last(path: str | None) -> str:
    return (path or "").rsplit("/", 1)[-1]
