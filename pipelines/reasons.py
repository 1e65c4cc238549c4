"""Why an item stands on a shelf: one sentence a row, true of that row."""

import numpy as np

from nightshelf.generators import GENERATOR_ORDER
from pipelines.shelves import Shelves


def reason_texts(shelves: Shelves, scenario: str, texts: list[str | None], titles: dict[str, str]) -> np.ndarray:
    """Return one sentence a row, true of that row: it names what the generator found, nothing else."""
    pairs, place = np.unique(shelves.generators * np.int64(len(texts)) + shelves.because, return_inverse=True)
    said = zip(*np.divmod(pairs, len(texts)), strict=True)
    return np.array([_sentence(GENERATOR_ORDER[g], texts[b], scenario, titles) for g, b in said], dtype=object)[place]


def _sentence(generator: str, because: str | None, scenario: str, titles: dict[str, str]) -> str:
    because = because or ""
    match generator:
        case "rebuy":
            return "You chose this before, and may want it again"
        case "own_history":
            return "You showed interest in this before"
        case "related":
            return f"Goes with {titles.get(because, because)} from your history"
        case "next_item":
            return f"Others turned to this after {titles.get(because, because)}"
        case "graph_walk":
            return f"Near {titles.get(because, because)} from your history, by what goes with both"
        case "affinity":
            return f"You often choose {because.rsplit('/', 1)[-1]}"
        case "brand":
            return f"From {because}, a brand that you chose before"
        case "two_tower":
            return "Shoppers with a history like yours turn to this next"
        case "fresh":
            return "New in the shop"
        case "popular":
            return f"Popular in {scenario.replace('_', ' ')}"
    raise KeyError(generator)
