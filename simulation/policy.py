"""The older recommender that filled the logs: popularity, a noisy idea of each user's taste, and some exploration.

Each slot draws a list (a leaf, all goods, cheap goods …) and an item from it; an item already in the request is drawn
again. So the chance of a placement, given those above it, is known exactly: q(item) / (1 - sum of q above it).
"""

from dataclasses import dataclass

import numpy as np

from simulation.catalogue import Catalogue, ItemDay
from simulation.people import FAVOURITES, People

# The share of each way to fill a slot, a row a scenario in the order of behaviour.SCENARIOS.
CONTEXT_LEAF, CONTEXT_GROUP, CONTEXT_COMPLEMENT, KNOWN_TASTE, POPULAR, UNIFORM, CHEAP, THEME = range(8)
_SHARES = np.array([
    [0.00, 0.00, 0.00, 0.58, 0.30, 0.12, 0.00, 0.00],
    [0.80, 0.12, 0.00, 0.00, 0.03, 0.05, 0.00, 0.00],
    [0.45, 0.15, 0.20, 0.10, 0.05, 0.05, 0.00, 0.00],
    [0.15, 0.05, 0.35, 0.25, 0.10, 0.05, 0.05, 0.00],
    [0.05, 0.00, 0.25, 0.10, 0.10, 0.05, 0.45, 0.00],
    [0.00, 0.00, 0.00, 0.30, 0.15, 0.05, 0.00, 0.50],
])  # fmt: skip
EXPLORATION = _SHARES[0, UNIFORM]


@dataclass(frozen=True)
class Shelves:
    """The policy's lists of a day: chances of the items inside each list, as one long table for inverse sampling."""

    items: np.ndarray  # items of all lists, one list after the other
    steps: np.ndarray  # list number + cumulative chance inside the list
    leaf_chance: np.ndarray  # [I] chance of an item inside its leaf's list
    popular_chance: np.ndarray  # [I] chance of an item inside the list of all goods
    uniform_chance: np.ndarray  # [I] chance of an item under exploration

    def draw(self, lists: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Draw an item from each of `lists` (leaf number, or leaf count + 0 popular, 1 uniform, 2 cheap, 3 theme)."""
        place = np.searchsorted(self.steps, lists + rng.random(len(lists)), side="right")
        return self.items[np.minimum(place, len(self.items) - 1)]


def shelves_of(catalogue: Catalogue, day: ItemDay) -> Shelves:
    """Return the policy's lists of a day; what is not on sale or out of stock is on none of them."""
    shown = day.on_sale & (day.stock > 0)
    weight = np.where(shown, catalogue.weight, 0.0)
    count = catalogue.leaf_count
    leaf_total = np.bincount(catalogue.leaf, weight, count)
    leaf_chance = weight / np.maximum(leaf_total, 1e-12)[catalogue.leaf]
    popular = weight / weight.sum()
    uniform = shown / shown.sum()
    cheap = weight / day.price
    theme = weight * (0.1 + 4 * day.theme + 2 * (day.discount > 0))
    by_leaf = np.argsort(catalogue.leaf, kind="stable")
    everything = np.arange(catalogue.size)
    empty_leaf = np.flatnonzero(leaf_total == 0)
    lists = [(catalogue.leaf[by_leaf].astype(np.float64), by_leaf, leaf_chance[by_leaf])]
    for number, chance in enumerate((popular, uniform, cheap / cheap.sum(), theme / theme.sum())):
        lists.append((np.full(catalogue.size, float(count + number)), everything, chance))
    # A leaf with nothing on sale shows what is popular.
    for leaf in empty_leaf:
        lists.append((np.full(catalogue.size, float(leaf)), everything, popular))
    numbers, items, chance = (np.concatenate([part[k] for part in lists]) for k in range(3))
    kept = chance > 0
    order = np.argsort(numbers[kept], kind="stable")
    numbers, items, chance = numbers[kept][order], items[kept][order], chance[kept][order]
    total = np.cumsum(chance)
    before = np.searchsorted(numbers, numbers)
    inside = np.minimum(total - (total[before] - chance[before]), 1.0)
    return Shelves(items, numbers + inside, leaf_chance, popular, uniform)


def fill_requests(
    catalogue: Catalogue,
    people: People,
    lists: Shelves,
    scenario: np.ndarray,
    user: np.ndarray,
    context: np.ndarray,
    sizes: np.ndarray,
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Fill requests with items.

    Returns:
        for each impression: its request's place [0..R), its position (1 = first), its item; in the order of requests.
    """
    drawn = (1.35 * sizes).astype(np.int64) + 3
    request = np.repeat(np.arange(len(sizes)), drawn)
    slot_scenario, slot_user, slot_context = scenario[request], user[request], context[request]
    way = _draw_way(slot_scenario, slot_context == catalogue.leaf_count, rng)
    item = lists.draw(_list_of(catalogue, people, way, slot_user, slot_context, rng), rng)
    first = np.sort(np.unique(request * catalogue.size + item, return_index=True)[1])
    request, item = request[first], item[first]
    starts = np.searchsorted(request, np.arange(len(sizes)))
    position = np.arange(len(request)) - starts[request] + 1
    kept = position <= sizes[request]
    return request[kept], position[kept], item[kept]


def placement_chance(
    catalogue: Catalogue,
    people: People,
    lists: Shelves,
    request: np.ndarray,
    position: np.ndarray,
    user: np.ndarray,
    item: np.ndarray,
) -> np.ndarray:
    """Return the chance that the home feed's policy placed each item where it did, given the items above it."""
    known = (people.known_leaves[user] == catalogue.leaf[item][:, None]).sum(axis=1) / FAVOURITES
    shares = _SHARES[0]
    chance = (
        shares[KNOWN_TASTE] * known * lists.leaf_chance[item]
        + shares[POPULAR] * lists.popular_chance[item]
        + shares[UNIFORM] * lists.uniform_chance[item]
    )
    total = np.cumsum(chance)
    start = np.flatnonzero(position == 1)
    before_request = (total[start] - chance[start])[np.cumsum(position == 1) - 1]
    return chance / np.maximum(1e-9, 1 - (total - chance - before_request))


def _draw_way(scenario: np.ndarray, no_context: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    steps = np.cumsum(_SHARES, axis=1)
    way = (rng.random(len(scenario))[:, None] >= steps[scenario][:, :-1]).sum(axis=1)
    return np.where(no_context & (way <= CONTEXT_COMPLEMENT), KNOWN_TASTE, way)


def _list_of(
    catalogue: Catalogue,
    people: People,
    way: np.ndarray,
    user: np.ndarray,
    context: np.ndarray,
    rng: np.random.Generator,
) -> np.ndarray:
    """Return the number of the list from which each slot is filled."""
    leaf = np.minimum(context, catalogue.leaf_count - 1)
    sibling = leaf // 3 * 3 + rng.integers(0, 3, len(leaf))
    complement = catalogue.complements[leaf, rng.integers(0, 2, len(leaf))]
    known = people.known_leaves[user, rng.integers(0, FAVOURITES, len(user))]
    shared = catalogue.leaf_count + way - POPULAR
    return np.select(
        [way == CONTEXT_LEAF, way == CONTEXT_GROUP, way == CONTEXT_COMPLEMENT, way == KNOWN_TASTE],
        [leaf, sibling, complement, known],
        shared,
    )
