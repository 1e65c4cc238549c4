"""The ranker: embeddings, history encoders, backbone and task heads put together (one model, all tasks, all scenarios).

The first layer is a sum of what the user knows, what the item knows, what the pair knows and what the scenario knows:
training adds the four for each row; scoring computes the user's and the item's part once and only the pair's part anew.
Shapes: G users, R targets a user, L events, N distinct items, D attention size, H first-layer width, T tasks,
O outputs of the towers (training/outputs.py), as many as tasks or more.
"""

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

from training.backbones import make_backbone
from training.batches import Batch, UserBatch, entries
from training.encoders import FieldEmbedding, HistoryEncoder
from training.heads import OutcomeChain, PositionBias
from training.matching import ExposureMatch, HistoryMatch, OwnMatch, PriceFit
from training.next_topic import LEVELS, NextTopic
from training.outputs import conversions, outputs_of
from training.spec import ModelSpec
from training.tower_inputs import TowerInputs
from training.towers import ScenarioTowers, Towers


@dataclass(frozen=True)
class ItemSide:
    """What the model knows of N items."""

    match: torch.Tensor  # int32 [N, A]
    queries: torch.Tensor  # [N, D]
    parts: torch.Tensor  # [N, D or 2 D], what the item brings into an event
    hidden: torch.Tensor  # [N, H]
    again: torch.Tensor  # [N, events x memories + own], how much what a user did before speaks for it

    def take(self, rows: torch.Tensor) -> "ItemSide":
        """Return the items at `rows` (one dimension)."""
        return ItemSide(*(part.index_select(0, rows) for part in vars(self).values()))


@dataclass(frozen=True)
class UserSide:
    """What the model knows of G users."""

    hidden: torch.Tensor  # [G, H]
    taste: torch.Tensor  # [G, D]
    match: torch.Tensor  # int32 [G, L, A]
    memory: torch.Tensor  # [G, L, events x memories]
    keys: torch.Tensor  # [G, L, D], or [G, 1, D] where the history is one vector
    values: torch.Tensor  # likewise
    is_event: torch.Tensor  # bool [G, L]
    price_level: torch.Tensor  # [G]
    shown: torch.Tensor  # int32 [G, E, levels]
    exposure: torch.Tensor  # [G, E, memories]
    own: torch.Tensor  # int32 [G, O]
    owned: torch.Tensor  # [G, O, 2 + memories]
    evidence: torch.Tensor  # [G], what is known of the topics of a user's requests

    def cut(self, first: int, last: int) -> "UserSide":
        """Return a view of the users from one place up to another, with no more padding than the longest of them needs."""
        some = {name: part[first:last] for name, part in vars(self).items()}
        padded = (some["is_event"], some["shown"][..., -1], some["own"])
        events, shown, own = (max(1, int(entries(part).max())) for part in padded)
        for name in ("match", "memory", "keys", "values", "is_event"):
            some[name] = some[name][:, -events:]
        for name in ("shown", "exposure"):
            some[name] = some[name][:, -shown:]
        for name in ("own", "owned"):
            some[name] = some[name][:, -own:]
        return UserSide(**some)


@dataclass(frozen=True)
class TargetSide:
    """What the model knows of R targets of each of G users, apart from the user."""

    match: torch.Tensor  # int32 [G, R, A]
    queries: torch.Tensor  # [G, R, D]
    hidden: torch.Tensor  # [G, R, H], item and dense features
    again: torch.Tensor  # [G, R, events x memories + own]
    wide: torch.Tensor  # [G, R, O], the dense features' linear part in the scenario
    scenario: torch.Tensor  # int64 [G, R] or [1, 1]
    slots: torch.Tensor | None = None  # int64, places of the G x R that hold a target; None = all


