"""The course of a training: all that changes while it runs, so that it can be written down and taken up again."""

import math
from dataclasses import asdict, dataclass, field
from typing import Any

import torch

from training.averaging import WeightAverage
from training.ranking_model import RankingModel
from training.steps import Steps


@dataclass
class TrainingReport:
    """What a training did. `epochs` has one row each: epoch, train_loss, validation_loss, auc_<task>, rows_per_s.

    `seconds` are those of the attempt that ended it.
    """

    train_rows: int
    validation_rows: int
    test_rows: int
    warm_started: bool
    epochs: list[dict[str, float]] = field(default_factory=list)
    best_epoch: int = 0
    best_validation_loss: float = math.inf
    halvings: int = 0
    seconds: float = 0.0


@dataclass
class EpochPass:
    """One pass over the rows: the mean of its weights, the batches that are done, their rows and Σ loss x rows."""

    average: WeightAverage
    batch: int = 0
    rows: int = 0
    total: float = 0.0

    @property
    def loss(self) -> float:
        """Return the mean loss so far."""
        return self.total / max(self.rows, 1)

    def add(self, loss: float, rows: int) -> None:
        """Take in the loss of a batch that is done."""
        self.batch, self.rows, self.total = self.batch + 1, self.rows + rows, self.total + loss * rows


class Course:
    """Where the training of a ranker is.

    Between epochs `running` is None. `waited` counts the epochs since the best one, whose weights are `best`. Once
    `serving`, the epochs are over and the one pass goes on that teaches the weights for use.
    """

    def __init__(self, model: RankingModel, scales: torch.Tensor, report: TrainingReport) -> None:
        self.model, self.report, self._scales = model, report, scales
        self.epoch, self.waited, self.serving = 1, 0, False
        self.running: EpochPass | None = None
        self.keep_best()
        self.take_new_steps()

    @property
    def device(self) -> torch.device:
        """Return where the model is."""
        return self.model.item_vector.weight.device

    @property
    def batch(self) -> int:
        """Return how many batches of the running epoch are done."""
        return self.running.batch if self.running else 0

    def take_new_steps(self) -> None:
        """Forget what the optimizers and the balance have learnt."""
        self.steps = Steps(self.model, self._scales)

    def keep_best(self) -> None:
        """Let the weights of now be the best."""
        self.best = {name: tensor.detach().clone() for name, tensor in self.model.state_dict().items()}

    def return_to_best(self) -> None:
        """Put the best weights into the model."""
        self.model.load_state_dict(self.best)

    def state_dict(self) -> dict[str, Any]:
        """Return all of it, and the state of torch's own draws, as tensors and plain values."""
        running = self.running and {**vars(self.running), "average": self.running.average.state_dict()}
        return {
            "model": self.model.state_dict(),
            "best": self.best,
            "steps": self.steps.state_dict(),
            "running": running,
            "report": asdict(self.report),
            "epoch": self.epoch,
            "waited": self.waited,
            "serving": self.serving,
            "draws": torch.get_rng_state(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a state of a course with the same model."""
        vars(self.report).update(state["report"])  # whoever began the training holds it, too
        self.model.load_state_dict(state["model"])
        self.take_new_steps()
        self.steps.load_state_dict(state["steps"])
        self.epoch, self.waited, self.serving = state["epoch"], state["waited"], state["serving"]
        self.best = {name: tensor.to(self.device) for name, tensor in state["best"].items()}
        self.running = None
        if state["running"]:
            average = WeightAverage(self.model, self.model.spec.recipe.weight_average)
            average.load_state_dict(state["running"]["average"])
            self.running = EpochPass(**{**state["running"], "average": average})
        torch.set_rng_state(state["draws"])
