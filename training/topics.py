"""What a user's next request will be about: the step from a logged request, whose topic is known, to tomorrow's, which is not.

In a scenario that answers a request (a query, an item's page) the log shows what fits that request, and its outcomes teach
what is clicked among it. A shelf made the night before must also know what will be asked for. With topic = third-level
category, the chance of a click on item i in tomorrow's request is

    p(click | shown on topic) · (ρ + (1 - ρ) · P(topic of i | user)),

where ρ is how much less often impressions off their request's topic are clicked. P is the posterior mean of a Dirichlet
distribution around the shop's shares of topics (Gelman et al., Bayesian Data Analysis, 3.4), whose counts are the user's
history and exposure; how much an event of each type and age counts is fitted by maximum likelihood.
"""

import numpy as np
import torch

from training.data import Examples
from training.ranking_model import RankingModel

_MOST_REQUESTS = 50_000
_BLOCK = 4096


@torch.no_grad()
def fit_topics(model: RankingModel, examples: Examples, rows: np.ndarray, scenarios: list[str]) -> dict[str, float]:
    """Fit model.topics from the requests among `rows` of the examples in these scenarios.

    Scenarios without a request of two known categories or without a click keep ρ = 1: there, topics change nothing.

    Returns:
        scenario → ρ.
    """
    topics = model.topics
    topics.reset()
    category = examples.catalogue[:, list(model.spec.item_fields).index("category_3_index")]
    places = [model.spec.scenario_index(name) for name in scenarios]
    rows = rows[np.isin(examples.scenario[rows], places) & (examples.request[rows] >= 0)]
    shown = category[examples.item[rows]].astype(np.int64)
    rows, shown = rows[shown > 0], shown[shown > 0]
    if not len(rows):
        return dict.fromkeys(scenarios, 1.0)
    request, first, topic = request_topics(examples.request[rows], shown)
    on_topic, clicked = shown == topic[request], examples.labels[rows, 0] > 0
    for place in places:
        here = examples.scenario[rows] == place
        topics.off_topic[place] = _relative_rate(clicked[here & ~on_topic], clicked[here & on_topic])
    shares = np.bincount(topic, minlength=len(topics.prior)) + 0.5
    shares[0] = 0
    topics.prior.copy_(torch.from_numpy(shares / shares.sum()))
    chosen = np.random.default_rng(model.spec.recipe.seed).permutation(len(topic))[:_MOST_REQUESTS]
    mine, total = _counts(model, examples, category, examples.history[rows[first[chosen]]], topic[chosen])
    topics.set_worth(_most_likely(mine, total, topics.prior[topic[chosen]].double()))
    return {name: float(topics.off_topic[place]) for name, place in zip(scenarios, places, strict=True)}


def request_topics(request: np.ndarray, category: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return each row's request numbered 0.., the first row of each request, and its topic: the category shown most often.

    Ties go to the lower id.
    """
    _, first, number = np.unique(request, return_index=True, return_inverse=True)
    pairs, counts = np.unique(np.stack([number, category]), axis=1, return_counts=True)
    order = np.lexsort((pairs[1], -counts, pairs[0]))
    starts = np.flatnonzero(np.r_[True, np.diff(pairs[0][order]) > 0])
    return number, first, pairs[1][order][starts]


def _relative_rate(off: np.ndarray, on: np.ndarray) -> float:
    if not len(off) or not on.any():
        return 1.0
    return float(min(1.0, off.mean() / on.mean()))


def _counts(
    model: RankingModel, examples: Examples, category: np.ndarray, history: np.ndarray, topic: np.ndarray
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return per request the memories of its topic and of all topics [n, events x memories + memories] (float64)."""
    stored, kinds = examples.histories, torch.from_numpy(category)
    mine: list[torch.Tensor] = []
    total: list[torch.Tensor] = []
    for start in range(0, len(history), _BLOCK):
        at, wanted = history[start : start + _BLOCK], torch.from_numpy(topic[start : start + _BLOCK])[:, None]
        events, ages = (torch.from_numpy(a[at]) for a in (stored.events, stored.ages))
        items = torch.from_numpy(stored.items[at]).long().clamp(max=len(kinds) - 1)
        counts, shown_ages = torch.from_numpy(stored.shown_counts[at]), torch.from_numpy(stored.shown_ages[at])
        parts = [
            (kinds[items], model.matching.memory(events.long(), ages)),
            (torch.from_numpy(stored.shown[at]), model.exposure.memory(counts, shown_ages)),
        ]
        mine.append(torch.cat([_sum_where(kind == wanted, memory) for kind, memory in parts], dim=-1))
        total.append(torch.cat([_sum_where(kind > 0, memory) for kind, memory in parts], dim=-1))
    return torch.cat(mine), torch.cat(total)


def _sum_where(chosen: torch.Tensor, memory: torch.Tensor) -> torch.Tensor:
    return (chosen.unsqueeze(-1) * memory).sum(1).double()


@torch.enable_grad()
def _most_likely(mine: torch.Tensor, total: torch.Tensor, prior: torch.Tensor) -> torch.Tensor:
    """Return the logarithms of the worth of each memory, and last of the prior's, under which the topics are most likely."""
    logs = torch.zeros(mine.shape[1] + 1, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([logs], max_iter=100, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        worth, doubt = logs[:-1].exp(), logs[-1].exp()
        likely = (mine @ worth + doubt * prior) / (total @ worth + doubt)
        value = -likely.log().mean() + 1e-4 * logs.square().mean()  # a worth that nothing speaks of stays finite
        value.backward()
        return value

    optimizer.step(loss)  # type: ignore[no-untyped-call]
    return logs.detach()
