"""The gradients of the tasks side by side, for the balances that go by the angles between them.

What only one task moves has no part in these angles, and moves by that task's gradient as it is (Sener and Koltun 2018, section
3; so does torchjd's mtl_backward). One parameter may hold both: experts of all and of each task lie in one tensor, and the
relation of the tasks decides who hears which tower. So each number is looked at by itself: it is shared where two tasks or more
have a gradient in the batch.

Shapes: T tasks, P numbers in all parameters but the embedding table, U rows of this table that the batch has read, D its width.
"""

from collections.abc import Sequence

import torch
from torch import nn

from training.optimizers import sum_rows
from training.ranks import Slices
from training.slice_losses import SliceLosses


class TaskGradients:
    """The gradients of each task's loss over a whole batch.

    Args:
        parts: the losses of this rank's slices; their graphs are kept.
        slices: the slices of all ranks.
        dense: parameters with dense gradients.
        table: the embedding table, whose gradients are sparse: all tasks read the same rows. None where it is no parameter.
    """

    def __init__(
        self, parts: SliceLosses, slices: Slices, dense: Sequence[nn.Parameter], table: nn.Parameter | None
    ) -> None:
        self._dense, self._table = dense, table
        answers = parts.ask(self._of_slice)
        flat, *sparse = (
            sum(pieces[1:], pieces[0]) for pieces in zip(*slices.gather_gradients(answers, answers[0]), strict=True)
        )
        self._each = [flat]  # [T, n] each
        if table is not None:
            summed = [(rows.argsort(), rows, values) for rows, values in map(sum_rows, sparse)]
            self._rows = summed[0][1][summed[0][0]]
            self._each.append(torch.stack([values[order] for order, _, values in summed]).flatten(1))

    def gramian(self) -> torch.Tensor:
        """Return the products of the tasks' gradients with each other [T, T], over what they share."""
        common = [each * _is_shared(each) for each in self._each]
        return torch.stack([each @ each.t() for each in common]).sum(0)

    def give(self, weights: torch.Tensor) -> None:
        """Set the parameters' gradients: of what tasks share by these weights [T], of all else as they are."""
        flat, *of_rows = [_weighed(each, weights) for each in self._each]
        pieces = flat.split([parameter.numel() for parameter in self._dense])
        for parameter, piece in zip(self._dense, pieces, strict=True):
            parameter.grad = piece.view_as(parameter)
        if self._table is not None:
            values = of_rows[0].view(len(self._rows), -1)
            self._table.grad = torch.sparse_coo_tensor(
                self._rows.unsqueeze(0), values, self._table.shape, check_invariants=False
            )

    def _of_slice(self, losses: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Return [T, P] of the dense parameters and, of the table, a sparse gradient for each of the losses [T]."""
        wanted = [*self._dense, *([] if self._table is None else [self._table])]
        flat: list[torch.Tensor] = []
        sparse: list[torch.Tensor] = []
        for loss in losses:
            found = torch.autograd.grad(loss, wanted, retain_graph=True, allow_unused=True)
            each = zip(self._dense, found, strict=False)
            flat.append(torch.cat([(torch.zeros_like(p) if g is None else g).flatten() for p, g in each]))
            sparse += found[len(self._dense) :]
        return torch.stack(flat), *sparse


def _is_shared(each: torch.Tensor) -> torch.Tensor:
    """Return which numbers at least two tasks' gradients [T, n] reach: bool [n]."""
    return (each != 0).sum(0) > 1


def _weighed(each: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Return the sum of gradients [T, n], by weights [T] where they are shared: [n]."""
    return torch.where(_is_shared(each), (each * weights.unsqueeze(1)).sum(0), each.sum(0))
