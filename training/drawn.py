"""What drawing negatives hides: an item that is sold on one day in thirty is drawn a thirtieth as often as one of every day.

Negatives are drawn from what was chosen in the scenario on the same day (feature_jobs/impressions.py), so that a classifier
learns log P(item | user) - log Q(item), Q being the chance that the item is among them. Shelves want the first part alone: by
the difference what is popular stands too low. So -log Q is added in training and left out at scoring, as what a position adds
is: the log-Q correction of sampled softmax (Bengio and Senécal 2008; Yi et al., RecSys 2019).

Q is told by the last month only where the same items sell month after month, so that shops whose customers buy again make up
for it. Of a newspaper's articles those of the month are dead and those of tomorrow have no count: there it made shelves worse.
"""

import numpy as np

from nightshelf.config import Shop
from nightshelf.features import WINDOWS, root_event
from nightshelf.tasks import Sampled

# An item that nobody had chosen in the window was chosen today all the same, or it would be in no example.
_UNSEEN = 0.5


def corrects_draws(shop: Shop) -> bool:
    """Say whether a shop's models make up for how readily an item is drawn as a negative."""
    return isinstance(shop.negatives, Sampled) and shop.rebuy is not None


def drawn_logit(
    shop: Shop,
    target_dense: np.ndarray,
    names: list[str],
    of_pool: np.ndarray | float = 1.0,
    of_own: np.ndarray | float = 0.0,
) -> np.ndarray:
    """Return -log Q of each row: float32 [n], zeros where nothing is to be made up for.

    Q is the chance of at least one choice in a day, where choices come by chance (Poisson) as often as in the last 30 days.

    Args:
        shop: says what negatives are, and whether customers buy again.
        target_dense: features of the item and of the item in the scenario [n, names], raw.
        names: their names.
        of_pool, of_own: where some negatives were drawn otherwise, Swaps' [n]; Q is then Q of_pool + of_own.
    """
    if not corrects_draws(shop):
        return np.zeros(len(target_dense), np.float32)
    count = target_dense[:, names.index(f"item_scenario_{root_event(shop)}_count_{max(WINDOWS)}d")]
    return -np.log(-np.expm1(-(count + _UNSEEN) / max(WINDOWS)) * of_pool + of_own).astype(np.float32)
