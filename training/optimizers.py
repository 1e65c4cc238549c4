"""Who moves which weight: AdamW the dense ones, row-wise Adagrad or lazy Adam the embedding table."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn import functional

from training.sharded_table import ShardedAdagrad, ShardedTable

if TYPE_CHECKING:
    from training.recipe import Recipe


TABLE = "fields.table.weight"
CLIP_NORM = 5.0  # how long the dense weights' gradient is at most


class RowwiseAdagrad(torch.optim.Optimizer):
    """Adagrad with one step size a row (Duchi et al. 2011; one sum a row as in DLRM), for sparse gradients.

    Only the rows that a batch has touched move; `l2` pulls them towards 0.
    """

    def __init__(self, table: nn.Parameter, lr: float, l2: float) -> None:
        super().__init__([table], {"lr": lr, "l2": l2})
        self.state[table]["sum"] = torch.zeros(len(table), device=table.device)

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Move the rows of the last gradient."""
        for group in self.param_groups:
            for table in group["params"]:
                rows, pull = sum_rows(table.grad)
                _move_rows(table, self.state[table]["sum"], rows, pull, group["lr"], group["l2"])


def _move_rows(
    table: torch.Tensor, total: torch.Tensor, rows: torch.Tensor, pull: torch.Tensor, rate: float, l2: float
) -> None:
    """Move distinct rows [n] of a table [R, D] against their gradients [n, D]; `total` [R] are the sums of squares."""
    if table.device.type == "cpu":
        from training.kernels.table import move_rows

        move_rows(table, total, rows, pull, rate, l2)
        return
    weights = table.index_select(0, rows)
    pull.add_(weights * l2)
    sums = total.index_select(0, rows).add_(pull.square().mean(1))
    total.index_copy_(0, rows, sums)
    weights.add_(pull.div_(sums.sqrt_().add_(1e-10).unsqueeze(1)), alpha=-rate)
    table.index_copy_(0, rows, weights)


def sum_rows(gradient: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the distinct rows of a sparse gradient, in any order, and the sum of what it holds for each of them.

    In a fraction of `coalesce`'s time: that sorts numbers twice as wide, and calls an addition for each short row.
    """
    places, values = gradient._indices()[0], gradient._values()
    if gradient.device.type == "cpu":
        from training.kernels import table as kernels

        return kernels.sum_rows(places.unsqueeze(1), values, gradient.shape[1])
    places, order = places.int().sort()
    rows, counts = places.unique_consecutive(return_counts=True)
    return rows.long(), functional.embedding_bag(order, values, counts.cumsum(0) - counts, mode="sum")


class LazyAdam(torch.optim.Optimizer):
    """Adam (Kingma and Ba 2015) that leaves rows without a gradient, and their moments, as they are: torch's SparseAdam.

    `l2` pulls the rows that move towards 0. It keeps two numbers a weight where row-wise Adagrad keeps one a row.
    """

    _BETAS, _EPSILON = (0.9, 0.999), 1e-8

    def __init__(self, table: nn.Parameter, lr: float, l2: float) -> None:
        super().__init__([table], {"lr": lr, "l2": l2})
        self.state[table] |= {"step": 0, "mean": torch.zeros_like(table), "square": torch.zeros_like(table)}

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Move the rows of the last gradient."""
        for group in self.param_groups:
            for table in group["params"]:
                (rows, pull), state = sum_rows(table.grad), self.state[table]
                pull = pull + table[rows] * group["l2"]
                state["step"] += 1
                corrections = [1 - beta ** state["step"] for beta in self._BETAS]
                mean = state["mean"][rows].lerp_(pull, 1 - self._BETAS[0])
                square = state["square"][rows].lerp_(pull.square(), 1 - self._BETAS[1])
                state["mean"][rows], state["square"][rows] = mean, square
                stride = group["lr"] * corrections[1] ** 0.5 / corrections[0]
                table.index_add_(0, rows, mean / (square.sqrt() + self._EPSILON), alpha=-stride)


def decays(model: nn.Module, name: str) -> bool:
    """Tell whether a parameter of a model is pulled to 0: a matrix is, unless it is a bias, or its module calls it `undecayed`.

    A module has that name for those of its parameters whose neutral value is not 0, as that of a factor is 1, and for biases
    called otherwise.
    """
    owner, _, own = name.rpartition(".")
    if isinstance(model.get_submodule(owner), nn.ParameterList):
        owner, _, own = owner.rpartition(".")
    is_named = own in getattr(model.get_submodule(owner), "undecayed", ())
    return model.get_parameter(name).ndim > 1 and "bias" not in name and not is_named


def make_optimizers(model: nn.Module, balance: nn.Module, recipe: Recipe) -> list[torch.optim.Optimizer]:
    """Return the optimizers of a ranker and its balance, first the dense weights', then the table's."""
    named = dict(model.named_parameters())
    table = named.pop(TABLE)
    decayed = [p for name, p in named.items() if decays(model, name)]
    free = [*(p for name, p in named.items() if not decays(model, name)), *balance.parameters()]
    groups = [{"params": decayed, "weight_decay": recipe.weight_decay}, {"params": free, "weight_decay": 0.0}]
    rates = recipe.learning_rate
    dense = torch.optim.AdamW(groups, lr=rates.dense, fused=True)
    if isinstance(sharded := model.get_submodule("fields.table"), ShardedTable):
        return [dense, ShardedAdagrad(sharded, rates.embedding)]
    of_table = {"rowwise_adagrad": RowwiseAdagrad, "lazy_adam": LazyAdam}[recipe.embedding_optimizer]
    return [dense, of_table(table, rates.embedding, recipe.l2_embedding)]
