"""Why a user's shelf is as it is: what was proposed, what was left out, what each place is worth, and what another night had.

Every sentence comes from the tables of the night: recommendations, candidates, items, events.
"""

import datetime as dt
import json
import re
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

import duckdb

from nightshelf.config import Shop
from nightshelf.dates import parse_as_of_date
from nightshelf.errors import InputError
from nightshelf.identity import key_file, user_key
from nightshelf.paths import warehouse_dir
from pipelines.candidate_lists import EVERYBODY
from pipelines.shelf_look import Row, ShelfLook
from pipelines.shelf_status import TABLE
from pipelines.sql import connect
from pipelines.warehouse import Warehouse

_KEY = re.compile(r"[0-9a-f]{32}|\*")
_MOVED = "moved"


@dataclass(frozen=True)
class Explanation:
    """A shelf (its places, best first), its candidates, which of them were excluded, and how another night's differs.

    `utility` and the rules that excluded are the shop file's of today; `adds_up` says whether the night's scores were made of
    that utility.
    """

    shop: str
    scenario: str
    user_key: str
    as_of_date: dt.date
    model_version: str
    utility: dict[str, float]
    adds_up: bool
    places: list[Row]
    proposed: list[Row]
    excluded: list[Row]
    against: dt.date | None
    against_model: str
    changes: list[Row]


def explain(
    shop: Shop,
    user: str,
    scenario: str,
    as_of_date: str = "",
    against: str = "",
    as_of: str = "",
    against_as_of: str = "",
) -> Explanation:
    """Explain the shelf of one user in one scenario.

    Args:
        shop: the shop.
        user: a user id as it stands in the logs, or a user_key of the tables; `*` is whoever is not known.
        scenario: one of the shop's.
        as_of_date: the night, YYYY-MM-DD; empty: the newest that was published.
        against: another night, YYYY-MM-DD, whose shelf of the user is compared; empty: the newest of `against_as_of`, or none.
        as_of: a snapshot id or a date, as `Warehouse.files_as_of` takes it: the state of the tables in which the night is looked
            for, such as one before a rollback; empty: what is there now.
        against_as_of: the same of the other night.

    Raises:
        InputError: there is no such scenario, state, night or shelf.
    """
    if scenario not in shop.scenarios:
        raise InputError(f"--scenario {scenario!r} is unknown; shop {shop.shop} has {', '.join(shop.scenarios)}")
    tables, day = open_night(shop, TABLE, "--as-of-date", as_of_date, as_of)
    for key in _keys_of(shop, user):
        look = ShelfLook(tables, shop, scenario, key, day)
        if places := look.places():
            break
    else:
        instead = (
            "the night made none for whoever is not known"
            if user == EVERYBODY
            else "whoever is unknown is shown --user '*'"
        )
        raise InputError(f"--user {user}: no shelf in {scenario} on {day}; {instead}")
    then, places_then = None, []
    if against or against_as_of:
        tables_then, other = open_night(shop, TABLE, "--against", against, against_as_of)
        then = replace(look, tables=tables_then, day=other)
        places_then = then.places()
    weights = shop.scenarios[scenario].weights
    return Explanation(
        shop.shop,
        scenario,
        look.user,
        day,
        places[0]["model_version"],
        weights,
        _adds_up(places, weights),
        places,
        look.proposed(),
        look.excluded(places),
        then.day if then else None,
        places_then[0]["model_version"] if places_then else "",
        _changes(look, then, places, places_then) if then else [],
    )


def _adds_up(places: list[Row], weights: dict[str, float]) -> bool:
    """Return whether all scores are the weighted predictions, which are rounded to a millionth."""
    rounding = 1e-6 * (1 + sum(map(abs, weights.values())))
    return all(abs(row["score"] - sum(row[f"from_{task}"] for task in weights)) <= rounding for row in places)


def open_night(
    shop: Shop, table: str, option: str, night: str, as_of: str
) -> tuple[duckdb.DuckDBPyConnection, dt.date]:
    """Return the tables, as they are now or as `as_of` left them, and the night of a table of shelves that an option names.

    Raises:
        InputError: there is no such state, the night (empty: the newest) is not among its shelves, or there are none at all.
    """
    if not (warehouse_dir(shop) / "catalog.db").exists():
        raise InputError(f"{shop.home}: no night has been published there; run `nightshelf run --shop …` first")
    warehouse, asked = Warehouse(shop), parse_as_of_date(night) if night else None
    tables, nights = connect(warehouse, as_of), warehouse.partitions_as_of(table, as_of)
    if as_of.isdigit() and not warehouse.files_as_of(table, as_of)[1]:
        raise InputError(f"--as-of {as_of}: that is no state of {table}; give a date, or a state's id of that table")
    if not nights or (asked and asked not in nights):
        shown = ", ".join(map(str, nights[-5:])) or "none"
        raise InputError(
            f"{option} {night}: no shelves of that night are published; the newest are of {shown}; "
            "to look at what was rolled back, name a state from before with --as-of or --against-as-of"
        )
    return tables, asked or nights[-1]


