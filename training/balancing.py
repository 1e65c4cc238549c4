"""How the tasks' losses become one: what each weighs in the gradient of a step.

`equal` and `fixed` weigh by the recipe, `uncertainty` by a learned variance; `dwa` by how fast each loss has fallen from epoch to
epoch; `gradnorm` so that tasks pull alike at the last layer that they share; `famo` so that all losses fall at one rate;
`pcgrad`, `mgda`, `cagrad` and `upgrad` (of torchjd) by the angles between the tasks' gradients, so that none is stepped upon.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from nightshelf.errors import InputError
from training.backbones import Backbone
from training.recipe import Recipe
from training.spec import TaskSpec

_LEAST = 1e-8


class Balance(nn.Module):
    """Weights of equal and fixed balancing, and what the other kinds are asked for.

    weights: [T], not learned by the model's optimizers. last_shared: a weight and how many of its rows tasks share, if the
    balance wants to know how hard each task pulls at it. wants_gramian, looks_back: whether see_gramian, after_step are to be
    called. The state_dict holds all that a balance has learnt.
    """

    weights: torch.Tensor
    last_shared: tuple[nn.Parameter, int] | None = None
    wants_gramian = False
    looks_back = False

    def __init__(self, weights: torch.Tensor) -> None:
        super().__init__()
        self.register_buffer("weights", weights)

    def forward(self, losses: torch.Tensor) -> torch.Tensor:
        """Return one loss from the tasks' [T]."""
        return (losses * self.weights).sum()

    def see_pulls(self, losses: torch.Tensor, norms: torch.Tensor) -> None:
        """Learn the norms [T] of the gradients of the losses [T] at last_shared, before the step that they belong to."""

    def see_gramian(self, gramian: torch.Tensor) -> None:
        """Learn the products [T, T] of the tasks' gradients with each other at what they share, before the step that they belong
        to; the balance's weights are for that alone."""

    def after_step(self, before: torch.Tensor, again: Callable[[], torch.Tensor]) -> None:
        """Learn from a step: the batch's losses [T] before it, and a way to have them again after it."""

    def after_epoch(self, losses: torch.Tensor) -> None:
        """Learn the mean losses [T] of an epoch."""


class Uncertainty(Balance):
    """Each loss by a learned variance (Kendall, Gal and Cipolla, CVPR 2018)."""

    def __init__(self, tasks: int) -> None:
        super().__init__(torch.ones(tasks))
        self.log_variance = nn.Parameter(torch.zeros(tasks))

    def forward(self, losses: torch.Tensor) -> torch.Tensor:
        """Return one loss from the tasks' [T]."""
        return (torch.exp(-self.log_variance) * losses + 0.5 * self.log_variance).sum()


class DynamicAverage(Balance):
    """DWA (Liu, Johns and Davison, CVPR 2019, section 3.3): whose loss fell less in the last epoch weighs more."""

    _TEMPERATURE = 2.0

    def __init__(self, tasks: int) -> None:
        super().__init__(torch.ones(tasks))
        self._last: torch.Tensor | None = None

    def after_epoch(self, losses: torch.Tensor) -> None:
        """Weigh the next epoch by how far the losses [T] fell in this one."""
        if self._last is not None:
            fallen = losses / self._last.clamp(min=_LEAST)
            self.weights = len(losses) * torch.softmax(fallen / self._TEMPERATURE, 0)
        self._last = losses.clone()

    def get_extra_state(self) -> dict[str, Any]:
        """Return the losses of the last epoch, for a checkpoint."""
        return {"last": self._last}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Go on from the losses of the last epoch."""
        self._last = state["last"]


class GradNorm(Balance):
    """GradNorm (Chen et al., ICML 2018): the norms of the weighted gradients at the last shared layer become alike, but for
    tasks that learn more slowly than the others, which pull more (by the power alpha of their inverse training rate)."""

    _ALPHA, _RATE = 1.5, 0.025

    def __init__(self, tasks: int, last_shared: tuple[nn.Parameter, int]) -> None:
        super().__init__(torch.ones(tasks))
        self.last_shared = last_shared
        self._learned = self.weights.clone().requires_grad_()
        self._optimizer = torch.optim.Adam([self._learned], lr=self._RATE)
        self._first: torch.Tensor | None = None

    def see_pulls(self, losses: torch.Tensor, norms: torch.Tensor) -> None:
        """Move the weights, and keep their sum."""
        self._first = losses.clone() if self._first is None else self._first
        rates = losses / self._first.clamp(min=_LEAST)
        pulls = self._learned * norms
        wanted = (pulls.mean() * (rates / rates.mean().clamp(min=_LEAST)) ** self._ALPHA).detach()
        self._optimizer.zero_grad()
        (pulls - wanted).abs().sum().backward()
        self._optimizer.step()
        with torch.no_grad():
            self._learned.clamp_(min=_LEAST)
            self._learned.mul_(len(losses) / self._learned.sum())
        self.weights = self._learned.detach().clone()

    def get_extra_state(self) -> dict[str, Any]:
        """Return the first losses and where the learning of the weights is, for a checkpoint."""
        return {"first": self._first, "learned": self._learned.detach(), "optimizer": self._optimizer.state_dict()}

    @torch.no_grad()
    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Go on from there."""
        self._first = state["first"]
        self._learned.copy_(state["learned"])
        self._optimizer.load_state_dict(state["optimizer"])


