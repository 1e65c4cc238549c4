"""Predictions for logged impressions: what validation and evaluation read."""

from dataclasses import dataclass
from functools import partial

import torch

from training.batches import Dataset
from training.devices import as_memory_allows
from training.ranking_model import RankingModel
from training.sharded_table import ShardedTable
from training.workers import torch_workers

_SLOTS = 16_384


@dataclass(frozen=True)
class Predictions:
    """Outcomes of the dataset's rows, in the order of the examples: [n, T] float32; rows not in the dataset hold NaN."""

    at_position: torch.Tensor  # with the logged position: what calibration is measured on
    log_at_position: torch.Tensor
    at_first: torch.Tensor  # with the position removed: what ranking is measured on


def predict(model: RankingModel, dataset: Dataset) -> Predictions:
    """Predict every row of a dataset, in smaller batches where the memory of an accelerator is short.

    Raises:
        EngineError: it has no room for the rows of one user.
    """
    model.eval()
    tasks, rows = len(model.spec.tasks), len(dataset.examples)
    logged, first = torch.full((rows, tasks), torch.nan), torch.full((rows, tasks), torch.nan)

    @torch.inference_mode()
    def fill(chunks: torch.Tensor) -> None:
        """Predict the rows of some chunks, and put them into their places in `logged` and `first`."""
        batch = dataset.batch(chunks)
        logits, bias = model(batch)
        slots = batch.rows[batch.is_row].cpu()
        logged[slots] = model.log_outcomes(logits + bias)[batch.is_row].cpu()
        first[slots] = model.log_outcomes(logits)[batch.is_row].cpu()

    one_thread = isinstance(model.fields.table, ShardedTable)  # so that all ranks look up in one order
    with torch_workers(1 if one_thread else 0) as pool:
        list(pool.map(partial(as_memory_allows, fill), dataset.ordered_batches(_SLOTS)))
    return Predictions(logged.exp(), logged, first.exp())
