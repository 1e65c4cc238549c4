"""Why a user's shelf is as it is: what was proposed, what was left out, what each place is worth, and what another night had.

Every sentence comes from the tables of the night: recommendations, candidates, items, events.
"""

import datetime as dt
import json
import re
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import duckdb

from nightshelf.blocked import blocked_items
from nightshelf.config import Shop
from nightshelf.dates import parse_as_of_date
from nightshelf.errors import InputError
from nightshelf.exclusions import OUT_OF_STOCK, acted_on, item_condition
from nightshelf.identity import key_file, user_key
from nightshelf.paths import warehouse_dir
from pipelines.candidate_lists import CANDIDATE_TABLES, EVERYBODY
from pipelines.sql import connect
from pipelines.warehouse import Warehouse

Row = dict[str, Any]
_KEY = re.compile(r"[0-9a-f]{32}|\*")
_MOVED = "moved"


@dataclass(frozen=True)
class Explanation:
    """A shelf (its places, best first), its candidates, which of them were excluded, and how another night's differs.

    `utility` is the shop file's of today; `adds_up` says whether it is what the night's scores were made of.
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


def explain(shop: Shop, user: str, scenario: str, as_of_date: str = "", against: str = "") -> Explanation:
    """Explain the shelf of one user in one scenario.

    Args:
        shop: the shop.
        user: a user id as it stands in the logs, or a user_key of the tables; `*` is whoever is not known.
        scenario: one of the shop's.
        as_of_date: the night, YYYY-MM-DD; empty: the newest that was published.
        against: another night, YYYY-MM-DD, whose shelf of the user is compared; empty: none.

    Raises:
        InputError: there is no such scenario, night or shelf.
    """
    if not (warehouse_dir(shop) / "catalog.db").exists():
        raise InputError(f"{shop.home}: no night has been published there; run `nightshelf run --shop …` first")
    if scenario not in shop.scenarios:
        raise InputError(f"--scenario {scenario!r} is unknown; shop {shop.shop} has {', '.join(shop.scenarios)}")
    warehouse = Warehouse(shop)
    nights = warehouse.partitions("recommendations")
    day, other = (
        night_asked(text, nights, option) for text, option in ((as_of_date, "--as-of-date"), (against, "--against"))
    )
    look = _Look(connect(warehouse), shop, scenario, _key_of(shop, user))
    day = day or nights[-1]
    places = look.places(day)
    if not places:
        instead = (
            "the night made none for whoever is not known"
            if user == EVERYBODY
            else "whoever is unknown is shown --user '*'"
        )
        raise InputError(f"--user {user}: no shelf in {scenario} on {day}; {instead}")
    before = look.places(other) if other else []
    return Explanation(
        shop.shop,
        scenario,
        look.user,
        day,
        places[0]["model_version"],
        shop.scenarios[scenario].weights,
        _adds_up(places, shop.scenarios[scenario].weights),
        places,
        look.proposed(day),
        look.excluded(day),
        other,
        before[0]["model_version"] if before else "",
        _changes(look, day, other, places, before) if other else [],
    )


def _adds_up(places: list[Row], weights: dict[str, float]) -> bool:
    """Return whether all scores are the weighted predictions, which are rounded to a millionth."""
    rounding = 1e-6 * (1 + sum(map(abs, weights.values())))
    return all(abs(row["score"] - sum(row[f"from_{task}"] for task in weights)) <= rounding for row in places)


def night_asked(text: str, nights: list[dt.date], option: str) -> dt.date | None:
    """Return the night that an option names, None if it names none.

    Raises:
        InputError: it is not among the published nights, or there is none at all.
    """
    day = parse_as_of_date(text) if text else None
    if not nights or (day and day not in nights):
        shown = ", ".join(map(str, nights[-5:])) or "none"
        raise InputError(f"{option} {text}: no shelves of that night are published; the newest are of {shown}")
    return day


def _key_of(shop: Shop, user: str) -> str:
    if _KEY.fullmatch(user):
        return user
    file = key_file(shop)
    if not file.exists():
        raise InputError(f"--user {user}: {file} is not there, without which no user id can be found; give a user_key")
    return user_key(user, file.read_bytes())


@dataclass(frozen=True)
class _Look:
    """Questions to the tables about one user in one scenario."""

    tables: duckdb.DuckDBPyConnection
    shop: Shop
    scenario: str
    user: str

    def ask(self, query: str, **parameters: object) -> list[Row]:
        cursor = self.tables.execute(query, parameters)
        names = [column[0] for column in cursor.description or []]
        return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]

    def places(self, day: dt.date) -> list[Row]:
        """Return the places: item, predictions, what each adds to the score, who proposed it and who placed it, reason."""
        weights = self.shop.scenarios[self.scenario].weights
        predictions = ", ".join(f'p_{task} AS "{task}"' for task in self.shop.tasks)
        parts = ", ".join(f'round({weight!r} * p_{task}, 6) AS "from_{task}"' for task, weight in weights.items())
        return self.ask(
            f"""
            WITH proposals AS ({_PROPOSALS}), offers AS (
                SELECT item_id, list(DISTINCT generator ORDER BY generator) AS generators FROM proposals GROUP BY item_id)
            SELECT rank, item_id, title, score, {predictions}, {parts}, source,
                list_filter(coalesce(generators, []), lambda name: name <> source) AS also_proposed_by, reason,
                rank_by_score, placed_by, propensity, model_version
            FROM recommendations LEFT JOIN offers USING (item_id)
            LEFT JOIN (SELECT item_id, title FROM items WHERE as_of_date = $day) USING (item_id)
            WHERE as_of_date = $day AND user_key = $user AND scenario = $scenario ORDER BY rank""",
            day=day,
            user=self.user,
            scenario=self.scenario,
        )

    def proposed(self, day: dt.date) -> list[Row]:
        """Return how many items each generator proposed, and how many of them nobody else did."""
        return self.ask(
            f"""
            WITH proposals AS ({_PROPOSALS}), alone AS (
                SELECT item_id, count(DISTINCT generator) = 1 AS is_alone FROM proposals GROUP BY item_id)
            SELECT generator, count(DISTINCT item_id) AS items, count(DISTINCT item_id) FILTER (WHERE is_alone) AS alone
            FROM proposals JOIN alone USING (item_id) GROUP BY generator ORDER BY items DESC, generator""",
            day=day,
            user=self.user,
            scenario=self.scenario,
        )

    def excluded(self, day: dt.date) -> list[Row]:
        """Return the proposed items that the scenario's rules left out, each with the rule."""
        rules = self.rules_against(sorted(self.proposed_items(day)), day)
        query = "SELECT item_id, title FROM items WHERE as_of_date = $day AND item_id IN (SELECT unnest($items))"
        titles = {row["item_id"]: row["title"] for row in self.ask(query, day=day, items=list(rules))}
        return [{"item_id": item, "title": titles.get(item), "rule": rule} for item, rule in rules.items()]

    def rules_against(self, items: list[str], day: dt.date) -> dict[str, str]:
        """Return which of these items a rule of the scenario kept off the shelf that night, and by which rule."""
        rules = self.shop.scenarios[self.scenario].exclude
        found: dict[str, str] = {}
        for event, days in (acted for rule in rules if self.user != EVERYBODY and (acted := acted_on(rule))):
            query = """
                SELECT item_id, max(event_date) AS acted_on FROM events
                WHERE user_key = $user AND event_type = $event AND item_id IN (SELECT unnest($items))
                    AND as_of_date <= $day AND as_of_date > $day - $days::INT GROUP BY item_id"""
            rows = self.ask(query, user=self.user, event=event, items=items, day=day, days=days)
            said = "bought" if event == "purchase" else event
            found |= {row["item_id"]: f"{said} on {row['acted_on']}" for row in rows}
        for rule in (rule for rule in rules if not acted_on(rule)):
            asked = "SELECT item_id, price FROM items WHERE as_of_date = $day AND item_id IN (SELECT unnest($items))"
            for row in self.ask(f"{asked} AND {item_condition(rule)}", day=day, items=items):
                price = "has no price" if row["price"] is None else f"costs {row['price']:g}"
                found[row["item_id"]] = "out of stock" if rule == OUT_OF_STOCK else price
        found |= dict.fromkeys(blocked_items(self.shop).intersection(items), "blocked")
        return dict(sorted(found.items()))

    def proposed_items(self, day: dt.date) -> set[str]:
        """Return the items that any generator proposed."""
        rows = self.ask(f"SELECT DISTINCT item_id FROM ({_PROPOSALS})", day=day, user=self.user, scenario=self.scenario)
        return {row["item_id"] for row in rows}

    def ranked_items(self, day: dt.date) -> set[str]:
        """Return the items that any generator proposed within the scenario's quotas."""
        query = f"""
            WITH quotas AS (SELECT generator, quota FROM candidate_quotas WHERE as_of_date = $day AND scenario = $scenario)
            SELECT DISTINCT item_id FROM ({_PROPOSALS}) LEFT JOIN quotas USING (generator)
            WHERE quota IS NULL OR place <= quota"""
        rows = self.ask(query, day=day, user=self.user, scenario=self.scenario)
        return {row["item_id"] for row in rows}


