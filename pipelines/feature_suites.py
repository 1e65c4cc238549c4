"""What the tables of `features` must hold beyond their specs.

The ranges of features and lists follow from their names, so that a new one is covered where it follows the rule of names.
"""

from collections.abc import Mapping

from nightshelf.config import Shop
from nightshelf.feature_tables import OOV_BUCKETS
from nightshelf.features import (
    MOST_INVERSE_PROPENSITY,
    PRICE_BANDS,
    dense_features,
    index_features,
    outcome_events,
    sequence_events,
)
from nightshelf.raw_logs import FINITE
from nightshelf.table_spec import Column, TableSpec
from pipelines.rules import Rule, between, in_range, no_rows, values_of
from pipelines.stage import Night
from pipelines.validate import query_files

# How a name ends, or what stands in it, and the range of such a number. The first that fits counts.
_ENDINGS: tuple[tuple[str, float, float], ...] = (
    ("_days", 0, 365),
    ("_discount", 0, 1),
    ("_share", 0, 1),
)
_NAMES: dict[str, tuple[float, float]] = {
    "propensity": (0, 1),
    "inverse_propensity": (1, MOST_INVERSE_PROPENSITY),
    "hour": (0, 23),
    "weekday": (1, 7),
}
_PARTS: tuple[tuple[str, float, float], ...] = (("_count", 0, FINITE), ("_rate", 0, FINITE), ("_log_price", 0, 100))
# More outcomes than impressions are possible where a log tells of outcomes alone; many are a sign of a broken join.
_RATES_ABOVE_1 = 0.01
EVERYBODY = EVERYWHERE = "*"


def feature_rules(shop: Shop, spec: TableSpec, sizes: Mapping[str, float]) -> list[Rule]:
    """Return the rules for a partition of a table that `features` writes, by its name and its columns.

    `sizes`: what index_sizes returned.
    """
    suites = {
        "acts": lambda: [values_of("known_values", "event_type", sequence_events(shop))],
        "vocabularies": vocabulary_rules,
        "item_graph": lambda: graph_rules(shop),
        "candidates": lambda: candidate_rules(shop),
        "training_examples": lambda: example_rules(shop),
        "normalization": lambda: normalization_rules(shop),
    }
    own = suites[spec.name]() if spec.name in suites else []
    if "scenario" in spec.column_names and spec.name not in ("training_examples", "candidates"):
        own.append(values_of("known_values", "scenario", shop.scenarios))
    told = {(rule.name, rule.column) for rule in own}
    derived = range_rules(spec, sizes) + length_rules(spec)
    return own + [rule for rule in derived if (rule.name, rule.column) not in told]


def index_sizes(night: Night) -> dict[str, float]:
    """Return for each column of ids, and each list of them, the largest id that it may hold.

    A night that is run again meets snapshots that a later night has written, with that night's ids.
    """
    shop = night.shop
    last: dict[str, float] = {}
    query = "SELECT feature, max(index) AS last FROM batch_files GROUP BY feature"
    for day in {night.as_of_date, *night.warehouse.partitions("vocabularies")[-1:]}:
        for row in query_files(night, "vocabularies", query, day).to_pylist():
            last[row["feature"]] = max(row["last"], last.get(row["feature"], 0))
    sizes = {f.name: last.get(f.vocabulary, OOV_BUCKETS) for f in index_features(shop) if f.vocabulary}
    sizes |= {f"{feature}_indexes": largest for feature, largest in last.items()}
    sizes |= {"price_band": PRICE_BANDS, "item_indexes": last.get("item", OOV_BUCKETS)}
    sizes |= {"event_type_indexes": len(sequence_events(shop)), "scenario_indexes": len(shop.scenarios)}
    return sizes | dict.fromkeys(("category_indexes", "shown_category_indexes"), last.get("category_3", OOV_BUCKETS))


def range_rules(spec: TableSpec, sizes: Mapping[str, float]) -> list[Rule]:
    """Return the rules that each number lies in the range of its name, and that what has none is finite."""
    rules = []
    for column in spec.columns:
        if column.name.startswith(("label_", "mask_")) or column.type in ("string", "bool", "date", "timestamp"):
            continue
        low, high = _range(column, sizes)
        of_list = (f'list_min("{column.name}")', f'list_max("{column.name}")') if "list" in column.type else None
        rules.append(in_range(column.name, low, high, of=of_list))
        if of_list:
            rules.append(no_rows("no_null_entry", column.name, f'len("{column.name}") <> list_count("{column.name}")'))
        if "_rate" in column.name:
            share = f'coalesce(count(*) FILTER (WHERE "{column.name}" > 1) / nullif(count(*), 0), 0)'
            told = f"a share of at most {_RATES_ABOVE_1}"
            rules.append(between("seldom_above_1", column.name, share, 0, _RATES_ABOVE_1, "warning", told))
    return rules


