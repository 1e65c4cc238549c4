"""The goods of the simulated shop: what they are, and what they are like on a day."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa

from simulation.seeds import random_for
from simulation.words import COLOURS, CONSUMABLE, MATERIALS, brand_name, category_tree, misspell

BRANDS_PER_CATEGORY = 9
RESIDUAL_SIZE = 4
QUERIES_PER_LEAF = 48
# How near an item's leaf is to the leaf of a context (query, anchor, basket, intent).
UNRELATED, COMPLEMENT, SAME_CATEGORY, SAME_GROUP, SAME_LEAF = range(5)


@dataclass(frozen=True)
class Catalogue:
    """All items that are ever sold. Arrays run over items [I], leaves [L] or leaf pairs [L, L]."""

    seed: int
    leaves: list[tuple[str, str, str, str]]
    leaf: np.ndarray  # [I] int16
    brand: np.ndarray  # [I] int16
    colour: np.ndarray  # [I] int8
    material: np.ndarray  # [I] int8
    price_z: np.ndarray  # [I] price inside its leaf, in standard deviations of the logarithm
    base_price: np.ndarray  # [I]
    quality: np.ndarray  # [I] standard normal; no column shows it, rates do
    bait: np.ndarray  # [I] standard normal; looks better than it is
    residual: np.ndarray  # [I, RESIDUAL_SIZE] what no column shows
    weight: np.ndarray  # [I] what the older recommender takes for popularity
    launch_day: np.ndarray  # [I] day number on which it is first sold; <= 0: before the first day
    end_day: np.ndarray  # [I] first day number on which it is sold no more
    leaf_popularity: np.ndarray  # [L] sums to 1
    rebuy_days: np.ndarray  # [L] period after which the goods are used up; 0: durable
    complements: np.ndarray  # [L, 2] leaves that go with a leaf
    nearness: np.ndarray  # [L + 1, L] context leaf (L: none) × item leaf → UNRELATED … SAME_LEAF

    @property
    def size(self) -> int:
        """Return the number of items."""
        return len(self.leaf)

    @property
    def leaf_count(self) -> int:
        """Return the number of leaf categories; as a context it also means `none`."""
        return len(self.leaves)

    @cached_property
    def category(self) -> np.ndarray:
        """Return each leaf's top category [L]."""
        return np.arange(self.leaf_count) // 9

    @cached_property
    def skus(self) -> pa.Array:
        """Return the shop's item ids."""
        return pa.array([f"S{i:07d}" for i in range(self.size)])

    @cached_property
    def queries(self) -> pa.Array:
        """Return the search texts: QUERIES_PER_LEAF for each leaf, in the order of leaves."""
        rng = random_for(self.seed, "queries")
        return pa.array([_query(leaf, rng) for leaf in self.leaves for _ in range(QUERIES_PER_LEAF)])

    @cached_property
    def titles(self) -> pa.Array:
        """Return each item's title: brand, colour, material, noun (or its synonym), model number."""
        rng = random_for(self.seed, "titles")
        synonym = rng.random(self.size) < 0.4
        titles = [
            f"{brand_name(b)} {COLOURS[c]} {MATERIALS[m]} {self.leaves[leaf][3 if s else 2]} {i % 97 + 1}"
            for i, (b, c, m, leaf, s) in enumerate(
                zip(self.brand, self.colour, self.material, self.leaf, synonym, strict=True)
            )
        ]
        return pa.array(titles)


@dataclass(frozen=True)
class ItemDay:
    """The items on one day."""

    price: np.ndarray  # [I]
    discount: np.ndarray  # [I] share of the base price, 0..0.5
    stock: np.ndarray  # [I] pieces
    on_sale: np.ndarray  # [I] bool: launched and not ended
    novelty: np.ndarray  # [I] 1 on the launch day, fading over two weeks
    theme: np.ndarray  # [I] 1 if the day's campaign page is about it
    page: int  # place in CAMPAIGN_PAGES
    season: np.ndarray  # [L] what is wanted these days, sums to 1


