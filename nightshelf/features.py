"""The features of a shop, by name: what feature_jobs computes, training reads and scoring gathers.

Features know events up to the end of a day (their as_of_date); an impression is joined with those of the day before
its own, and a shelf for tomorrow with those of tonight: both see the same distance. Windows count days of arrival.
"""

import math
from dataclasses import dataclass
from typing import Literal

from nightshelf.config import Shop

WINDOWS = (1, 7, 30)
SEQUENCE_LENGTH = 50
# Words of a user's own queries.
QUERY_TOKENS_LENGTH = 20
QUERY_TOKEN = "query_token"
# Events of a user in one scenario.
SCENARIO_SEQUENCE_LENGTH = 20
# Pairs of day and category in a user's exposure.
EXPOSURE_LENGTH = 64
# Items that a user chose before and may want again, and how long until such a choice counts half.
OWN_LENGTH = 64
OWN_HALF_LIFE_DAYS = 60.0
# Price bands and age are quantised alike in every shop; 0 is unknown.
PRICE_BANDS = 10
# A rarely shown place weighs that much and no more: a few rows would else carry the loss (clipping, Bottou et al. 2013,
# "Counterfactual reasoning and learning systems", section 4.3).
MOST_INVERSE_PROPENSITY = 100.0
# What a user's outcomes may favour: columns of the table items.
FAVOURITES = ("category_3", "brand")
HALF_LIFE_DAYS = 7.0
# Of items that are older, or of which nobody knows how old they are.
MOST_AGE_DAYS = 365
# The groups of items whose rates an item bears beside its own: columns of the table items.
ITEM_GROUPS = ("category_3", "brand")


@dataclass(frozen=True)
class Feature:
    """One feature: its column, type, meaning, and whose it is. Index features name the vocabulary of their ids.

    unseen: what an example has whose owner was never seen by then: a number, or what another feature says instead.
    calm: what all examples may have on a good day, when nothing happens that the feature tells of.
    """

    name: str
    type: Literal["int32", "float32"]
    meaning: str
    owner: Literal["user", "item", "item_scenario"]
    vocabulary: str = ""
    unseen: float | str = 0.0
    calm: float | None = None


def sequence_events(shop: Shop) -> list[str]:
    """Return the event types kept in user sequences: every outcome, and what requests tell of the user's wish.

    `searched` is the first result of an own query, `viewed` the item on whose page a request was made.
    """
    return [*outcome_events(shop), "searched", "viewed"]


def outcome_events(shop: Shop) -> list[str]:
    """Return the event types other than impressions, in alphabetical order."""
    return [name for name in shop.event_types if name != "impression"]


def root_task(shop: Shop) -> str:
    """Return the first task that needs no other: what makes an impression a positive."""
    return next(name for name, task in shop.tasks.items() if task.given is None)


def root_event(shop: Shop) -> str:
    """Return the event type of the root task."""
    return shop.tasks[root_task(shop)].event


def event_worth(shop: Shop) -> dict[str, float]:
    """Return event type → log2(1 + its mean utility over the scenarios), at least 0.5; 0.5 for `searched` and `viewed`."""
    worth = dict.fromkeys(sequence_events(shop), 0.5)
    binary = {name: task.event for name, task in shop.tasks.items() if task.kind == "binary"}
    for event in outcome_events(shop):
        of_scenarios = [
            sum(weight for name, weight in scenario.utility.items() if binary.get(name) == event)
            for scenario in shop.scenarios.values()
        ]
        worth[event] = max(0.5, math.log2(1 + sum(of_scenarios) / len(of_scenarios)))
    return worth


def request_scenarios(shop: Shop) -> list[str]:
    """Return the scenarios that answer a request which their logs show: a query, or the item whose page it was."""
    told = {"query", "anchor_item_id"}
    asked = {name for source in shop.sources if told & set(source.columns) for name in source.scenarios}
    return [name for name in shop.scenarios if name in asked]


def fact_relations(shop: Shop) -> dict[str, str]:
    """Return relation → column of the tables items and item_features, of all that a triple can say of an item."""
    attributes = shop.items.attributes if shop.items else []
    return {
        **{f"in_{column}": column for column in ("category_1", "category_2", "category_3")},
        "of_brand": "brand",
        **{f"has_{name}": f"attribute_{name}" for name in attributes},
        "in_price_band": "price_band",
    }


def attribute_columns(shop: Shop) -> list[str]:
    """Return the user attributes that the shop's user table brings, e.g. age_band, city."""
    return [name for name in shop.users.columns if name != "user_id"] if shop.users else []


def index_features(shop: Shop) -> list[Feature]:
    """Return the categorical features: ids of vocabularies, 0 = unknown."""
    features = [Feature("user_index", "int32", "vocabulary id of the user", "user", "user")]
    features += [
        Feature(f"user_{name}_index", "int32", f"vocabulary id of the user's {name}", "user", f"user_{name}")
        for name in attribute_columns(shop)
    ]
    item_columns = ["item", "category_1", "category_2", "category_3", "brand"]
    item_columns += [f"attribute_{name}" for name in (shop.items.attributes if shop.items else [])]
    features += [
        Feature(f"{name}_index", "int32", f"vocabulary id of the item's {name}", "item", name) for name in item_columns
    ]
    features += [
        Feature(f"user_{name}_index", "int32", f"vocabulary id of the user's favourite {name} of 30 days", "user", name)
        for name in FAVOURITES
    ]
    features.append(
        Feature(
            "price_band",
            "int32",
            f"price decile inside the item's second-level category, 1..{PRICE_BANDS}, 0 unknown",
            "item",
        )
    )
    return features


