"""What a batch costs each task in training: its loss, and what the relation of the tasks and penalties add to it."""

import torch

from training.batches import Batch
from training.losses import smooth, task_loss
from training.outputs import conversions
from training.pairs import pair_loss
from training.ranking_model import RankingModel
from training.relations import RISKS, Conversion


def training_losses(model: RankingModel, logits: torch.Tensor, batch: Batch, scales: torch.Tensor) -> torch.Tensor:
    """Return each task's sum over a batch [T].

    Args:
        model: whose tasks, losses and relation they are.
        logits: [G, R, O], with the logged positions in them.
        batch: the labels and their weights.
        scales: the regressions' units [T].
    """
    recipe, tasks = model.spec.recipe, model.spec.tasks
    log_outcomes, weights = model.log_outcomes(logits).unbind(-1), batch.weights.unbind(-1)
    labels = smooth(batch.labels, recipe.label_smoothing, tasks).unbind(-1)
    losses = []
    for place, task in enumerate(tasks):
        if task.loss == "zero_inflated_lognormal":
            values = model.chain.distribution(logits, log_outcomes, place)
            losses.append((values.loss(labels[place] / scales[place]) * weights[place]).sum())
        else:
            losses.append(task_loss(task, log_outcomes[place], labels[place], weights[place], scales[place]))
        if task.loss == "pairwise":
            losses[place] = losses[place] + pair_loss(
                log_outcomes[place], batch.labels[..., place], weights[place], batch.request
            )
    if recipe.task_relation in RISKS:
        for place, risk in _risks(model, logits, log_outcomes, batch).items():
            losses[place] = losses[place] + risk
    return torch.stack(losses)


def penalty_losses(penalties: list[torch.Tensor], batch: Batch) -> torch.Tensor:
    """Return what the penalties of a batch's impressions come to in each task [T]: shared out among all, they count once.

    Args:
        penalties: what parts of the model add to the losses of the impressions [impressions].
        batch: the weights of the impressions.
    """
    weights = batch.weights.flatten(0, 1)[batch.slots]
    return (torch.stack(penalties).sum(0).unsqueeze(-1) * weights).sum(0) / weights.shape[1]


def _risks(
    model: RankingModel, logits: torch.Tensor, log_outcomes: tuple[torch.Tensor, ...], batch: Batch
) -> dict[int, torch.Tensor]:
    """Return what the relation adds to the losses of tasks, by their places."""
    risk, added = RISKS[model.spec.recipe.task_relation], {}
    for task, click in conversions(model.spec.tasks).items():
        case = Conversion(
            log_click=log_outcomes[click],
            log_both=log_outcomes[task],
            said={o.role: logits[..., place] for place, o in enumerate(model.outputs) if o.task == task},
            clicked=batch.labels[..., click],
            converted=batch.labels[..., task],
        )
        # Only where both are known: the label of a click may be mature where its conversion's is not.
        weight = batch.weights[..., task] * (batch.weights[..., click] > 0)
        added[task] = (risk(case) * weight).sum()
    return added
