"""Why an item's shelf is as it is: what each place is worth to anybody, how that rises beside the item, and on what evidence."""

import sys
from dataclasses import dataclass

from nightshelf.config import Shop
from nightshelf.errors import InputError
from pipelines.shelf_look import Row
from pipelines.shelf_status import ITEM_TABLE
from pipelines.why import open_night, print_as

_QUERY = """
    WITH known AS (
        SELECT item_id, title, coalesce(category_3, category_2, category_1) AS category FROM items WHERE as_of_date = $day
    ), ties AS (
        SELECT tail AS item_id, list(relation ORDER BY relation) AS relations FROM item_graph
        WHERE as_of_date = $day AND head = $item GROUP BY tail
    )
    SELECT r.rank, r.item_id, k.title, k.category, r.score,
        CASE WHEN r.score < 0 THEN r.score * r.lift ELSE r.score / r.lift END AS worth, r.lift,
        l.outcomes, l.expected, l.lift AS category_lift, coalesce(relations, []) AS relations, r.source, r.reason,
        r.rank_by_score, r.model_version
    FROM item_recommendations r LEFT JOIN known k USING (item_id) LEFT JOIN ties USING (item_id)
    LEFT JOIN anchor_lifts l ON l.as_of_date = r.as_of_date AND l.scenario = r.scenario AND l.category = k.category
        AND l.anchor_category = (SELECT category FROM known WHERE item_id = $item)
    WHERE r.as_of_date = $day AND r.anchor_item_id = $item AND r.scenario = $scenario ORDER BY rank"""


@dataclass(frozen=True)
class ItemExplanation:
    """The shelf of an item (its places, best first): score = worth × lift, below 0 worth / lift."""

    shop: str
    scenario: str
    item_id: str
    title: str | None
    anchor: str
    as_of_date: str
    model_version: str
    places: list[Row]


def explain_item(shop: Shop, item: str, scenario: str, as_of_date: str = "", as_of: str = "") -> ItemExplanation:
    """Explain the shelf of one item in one scenario.

    Args:
        shop: the shop.
        item: an item id.
        scenario: one with an `anchor`.
        as_of_date: the night, YYYY-MM-DD; empty: the newest that was published.
        as_of: the state of the tables, a snapshot id or a date; empty: what is there now.

    Raises:
        InputError: there is no such scenario, state, night or shelf.
    """
    if scenario not in shop.anchors:
        known = ", ".join(shop.anchors) or "none"
        raise InputError(f"--scenario {scenario!r} has no shelves of items; those with an `anchor`: {known}")
    tables, day = open_night(shop, ITEM_TABLE, "--as-of-date", as_of_date, as_of)
    cursor = tables.execute(_QUERY, {"day": day, "item": item, "scenario": scenario})
    names = [column[0] for column in cursor.description or []]
    places = [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]
    if not places:
        raise InputError(f"--item {item}: no shelf in {scenario} on {day}; is it in the catalogue of that night?")
    titles = tables.execute(
        "SELECT title FROM items WHERE as_of_date = $day AND item_id = $item", {"day": day, "item": item}
    )
    title = next((row[0] for row in titles.fetchall()), None)
    version = places[0]["model_version"]
    return ItemExplanation(shop.shop, scenario, item, title, shop.anchors[scenario], str(day), version, places)


def print_why_item(found: ItemExplanation, output: str) -> None:
    """Print an explanation as text or json.

    Raises:
        InputError: the format is unknown.
    """
    print_as(output, found, _print_table)


def _print_table(found: ItemExplanation) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(width=None if sys.stdout.isatty() else 200, highlight=False, markup=False)
    console.print(
        f"{found.shop}, night {found.as_of_date}: {found.scenario} beside {found.item_id} {found.title or ''}"
        f" (its latest act: {found.anchor}), ranked by model {found.model_version}"
    )
    console.print(
        "score = worth to anybody × lift; the lift rests on outcomes beside such items, and what was expected of them:"
    )
    table = Table(
        "rank", "by score", "item", "title", "score", "worth", "lift", "outcomes", "expected", "ties", "reason"
    )
    for row in found.places:
        numbers = [f"{row[name]:.4f}" for name in ("score", "worth", "lift")]
        evidence = ["" if row[name] is None else f"{row[name]:.1f}" for name in ("outcomes", "expected")]
        what = [str(row["rank"]), str(row["rank_by_score"]), row["item_id"], row["title"]]
        table.add_row(*what, *numbers, *evidence, ", ".join(row["relations"]), row["reason"])
    console.print(table)
