"""What ties each place on an item's shelf to the item, as a name and as a sentence that is true of that row."""

import numpy as np
import pyarrow as pa

from pipelines.anchor_lifts import is_own
from pipelines.categories import Categories
from pipelines.item_shelves import ItemShelves

# What an item is there for that no relation ties to the anchor.
UNTIED = ("same_category", "category", "popular")


def tie_sources(shelves: ItemShelves, categories: Categories, relations: int) -> np.ndarray:
    """Return what ties each item to its anchor: a relation, or else one of UNTIED behind the last relation."""
    of_anchor, of_item = categories.of_item[shelves.anchors], categories.of_item[shelves.items]
    named = np.array([name is not None for name in categories.names])
    same, other, popular = relations + np.arange(len(UNTIED))
    by_category = np.where(of_anchor == of_item, same, np.where(shelves.lifts > 1, other, popular))
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
    of_anchor, of_item, size = (
        categories.of_item[shelves.anchors],
        categories.of_item[shelves.items],
        len(categories.names),
    )
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
            anchor, item = ((categories.names[at] or "").rsplit("/", 1)[-1] for at in divmod(subject, size))
            sentences.append(_untied(UNTIED[kind - len(relations)], anchor, item, scenario))
    return pa.array(sentences, pa.string()).take(pa.array(place.ravel()))


def _tied(relation: str, title: str) -> str:
    if is_own(relation):
        return f"Goes with {title}"
    did = {"co_purchase": "bought", "co_cart": "put into their carts", "co_view": "looked at", "co_click": "looked at"}
    return f"Shoppers of {title} {did.get(relation, 'turned to')} this too"


def _untied(source: str, anchor: str, category: str, scenario: str) -> str:
    return {
        "same_category": f"Also among {category}",
        "category": f"{category} often goes with {anchor}",
        "popular": f"Popular in {scenario.replace('_', ' ')}",
    }[source]