class RankingModel(nn.Module):
    """One model for all tasks in all scenarios."""

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        recipe, scenarios, events, tasks = spec.recipe, len(spec.scenarios), len(spec.events), len(spec.tasks)
        size, width = recipe.attention_size, recipe.embedding_size
        self.spec = spec
        self.fields = FieldEmbedding({**spec.user_fields, **spec.item_fields}, width)
        self.item_vector = nn.Linear(len(spec.item_fields) * width, size)
        self.history = HistoryEncoder(recipe.sequence_encoder, size, size, events, scenarios)
        self.matching = HistoryMatch(events, recipe.match_decay_days)
        fields = list(spec.item_fields)
        dense = spec.normalization.width(spec.target_dense)
        user_inputs = len(spec.user_fields) * width + spec.normalization.width(spec.user_dense)
        leaf, self.band, self.item = (fields.index(name) for name in (LEVELS[-1], "price_band", "item_index"))
        # The levels stand side by side; a list of places would be sent to an accelerator at each use.
        self.levels = slice(leaf + 1 - len(LEVELS), leaf + 1)
        self.exposure, self.price_fit = ExposureMatch(recipe.match_decay_days), PriceFit(events)
        self.own = OwnMatch(recipe.match_decay_days)
        event_memories, memories = self.matching.width(1), len(recipe.match_decay_days)
        self.topics = NextTopic([spec.item_fields[name] for name in LEVELS], scenarios, event_memories, memories)
        own = self.own.width if spec.rebuys else 0
        explicit = self.matching.width(len(fields)) + own + len(LEVELS) * memories + self.topics.features + 4
        self.backbone = make_backbone(recipe.backbone, tasks, scenarios, recipe.dropout)
        first = self.backbone.hidden_width + self.backbone.gate_width
        # Who bought coffee wants more of it, who bought a stove wants no second one: what was done with a category speaks for
        # some goods of it and against others ("Buy It Again", Bhagat et al., KDD 2018).
        self.again = nn.Linear(size, event_memories + own)
        self.taste = nn.Linear(user_inputs, size)
        self.user_layer = nn.Linear(user_inputs, first)
        self.item_layer = nn.Linear(size, first, bias=False)
        self.dense_layer = nn.Linear(dense, first, bias=False)
        self.pair_layer = nn.Linear(explicit + 2 * size, first, bias=False)
        self.scenario_layer = nn.Linear(scenarios + 1, first, bias=False)
        self.scenario_scale = nn.Linear(scenarios + 1, self.backbone.hidden_width, bias=False)
        self.outputs = outputs_of(spec.tasks, recipe.task_relation)
        said = len(self.outputs)
        self.wide_dense = nn.Linear(dense, (scenarios + 1) * said, bias=False)
        self.wide_pair = nn.Linear(explicit, (scenarios + 1) * said, bias=False)
        transfers = conversions(spec.tasks) if recipe.task_relation == "aitm" else {}
        self.tower_inputs = TowerInputs(self.outputs, transfers, self.backbone.out_width)
        into = self.backbone.out_width, recipe.tower_sizes
        by_scenario = recipe.towers == "scenario"
        self.towers = ScenarioTowers(said, scenarios, *into) if by_scenario else Towers(said, *into)
        self.task_bias = nn.Linear(scenarios + 1, said, bias=False)
        self.position_bias = PositionBias(scenarios, self.outputs)
        self.chain = OutcomeChain(spec.tasks, recipe.task_relation)
        nn.init.normal_(self.scenario_layer.weight, std=0.1)
        for zero in (self.scenario_scale, self.wide_dense, self.wide_pair, self.task_bias):
            nn.init.zeros_(zero.weight)

    def forward(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the logits [G, R, O] of examples at the first position, and what the logged position adds to them [G, R, O]."""
        items = self.item_side(batch.item_fields)
        logits, _ = self.pair_logits(self.user_side(batch.users, items), self.target_side(batch, items))
        if self.spec.corrects_draws:
            logits = logits + batch.drawn.unsqueeze(-1) * self.position_bias.hears
        return logits, self.position_bias(batch.scenario, batch.position)

    def item_side(self, fields: torch.Tensor) -> ItemSide:
        """Encode items by their fields [N, item fields]."""
        vectors = self.item_vector(self.fields(fields, len(self.spec.user_fields)))
        history = self.history
        parts, hidden = history.item_parts(vectors), self.item_layer(vectors)
        return ItemSide(fields.int(), history.query(vectors), parts, hidden, self.again(vectors))

    def user_side(self, users: UserBatch, items: ItemSide) -> UserSide:
        """Encode users and their histories, whose events are rows of `items`."""
        known = self.fields(users.fields, 0, users.dense)
        flat, shape = users.items.reshape(-1), (*users.items.shape, -1)
        match = items.match.index_select(0, flat).view(shape)
        is_event, history = users.events > 0, self.history
        parts = items.parts.index_select(0, flat).view(shape)
        context = history.context(users.events, users.scenarios, users.ages)
        keys, values = history.encode(parts, context, is_event, users.ages)
        memory = self.matching.memory(users.events, users.ages)
        exposure = self.exposure.memory(users.shown_counts, users.shown_ages)
        return UserSide(
            hidden=self.user_layer(known),
            taste=self.taste(known),
            match=match,
            memory=memory,
            keys=keys,
            values=values,
            is_event=is_event,
            price_level=self.price_fit.level(match[..., self.band], users.events),
            shown=self.topics.lineage(users.shown),
            exposure=exposure,
            own=users.own,
            owned=self.own.memory(users.own_counts, users.own_ages),
            evidence=self.topics.evidence(match[..., self.levels][..., -1], memory, users.shown, exposure),
        )

    def target_side(self, batch: Batch, items: ItemSide) -> TargetSide:
        """Encode the targets of a batch."""
        flat, shape = batch.items.reshape(-1), (*batch.items.shape, -1)
        return TargetSide(
            match=items.match.index_select(0, flat).view(shape),
            queries=items.queries.index_select(0, flat).view(shape),
            hidden=items.hidden.index_select(0, flat).view(shape) + self.dense_layer(batch.dense),
            again=items.again.index_select(0, flat).view(shape),
            wide=self.by_scenario(self.wide_dense(batch.dense), self.one_hot(batch.scenario)),
            scenario=batch.scenario,
            slots=batch.slots if len(batch.slots) < batch.rows.numel() else None,
        )

    def pair_logits(self, users: UserSide, targets: TargetSide) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the logits [G, R, O] of each user's targets at the first position, and the shares of their topics [G, R, N]."""
        where = self.one_hot(targets.scenario)
        queries = targets.queries + self.history.target_scenario(where)
        answers = self.history(queries, users.keys, users.values, users.is_event)
        categories = targets.match[..., self.levels]
        seen = self.matching(targets.match, users.match, users.memory)
        shown = self.exposure(categories, users.shown, users.exposure)
        shares = self.topics.shares(categories, seen[:, :, self.levels], shown, users.evidence)
        seen, of_category = torch.log1p(seen), torch.log1p(seen[:, :, self.levels.stop - 1])
        own, done = [], of_category
        if self.spec.rebuys:
            own = [self.own(targets.match[..., self.item], users.own, users.owned)]
            done = torch.cat([of_category, *own], -1)
        explicit = torch.cat(
            [
                seen.flatten(2),
                *own,
                (done * targets.again).sum(-1, keepdim=True),
                torch.log1p(shown).flatten(2),
                self.topics.describe(categories, shares),
                self.price_fit(targets.match[..., self.band], users.price_level),
                _affinity(queries, users),
            ],
            -1,
        )
        pair = torch.cat([explicit, answers, queries * answers], dim=-1)
        known = targets.hidden + (users.hidden.unsqueeze(1) + self.scenario_layer(where))
        deep = self.deep_logits(known, pair, where, targets.slots)
        wide = targets.wide + self.by_scenario(self.wide_pair(explicit), where)
        return deep + wide + self.task_bias(where), shares

    def deep_logits(
        self, known: torch.Tensor, pair: torch.Tensor, where: torch.Tensor, slots: torch.Tensor | None
    ) -> torch.Tensor:
        """Return what the network adds to the logits [G, R, O]; nothing in slots that hold no target, which it does not compute.

        Args:
            known: what user, target and scenario bring into the first layer [G, R, H].
            pair: what it reads of the pair [G, R, P].
            where: the scenario, one-hot [G, R, S + 1] or [1, 1, S + 1].
            slots: places of the G x R that hold a target; None = all.
        """
        shape = known.shape[:2]
        known, pair, where = (part.flatten(0, 1) for part in (known, pair, where))
        if slots is not None:
            known, pair, where = (part.index_select(0, slots) for part in (known, pair, where))
        first = torch.addmm(known, pair, self.pair_layer.weight.t())
        hidden, gates = first.split([self.backbone.hidden_width, self.backbone.gate_width], dim=-1)
        hidden = (hidden if self.backbone.reads_vectors else functional.relu(hidden)) * (1 + self.scenario_scale(where))
        where = where.expand(len(hidden), -1)
        deep = self.towers(self.tower_inputs(self.backbone(hidden, gates, where)), where)
        if slots is not None:
            deep = deep.new_zeros(shape.numel(), deep.shape[1]).index_copy(0, slots, deep)
        return deep.unflatten(0, shape)

    def outcomes_of_requests(self, users: UserSide, targets: TargetSide) -> torch.Tensor:
        """Return each task's probability or expected value [G, R, T] in a next request of which nothing is known yet."""
        logits, shares = self.pair_logits(users, targets)
        asked = self.topics(targets.scenario, targets.match[..., self.levels], shares)
        return self.log_outcomes(logits).exp() * asked.unsqueeze(-1)

    def one_hot(self, scenario: torch.Tensor) -> torch.Tensor:
        """Return scenarios [...] as rows of zeros with a one [..., scenarios + 1]: layers of them cost less than look-ups."""
        return functional.one_hot(scenario, len(self.spec.scenarios) + 1).to(self.item_vector.weight.dtype)

    def by_scenario(self, values: torch.Tensor, where: torch.Tensor) -> torch.Tensor:
        """Return what values [..., (scenarios + 1) x O] say of the scenario `where` (one-hot): [..., O].

        The first of them count everywhere, and the scenario's own say how it differs: where examples are few, decay leaves them
        small ("frustratingly easy" domain adaptation, Daumé III, ACL 2007).
        """
        each = values.unflatten(-1, (-1, len(self.outputs)))
        return each[..., 0, :] + (each[..., 1:, :] * where[..., 1:].unsqueeze(-1)).sum(-2)

    def log_outcomes(self, logits: torch.Tensor) -> torch.Tensor:
        """Return the log of each task's probability or expected value [..., T]."""
        return self.chain(logits)


def _affinity(queries: torch.Tensor, users: UserSide) -> torch.Tensor:
    """Return the product of the user's long taste and the target: [G, R, 1]."""
    return torch.bmm(queries, users.taste.unsqueeze(-1)) * queries.shape[-1] ** -0.5