# A user without a history of their own is shown what everybody may be.
_PROPOSALS = f"""SELECT item_id, generator, because,
        row_number() OVER (PARTITION BY user_key, scenario, generator ORDER BY generator_score DESC, item_id) AS place
    FROM ({" UNION ALL ".join(f"FROM {table}" for table in CANDIDATE_TABLES)})
    WHERE as_of_date = $day AND user_key IN ($user, '{EVERYBODY}') AND scenario IN ($scenario, '{EVERYBODY}')"""


def _changes(look: _Look, day: dt.date, other: dt.date, places: list[Row], before: list[Row]) -> list[Row]:
    """Return what differs between the user's shelf of `day` and that of `other`, the items that came or went first."""
    now, then = ({row["item_id"]: row for row in shelf} for shelf in (places, before))
    why = {
        **_why_absent(look, [item for item in then if item not in now], day),
        **_why_absent(look, [item for item in now if item not in then], other),
    }
    changes = []
    for item in [*now, *(item for item in then if item not in now)]:
        row, row_then = now.get(item, {}), then.get(item, {})
        if row.get("rank") != row_then.get("rank"):
            numbers = {"rank": row.get("rank"), "rank_then": row_then.get("rank")}
            numbers |= {"score": row.get("score"), "score_then": row_then.get("score")}
            changes.append(
                {"item_id": item, "title": (row or row_then)["title"], **numbers, "why": why.get(item, _MOVED)}
            )
    return sorted(changes, key=lambda row: (row["why"] == _MOVED, row["rank"] is None, row["rank"] or row["rank_then"]))


def _why_absent(look: _Look, items: list[str], day: dt.date) -> dict[str, str]:
    """Say of each item why it was on no place of the shelf of `day`."""
    proposed, ranked, rules = look.proposed_items(day), look.ranked_items(day), look.rules_against(items, day)
    other = dict.fromkeys(items, "nobody proposed it")
    other |= {item: "beyond the quota of whoever proposed it" for item in items if item in proposed}
    other |= {item: "others ranked higher" for item in items if item in ranked}
    return {item: f"not on {day}: {rules.get(item, other[item])}" for item in items}


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
    for row in found.excluded:
        console.print(f"Left out: {row['item_id']} {row['title'] or ''}: {row['rule']}")
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
