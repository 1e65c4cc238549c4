"""One step of training: the losses of a batch, their gradient, the move of the weights.

A batch is always computed in SLICES slices (as many as processes, if these are more) side by side, whose losses and gradients
are added up in a fixed order: the weights after a step do not depend on which slice was ready first, nor on where it was.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import numpy as np
import torch

from nightshelf.errors import EngineError
from nightshelf.logs import get_logger
from training.backbones.moving import MovingMoments, StepCount
from training.backbones.penalties import collect_penalties
from training.balancing import make_balance
from training.batches import Batch, Dataset
from training.objective import penalty_losses, training_losses
from training.optimizers import CLIP_NORM, TABLE, make_optimizers
from training.ranking_model import RankingModel
from training.ranks import NoRoomForAll, Slice, Slices, cut, rank, ranks, ranks_here
from training.recipe import Recipe
from training.sharded_table import ShardedTable
from training.slice_losses import HadByAll, InTurns, SideBySide, SliceLosses
from training.task_gradients import TaskGradients
from training.workers import torch_workers

log = get_logger("train")

SLICES = 2


class Steps:
    """Moves the weights of a ranker, batch by batch.

    Args:
        model: the ranker; its recipe says how tasks are balanced and how fast weights move.
        scales: the regressions' units [T].

    Raises:
        InputError: the recipe's balancing does not fit the model.
    """

    def __init__(self, model: RankingModel, scales: torch.Tensor) -> None:
        recipe = model.spec.recipe
        self.model, self._scales = model, scales
        self.balance = make_balance(recipe, model.spec.tasks, model.backbone)
        self._optimizers = make_optimizers(model, self.balance, recipe)
        self._parameters = [p for p in model.parameters() if p.requires_grad]
        self._dense = [p for name, p in model.named_parameters() if p.requires_grad and name != TABLE]
        # A sharded table is no parameter: the gradients of its vectors go to the ranks that hold them.
        self._sharded = model.fields.table if isinstance(model.fields.table, ShardedTable) else None
        self._table = next((p for name, p in model.named_parameters() if p.requires_grad and name == TABLE), None)
        # An accelerator gains nothing by slices.
        self._slices = max(SLICES if scales.device.type == "cpu" else 1, ranks())
        # Dropout's draws come from one generator of the process: its slices wait for each other.
        self._draws = recipe.dropout > 0
        self._pool = torch_workers(1 if self._draws else max(1, self._slices // ranks()), ranks_here())
        self._moments = [part for part in model.modules() if isinstance(part, MovingMoments)]
        self._counts = [part for part in model.modules() if isinstance(part, StepCount)]
        self._forget_moments()  # of a batch whose loss was not finite
        self._turns, self._made = 1, 0
        self._epoch: list[torch.Tensor] = []  # the tasks' losses of each step
        self._again: Callable[[], torch.Tensor] | None = None  # the last batch's losses by the weights of now

    def gradient(self, dataset: Dataset, chunks: torch.Tensor, mean_weight: torch.Tensor) -> float:
        """Set the gradients of a batch's loss and return it: each task's mean over impressions, weighed and added up.

        Where the memory of an accelerator has no room for the batch, it is computed in smaller slices from then on.

        Args:
            dataset: the rows.
            chunks: the batch [G]. Every second one makes a slice, so that both hold histories of all its lengths.
            mean_weight: the mean weight of an impression in each task [T].

        Raises:
            EngineError: even small slices find no room.
        """
        while True:
            try:
                return self._gradient(dataset, chunks, mean_weight)
            except torch.OutOfMemoryError as error:
                self._forget_moments()
                all_know = ranks() == 1 or isinstance(error, NoRoomForAll)
            self._make_smaller(len(chunks), all_know)

    def _gradient(self, dataset: Dataset, chunks: torch.Tensor, mean_weight: torch.Tensor) -> float:
        count = (dataset.chunks[chunks] >= 0).sum() * mean_weight
        step = (self.model.spec.recipe.seed, self._made)

        def losses(part: Slice) -> torch.Tensor:
            """Return a slice's share of the batch's mean losses [T]; asked again it draws the same."""
            # What is dropped hangs neither on earlier draws nor on how many processes there are.
            with seeded((*step, part.number), self._scales.device) if self._draws else nullcontext():
                return batch_losses(self.model, dataset.batch(part.chunks), self._scales) / count

        slices = cut(chunks, self._slices * self._turns)
        own, at_once = slices.own, self._turns == 1

        def make() -> SliceLosses:
            """Return the losses of this rank's slices: all in memory with their graphs, or computed anew for each question."""
            return SideBySide(losses, own, self._pool) if at_once else InTurns(losses, own)

        # Look-ups in a table of parts wait for other ranks, which nothing of what fails here would reach
        parts = make() if self._sharded else HadByAll(make)
        # The balance is the CPU's: a few numbers a step.
        total = _add_up(parts, slices).cpu().requires_grad_()
        self._again = lambda: _add_up(SideBySide(torch.no_grad()(losses), own, self._pool), slices).cpu()
        if self.balance.last_shared is not None:
            self.balance.see_pulls(total.detach(), _pulls(parts, slices, *self.balance.last_shared).cpu())
        of_tasks = None
        if self.balance.wants_gramian:
            of_tasks = TaskGradients(parts, slices, self._dense, self._table)
            self.balance.see_gramian(of_tasks.gramian().cpu())
        for optimizer in self._optimizers:
            optimizer.zero_grad(set_to_none=True)
        loss = self.balance(total)
        loss.backward()

        assert total.grad is not None
        weights = total.grad.to(self._scales.device)
        if of_tasks is None or self._sharded:
            self._backward(parts, slices, weights)
        if of_tasks:
            of_tasks.give(weights)
        self._epoch.append(total.detach())
        return float(loss.detach())

    def _backward(self, parts: SliceLosses, slices: Slices, weights: torch.Tensor) -> None:
        """Set the gradients of all weights, for losses that weigh so much [T]."""
        dense = len(self._parameters)
        wanted = [*self._parameters, *(self._sharded.looked_up if self._sharded else [])]

        def backward(losses: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
            """Return each wanted weight's gradient of a slice's losses [T], weighed by `weights`; None if it has no part."""
            return torch.autograd.grad(losses, wanted, weights, allow_unused=True)

        answers = parts.ask(backward)
        if self._sharded:
            # A batch that no ranks share is computed by each of them.
            self._sharded.learn([answer[dense:] for answer in answers], counts=slices.shares or rank() == 0)
        gradients = slices.gather_gradients([answer[:dense] for answer in answers], self._parameters)
        for parameter, *pieces in zip(self._parameters, *gradients, strict=True):
            used = [piece for piece in pieces if piece is not None]
            # A copy, for autograd may have given one tensor to several parameters, and clipping is done in place.
            parameter.grad = sum(used[1:], used[0].clone()) if used else None

    def set_rate(self, share: float) -> None:
        """Let the next moves go at `share` times the recipe's learning rates."""
        rates = self.model.spec.recipe.learning_rate
        for optimizer, rate in zip(self._optimizers, (rates.dense, rates.embedding), strict=True):
            for group in optimizer.param_groups:
                group["lr"] = rate * share

    def move(self) -> None:
        """Move the weights by the gradients."""
        torch.nn.utils.clip_grad_norm_(self._dense, CLIP_NORM)
        for optimizer in self._optimizers:
            optimizer.step()
        for moments in self._moments:
            moments.settle()
        for count in self._counts:
            count.settle()
        self._made += 1
        if self.balance.looks_back:
            assert self._again is not None
            self.balance.after_step(self._epoch[-1], self._again)

    def end_epoch(self) -> None:
        """Tell the balance how the tasks' losses were."""
        self.balance.after_epoch(torch.stack(self._epoch).mean(0))
        self._epoch.clear()

    def state_dict(self) -> dict[str, Any]:
        """Return what optimizers and balance have learnt, the losses [steps, T] of the epoch, and how many steps were made."""
        return {
            "optimizers": [optimizer.state_dict() for optimizer in self._optimizers],
            "balance": self.balance.state_dict(),
            "losses": torch.stack(self._epoch) if self._epoch else torch.empty(0),
            "made": self._made,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from the state of the steps of the same recipe; the weights of the model are not in it."""
        for optimizer, learnt in zip(self._optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(learnt)
        self.balance.load_state_dict(state["balance"])
        self._epoch, self._made = list(state["losses"]), state["made"]

    def _make_smaller(self, chunks: int, all_know: bool) -> None:
        """Compute the batches to come in twice as many slices, one after another.

        Raises:
            EngineError: slices cannot be smaller, or other processes do not know that they should be.
        """
        if not all_know or self._slices * self._turns >= chunks:
            raise EngineError(
                f"a batch in {self._slices * self._turns} slices does not fit into the memory of {self._scales.device}; give the "
                "recipe a smaller batch_size, or narrower layers"
            )
        self._turns *= 2
        if self._scales.device.type != "cpu":
            torch.accelerator.empty_cache()
        log.warning(
            "out of memory on %s: batches are computed in %d slices from now on, one after another",
            self._scales.device,
            self._slices * self._turns,
        )

    def _forget_moments(self) -> None:
        """Let go of what a batch has left that moved no weights."""
        for moments in self._moments:
            moments.forget()


def _add_up(
    parts: SliceLosses, slices: Slices, question: Callable[[torch.Tensor], torch.Tensor] = torch.Tensor.detach
) -> torch.Tensor:
    """Return the sum of the answers for the losses of all slices, from this rank's."""
    return torch.stack(slices.gather(parts.ask(question))).sum(0)


def _pulls(parts: SliceLosses, slices: Slices, weight: torch.nn.Parameter, rows: int) -> torch.Tensor:
    """Return the norm of each task's gradient at the first rows of a weight: [T]."""

    def pull(losses: torch.Tensor) -> torch.Tensor:
        """Return each task's gradient at those rows, flat, for a slice's losses: [T, rows x width]."""
        each = [torch.autograd.grad(loss, weight, retain_graph=True)[0][:rows].flatten() for loss in losses]
        return torch.stack(each)

    return _add_up(parts, slices, pull).norm(dim=1)


def batch_losses(model: RankingModel, batch: Batch, scales: torch.Tensor) -> torch.Tensor:
    """Return each task's sum of losses over a batch [T], with the logged positions and the backbone's penalties in it."""
    with _precision(model.spec.recipe, scales.device), collect_penalties() as penalties:
        logits, position_bias = model(batch)
    losses = training_losses(model, logits.float() + position_bias, batch, scales)
    return losses + penalty_losses(penalties, batch) if penalties else losses


@contextmanager
def seeded(seed: tuple[int, ...], device: torch.device) -> Iterator[None]:
    """Let torch draw by a seed, on the CPU and on a device, and go on with its other draws afterwards."""
    with torch.random.fork_rng([] if device.type == "cpu" else [device], device_type=device.type):
        torch.manual_seed(int(np.random.SeedSequence(seed).generate_state(1, np.uint64)[0]))
        yield


def _precision(recipe: Recipe, device: torch.device) -> AbstractContextManager[object]:
    if recipe.precision == "float32":
        return nullcontext()
    # Each use casts its weights: what is cached would be shared by threads.
    return torch.autocast(device.type, torch.bfloat16, cache_enabled=False)
