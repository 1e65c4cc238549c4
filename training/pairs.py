"""Pairs of impressions of one request: the one with the outcome shall stand before the one without."""

import torch
from torch.nn import functional

from training.losses import log_complement


def pair_loss(log_p: torch.Tensor, label: torch.Tensor, weight: torch.Tensor, request: torch.Tensor) -> torch.Tensor:
    """Return the sum over pairs of -log σ(difference of their log-odds), the RankNet loss (Burges et al., ICML 2005).

    A pair are two rows of a chunk with one request and different labels; it weighs the product of both rows' weights. Where
    this loss is asked for, a chunk holds one request (training/batches.py).

    Args:
        log_p: the log of the outcome's probability [G, R].
        label, weight, request: likewise; -1 = no request.
    """
    odds = log_p - log_complement(log_p)
    together = (request.unsqueeze(2) == request.unsqueeze(1)) & (request >= 0).unsqueeze(2)
    is_pair = together & (label.unsqueeze(2) > label.unsqueeze(1))
    weights = weight.unsqueeze(2) * weight.unsqueeze(1) * is_pair
    return (functional.softplus(odds.unsqueeze(1) - odds.unsqueeze(2)) * weights).sum()
