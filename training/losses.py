"""What each task's error costs, element by element, from the log of its predicted outcome.

Binary: the negative log likelihood of the outcome. Regression: the Tweedie deviance with power 1.5 (Tweedie 1984), for
values that are mostly 0 and sometimes large; its optimum is the mean, so predictions add up to what was spent. A recipe may
choose another loss for a task; what it predicts is then no mean, and a probability is not one of the log's rates.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from training.spec import TaskSpec


_FOCUS = 2.0
# Below it a mean counts as this: its root would underflow, and a row without a value would cost 0 / 0.
_LEAST_LOG_MEAN = -80.0
_LEAST = 1e-6


def log_complement(log_p: torch.Tensor) -> torch.Tensor:
    """Return log(1 - p) from log(p)."""
    return torch.log(-torch.expm1(log_p.clamp(max=-_LEAST)))


def binary_loss(log_p: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
    """Return -log likelihood of labels in [0, 1]."""
    return -(label * log_p + (1 - label) * log_complement(log_p))


def tweedie_loss(log_mean: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
    """Return half the Tweedie deviance of power 1.5, up to a term of the label alone: 2 √μ + 2 y / √μ."""
    inverse = torch.exp(-0.5 * log_mean.clamp(min=_LEAST_LOG_MEAN))
    return 2 * torch.exp(0.5 * log_mean) + 2 * label * inverse


def focal_loss(log_p: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
    """Return the focal loss with γ = 2 (Lin et al., ICCV 2017): what is told well already counts little."""
    log_not = log_complement(log_p)
    missed = label * log_not.exp() + (1 - label) * log_p.exp()
    return missed**_FOCUS * binary_loss(log_p, label)


def squared_error(log_mean: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
    """Return half the squared error."""
    return 0.5 * (log_mean.exp() - label) ** 2


def huber_loss(log_mean: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
    """Return half the squared error up to an error of 1, and linear beyond (Huber 1964): a few large values bend it less."""
    return torch.nn.functional.huber_loss(log_mean.exp(), label, reduction="none")


def smooth(labels: torch.Tensor, share: float, tasks: list[TaskSpec]) -> torch.Tensor:
    """Return labels [..., T], those of binary tasks a share of the way nearer to one half (Szegedy et al., CVPR 2016)."""
    if not share:
        return labels
    shares = labels.new_tensor([share if task.kind == "binary" else 0.0 for task in tasks])
    return labels + shares * (0.5 - labels)


_LOSSES = {
    "cross_entropy": binary_loss,
    "focal": focal_loss,
    "pairwise": binary_loss,  # and beside it the pairs' (training/pairs.py)
    "tweedie": tweedie_loss,
    "squared_error": squared_error,
    "huber": huber_loss,
}


def task_losses(
    log_outcomes: torch.Tensor, labels: torch.Tensor, weights: torch.Tensor, tasks: list[TaskSpec], scales: torch.Tensor
) -> torch.Tensor:
    """Return each task's weighted sum of losses [T]; rows of weight 0 (padding, masked labels) have no part in it.

    Args:
        log_outcomes, labels, weights: [..., T].
        scales: the regressions' unit [T] (their mean on the train split), which makes losses of tasks comparable.
    """
    columns = zip(tasks, *(values.unbind(-1) for values in (log_outcomes, labels, weights)), scales, strict=True)
    return torch.stack([task_loss(*column) for column in columns])


def task_loss(
    task: TaskSpec, log_outcome: torch.Tensor, label: torch.Tensor, weight: torch.Tensor, scale: torch.Tensor
) -> torch.Tensor:
    """Return the weighted sum of a task's losses from the log of its outcomes, labels and weights [...]."""
    if task.kind == "regression":
        log_outcome, label = log_outcome - scale.log(), label / scale
    return (_LOSSES[task.loss](log_outcome, label) * weight).sum()