def user_dense(shop: Shop) -> list[Feature]:
    """Return the dense features of a user."""
    features = [
        *statistics("user", "user", "of the user", "the mean of all users", shop),
        Feature(
            "user_mean_log_price_30d",
            "float32",
            "mean log(1 + price) of the items of the user's outcomes in 30 days; 0 if none",
            "user",
        ),
        Feature(
            "user_log_price_deviation_30d",
            "float32",
            "standard deviation of log(1 + price) of the items of the user's outcomes in 30 days; 0 if none",
            "user",
        ),
        _dwell("user"),
        Feature("user_session_count_30d", "float32", "sessions of the user in 30 days", "user"),
        Feature(
            "user_session_minutes_30d", "float32", "mean length of the user's sessions in 30 days; 0 if none", "user"
        ),
    ]
    if len(shop.scenarios) > 1:
        features += [feature for scenario in shop.scenarios for feature in _user_in_scenario(scenario, shop)]
    return features


def statistics(
    name: str,
    owner: Literal["user", "item", "item_scenario"],
    whose: str,
    prior: str,
    shop: Shop,
    unseen: str | None = None,
) -> list[Feature]:
    """Return what is counted alike of users, items, categories, brands and their pairs.

    Those are counts of each window, decayed counts, rates, and how long ago the last outcome was.

    Args:
        name: begins the names of the columns.
        owner: see Feature.
        whose: of what the events are, as a phrase.
        prior: what rates are shrunk to, as a phrase.
        shop: gives event types.
        unseen: begins the names of the rates that stand in where there is none of this kind.
    """
    features = [
        Feature(f"{name}_{event}_count_{days}d", "float32", f"{event} events {whose} in {days} days", owner)
        for event in shop.event_types
        for days in WINDOWS
    ]
    features += [
        Feature(
            f"{name}_{event}_decayed_count_30d",
            "float32",
            f"{event} events {whose} in 30 days, each halved for every {HALF_LIFE_DAYS:g} days since it arrived",
            owner,
        )
        for event in shop.event_types
    ]
    features += [
        Feature(
            f"{name}_{event}_rate_30d",
            "float32",
            f"{event} events {whose} per impression in 30 days, shrunk to {prior}",
            owner,
            unseen=f"{unseen}_{event}_rate_30d" if unseen else 0.0,
        )
        for event in outcome_events(shop)
    ]
    recency = f"days since the last outcome {whose}, at most {max(WINDOWS)}"
    return [*features, Feature(f"{name}_recency_days", "float32", recency, owner, unseen=float(max(WINDOWS)))]


def _user_in_scenario(scenario: str, shop: Shop) -> list[Feature]:
    name = f"user_in_{scenario}"
    shown = Feature(
        f"{name}_impression_count_30d", "float32", f"impressions of the user in {scenario} in 30 days", "user"
    )
    return [shown] + [
        Feature(
            f"{name}_{event}_rate_30d",
            "float32",
            f"{event} events per impression in {scenario} in 30 days, shrunk to the user's own rate",
            "user",
        )
        for event in outcome_events(shop)
    ]


def user_category_dense(shop: Shop) -> list[Feature]:
    """Return the statistics of a user's way with a category: a table of the night for queries, no part of the examples."""
    return statistics("user_category", "user", "of the user in the category", "the user's own rate", shop)


def user_scenario_dense(shop: Shop) -> list[Feature]:
    """Return the statistics of a user in a scenario: a table of the night for queries; examples have `user_in_…` of each."""
    return statistics("user_scenario", "user", "of the user in the scenario", "the user's own rate", shop)


def attribute_dense(shop: Shop) -> list[Feature]:
    """Return the statistics of the items that share a category, brand or attribute: a table of the night for queries."""
    return statistics("attribute", "item", "of the items that bear it", "the mean of all items", shop)


def _dwell(owner: Literal["user", "item"]) -> Feature:
    return Feature(
        f"{owner}_mean_log_dwell_30d",
        "float32",
        f"mean log(1 + seconds) that the {owner}'s events of 30 days tell as stay; 0 if none",
        owner,
    )


def item_dense(shop: Shop) -> list[Feature]:
    """Return the dense features of an item."""
    features = [
        *statistics("item", "item", "of the item", "the mean of all items", shop),
        Feature("item_log_price", "float32", "log(1 + price); 0 if unknown", "item"),
        Feature("item_discount", "float32", "1 - price / highest price of the item in the window, 0..1", "item"),
        Feature(
            "item_age_days",
            "float32",
            f"days since launch, at most {MOST_AGE_DAYS}; where no launch is known, since first sight or listing: "
            f"{MOST_AGE_DAYS} if that is over a week ago or unknown",
            "item",
            calm=MOST_AGE_DAYS,  # nothing is new
        ),
        _dwell("item"),
    ]
    features += [
        Feature(
            f"item_{group}_{event}_rate_30d",
            "float32",
            f"{event} events per impression of all items of the {group} in 30 days, shrunk to the mean of all items",
            "item",
        )
        for group in ITEM_GROUPS
        for event in outcome_events(shop)
    ]
    return features


def item_scenario_dense(shop: Shop) -> list[Feature]:
    """Return the dense features of an item inside a scenario."""
    of_item = "the item's own rate"
    return statistics("item_scenario", "item_scenario", "of the item in the scenario", of_item, shop, unseen="item")


def dense_features(shop: Shop) -> list[Feature]:
    """Return all dense features in the order in which training reads them."""
    return [*user_dense(shop), *item_dense(shop), *item_scenario_dense(shop)]
