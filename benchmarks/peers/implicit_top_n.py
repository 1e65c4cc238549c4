"""implicit's ALS, BPR and item-kNN on a log of users and items, as its tutorial shows: implicit_top_n NAME LOG TARGET PLACES."""

import sys

import numpy as np
from implicit.als import AlternatingLeastSquares
from implicit.bpr import BayesianPersonalizedRanking
from implicit.nearest_neighbours import CosineRecommender
from scipy.sparse import coo_matrix


def main(name: str, log: str, target: str, places: str) -> None:
    """Fit on the log and write item numbers [users, places]."""
    data = np.load(log)
    pairs, counts = np.unique(np.stack([data["user"], data["item"]]), axis=1, return_counts=True)
    matrix = coo_matrix((counts.astype(np.float32), pairs), shape=tuple(data["counts"])).tocsr()
    model = {
        "als": lambda: AlternatingLeastSquares(factors=64, random_state=1),
        "bpr": lambda: BayesianPersonalizedRanking(factors=64, random_state=1),
        "itemknn": lambda: CosineRecommender(K=100),
    }[name]()
    model.fit(matrix, show_progress=False)
    users = data["users"]
    found, _ = model.recommend(users, matrix[users], N=int(places), filter_already_liked_items=bool(data["new"]))
    np.save(target, found.astype(np.int64))


if __name__ == "__main__":
    main(*sys.argv[1:])
