"""nightshelf's MMoE on the plain table: the ranker's own parts and optimizers, columns that stay in memory.

A step does what the other libraries' do; benchmarks/ours_averaged.py also clips gradients and averages weights, as the ranker.
"""

from collections.abc import Iterator

import numpy as np
import torch
from torch import nn

from benchmarks.plain_table import DENSE, EMBEDDING, EXPERT_SIZES, EXPERTS, FIELDS, LABELS, TOWER_SIZES
from benchmarks.tabular import Columns, TabularModel, predict, shuffled_batches, train_epoch
from benchmarks.trial import Task, run_trial
from training.averaging import WeightAverage
from training.backbone_sizes import MMoESizes
from training.backbones import make_backbone
from training.columns import read_columns, stack
from training.kernels.memory import steady_memory
from training.optimizers import make_optimizers
from training.recipe import Recipe
from training.spec import TaskSpec


class Ours:
    """The recipe's default learning rates; products in bfloat16 where the processor has instructions for them."""

    average = 0.0

    def __init__(self, task: Task) -> None:
        torch.manual_seed(task.seed)
        self.task = task
        tasks = [TaskSpec(name=name, kind="binary") for name in LABELS]
        sizes = MMoESizes(kind="mmoe", experts=EXPERTS, expert_sizes=EXPERT_SIZES)
        precision = torch.bfloat16 if torch.cpu.get_capabilities()["avx512_bf16"] else torch.float32
        backbone = make_backbone(sizes, len(tasks), scenarios=1, dropout=0.0)
        self.model = TabularModel(FIELDS, len(DENSE), tasks, EMBEDDING, backbone, TOWER_SIZES, precision=precision)
        self.optimizers = make_optimizers(self.model, nn.Module(), Recipe(name="plain"))
        # Numba is loaded with the first look-up, in a second: before the clock starts, as torch is.
        self.model.fields(torch.zeros(1, len(FIELDS), dtype=torch.int32), 0)

    def read(self) -> None:
        """Read the files into tensors."""
        self.train_rows, self.held_out = self._columns("train"), self._columns("held_out")

    def batches(self) -> Iterator[Columns]:
        """Gather an epoch's batches."""
        return shuffled_batches(self.train_rows, self.task.batch_size, self.task.seed, 0)

    def train(self) -> None:
        """Train one epoch."""
        with steady_memory():
            average = WeightAverage(self.model, self.average) if self.average else None
            train_epoch(self.model, self.train_rows, self.optimizers, self.task.batch_size, self.task.seed, 0, average)

    def predict(self) -> np.ndarray:
        """Predict."""
        return predict(self.model, self.held_out, self.task.batch_size).numpy()

    def _columns(self, part: str) -> Columns:
        table = read_columns(part, [self.task.folder / f"{part}.parquet"], [*FIELDS, *DENSE, *LABELS])
        kinds = ((list(FIELDS), np.int32), (DENSE, np.float32), (LABELS, np.float32))
        return Columns(*(torch.from_numpy(stack(table, names, kind)) for names, kind in kinds))


if __name__ == "__main__":
    run_trial(Ours)
