"""What a user wants: the utility of an item in a scenario and context, and the chances of click, cart and purchase.

One model for both sides: the simulator draws from these chances, the truth sums them up.
"""

from dataclasses import dataclass

import numpy as np

SCENARIOS = ("home_feed", "search", "product_page", "cart", "checkout", "campaign")
CAMPAIGN_PAGES = ("new_year", "clearance", "brand_week")
HOME_FEED, SEARCH, PRODUCT_PAGE, CART, CHECKOUT, CAMPAIGN = range(6)
SIGNALS = (
    "taste", "category", "brand", "price_fit", "colour", "residual", "discount", "quality", "novelty", "bait", "cheap",
    "theme", "considered", "rebuy", "owned",
)  # fmt: skip
_CLICK_WEIGHTS = np.array([
    # taste categ brand price colour resid disc  qual  novel bait  cheap theme consid rebuy owned
    [0.55, 0.65, 0.50, 0.40, 0.25, 0.25, 0.60, 0.40, 0.60, 0.60, 0.00, 0.00, 0.60, 0.50, -1.5],
    [0.30, 0.25, 0.55, 0.50, 0.25, 0.20, 0.40, 0.40, 0.00, 0.25, 0.00, 0.00, 0.80, 1.20, -1.2],
    [0.40, 0.45, 0.45, 0.40, 0.25, 0.25, 0.40, 0.45, 0.00, 0.45, 0.00, 0.00, 0.50, 0.20, -1.8],
    [0.35, 0.45, 0.40, 0.30, 0.15, 0.20, 0.80, 0.40, 0.00, 0.15, 0.30, 0.00, 1.00, 0.60, -1.5],
    [0.25, 0.35, 0.25, 0.20, 0.10, 0.15, 0.60, 0.35, 0.00, 0.10, 0.70, 0.00, 0.60, 0.60, -1.2],
    [0.40, 0.45, 0.40, 0.30, 0.15, 0.20, 2.40, 0.25, 0.20, 0.80, 0.20, 0.80, 0.40, 0.40, -1.0],
], np.float32)  # fmt: skip
# The same by nearness of the item's leaf to the context's: unrelated, complement, same category, same group, same leaf.
_CONTEXT_WEIGHTS = np.array([
    [0.00, 0.20, 0.20, 0.35, 0.70],
    [-2.6, -1.6, -1.2, -0.2, 1.00],
    [-0.9, 0.80, 0.00, 0.40, 0.70],
    [-0.5, 1.10, 0.10, 0.10, -0.2],
    [-0.3, 0.90, 0.10, 0.10, 0.00],
    [0.00, 0.15, 0.10, 0.20, 0.40],
], np.float32)  # fmt: skip
_CLICK_BIAS = np.array([-4.2, -3.25, -3.9, -3.8, -3.8, -4.2], np.float32)
# Cart given click, and purchase given cart, whatever the scenario.
_CART_WEIGHTS, _BUY_WEIGHTS = np.array([
    # taste categ brand price colour resid disc  qual  novel bait  cheap theme consid rebuy owned
    [0.20, 0.20, 0.30, 0.40, 0.15, 0.20, 0.80, 0.45, 0.00, -0.7, 0.10, 0.00, 0.50, 0.60, -2.0],
    [0.10, 0.15, 0.25, 0.45, 0.10, 0.15, 0.60, 0.45, 0.00, -0.7, 0.10, 0.00, 0.40, 0.60, -2.0],
], np.float32)  # fmt: skip
# What the scenario adds to these logits. At the checkout a click goes straight to the order, without a cart.
CART_BIAS = np.array([-2.0, -1.8, -1.9, -1.4, np.inf, -1.9], np.float32)
BUY_BIAS = np.array([-1.45, -1.45, -1.45, -1.25, -2.9, -1.5], np.float32)
# Examination by position: (1 + slope · (position - 1)) ** -1.
_EXAMINATION_SLOPE = np.array([0.06, 0.15, 0.10, 0.12, 0.15, 0.05])
FIRST_EXAMINED = 0.95


