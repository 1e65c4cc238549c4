"""The shelves, as drafts and as published, and what they are made of."""

from nightshelf.config import Shop
from nightshelf.table_spec import AS_OF_DATE, ITEM, SCENARIO, USER, Column, TableSpec

_CANDIDATE_COLUMNS = (
    AS_OF_DATE,
    USER,
    SCENARIO,
    ITEM,
    Column("generator", "string", "popular, affinity, related, next_item, own_history, two_tower …"),
    Column("generator_score", "float32", "the generator's own score, larger is better"),
    Column(
        "because",
        "string",
        "what ties it to the user: the category, the brand or the item of the user's history; null if nothing does",
        True,
    ),
)


def shelf_tables(shop: Shop) -> list[TableSpec]:
    """Return the specs of drafts and published shelves."""
    return [
        TableSpec(
            "candidates",
            "user, scenario, item and generator worth ranking (scenario `*`: for all of them; user `*`: for everybody)",
            ("user_key", "scenario", "item_id", "generator"),
            _CANDIDATE_COLUMNS,
        ),
        TableSpec(
            "retrieved_candidates",
            "user and item that the two-tower model proposes: what the user has not turned to yet and some shelf may show",
            ("user_key", "scenario", "item_id", "generator"),
            _CANDIDATE_COLUMNS,
        ),
        TableSpec(
            "shelf_drafts",
            "row that wants to be published in recommendations",
            ("user_key", "scenario", "rank"),
            _shelf_columns(shop),
        ),
        TableSpec(
            "recommendations",
            "user (`*`: whoever is not known) × scenario × rank",
            ("user_key", "scenario", "rank"),
            _shelf_columns(shop),
        ),
        TableSpec(
            "anchor_lifts",
            "scenario × category of the anchor × category of an item that was shown beside it",
            ("scenario", "anchor_category", "category"),
            (
                AS_OF_DATE,
                SCENARIO,
                Column(
                    "anchor_category", "string", "category_3 of the item whose page it was, or that lay in the cart …"
                ),
                Column("category", "string", "category_3 of the item that was shown"),
                Column("shown", "float64", "examples, by their sample weights"),
                Column("outcomes", "float64", "of those, how many had the outcome of the first task"),
                Column("expected", "float64", "how many they would have had at their items' own rates in the scenario"),
                Column(
                    "lift",
                    "float64",
                    "how many times as often as elsewhere such an item is acted on there: (outcomes + 10 × that of all pairs "
                    "as near in the tree of categories) / (expected + 10)",
                ),
            ),
        ),
        *(
            TableSpec(name, grain, ("scenario", "anchor_item_id", "rank"), _item_shelf_columns())
            for name, grain in (
                ("item_shelf_drafts", "row that wants to be published in item_recommendations"),
                ("item_recommendations", "scenario × item that somebody is at × rank"),
            )
        ),
    ]


def _item_shelf_columns() -> tuple[Column, ...]:
    return (
        AS_OF_DATE,
        SCENARIO,
        Column(
            "anchor_item_id", "string", "the item whose page it is, or that lies in the cart …, as the scenario says"
        ),
        Column("rank", "int32", "1 = best"),
        ITEM,
        Column(
            "score",
            "float64",
            "expected utility for a visitor of whom nothing but the anchor is known: worth × lift, below 0 worth / lift",
        ),
        Column("lift", "float64", "how many times as often as elsewhere it is acted on beside this anchor"),
        Column(
            "source",
            "string",
            "what ties it to the anchor: a relation of item_graph, or same_category, category, near_category, popular",
        ),
        Column("reason", "string", "why it is there, in a sentence"),
        Column("rank_by_score", "int32", "the place that its score alone would give it"),
        Column(
            "model_version", "string", "the registered model that tells the worth; popularity while the shop has none"
        ),
        Column("run_id", "string", "the run that wrote it"),
    )


def _shelf_columns(shop: Shop) -> tuple[Column, ...]:
    predictions = (
        Column(
            f"p_{name}",
            "float64",
            f"predicted {name}: "
            + ("expected value" if task.kind == "regression" else "probability after an impression"),
            True,
        )
        for name, task in shop.tasks.items()
    )
    return (
        AS_OF_DATE,
        SCENARIO,
        USER,
        Column("rank", "int32", "1 = best"),
        ITEM,
        Column("score", "float64", "expected utility: the predictions weighted as the shop file says"),
        *predictions,
        Column("source", "string", "the candidate generator"),
        Column("reason", "string", "why it is there, in a sentence"),
        Column("rank_by_score", "int32", "the place that its score alone would give it"),
        Column("placed_by", "string", "score; rules: diversity, caps or repeats moved it; or explore: drawn by chance"),
        Column(
            "propensity",
            "float64",
            "chance with which it came to this place, given the places above, 1 without exploration; that of the shelf down to "
            "here is the product of the places'",
        ),
        Column("model_version", "string", "the registered model that ranked it; popularity while the shop has none"),
        Column("run_id", "string", "the run that wrote it"),
    )
