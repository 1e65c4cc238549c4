"""What a user's next request will be about: the step from a logged request, whose topic is known, to tomorrow's, which is not.

The topic of a request is the third-level category that it is about. How likely it is a user's next one, a nested Dirichlet
posterior tells (training/next_topic.py); how much an event of each type and age counts in it, and how much what the user was
shown, is fitted by maximum likelihood to the requests of the train split. The ranker reads these shares in every scenario.

In a scenario that answers a request (a query, an item's page) the log shows what fits that request, and its outcomes teach
what is clicked among it. A shelf made the night before must also know what will be asked for. The chance of a click on item i
in tomorrow's request is

    p(click | shown on topic) · Σ_n P(the topic shares n levels of the tree with i | user) · ρ_n,

where ρ_n is how much less often impressions are clicked that share n levels with their request's topic; 1 where they share all.
Where a shop's logs show no request, the outcomes are the topics: what a user turned to.
"""

import numpy as np
import torch

from training.data import Examples
from training.next_topic import LEVELS, nested_shares
from training.ranking_model import RankingModel

_MOST_REQUESTS = 50_000
_BLOCK = 4096
_SMOOTHING = 100.0  # rows before a level's own rate says as much as that of all levels


@torch.no_grad()
def fit_topics(
    model: RankingModel, examples: Examples, rows: np.ndarray, scenarios: list[str]
) -> dict[str, list[float]]:
    """Fit model.topics from `rows` of the examples: from their requests in these scenarios, or else from their outcomes.

    Scenarios without a request of two known categories or without a click keep ρ = 1: there, the next topic does not scale
    what is predicted. Where there is neither request nor outcome, all shares stay 0.

    Returns:
        scenario → ρ by the levels that are shared, from none on.
    """
    topics, names = model.topics, list(model.spec.item_fields)
    tree = examples.catalogue[:, [names.index(name) for name in LEVELS]].astype(np.int64)
    topics.reset(tree[tree[:, -1] > 0])
    places = [model.spec.scenario_index(name) for name in scenarios]
    shown = tree[examples.item[rows], -1]
    rows, shown = rows[shown > 0], shown[shown > 0]
    asked = np.isin(examples.scenario[rows], places) & (examples.request[rows] >= 0)
    if asked.any():
        rows, shown = rows[asked], shown[asked]
        request, first, topic = request_topics(examples.request[rows], shown)
        shared, clicked = _shared_levels(tree, shown, topic[request]), examples.labels[rows, 0] > 0
        for place in places:
            here = examples.scenario[rows] == place
            topics.off_topic[place] = torch.from_numpy(_relative_rates(shared[here], clicked[here]))
    else:
        first = np.flatnonzero(examples.labels[rows, 0] > 0)
        topic = shown[first]
    if len(topic):
        topics.set_priors(torch.from_numpy(topic))
        chosen = np.random.default_rng(model.spec.recipe.seed).permutation(len(topic))[:_MOST_REQUESTS]
        wanted = topics.lineage(torch.from_numpy(topic[chosen]))
        mine, total = _counts(model, examples, tree[:, -1], examples.history[rows[first[chosen]]], wanted)
        topics.set_worth(_most_likely(mine, total, [prior.double() for prior in topics.prior(wanted)]))
    return {name: topics.off_topic[place].tolist() for name, place in zip(scenarios, places, strict=True)}


def request_topics(request: np.ndarray, category: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return each row's request numbered 0.., the first row of each request, and its topic: the category shown most often.

    Ties go to the lower id.
    """
    _, first, number = np.unique(request, return_index=True, return_inverse=True)
    pairs, counts = np.unique(np.stack([number, category]), axis=1, return_counts=True)
    order = np.lexsort((pairs[1], -counts, pairs[0]))
    starts = np.flatnonzero(np.r_[True, np.diff(pairs[0][order]) > 0])
    return number, first, pairs[1][order][starts]


def _shared_levels(tree: np.ndarray, leaves: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return how many levels of the tree [n, N] third-level categories share with others, both [m]: 0 … N."""
    above = np.zeros((int(tree[:, -1].max(initial=0)) + 1, tree.shape[1]), tree.dtype)
    above[tree[:, -1]] = tree
    return np.cumprod((above[leaves] == above[others]) & (above[leaves] > 0), axis=1).sum(1)


def _relative_rates(shared: np.ndarray, clicked: np.ndarray) -> np.ndarray:
    """Return how often rows [m] that share 0 … N - 1 levels are clicked, against those that share all N: at most 1.

    Levels of few rows tend to the rate of all that do not share all.
    """
    levels = len(LEVELS)
    is_on = shared == levels
    if is_on.all() or not clicked[is_on].any():
        return np.ones(levels)
    count, hits = (np.bincount(shared, weights, levels + 1)[:levels] for weights in (None, clicked))
    rates = (hits + _SMOOTHING * clicked[~is_on].mean()) / (count + _SMOOTHING)
    return np.asarray(np.minimum(1.0, rates / clicked[is_on].mean()))


def _counts(
    model: RankingModel, examples: Examples, category: np.ndarray, history: np.ndarray, wanted: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return of n requests the memories of their topics, and of those above [n, N, events x memories + memories], and of all
    topics [n, events x memories + memories] (float64).
    """
    stored, topics, kinds = examples.histories, model.topics, torch.from_numpy(category)
    mine: list[torch.Tensor] = []
    total: list[torch.Tensor] = []
    for start in range(0, len(history), _BLOCK):
        at, target = history[start : start + _BLOCK], wanted[start : start + _BLOCK].unsqueeze(1)
        events, ages = (torch.from_numpy(a[at]) for a in (stored.events, stored.ages))
        items = torch.from_numpy(stored.items[at]).long().clamp(max=len(kinds) - 1)
        counts, shown_ages = torch.from_numpy(stored.shown_counts[at]), torch.from_numpy(stored.shown_ages[at])
        seen, shown = topics.lineage(kinds[items]), topics.lineage(torch.from_numpy(stored.shown[at]))
        memory, exposure = model.matching.memory(events.long(), ages), model.exposure.memory(counts, shown_ages)
        parts = (model.matching(target, seen, memory), model.exposure(target, shown, exposure))
        mine.append(torch.cat(parts, dim=-1).squeeze(1).double())
        every = [((k[..., -1:] > 0) * m).sum(1) for k, m in ((seen, memory), (shown, exposure))]
        total.append(torch.cat(every, dim=-1).double())
    return torch.cat(mine), torch.cat(total)


@torch.enable_grad()
def _most_likely(mine: torch.Tensor, total: torch.Tensor, priors: list[torch.Tensor]) -> torch.Tensor:
    """Return the logarithms of the worth of each memory, then of each level's doubt, that make the topics most likely."""
    levels = len(priors)
    logs = torch.zeros(mine.shape[-1] + levels, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([logs], max_iter=100, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        """Return minus the mean log-likelihood of the topics, with a slight pull to 0 on `logs`, whose gradient it sets."""
        optimizer.zero_grad()
        worth, doubts = logs[:-levels].exp(), logs[-levels:].exp()
        likely = nested_shares((mine @ worth).unbind(-1), priors, total @ worth, doubts)[-1]
        value = -likely.log().mean() + 1e-4 * logs.square().mean()  # a worth that nothing speaks of stays finite
        value.backward()
        return value

    optimizer.step(loss)  # type: ignore[no-untyped-call]
    return logs.detach()
