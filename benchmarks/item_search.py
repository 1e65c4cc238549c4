"""One program's search of the nearest items, timed in a process of its own: item_search NAME ITEMS USERS THREADS.

Vectors are 64 numbers wide, drawn around 500 directions, as learnt ones lie. Prints JSON: users a second, what laying out the
catalogue took, and of the first users how many of the places are those that a sort of all scores in float64 gives.
"""

import json
import os
import sys
import time
from collections.abc import Callable

import numpy as np

WIDTH, PLACES = 64, 500
LEAST_RECALL = 0.98
_DIRECTIONS, _CHECKED = 500, 64


def vectors(count: int, seed: int) -> np.ndarray:
    """Return vectors, float32 [count, 64]."""
    directions = np.random.default_rng(0).normal(size=(_DIRECTIONS, WIDTH))
    rng = np.random.default_rng(seed)
    drawn = directions[rng.integers(0, _DIRECTIONS, count)] + 0.7 * rng.normal(size=(count, WIDTH))
    return (drawn / np.linalg.norm(drawn, axis=1, keepdims=True)).astype(np.float32)


def ours(items: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """Return our search."""
    import torch

    from training.retrieval.nearest import NearestItems

    nearest = NearestItems(torch.from_numpy(items), PLACES)
    return lambda users: nearest.of(torch.from_numpy(users))[0].numpy()


def ours_in_cells(items: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """Return our search of most of them."""
    import torch

    from training.retrieval.cells import item_search

    known = torch.from_numpy(vectors(4096, 3))
    nearest = item_search(torch.from_numpy(items), PLACES, known, LEAST_RECALL)
    return lambda users: nearest.of(torch.from_numpy(users))[0].numpy()


def plain_torch(items: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """Return a product and a topk, in blocks of some 64 MB."""
    import torch

    known, rows = torch.from_numpy(items).T, max(1, (64 << 20) // (4 * len(items)))
    return lambda users: np.concatenate(
        [(part @ known).topk(PLACES, dim=1).indices.numpy() for part in torch.from_numpy(users).split(rows)]
    )


def faiss_flat(items: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """Return faiss' flat index of inner products."""
    import faiss

    index = faiss.IndexFlatIP(WIDTH)
    index.add(items)
    return lambda users: index.search(users, PLACES)[1]


def implicit(items: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """Return the recommend of implicit's matrix factorisation."""
    from implicit.cpu.als import AlternatingLeastSquares
    from scipy.sparse import csr_matrix

    model = AlternatingLeastSquares(factors=WIDTH)
    model.item_factors = items

    def search(users: np.ndarray) -> np.ndarray:
        """Return the items of the highest inner products with users [U, WIDTH], best first: [U, PLACES]."""
        model.user_factors = users
        nothing = csr_matrix((len(users), len(items)))
        return model.recommend(np.arange(len(users)), nothing, N=PLACES, filter_already_liked_items=False)[0]

    return search


PROGRAMS = {"ours": ours, "cells": ours_in_cells, "torch": plain_torch, "faiss": faiss_flat, "implicit": implicit}


def main(name: str, items: str, users: str, threads: str) -> None:
    """Time one program."""
    if name in ("ours", "cells", "torch"):
        import torch

        torch.set_num_threads(int(threads))
    catalogue, asked = vectors(int(items), 1), vectors(int(users), 2)
    start = time.perf_counter()
    search = PROGRAMS[name](catalogue)
    laid_out = time.perf_counter() - start
    search(asked[: min(64, len(asked))])  # the first call pays for threads and buffers
    start = time.perf_counter()
    found = search(asked)
    seconds = time.perf_counter() - start
    exact = asked[:_CHECKED].astype(np.float64) @ catalogue.T.astype(np.float64)
    best = np.argpartition(-exact, PLACES, axis=1)[:, :PLACES]
    agree = np.mean(
        [len(np.intersect1d(row, other)) / PLACES for row, other in zip(found[:_CHECKED], best, strict=True)]
    )
    print(json.dumps({"users_per_s": len(asked) / seconds, "laid_out_s": laid_out, "recall": float(agree)}))


if __name__ == "__main__":
    for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(variable, sys.argv[4])
    main(*sys.argv[1:])
