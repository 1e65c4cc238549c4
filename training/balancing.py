"""How the tasks' losses become one."""

import torch
from torch import nn

from nightshelf.errors import InputError
from training.recipe import Recipe
from training.spec import TaskSpec


class TaskBalance(nn.Module):
    """Weigh task losses: equally, by fixed weights, or by learned uncertainty (Kendall, Gal and Cipolla, CVPR 2018)."""

    weights: torch.Tensor

    def __init__(self, recipe: Recipe, tasks: list[TaskSpec]) -> None:
        super().__init__()
        names = [task.name for task in tasks]
        for name in recipe.task_weights:
            if name not in names:
                raise InputError(f"task_weights: {name!r} is no task of this shop; known: {', '.join(names)}")
        given = recipe.task_weights if recipe.balancing == "fixed" else {}
        self.register_buffer("weights", torch.tensor([float(given.get(name, 1.0)) for name in names]), persistent=False)
        self.log_variance = nn.Parameter(torch.zeros(len(tasks))) if recipe.balancing == "uncertainty" else None

    def forward(self, losses: torch.Tensor) -> torch.Tensor:
        """Return one loss from the tasks' [T]."""
        weighted = losses * self.weights
        if self.log_variance is None:
            return weighted.sum()
        return (torch.exp(-self.log_variance) * weighted + 0.5 * self.log_variance).sum()