def make_catalogue(items: int, seed: int) -> Catalogue:
    """Make the catalogue; the same numbers give the same goods."""
    rng = random_for(seed, "catalogue")
    leaves = category_tree(int(np.clip(items // 600, 2, 12)))
    count = len(leaves)
    leaf_popularity = rng.permutation(1.0 / np.arange(1, count + 1) ** 0.5)
    leaf_popularity /= leaf_popularity.sum()
    leaf = np.concatenate([np.arange(min(items, count)), rng.choice(count, max(0, items - count), p=leaf_popularity)])
    brand = leaf // 9 * BRANDS_PER_CATEGORY + rng.choice(BRANDS_PER_CATEGORY, items, p=_zipf(BRANDS_PER_CATEGORY, 0.7))
    quality = 0.8 * rng.standard_normal(items) + 0.6 * rng.standard_normal(count // 9 * BRANDS_PER_CATEGORY)[brand]
    price_z = rng.standard_normal(items)
    leaf_price = 3.6 + 0.8 * rng.standard_normal(count)
    late = rng.random(items) < 0.08
    ends = rng.random(items) < 0.05
    complements = _complements(count, rng)
    return Catalogue(
        seed=seed,
        leaves=leaves,
        leaf=leaf.astype(np.int16),
        brand=brand.astype(np.int16),
        colour=rng.integers(len(COLOURS), size=items).astype(np.int8),
        material=rng.integers(len(MATERIALS), size=items).astype(np.int8),
        price_z=price_z.astype(np.float32),
        base_price=np.maximum(1.0, np.round(np.exp(leaf_price[leaf] + 0.5 * price_z), 1)),
        quality=quality.astype(np.float32),
        bait=rng.standard_normal(items).astype(np.float32),
        residual=rng.standard_normal((items, RESIDUAL_SIZE)).astype(np.float32),
        weight=np.exp(0.35 * quality + 0.9 * rng.standard_normal(items)),
        launch_day=np.where(late, rng.integers(1, 30, items), -rng.integers(1, 400, items)).astype(np.int16),
        end_day=np.where(ends, rng.integers(3, 60, items), 32_000).astype(np.int16),
        leaf_popularity=leaf_popularity,
        rebuy_days=np.array([rng.integers(4, 12) if leaf[2] in CONSUMABLE else 0 for leaf in leaves]),
        complements=complements,
        nearness=_nearness(count, complements),
    )


def items_on(catalogue: Catalogue, day: int) -> ItemDay:
    """Return prices, stock and campaign of a day; `day` counts from the first simulated day, 0."""
    items, count = catalogue.size, catalogue.leaf_count
    promotion = random_for(catalogue.seed, "promotion", day // 3)
    discount = np.where(promotion.random(items) < 0.15, promotion.uniform(0.1, 0.5, items), 0.0)
    supply = random_for(catalogue.seed, "supply", day // 2)
    stock = np.where(supply.random(items) < 0.03, 0, supply.integers(1, 300, items))
    age = day - catalogue.launch_day
    page = day // 5 % 3
    theme_rng = random_for(catalogue.seed, "theme", day // 5)
    brands = int(catalogue.brand.max()) + 1
    theme = (
        np.isin(catalogue.leaf // 9, theme_rng.choice(count // 9, max(1, count // 36), replace=False)),
        discount > 0,
        np.isin(catalogue.brand, theme_rng.choice(brands, max(2, brands // 12), replace=False)),
    )[page]
    season = catalogue.leaf_popularity * (1 + 0.5 * np.sin(2 * np.pi * (day / 28 + catalogue.category / 12)))
    return ItemDay(
        price=np.round(catalogue.base_price * (1 - discount), 2),
        discount=discount.astype(np.float32),
        stock=stock,
        on_sale=(age >= 0) & (day < catalogue.end_day),
        novelty=np.where((age >= 0) & (age < 14), np.exp(-np.maximum(age, 0) / 5), 0).astype(np.float32),
        theme=theme.astype(np.float32),
        page=page,
        season=season / season.sum(),
    )


def _zipf(count: int, power: float) -> np.ndarray:
    weights = 1.0 / np.arange(1, count + 1) ** power
    return weights / weights.sum()


def _complements(count: int, rng: np.random.Generator) -> np.ndarray:
    """Give each leaf two others that go with it: one of its own top category but another group, and any other."""
    leaf = np.arange(count)
    near = leaf // 9 * 9 + (leaf + 3 + rng.integers(0, 3, count)) % 9
    far = (leaf + 9 + rng.integers(0, max(1, count - 17), count)) % count
    return np.stack([near, far], axis=1)


def _nearness(count: int, complements: np.ndarray) -> np.ndarray:
    leaf = np.arange(count)
    near = np.full((count + 1, count), UNRELATED, dtype=np.int8)
    inner = near[:count]
    inner[leaf[:, None] // 9 == leaf // 9] = SAME_CATEGORY
    inner[leaf[:, None] // 3 == leaf // 3] = SAME_GROUP
    inner[leaf[:, None], complements] = COMPLEMENT
    inner[leaf, leaf] = SAME_LEAF
    return near


def _query(leaf: tuple[str, str, str, str], rng: np.random.Generator) -> str:
    word = leaf[2] if rng.random() < 0.6 else leaf[3]
    if rng.random() < 0.15:
        word = misspell(word, int(rng.integers(1, 9)))
    before = rng.choice(
        ["", "", COLOURS[rng.integers(len(COLOURS))], MATERIALS[rng.integers(len(MATERIALS))], leaf[1], "cheap"]
    )
    return f"{before} {word}".strip()
