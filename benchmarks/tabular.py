"""A model for one table of plain columns, made of the ranker's own parts: what benchmarks hold beside other libraries.

Shapes: N rows, F categorical columns, D dense columns, S scenarios, T tasks.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn import functional

from training.averaging import WeightAverage
from training.backbones import Backbone
from training.encoders import FieldEmbedding
from training.heads import OutcomeChain
from training.losses import binary_loss
from training.optimizers import CLIP_NORM, TABLE
from training.towers import ScenarioTowers, Towers

if TYPE_CHECKING:
    from training.spec import TaskSpec


class AsTheyAre(nn.Module):
    """Columns [N, inputs] as they are, and what a backbone's gates hear of them [N, gates] behind."""

    def __init__(self, inputs: int, gates: int) -> None:
        super().__init__()
        self.gates = nn.Linear(inputs, gates) if gates else None

    def forward(self, columns: torch.Tensor) -> torch.Tensor:
        """Return [N, inputs + gates]."""
        return columns if self.gates is None else torch.cat([columns, self.gates(columns)], 1)


@dataclass(frozen=True)
class Columns:
    """Rows of a table, resident in memory."""

    ids: torch.Tensor  # integers [N, F], 0 = unknown
    dense: torch.Tensor  # float32 [N, D], scaled
    labels: torch.Tensor  # float32 [N, T]
    scenario: torch.Tensor | None = None  # int64 [N], 1 … S; None where there is but one

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, rows: torch.Tensor) -> Columns:
        """Return the rows at `rows` (one dimension)."""
        taken = (column.index_select(0, rows) for column in (self.ids, self.dense, self.labels))
        return Columns(*taken, None if self.scenario is None else self.scenario.index_select(0, rows))


