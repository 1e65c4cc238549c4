"""How many pairs a second a shop's champion scores when nothing else is done: forward_pass SHOP DATE.

Users' and items' parts of the first layers are made, and pairs gathered, before the clock starts; as in the night, one thread a
core computes. Pairs come by several batch sizes, and the fastest counts. Prints JSON.
"""

import datetime as dt
import json
import sys
import time
from pathlib import Path

import torch

from nightshelf.config import load_shop
from nightshelf.parallel import cores
from nightshelf.paths import artifact_dir, tracking_uri
from pipelines.models import champion_of, registered_name
from pipelines.shelf_plan import FEATURE_TABLES
from pipelines.stage import Night
from pipelines.warehouse import Warehouse
from training.artifact import SERVING
from training.devices import ranking_device
from training.score import Ranker, take_targets
from training.shelf_features import ShelfFeatures
from training.tracking import download, ensure_tracker
from training.workers import torch_workers

_CANDIDATES = (128, 256)  # of a user
_PAIRS = (1024, 2048, 4096, 8192, 16_384)
_PAIRS_THERE = (16_384, 65_536, 131_072, 262_144)  # on an accelerator
_SECONDS = 1.5


def main(shop_file: str, date: str) -> None:
    """Measure and print."""
    shop, day = load_shop(Path(shop_file)), dt.date.fromisoformat(date)
    night = Night(shop, day, Warehouse(shop), "forward-pass")
    ensure_tracker(tracking_uri(shop), artifact_dir(shop))
    version = champion_of(night)
    if version is None:
        sys.exit(f"{shop.shop}: no version bears the alias champion; run a night first")
    features = ShelfFeatures.load(shop, day, *(night.warehouse.files(table, [day]) for table in FEATURE_TABLES))
    ranker = Ranker.load(download(registered_name(night), version) / SERVING, ranking_device())
    rates = {
        (pairs, width): _rate(ranker, features, next(iter(shop.scenarios)), pairs // width, width)
        for pairs in (_PAIRS if ranker.device.type == "cpu" else _PAIRS_THERE)
        for width in _CANDIDATES
    }
    best = max(rates, key=lambda sizes: rates[sizes])
    print(json.dumps({"pairs_per_s": round(rates[best]), "pairs": best[0], "candidates": best[1], "threads": cores()}))


def _rate(ranker: Ranker, features: ShelfFeatures, scenario: str, users: int, width: int) -> float:
    """Return pairs a second of all threads together."""
    prepared, generator = ranker.prepare(features), torch.Generator().manual_seed(1)
    targets, device = prepared.targets(scenario), ranker.device

    def work(_: int) -> tuple[int, float]:
        """Compute outcomes of the same pairs for _SECONDS at least; return how many pairs that were, and the seconds."""
        done, start = 0, time.perf_counter()
        while time.perf_counter() - start < _SECONDS:
            ranker.model.outcomes_of_requests(side, pairs)
            if device.type != "cpu":
                torch.accelerator.synchronize(device)
            done += users * width
        return done, time.perf_counter() - start

    with torch.inference_mode():
        rows = torch.randint(1, len(features.user_keys), (users,), generator=generator)
        side = ranker.model.user_side(prepared.users(rows.to(device)), prepared.item_side)
        items = torch.randint(0, len(features.item_ids), (users, width), generator=generator)
        pairs = take_targets(targets, items.to(device))

    def in_inference_mode(number: int) -> tuple[int, float]:
        """Work without gradients: the mode is a thread's own, and the pool's threads do not take it from this one."""
        with torch.inference_mode():
            return work(number)

    with torch_workers() as pool:
        return sum(done / seconds for done, seconds in pool.map(in_inference_mode, range(cores())))


if __name__ == "__main__":
    main(*sys.argv[1:])
