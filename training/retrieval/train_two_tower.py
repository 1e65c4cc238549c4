"""Train a two-tower model on the acts of a night's window: the recipe, from top to bottom."""

import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from nightshelf.logs import get_logger
from training.devices import training_device
from training.kernels.memory import steady_memory
from training.optimizers import RowwiseAdagrad
from training.retrieval.catalogue import Catalogue
from training.retrieval.journeys import DAY_SECONDS, Journeys
from training.retrieval.recipe import RetrievalRecipe
from training.retrieval.targets import Targets, draw_targets
from training.retrieval.trends import trend_moments, trends
from training.retrieval.two_tower import TwoTower, sampled_softmax

_TABLE = "fields.table.weight"
_LARGEST_GRADIENT = 1.0


@dataclass(frozen=True)
class Histories:
    """Windows of acts, right-aligned: all [G, L]."""

    item: torch.Tensor
    event: torch.Tensor
    scenario: torch.Tensor
    seconds: torch.Tensor
    is_act: torch.Tensor


@steady_memory()
def train_two_tower(
    recipe: RetrievalRecipe,
    journeys: Journeys,
    catalogue: Catalogue,
    worth: np.ndarray,
    scenarios: int,
    midnights: np.ndarray,
) -> TwoTower:
    """Return a model that has learnt which new item a user turns to next.

    Args:
        recipe: every knob.
        journeys: the acts to learn from.
        catalogue: the items that they are on.
        worth: [events + 1], what an act of each type counts; the first for none.
        scenarios: how many there are.
        midnights: when the days of the acts begin, in seconds since 1970, and last, when the night's day ends: what lies
            half_life_days before it counts half.
    """
    device, log = training_device(), get_logger("retrieve")
    fields = torch.from_numpy(catalogue.fields).to(device)
    moments = trend_moments(midnights, recipe.trends_per_day)
    trend = trends(journeys, len(fields), moments, recipe.trend_half_lives_days)
    ages = (midnights[-1] - journeys.seconds) / DAY_SECONDS
    weights = worth[journeys.event] * 0.5 ** (ages.clip(min=0) / recipe.half_life_days)
    generator = np.random.default_rng(recipe.seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        model = TwoTower(recipe, catalogue.sizes, len(worth) - 1, scenarios).to(device)
        optimizers = _optimizers(model, recipe)
        clipped = [weight for name, weight in model.named_parameters() if name != _TABLE]
        for number in range(recipe.epochs):
            started, total = time.monotonic(), 0.0
            epoch = _Epoch.draw(recipe, journeys, weights, trend, moments, generator)
            if not len(epoch.targets.source):
                log.warning("no user turned to a second item: there is nothing to learn")
                break
            batches = list(epoch.batches(recipe.users_per_batch, generator))
            for place, users in enumerate(batches):
                done = (number + place / len(batches)) / recipe.epochs
                for optimizer, rate in optimizers:
                    optimizer.param_groups[0]["lr"] = rate * (1 - done)
                    optimizer.zero_grad(set_to_none=True)
                loss = epoch.loss(model, fields, users, recipe.negatives, generator)
                loss.backward()
                torch.nn.utils.clip_grad_norm_(clipped, _LARGEST_GRADIENT)
                for optimizer, _ in optimizers:
                    optimizer.step()
                total += loss.item()
            rows = len(epoch.targets.source)
            log.info(
                "epoch %d of %d: loss %.4f, %d moments, %.0f a second",
                *(number + 1, recipe.epochs, total / len(batches), rows, rows / (time.monotonic() - started)),
            )
    return model.eval()


def _optimizers(model: TwoTower, recipe: RetrievalRecipe) -> list[tuple[torch.optim.Optimizer, float]]:
    """Return who moves the dense weights, the trend's and the embedding table, each with its learning rate.

    The trend's few weights may have further to go than a dense weight gets in an epoch; what they do not say by then, the
    items' own embeddings learn by heart.
    """
    named, rates = dict(model.named_parameters()), recipe.learning_rate
    table, trend = named.pop(_TABLE), named.pop("trend")
    dense, of_trend = (
        torch.optim.AdamW(weights, lr=rate, weight_decay=recipe.weight_decay)
        for weights, rate in ((named.values(), rates.dense), ([trend], rates.trend))
    )
    of_table = RowwiseAdagrad(table, rates.embedding, 0.0)
    return [(dense, rates.dense), (of_trend, rates.trend), (of_table, rates.embedding)]


@dataclass(frozen=True)
class _Epoch:
    """The pairs of an epoch.

    starts: [U + 1], where the pairs of each user begin. share: [I], of the targets that are on an item. weights: [n], what an
    act counts as a target. trend: [moments, I, half-lives], and moment: which of them came before each target.
    """

    journeys: Journeys
    targets: Targets
    starts: np.ndarray
    share: np.ndarray
    weights: np.ndarray
    trend: np.ndarray
    moment: np.ndarray

    @classmethod
    def draw(
        cls,
        recipe: RetrievalRecipe,
        journeys: Journeys,
        weights: np.ndarray,
        trend: np.ndarray,
        moments: np.ndarray,
        generator: np.random.Generator,
    ) -> "_Epoch":
        """Draw the pairs; the weights then have a mean of 1."""
        targets = draw_targets(
            journeys, recipe.history_length, recipe.horizon_days, recipe.positions_per_user, generator
        )
        share = np.bincount(journeys.item[targets.target], minlength=trend.shape[1]) / max(1, len(targets.target))
        mean = weights[targets.target].mean() if len(targets.target) else 1.0
        starts = np.searchsorted(journeys.user[targets.source], np.arange(len(journeys.starts)))
        moment = np.searchsorted(moments, journeys.seconds[targets.target], side="right") - 1
        return cls(journeys, targets, starts, share, weights / mean, trend, moment.clip(min=0))

    def batches(self, size: int, generator: np.random.Generator) -> Iterator[np.ndarray]:
        """Yield users with a target, in a random order in which those of a batch have windows of like length."""
        users = np.flatnonzero(np.diff(self.starts))
        lengths = np.diff(self.targets.windows[users], axis=1)[:, 0]
        users = users[np.lexsort((generator.random(len(users)), lengths))]
        parts = np.array_split(users, max(1, round(len(users) / size)))
        yield from (np.sort(parts[place]) for place in generator.permutation(len(parts)))

    def loss(
        self,
        model: TwoTower,
        fields: torch.Tensor,
        users: np.ndarray,
        negatives: int,
        generator: np.random.Generator,
    ) -> torch.Tensor:
        """Return the mean loss of the pairs of some users, in ascending order."""
        journeys, device = self.journeys, fields.device
        of_batch = ranges(self.starts[users], self.starts[users + 1])
        source, target = self.targets.source[of_batch], self.targets.target[of_batch]
        histories = read_windows(journeys, self.targets.windows[users], device)
        drawn = min(negatives, len(fields))
        uniform = generator.choice(len(fields), drawn, replace=False, shuffle=False)
        pool, positive = np.unique(np.r_[journeys.item[target], uniform], return_inverse=True)
        missed = (1 - drawn / len(fields)) * np.exp(-len(target) * self.share[pool])  # in either way

        def on_device(array: np.ndarray) -> torch.Tensor:
            """Return an array as a tensor where the model is."""
            return torch.from_numpy(array).to(device)

        # The item tower reads each item once, be it in the pool, in histories, or in both
        items, where = torch.unique(torch.cat([on_device(pool), histories.item.flatten()]), return_inverse=True)
        hidden, vectors = model.items(fields[items])
        in_history = hidden[where[len(pool) :]].view(*histories.item.shape, -1)
        states = model.states(in_history, histories.event, histories.scenario, histories.seconds, histories.is_act)
        row = np.searchsorted(users, journeys.user[source])
        column = states.shape[1] - (self.targets.windows[journeys.user[source], 1] - source)
        later = on_device(journeys.seconds[target] - journeys.seconds[source])
        logits = model.users(states[on_device(row), on_device(column)], later) @ vectors[where[: len(pool)]].T
        moments, place = np.unique(self.moment[of_batch], return_inverse=True)
        trend = on_device(self.trend[moments[:, None], pool]) @ model.trend
        losses = sampled_softmax(
            logits + trend[on_device(place)],
            on_device(np.log1p(-missed).astype(np.float32)),
            on_device(positive[: len(target)]),
        )
        return (losses * on_device(self.weights[target].astype(np.float32))).mean()


def read_windows(journeys: Journeys, windows: np.ndarray, device: torch.device) -> Histories:
    """Gather the acts of windows, int64 [G, 2]."""
    length = int(np.diff(windows, axis=1).max(initial=1))
    rows = windows[:, 1:] - length + np.arange(length)
    is_act = rows >= windows[:, :1]
    rows = np.where(is_act, rows, windows[:, :1])  # what stands before the first act is like it, and has no part

    def gather(column: np.ndarray) -> torch.Tensor:
        """Return a column of all acts at the rows of the windows, on the device: [G, length]."""
        return torch.from_numpy(column[rows]).to(device)

    mask = torch.from_numpy(is_act).to(device)
    event, scenario = (torch.where(mask, gather(column), 0) for column in (journeys.event, journeys.scenario))
    return Histories(gather(journeys.item.astype(np.int64)), event, scenario, gather(journeys.seconds), mask)


def ranges(starts: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """Return the numbers of each range, one range after the other: int64."""
    counts = ends - starts
    return np.repeat(ends - np.cumsum(counts), counts) + np.arange(counts.sum())