class TabularModel(nn.Module):
    """Embeddings, one first layer, a backbone, towers and the chain of tasks.

    Args:
        fields: categorical column → how many ids it has; they are 0 … count - 1, and any beyond is unknown, as 0 is.
        dense: how many dense columns.
        backbone: made for as many tasks and scenarios.
        tasks: binary ones, each behind those that it is given.
        scenarios: how many there are; more than one may have towers of their own.
        pair: the places of the columns that say who, and of those that say what, if their product is to be read and added too.
        precision: of the matrices' products; weights, gates, losses and sums are float32 in any case.
    """

    def __init__(
        self,
        fields: dict[str, int],
        dense: int,
        tasks: list[TaskSpec],
        embedding_size: int,
        backbone: Backbone,
        tower_sizes: list[int],
        scenarios: int = 1,
        tower_per_scenario: bool = False,
        pair: tuple[list[int], list[int]] | None = None,
        precision: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        self.tasks, self.scenarios, self.precision = tasks, scenarios, precision
        self.fields = FieldEmbedding(fields, embedding_size)
        self.backbone = backbone
        inputs, outputs = len(fields) * embedding_size + dense, self.backbone.hidden_width + self.backbone.gate_width
        # A backbone that reads vectors reads the columns as they are, if its input is as wide as they.
        as_they_are = self.backbone.reads_vectors and inputs == self.backbone.hidden_width
        self.first = AsTheyAre(inputs, self.backbone.gate_width) if as_they_are else nn.Linear(inputs, outputs)
        self.pair = pair
        if pair:
            self.taste, self.query = (nn.Linear(len(side) * embedding_size, embedding_size) for side in pair)
            self.pair_layer = nn.Linear(embedding_size, outputs, bias=False)
        into, apart = (self.backbone.out_width, tower_sizes), tower_per_scenario
        self.towers = ScenarioTowers(len(tasks), scenarios, *into) if apart else Towers(len(tasks), *into)
        self.chain = OutcomeChain(tasks)

    def logits(self, ids: torch.Tensor, dense: torch.Tensor, scenario: torch.Tensor | None = None) -> torch.Tensor:
        """Return each task's logit [N, T] for ids [N, F] and dense columns [N, D] in scenarios [N]."""
        scenario = torch.ones(len(ids), dtype=torch.int64, device=ids.device) if scenario is None else scenario
        where = functional.one_hot(scenario, self.scenarios + 1).to(dense.dtype)
        with torch.autocast(dense.device.type, self.precision, enabled=self.precision != torch.float32):
            return self.dense_part(self.fields(ids, 0, dense), where)

    def dense_part(self, inputs: torch.Tensor, where: torch.Tensor) -> torch.Tensor:
        """Return the logits [N, T] from the columns' vectors with the dense columns beside them, in scenarios [N, S + 1]."""
        product = self._product(inputs)
        first = self.first(inputs) if product is None else self.first(inputs) + self.pair_layer(product)
        hidden, gates = first.split([self.backbone.hidden_width, self.backbone.gate_width], dim=1)
        hidden = hidden if self.backbone.reads_vectors else functional.relu(hidden)
        logits = self.towers(self.backbone(hidden, gates, where), where).float()
        return logits if product is None else logits + product.float().sum(1, keepdim=True)

    def _product(self, inputs: torch.Tensor) -> torch.Tensor | None:
        """Return the product of what the columns make of who and of what: [N, embedding size]."""
        if self.pair is None:
            return None
        vectors = inputs[:, : len(self.fields.sizes) * self.fields.table.embedding_dim]
        each = vectors.unflatten(1, (-1, self.fields.table.embedding_dim))
        who, what = (each[:, side].flatten(1) for side in self.pair)
        return self.taste(who) * self.query(what)

    def forward(self, ids: torch.Tensor, dense: torch.Tensor, scenario: torch.Tensor | None = None) -> torch.Tensor:
        """Return the log of each task's outcome [N, T]."""
        return self.chain(self.logits(ids, dense, scenario))


def shuffled_batches(columns: Columns, batch_size: int, seed: int, epoch: int) -> Iterator[Columns]:
    """Give all rows once, in batches and an order that (seed, epoch) and the device decide, for it is drawn there."""
    device = columns.labels.device
    generator = torch.Generator(device).manual_seed(seed * 100_003 + epoch)
    order = torch.randperm(len(columns), generator=generator, device=device)
    for rows in order.split(batch_size):
        yield columns.take(rows)


def train_epoch(
    model: TabularModel,
    columns: Columns,
    optimizers: list[torch.optim.Optimizer],
    batch_size: int,
    seed: int,
    epoch: int,
    average: WeightAverage | None = None,
) -> float:
    """Pass once over the rows, in an order that (seed, epoch) decides; return the mean loss of a row.

    Args:
        model: what learns, from the sum of its tasks' mean losses.
        columns: the rows.
        optimizers: those of training.optimizers.make_optimizers.
        batch_size: rows a step.
        seed, epoch: they decide the order, and dropout's draws too.
        average: with it a step is the ranker's: gradients are clipped, and the model has the average of its weights in the end.
    """
    model.train()
    torch.manual_seed(seed * 100_003 + epoch)  # dropout's draws
    total, weights = torch.zeros((), device=columns.labels.device), list(model.parameters())
    dense = [weight for name, weight in model.named_parameters() if name != TABLE]
    for batch in shuffled_batches(columns, batch_size, seed, epoch):
        loss = batch_loss(model, batch)
        # As the ranker's steps do: `backward` would copy the table's gradient.
        for weight, gradient in zip(weights, torch.autograd.grad(loss, weights), strict=True):
            weight.grad = gradient
        if average:
            torch.nn.utils.clip_grad_norm_(dense, CLIP_NORM)
            average.before_step()
        for optimizer in optimizers:
            optimizer.step()
        if average:
            average.update()
        total += loss.detach() * len(batch)
    if average:
        average.apply()
    return float(total) / len(columns)


def batch_loss(model: TabularModel, batch: Columns) -> torch.Tensor:
    """Return the sum of the tasks' mean losses over a batch."""
    return binary_loss(model(batch.ids, batch.dense, batch.scenario), batch.labels).sum() / len(batch)


@torch.inference_mode()
def predict(model: TabularModel, columns: Columns, batch_size: int) -> torch.Tensor:
    """Return each row's outcomes [N, T]."""
    model.eval()
    parts = torch.arange(len(columns)).split(batch_size)
    return torch.cat([model(batch.ids, batch.dense, batch.scenario) for batch in map(columns.take, parts)]).exp()