def _keys_of(shop: Shop, user: str) -> list[str]:
    """Return whom a text may mean: a user_key; a user id, which may be 32 such digits, too."""
    keys, file = [user] if _KEY.fullmatch(user) else [], key_file(shop)
    if user != EVERYBODY and file.exists():
        keys.append(user_key(user, file.read_bytes()))
    if not keys:
        raise InputError(f"--user {user}: {file} is not there, without which no user id can be found; give a user_key")
    return keys


def _changes(look: ShelfLook, then: ShelfLook, places: list[Row], places_then: list[Row]) -> list[Row]:
    """Return what differs between the user's shelves of two nights, the items that came or went first."""
    of_now, of_then = ({row["item_id"]: row for row in shelf} for shelf in (places, places_then))
    why = {
        **look.why_absent([item for item in of_then if item not in of_now], places),
        **then.why_absent([item for item in of_now if item not in of_then], places_then),
    }
    changes = []
    for item in [*of_now, *(item for item in of_then if item not in of_now)]:
        row, row_then = of_now.get(item, {}), of_then.get(item, {})
        if row.get("rank") != row_then.get("rank"):
            numbers = {"rank": row.get("rank"), "rank_then": row_then.get("rank")}
            numbers |= {"score": row.get("score"), "score_then": row_then.get("score")}
            changes.append(
                {"item_id": item, "title": (row or row_then)["title"], **numbers, "why": why.get(item, _MOVED)}
            )
    return sorted(changes, key=lambda row: (row["why"] == _MOVED, row["rank"] is None, row["rank"] or row["rank_then"]))


def print_why(explanation: Explanation, output: str) -> None:
    """Print an explanation as text or json.

    Raises:
        InputError: the format is unknown.
    """
    print_as(output, explanation, _print_tables)


def print_as(output: str, found: Any, print_tables: Callable[[Any], None]) -> None:
    """Print a dataclass as json, or by its own function as text.

    Raises:
        InputError: the format is unknown.
    """
    if output == "json":
        json.dump(asdict(found), sys.stdout, default=str, ensure_ascii=False)
        sys.stdout.write("\n")
    elif output == "table":
        print_tables(found)
    else:
        raise InputError(f"--format {output!r} is unknown; write table or json")


def _print_tables(found: Explanation) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(width=None if sys.stdout.isatty() else 200, highlight=False, markup=False)
    who = "whoever is not known" if found.user_key == EVERYBODY else f"user {found.user_key}"
    console.print(
        f"{found.shop}, night {found.as_of_date}: {found.scenario} of {who}, ranked by model {found.model_version}"
    )
    score = " + ".join(f"{weight:g} × {task}" for task, weight in found.utility.items())
    console.print(f"score = {score}, which the model expects of a showing:")
    if not found.adds_up:
        console.print("(as the shop file weighs outcomes today; when these scores were made it weighed them otherwise)")
    tasks = [f"{task} ({weight:g} ×)" for task, weight in found.utility.items()]
    table = Table("rank", "by score", "item", "title", "score", *tasks, "proposed by", "placed by", "reason")
    for row in found.places:
        parts = [f"{row[task]:.4f}" for task in found.utility]
        by = ", ".join([row["source"], *row["also_proposed_by"]])
        placed = f"explore ({row['propensity']:.4g})" if row["placed_by"] == "explore" else row["placed_by"]
        what = [_shown(row["rank_by_score"]), row["item_id"], row["title"], f"{row['score']:.4f}"]
        table.add_row(str(row["rank"]), *what, *parts, by, placed, row["reason"])
    console.print(table)
    told = ", ".join(f"{row['generator']} {row['items']} ({row['alone']} alone)" for row in found.proposed)
    console.print(f"Proposed: {told or 'nothing'}")
    if found.excluded:
        console.print("Left out, by the rules as they are today:")
    for row in found.excluded:
        console.print(f"  {row['item_id']} {row['title'] or ''}: {row['rule']}")
    if found.against:
        model = f"model {found.against_model}" if found.against_model else "no shelf"
        console.print(f"Against {found.against} ({model}): {len(found.changes)} places differ")
        changes = Table("item", "title", "rank", "then", "score", "then", "why")
        for row in found.changes:
            numbers = [_shown(row[name]) for name in ("rank", "rank_then", "score", "score_then")]
            changes.add_row(row["item_id"], row["title"], *numbers, row["why"])
        console.print(changes)


def _shown(value: float | int | None) -> str:
    return "" if value is None else f"{value:.4f}" if isinstance(value, float) else str(value)
