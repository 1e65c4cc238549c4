"""How many ranks of each generator are worth scoring, from what their proposals of past nights reached.

What some ranks reach together is the worth of the outcomes that any of them had proposed: a coverage function, which is
submodular, since a rank adds the less, the more others have reached. Ranks count best first, so that a step extends one
generator's quota; each time the extension, of whatever length, that adds most worth per candidate is taken. What the steps
reach is at least 1 - 1/e of what any quotas of the same cost reach (Nemhauser, Wolsey, Fisher 1978; their argument for single
elements holds for extensions of unequal cost: each closes at least its part of that cost of what is missing), until a budget
leaves no room for the best extension; from there on, what still fits is taken.
"""

import numpy as np

# Ranks that are added together: fewer steps, and quotas that do not hang on a single outcome.
BLOCK = 5
# The share of what all candidates reach that quotas must keep.
KEPT = 0.99
# The outcomes of all scenarios count in each one as so many of its own. From a thousand a share of .01 is known to ± .003.
POOLED_OUTCOMES = 1000.0
# … and beside them, as so many outcomes, that any proposal is as good as another: who has judged a dozen cuts nearly nothing.
EVEN_OUTCOMES = 10.0


def learn_quotas(
    ranks: np.ndarray,
    worth: np.ndarray,
    costs: np.ndarray,
    least: np.ndarray,
    most: np.ndarray,
    at_most: float = np.inf,
    kept: float = KEPT,
    block: int = BLOCK,
) -> np.ndarray:
    """Return the quota of each generator [generators].

    The steps end when the quotas reach the share `kept` of what is within reach, or when no further one fits into `at_most`.

    Args:
        ranks: [outcomes, generators], at which rank each generator had proposed the outcome's item to its user; 0: not at all.
        worth: [outcomes], none below 0.
        costs: [generators, ranks], candidates a user that a rank brings, on average.
        least, most: [generators], the bounds of each quota; the least is taken whatever it costs.
        at_most: candidates a user that all quotas may cost.
        kept: 0..1.
        block: ranks; quotas end at its multiples, or at a bound.
    """
    quotas, each = least.copy(), np.arange(len(least))
    prices = np.concatenate([np.zeros((len(costs), 1)), np.cumsum(costs, axis=1)], axis=1)
    within_reach = is_reached(ranks, most)
    ranks, worth = ranks[within_reach], worth[within_reach]
    may_miss = (1 - kept) * worth.sum() + 1e-9 * worth.sum()
    while True:
        missed = ~is_reached(ranks, quotas)
        ranks, worth = ranks[missed], worth[missed]
        left = at_most - prices[each, quotas].sum()
        step = _best_extension(ranks, worth, prices, quotas, most, left, block) if worth.sum() > may_miss else None
        if step is None:
            return quotas
        quotas[step[0]] = step[1]


def is_reached(ranks: np.ndarray, quotas: np.ndarray) -> np.ndarray:
    """Return whether any generator had proposed an outcome within its quota [outcomes]."""
    return np.asarray(((ranks > 0) & (ranks <= quotas)).any(axis=1))


def _best_extension(
    ranks: np.ndarray,
    worth: np.ndarray,
    prices: np.ndarray,
    quotas: np.ndarray,
    most: np.ndarray,
    left: float,
    block: int,
) -> tuple[int, int] | None:
    """Return the generator and its new quota that add most worth per candidate, None if nothing that fits adds any.

    Of equals the first generator's shortest is taken. None of `ranks` is within `quotas`.
    """
    best, density = None, 0.0
    for place in np.flatnonzero(quotas < most):
        ends = np.append(np.arange((quotas[place] // block + 1) * block, most[place], block), most[place])
        by_rank = np.bincount(ranks[:, place], worth, prices.shape[1])
        by_rank[0] = 0.0  # what it had not proposed
        gains, price = np.cumsum(by_rank)[ends], prices[place, ends] - prices[place, quotas[place]]
        densities = np.where(price <= left + 1e-9, gains / np.maximum(price, 1e-12), 0.0)
        longest = int(densities.argmax())
        if densities[longest] > density:
            best, density = (int(place), int(ends[longest])), densities[longest]
    return best


def effective_outcomes(worth: float, squares: float) -> float:
    """Return how many outcomes of equal worth tell as much as these (Kish 1965), from the sums of their worth and its square."""
    return worth * worth / squares if squares > 0 else 0.0


def own_share(own: float, prior: float) -> float:
    """Return the weight of what `own` outcomes say beside a prior that counts as `prior` outcomes.

    It is the posterior mean of a Dirichlet prior, as texts are smoothed by their collection (Zhai, Lafferty 2004). Rounded, so
    that the order in which worth was added up leaves no trace.
    """
    return round(own / (own + prior), 6)


def even_outcomes(costs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return ranks [ranks, generators] and worth of outcomes that any proposal reaches alike; the worth sums to 1.

    Args:
        costs: [generators, ranks], as `learn_quotas` has them; some are above 0.
    """
    generators, places = np.nonzero(costs)
    ranks = np.zeros((len(places), len(costs)), np.int64)
    ranks[np.arange(len(places)), generators] = places + 1
    return ranks, costs[generators, places] / costs.sum()