def _range(column: Column, sizes: Mapping[str, float]) -> tuple[float, float]:
    name = column.name
    if name in sizes:
        return 0, sizes[name]
    if name in _NAMES:
        return _NAMES[name]
    fits = [(low, high) for end, low, high in _ENDINGS if name.endswith(end)]
    fits += [(low, high) for part, low, high in _PARTS if part in name]
    if fits:
        return fits[0]
    return (0 if "int" in column.type else -FINITE), FINITE


# Lists whose names begin so describe what the user was shown, and the words of queries; the others, what the user did.
_LISTED_APART = ("shown_", "query_token_", "own_")


def length_rules(spec: TableSpec) -> list[Rule]:
    """Return the rules that lists that describe the same things are equally long."""
    groups: dict[str, list[str]] = {}
    for column in spec.columns:
        if "list" in column.type:
            told = next((name for name in _LISTED_APART if column.name.startswith(name)), "")
            groups.setdefault(told, []).append(column.name)
    rules = []
    for first, *others in groups.values():
        rules += [
            no_rows("equal_lengths", other, f'len("{other}") IS DISTINCT FROM len("{first}")') for other in others
        ]
    return rules


def vocabulary_rules() -> list[Rule]:
    """Return the rules for vocabularies: one id for one value, none of the shared ones, and few ids without a value."""
    repeated = "count(*) - count(DISTINCT (feature, index))"
    sparse = f"""(SELECT count(*) FROM (
        SELECT feature FROM batch_files GROUP BY feature HAVING max(index) - {OOV_BUCKETS} > 2 * count(*)))"""
    return [
        between("unique", "feature, index", repeated, told="0 repeated"),
        in_range("index", OOV_BUCKETS + 1, FINITE),
        in_range("bucket", 1, OOV_BUCKETS),
        no_rows("not_from_the_future", "since", "since > as_of_date OR evicted_on > as_of_date"),
        between("dense", "index", sparse, told="0 vocabularies with more than twice as many ids as values"),
    ]


def graph_rules(shop: Shop) -> list[Rule]:
    """Return the rules for the item graph."""
    return [
        no_rows("no_loop", "tail", "head = tail AND starts_with(relation, 'co_')"),
        in_range("weight", 0, 1 + 1e-6),
        no_rows("above_zero", "weight", "weight <= 0"),
        values_of(
            "known_values",
            "relation",
            ["co_view", *(f"co_{event}" for event in outcome_events(shop))],
            fact="list(DISTINCT relation) FILTER (WHERE starts_with(relation, 'co_'))",
        ),
    ]


def candidate_rules(shop: Shop) -> list[Rule]:
    """Return the rules for candidates: known scenarios, and something for everybody in each of them."""
    everybody = f"user_key = '{EVERYBODY}'"
    return [
        values_of("known_values", "scenario", [*shop.scenarios, EVERYWHERE]),
        values_of(
            "every_scenario",
            "scenario",
            shop.scenarios,
            "ContainSet",
            fact=f"list(DISTINCT scenario) FILTER (WHERE {everybody})",
        ),
        no_rows("not_empty", "generator", "trim(generator) = ''"),
    ]


def example_rules(shop: Shop) -> list[Rule]:
    """Return the rules for training examples: labels, masks, weights, and no knowledge of the future."""
    rules = [  # of other scenarios the batch has none: nightshelf.example_window
        values_of("train_and_test", "split", ("train", "test"), "ContainSet"),
        no_rows("not_from_the_future", "feature_date", "feature_date >= event_date OR event_date > as_of_date"),
        no_rows("above_zero", "sample_weight", "sample_weight <= 0"),
    ]
    for name, task in shop.tasks.items():
        mask, label = f"mask_{name}", f"label_{name}"
        kind = f"{label} NOT IN (0, 1)" if task.kind == "binary" else f"{label} < 0 OR {label} > {FINITE}"
        rules.append(no_rows("within_range", mask, f"{mask} NOT IN (0, 1)", told="0 rows but 0 and 1"))
        rules.append(no_rows("within_range", label, kind))
        rules.append(no_rows("0_where_masked", label, f"{mask} = 0 AND {label} <> 0"))
    return rules


def normalization_rules(shop: Shop) -> list[Rule]:
    """Return the rules for the scales: one for each dense feature, fitted before the days that choose and measure."""
    descents = "len(list_filter(range(2, len(edges) + 1), lambda i: edges[i] <= edges[i - 1])) > 0"
    return [
        values_of("known_values", "feature", [feature.name for feature in dense_features(shop)], "EqualSet"),
        no_rows("above_zero", "deviation", "deviation <= 0"),
        no_rows("rising", "edges", descents),
        no_rows("not_from_the_future", "fitted_until", "fitted_until >= as_of_date"),
    ]
