"""How tonight's drafts differ from the shelves of the night before: what stayed, how many items show, how the scores lie.

Shelves that hardly change may be made of yesterday's features, and shelves of which nothing stays, of broken ones.
"""

from typing import TYPE_CHECKING

from nightshelf.checks import Checks
from nightshelf.dates import days_back
from pipelines.stage import Night
from pipelines.validate import at_least, connect, expect

if TYPE_CHECKING:
    import pandas as pd
    from great_expectations.expectations.expectation import Expectation

# Shelves of a night further back were made for other days.
_DAYS = 7
_QUERY = """
    WITH new AS (
        SELECT {owner} AS owner, item_id, score FROM drafts WHERE scenario = $scenario
    ), old AS (
        SELECT {owner} AS owner, item_id, score FROM before WHERE scenario = $scenario
    ), places AS (
        SELECT *, true AS is_new FROM new UNION ALL SELECT *, false FROM old
    ), lengths AS (
        SELECT count(*) / count(DISTINCT owner) AS new, (
            SELECT avg(least(count, $top_n)) FROM (SELECT count(*) AS count FROM old GROUP BY owner)
        ) AS old FROM new
    ), kept AS (
        SELECT count(*) AS count FROM new JOIN old USING (owner, item_id)
    ), known AS (
        SELECT count(*) AS count FROM new WHERE owner IN (SELECT owner FROM old)
    ), steps AS (  -- scores are rounded: a window over equal ones would go through them again for each
        SELECT score, count(*) FILTER (WHERE is_new) AS new, count(*) FILTER (WHERE NOT is_new) AS old
        FROM places GROUP BY score
    ), apart AS (
        SELECT max(abs(new / nullif(news, 0) - old / nullif(olds, 0))) AS distance FROM (
            SELECT sum(new) OVER up AS new, sum(old) OVER up AS old, sum(new) OVER () AS news, sum(old) OVER () AS olds
            FROM steps WINDOW up AS (ORDER BY score)
        )
    )
    SELECT $scenario AS scenario,
        (SELECT count FROM kept) / nullif((SELECT count FROM known), 0) AS kept_share,
        count(DISTINCT item_id) FILTER (WHERE is_new) / nullif(count(DISTINCT item_id) FILTER (WHERE NOT is_new), 0)
            AS items_ratio,
        (SELECT new / old FROM lengths) AS places_ratio,
        (SELECT distance FROM apart) AS score_distance
    FROM places"""


def shelf_change(night: Night, drafts: list[str], table: str, owner: str) -> "pd.DataFrame | None":
    """Return a row per scenario that both nights have; None if no night was published in the week before.

    kept_share: share of the places on shelves of known owners whose item stood on the owner's shelf before. items_ratio:
    distinct items now over those then. places_ratio: places of a shelf now over those then, of which no more count than the shop
    file now wants. score_distance: Kolmogorov-Smirnov distance of the scores.

    Args:
        night: the night.
        drafts: Parquet files of its drafts.
        table: where they want to be published.
        owner: the column whose values have shelves.
    """
    import pandas as pd

    published = set(night.warehouse.partitions(table))
    week = reversed(days_back(night.as_of_date, _DAYS + 1)[:-1])
    before = next((day for day in week if day in published), None)
    if before is None:
        return None
    connection = connect(night)
    connection.read_parquet(drafts).create_view("drafts")
    connection.read_parquet(night.warehouse.files(table, [before])).create_view("before")
    found = "SELECT DISTINCT scenario FROM drafts INTERSECT SELECT DISTINCT scenario FROM before ORDER BY scenario"
    names = [name for (name,) in connection.sql(found).fetchall()]
    query = _QUERY.format(owner=owner)
    wanted = {name: night.shop.scenarios[name].top_n for name in names if name in night.shop.scenarios}
    facts = [connection.sql(query, params={"scenario": name, "top_n": wanted.get(name)}).df() for name in names]
    return pd.concat(facts, ignore_index=True) if facts else None


def change_suite(checks: Checks, scenarios: int) -> "list[Expectation]":
    """Return the rules for the facts of so many scenarios: warnings, but for a catalogue that vanished from the shelves."""
    kinds = (
        ("kept_share", checks.shelf_kept_warn, "warning"),
        ("items_ratio", checks.shelf_items_warn, "warning"),
        ("items_ratio", checks.shelf_items_fail, "critical"),
        ("score_distance", checks.shelf_scores_warn and (0.0, checks.shelf_scores_warn), "warning"),
    )
    names = {"warning": "as_before", "critical": "roughly_as_before"}
    rules = [expect("TableRowCountToBeBetween", "row_count", min_value=1, max_value=scenarios)]
    for column, band, severity in kinds:
        if band:
            kind, (least, most) = "ColumnValuesToBeBetween", band
            rules.append(expect(kind, names[severity], severity, column=column, min_value=least, max_value=most))
    return [*rules, *at_least("places_ratio", "as_before", checks.shelf_places_warn, checks.shelf_places_fail)]