class FAMO(Balance):
    """FAMO (Liu et al., NeurIPS 2023): all losses shall fall at one rate; the weights learn from how far a step took each.

    The step goes along the gradient of Σ w · log(loss), scaled so that the losses' own gradients weigh 1 together.
    """

    _RATE, _DECAY = 0.025, 0.001
    looks_back = True

    def __init__(self, tasks: int) -> None:
        super().__init__(torch.ones(tasks))
        self._logits = torch.zeros(tasks, requires_grad=True)
        self._optimizer = torch.optim.Adam([self._logits], lr=self._RATE, weight_decay=self._DECAY)

    def forward(self, losses: torch.Tensor) -> torch.Tensor:
        """Return one loss from the tasks' [T]."""
        share = torch.softmax(self._logits.detach(), 0) / losses.detach().clamp(min=_LEAST)
        self.weights = share / share.sum()
        return (losses * self.weights).sum()

    def after_step(self, before: torch.Tensor, again: Callable[[], torch.Tensor]) -> None:
        """Move the weights towards the tasks whose loss fell least."""
        fell = before.clamp(min=_LEAST).log() - again().clamp(min=_LEAST).log()
        self._optimizer.zero_grad()
        torch.softmax(self._logits, 0).backward(fell)
        self._optimizer.step()

    def get_extra_state(self) -> dict[str, Any]:
        """Return where the learning of the weights is, for a checkpoint."""
        return {"logits": self._logits.detach(), "optimizer": self._optimizer.state_dict()}

    @torch.no_grad()
    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Go on from there."""
        self._logits.copy_(state["logits"])
        self._optimizer.load_state_dict(state["optimizer"])


class Surgery(Balance):
    """Weights from the angles between the tasks' gradients, by torchjd: PCGrad (Yu et al. 2020), MGDA (Désidéri 2012, Sener and
    Koltun 2018), CAGrad (Liu et al. 2021, c = .4) or UPGrad (Quinton and Rey 2024)."""

    wants_gramian = True

    def __init__(self, tasks: int, kind: str) -> None:
        super().__init__(torch.ones(tasks))
        from torchjd import aggregation

        makers: dict[str, Callable[[], aggregation.GramianWeightedAggregator]] = {
            "pcgrad": aggregation.PCGrad,
            "mgda": aggregation.MGDA,
            "cagrad": lambda: aggregation.CAGrad(c=0.4),
            "upgrad": aggregation.UPGrad,
        }
        self._weighting = makers[kind]().gramian_weighting

    def see_gramian(self, gramian: torch.Tensor) -> None:
        """Weigh the step by the gradients' products; those of a loss that is not finite would break the solvers."""
        if gramian.isfinite().all():
            self.weights = self._weighting(gramian)


def make_balance(recipe: Recipe, tasks: list[TaskSpec], backbone: Backbone) -> Balance:
    """Return the balance of a recipe.

    Raises:
        InputError: task_weights name no task of the shop, or leave none to train; gradnorm where tasks share no layer.
    """
    names = [task.name for task in tasks]
    for name in recipe.task_weights:
        if name not in names:
            raise InputError(f"task_weights: {name!r} is no task of this shop; known: {', '.join(names)}")
    if not any(recipe.task_weights.get(name, 1.0) for name in names):
        raise InputError(
            f"task_weights: all tasks of this shop ({', '.join(names)}) have weight 0; give one of them more"
        )
    if recipe.balancing == "uncertainty":
        return Uncertainty(len(tasks))
    if recipe.balancing == "dwa":
        return DynamicAverage(len(tasks))
    if recipe.balancing == "famo":
        return FAMO(len(tasks))
    if recipe.balancing in ("pcgrad", "mgda", "cagrad", "upgrad"):
        return Surgery(len(tasks), recipe.balancing)
    if recipe.balancing == "gradnorm":
        if backbone.last_shared is None:
            raise InputError(
                f"balancing: gradnorm needs a layer that tasks share behind the first one; backbone {recipe.backbone.kind} "
                "with these sizes has none: give it two sizes, or take another balancing"
            )
        return GradNorm(len(tasks), backbone.last_shared)
    given = recipe.task_weights if recipe.balancing == "fixed" else {}
    return Balance(torch.tensor([float(given.get(name, 1.0)) for name in names]))