@dataclass(frozen=True)
class Chances:
    """The chances of an impression's outcomes: click given examination, cart given click, purchase given cart."""

    click: np.ndarray
    cart: np.ndarray
    purchase: np.ndarray


def taste_signal(wish: np.ndarray) -> np.ndarray:
    """Return how strongly a share of a user's wishes pulls: concave, 0 for none."""
    return np.log1p(30.0 * wish)


def category_signal(wish: np.ndarray) -> np.ndarray:
    """Return how strongly a share of wishes for a top category pulls towards all of its goods."""
    return np.log1p(8.0 * wish)


def price_signal(price_z: np.ndarray, discount: np.ndarray, level: np.ndarray, sensitivity: np.ndarray) -> np.ndarray:
    """Return how well a price suits: 0 at the user's level, falling to -2 on both sides."""
    return np.maximum(-2.0, -sensitivity * 0.5 * (price_z - discount - level) ** 2)


def cheap_signal(price: np.ndarray) -> np.ndarray:
    """Return how well an item serves as a cheap add-on, about -2 … 2."""
    return np.clip((3.6 - np.log(price)) / 0.9, -2, 2)


def considered_signal(days_since_click: np.ndarray, days_since_cart: np.ndarray) -> np.ndarray:
    """Return the pull of what was looked at, and even more of what lies in the cart, fading by half in two days."""
    return 0.8 * 0.7**days_since_click + 1.2 * 0.7**days_since_cart


def rebuy_signal(days_since: np.ndarray, period: np.ndarray) -> np.ndarray:
    """Return the wish to buy a consumable again: 1.5 when it is used up, -0.7 while it lasts, 0 if never bought."""
    bought = (period > 0) & np.isfinite(days_since)
    return np.where(bought, np.where(days_since >= 0.7 * period, 1.5, -0.7), 0.0)


def owned_signal(days_since_leaf: np.ndarray, period: np.ndarray) -> np.ndarray:
    """Return 1 where a durable good of the same leaf was bought: no second one is wanted."""
    return ((period == 0) & np.isfinite(days_since_leaf)).astype(np.float32)


def examination(scenario: np.ndarray | int, position: np.ndarray | int) -> np.ndarray:
    """Return the chance that a place is looked at; 1 = first."""
    return FIRST_EXAMINED / (1 + _EXAMINATION_SLOPE[scenario] * (np.asarray(position) - 1))


def click_logit(scenario: np.ndarray | int, signals: dict[str, np.ndarray]) -> np.ndarray:
    """Return the logit of a click without the context's part; signals broadcast against `scenario`."""
    return _CLICK_BIAS[scenario] + _weighted(_CLICK_WEIGHTS[scenario], signals)


def context_logit(scenario: np.ndarray | int, nearness: np.ndarray | int) -> np.ndarray:
    """Return what the context adds to the logit of a click."""
    return _CONTEXT_WEIGHTS[scenario, nearness]


def later_logits(signals: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Return the logits of cart given click and of purchase given cart, without CART_BIAS and BUY_BIAS."""
    return _weighted(_CART_WEIGHTS, signals), _weighted(_BUY_WEIGHTS, signals)


def chances(scenario: np.ndarray, signals: dict[str, np.ndarray], nearness: np.ndarray) -> Chances:
    """Return the chances of impressions whose items stand so near to their contexts."""
    click = click_logit(scenario, signals) + context_logit(scenario, nearness)
    cart, buy = later_logits(signals)
    return Chances(sigmoid(click), sigmoid(cart + CART_BIAS[scenario]), sigmoid(buy + BUY_BIAS[scenario]))


def sigmoid(logit: np.ndarray) -> np.ndarray:
    """Return 1 / (1 + exp(-logit))."""
    return 1.0 / (1.0 + np.exp(-logit))


def _weighted(weights: np.ndarray, signals: dict[str, np.ndarray]) -> np.ndarray:
    total: np.ndarray | float = 0.0
    for place, name in enumerate(SIGNALS):
        weight = weights[..., place]
        if np.any(weight):
            total = total + weight * signals[name]
    return np.asarray(total)
