"""Scores for shelves: a ranker that scores users' candidates with a night's features.

An item's part of the first layer is computed once a scenario, a user's part once for all scenarios; what is left per pair is
the attention, the history match and the experts. It is the same code that training runs.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from nightshelf.errors import EngineError, InputError
from training.artifact import load_model
from training.batches import UserBatch, chunk_rows, entries, gather_newest
from training.devices import as_memory_allows, room_told
from training.ranking_model import RankingModel, TargetSide, UserSide
from training.shelf_features import ShelfFeatures
from training.transfer import read_night

# How many pairs are scored at once, and how many users are encoded at once: on a CPU the first layers of the pairs stay in its
# cache, and so many users make a batch of pairs with 40 candidates each; an accelerator has to be filled.
_PAIRS, _USERS = 4096, 96
_PAIRS_THERE, _USERS_THERE = 1 << 17, 1024
_CHUNK = 32
_CPU = torch.device("cpu")


class Ranker:
    """A trained model that scores. Positions play no part: every item is scored as if it stood first."""

    def __init__(self, model: RankingModel, device: torch.device = _CPU) -> None:
        self.model, self.spec, self.device = model.eval().to(device), model.spec, device
        self._shelf: PreparedShelf | None = None

    @classmethod
    def load(cls, folder: Path, device: torch.device = _CPU) -> "Ranker":
        """Read a ranker that scores on a device, after checking its hashes.

        Raises:
            EngineError: a file is missing, differs from its hash, or does not fit this code.
        """
        return cls(load_model(folder), device)

    @property
    def tasks(self) -> list[str]:
        """Return the names of the tasks."""
        return [task.name for task in self.spec.tasks]

    def stand_beside(self, lifts: Mapping[str, Sequence[float]]) -> None:
        """Learn of some scenarios how much more often items are acted on beside what is near to them: NextTopic.beside."""
        for name, of_scenario in lifts.items():
            if place := self.spec.scenario_index(name):
                self.model.topics.beside[place] = torch.tensor(of_scenario).to(self.model.topics.beside)

    @torch.inference_mode()
    def encode(self, features: ShelfFeatures, user_rows: torch.Tensor) -> "EncodedUsers":
        """Encode users [U], rows of `features` (0 = unknown user), for all scenarios.

        Raises:
            EngineError: the night lacks a feature that the model reads.
        """
        return EncodedUsers(self.prepare(features), user_rows.to(self.device).long())

    def score_users(
        self, features: ShelfFeatures, scenario: str, user_rows: torch.Tensor, item_rows: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        """Encode users [U] and score each one's candidates [U, K]: see `encode` and `EncodedUsers.score`."""
        return self.encode(features, user_rows).score(scenario, item_rows)

    def score(
        self, features: ShelfFeatures, scenario: str, user_rows: torch.Tensor, item_rows: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        """Score pairs: user_rows [B] with item_rows [B] → task → float32 [B]. Pairs of one user are packed together."""
        users = user_rows.numpy()
        chunks = torch.from_numpy(chunk_rows(users, np.zeros(len(users), np.int64), np.arange(len(users)), _CHUNK))
        candidates = torch.where(chunks >= 0, item_rows.long()[chunks], -1)
        packed = self.score_users(features, scenario, user_rows.long()[chunks[:, 0]], candidates)
        is_pair, scores = chunks >= 0, {}
        for task, values in packed.items():
            scores[task] = torch.empty(len(users)).index_copy_(0, chunks[is_pair], values[is_pair])
        return scores

    def prepare(self, features: ShelfFeatures) -> "PreparedShelf":
        """Return a night's features as this model reads them; they are kept for the next call.

        Raises:
            EngineError: an accelerator's memory has no room for them.
        """
        if self._shelf is None or self._shelf.features is not features:
            with room_told("a night's users and items"):
                self._shelf = PreparedShelf(self.model, features, self.device)
        return self._shelf


class PreparedShelf:
    """A night's features in the form that one model reads."""

    def __init__(self, model: RankingModel, features: ShelfFeatures, device: torch.device) -> None:
        spec = model.spec
        self.model, self.features, self.device = model, features, device
        read_night(model.cpu(), features.vocabularies)
        model.to(device)
        users = _choose(features.user_dense, features.user_names, spec.user_dense)
        self.user_dense = self._there(spec.normalization.apply(users, spec.user_dense))
        self.user_fields, self.user_history = (
            self._there(features.user_fields).long(),
            self._there(features.user_history),
        )
        length = spec.recipe.history_length
        stored = features.histories
        items, ages = (self._there(a[:, -length:]) for a in (stored.items, stored.ages))
        self.exposure = [self._there(a) for a in (stored.shown, stored.shown_counts, stored.shown_ages)]
        self.own = [self._there(a) for a in (stored.own, stored.own_counts, stored.own_ages)]
        events = self._there(_renumber(stored.events[:, -length:], features.events, spec.events))
        where = self._there(_renumber(stored.scenarios[:, -length:], features.scenarios, spec.scenarios))
        self.histories = [items, events, where, ages]
        self.lengths, self.shown_lengths = entries(events), entries(self.exposure[0])
        self.own_lengths = entries(self.own[0])
        self.item_index = self._there(features.item_fields[:, 0]).long()
        self.item_side = model.item_side(self._there(features.catalogue).long())
        self._targets: dict[str, TargetSide] = {}

    def _there(self, values: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(values).to(self.device)

    def users(self, rows: torch.Tensor) -> UserBatch:
        """Gather users by their rows."""
        history = self.user_history[rows]
        items, events, where, ages = gather_newest(self.histories, history, self.lengths)
        return UserBatch(
            self.user_fields[rows],
            self.user_dense[rows],
            items.long().clamp(max=len(self.features.catalogue) - 1),
            events,
            where,
            ages,
            *gather_newest(self.exposure, history, self.shown_lengths),
            *gather_newest(self.own, history, self.own_lengths),
        )

    def by_length(self, rows: torch.Tensor) -> torch.Tensor:
        """Return the places of users in `rows`, from the shortest history to the longest: neighbours share little padding."""
        return self.lengths[self.user_history[rows]].argsort(stable=True)

    def targets(self, scenario: str) -> TargetSide:
        """Return all items by row as targets of a scenario [I, …]."""
        if scenario not in self._targets:
            if scenario not in self.features.target_dense:
                raise InputError(
                    f"scenario {scenario!r} is not in the shop file; known: {', '.join(self.features.scenarios)}"
                )
            spec = self.model.spec
            raw = _choose(self.features.target_dense[scenario], self.features.target_names, spec.target_dense)
            dense = self._there(spec.normalization.apply(raw, spec.target_dense))
            items = self.item_side.take(self.item_index)
            where = torch.tensor([[spec.scenario_index(scenario)]]).to(self.device)
            wide = self.model.by_scenario(self.model.wide_dense(dense), self.model.one_hot(where[0]))
            hidden = items.hidden + self.model.dense_layer(dense)
            self._targets[scenario] = TargetSide(items.match, items.queries, hidden, items.again, wide, where)
        return self._targets[scenario]


class EncodedUsers:
    """Users as a model knows them before it is told a scenario; those with histories of like length lie together."""

    def __init__(self, prepared: PreparedShelf, rows: torch.Tensor) -> None:
        """Encode users by their rows [U]."""
        self.prepared, model = prepared, prepared.model
        self._pairs, at_once = (_PAIRS, _USERS) if prepared.device.type == "cpu" else (_PAIRS_THERE, _USERS_THERE)
        self.parts: list[tuple[torch.Tensor, UserSide]] = []

        def encode(part: torch.Tensor) -> None:
            """Encode the users at these places of `rows` as a part of their own."""
            self.parts.append((part, model.user_side(prepared.users(rows[part]), prepared.item_side)))

        for part in prepared.by_length(rows).chunk(-(-len(rows) // at_once)):
            as_memory_allows(encode, part)

    @torch.inference_mode()
    def score(self, scenario: str, item_rows: torch.Tensor) -> dict[str, torch.Tensor]:
        """Score each user's candidates.

        Args:
            scenario: of the shop.
            item_rows: [U, K], rows of the night's features, -1 = no candidate.

        Returns:
            task → float32 [U, K], on the CPU: the probability of the outcome after an impression in the user's next request, or
            the expected value of a regression; NaN where there is no candidate.

        Raises:
            InputError: the scenario is unknown.
            EngineError: the night lacks a feature that the model reads; or an accelerator has no room for one user's candidates.
        """
        model, targets, device = self.prepared.model, self.prepared.targets(scenario), self.prepared.device
        candidates, tasks = item_rows.to(device).long(), [task.name for task in model.spec.tasks]
        scores = torch.full((*candidates.shape, len(tasks)), torch.nan, device=device)
        for places, users in self.parts:

            def score(some: torch.Tensor, places: torch.Tensor = places, users: UserSide = users) -> None:
                """Score the candidates of neighbours in a part, by their numbers in it, into `scores`."""
                first, end = int(some[0]), int(some[-1]) + 1
                part = places[first:end]
                pairs = take_targets(targets, _without_empty_end(candidates[part]))
                outcomes = model.outcomes_of_requests(users.cut(first, end), pairs)
                scores[part, : outcomes.shape[1]] = outcomes

            for some in torch.arange(len(places)).split(_users_at_once(len(places), candidates.shape[1], self._pairs)):
                as_memory_allows(score, some)
        scores[candidates < 0] = torch.nan
        here = scores.cpu()
        return {task: here[..., place] for place, task in enumerate(tasks)}


def _users_at_once(users: int, candidates: int, pairs: int) -> int:
    """Return how many users' candidates are scored at once: about so many pairs, in batches of like size."""
    batches = max(1, round(users * candidates / pairs))
    return max(1, -(-users // batches))


def _without_empty_end(candidates: torch.Tensor) -> torch.Tensor:
    """Drop the last columns of [U, K] in which nobody has a candidate, but for the first column."""
    used = (candidates >= 0).any(0).nonzero()
    return candidates[:, : int(used[-1]) + 1] if len(used) else candidates[:, :1]


def take_targets(targets: TargetSide, rows: torch.Tensor) -> TargetSide:
    """Gather targets [I, …] at rows [U, K]; a row of -1 takes the first item, and its score is not used."""
    flat = rows.reshape(-1).clamp(min=0)

    def gather(part: torch.Tensor) -> torch.Tensor:
        """Return a part [I, …] of the targets at `rows`: [U, K, …]."""
        return part.index_select(0, flat).view(*rows.shape, *part.shape[1:])

    return TargetSide(
        gather(targets.match),
        gather(targets.queries),
        gather(targets.hidden),
        gather(targets.again),
        gather(targets.wide),
        targets.scenario,
    )


def _choose(values: np.ndarray, names: list[str], wanted: list[str]) -> np.ndarray:
    missing = [name for name in wanted if name not in names]
    if missing:
        raise EngineError(
            f"the model reads feature {missing[0]!r}, which this shop file no longer makes; train a new model"
        )
    return values[:, [names.index(name) for name in wanted]]


def _renumber(indexes: np.ndarray, names: list[str], wanted: list[str]) -> np.ndarray:
    """Turn 1 + place in `names` into 1 + place in `wanted`; 0 where it is not there."""
    to = np.array([0, *(wanted.index(name) + 1 if name in wanted else 0 for name in names)])
    return to[indexes]
