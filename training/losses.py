"""What each task's error costs, element by element, from the log of its predicted outcome.

Binary: the negative log likelihood of the outcome. Regression: the Tweedie deviance with power 1.5 (Tweedie 1984), for
values that are mostly 0 and sometimes large; its optimum is the mean, so predictions add up to what was spent.
"""

import torch

from training.heads import log_complement
from training.spec import TaskSpec


def binary_loss(log_p: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
    """Return -log likelihood of labels in [0, 1]."""
    return -(label * log_p + (1 - label) * log_complement(log_p))


def tweedie_loss(log_mean: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
    """Return half the Tweedie deviance of power 1.5, up to a term of the label alone: 2 √μ + 2 y / √μ."""
    root = torch.exp(0.5 * log_mean)
    return 2 * root + 2 * label / root


def task_losses(
    log_outcomes: torch.Tensor, labels: torch.Tensor, weights: torch.Tensor, tasks: list[TaskSpec], scales: torch.Tensor
) -> torch.Tensor:
    """Return each task's weighted sum of losses [T]; rows of weight 0 (padding, masked labels) have no part in it.

    Args:
        log_outcomes, labels, weights: [..., T].
        scales: the regressions' unit [T] (their mean on the train split), which makes losses of tasks comparable.
    """
    losses = []
    for place, task in enumerate(tasks):
        log_p, label, weight = log_outcomes[..., place], labels[..., place], weights[..., place]
        if task.kind == "binary":
            loss = binary_loss(log_p, label)
        else:
            loss = tweedie_loss(log_p - scales[place].log(), label / scales[place])
        losses.append((loss * weight).sum())
    return torch.stack(losses)
