"""The outcomes of the last days, each with the ranks at which the generators had proposed its item the night before."""

from dataclasses import dataclass

import numpy as np

from nightshelf.config import Shop
from nightshelf.dates import days_back
from nightshelf.features import outcome_events
from nightshelf.generators import GENERATOR_ORDER
from nightshelf.scenarios import Scenario
from pipelines.candidate_lists import CANDIDATE_TABLES, EVERYBODY
from pipelines.candidate_recall import night_before
from pipelines.stage import Night
from pipelines.validate import connect, view_files

DAYS = 3
# What a regression learns of an outcome's events of one day (nightshelf.tasks.Task)
_VALUES = {
    "amount": "sum(price * coalesce(quantity, 1))",
    "price": "sum(price)",
    "quantity": "sum(coalesce(quantity, 1))",
    "dwell_seconds": "sum(dwell_seconds)",
    "rating": "arg_max(rating, (event_ts, event_id))",
}


@dataclass(frozen=True)
class JudgedCandidates:
    """Outcomes, those that were proposed alike in one row, and what the generators had proposed.

    scenarios: [rows] numbers in the order of the shop file, -1: none of it any more. ranks: [rows, generators], 1 = best, 0: not
    proposed. outcomes: [rows], how many. worth, squares: [rows, scenarios], sums of what they would be worth in each scenario,
    and of its square. costs: [generators, ranks], how many candidates a rank brings a user with candidates of their own, on
    average. proposed: [generators], the most to one user.
    """

    scenarios: np.ndarray
    ranks: np.ndarray
    outcomes: np.ndarray
    worth: np.ndarray
    squares: np.ndarray
    costs: np.ndarray
    proposed: np.ndarray


def judged_candidates(night: Night, days: int = DAYS) -> JudgedCandidates | None:
    """Return what the newest `days` that the night knows say of the candidates of the nights before them; None if nothing.

    A day's outcomes are those that had arrived by its own end, so that every later night judges it alike. An outcome is what a
    user did with an item in a scenario on that day; each event type counts once.
    """
    found, lists, users = [], [], 0
    for day in days_back(night.as_of_date, days):
        before = night_before(night, day)
        if before is not None:
            connection = connect(night)
            proposed = [file for table in CANDIDATE_TABLES for file in night.warehouse.files(table, [before])]
            for table, files in (("acts", night.warehouse.files("acts", [day])), ("candidates", proposed)):
                view_files(connection, table, files, night.warehouse.specs[table])
            events = outcome_events(night.shop)
            found.append(connection.execute(_outcomes_query(night.shop), {"day": day, "events": events}).fetchnumpy())
            lists += connection.execute(_LENGTHS).fetchall()
            users += connection.execute(_USERS, {"everybody": EVERYBODY}).fetchall()[0][0]
    if not any(len(rows["outcomes"]) for rows in found):
        return None
    columns = {name: np.concatenate([rows[name] for rows in found]) for name in found[0]}
    names = range(len(night.shop.scenarios))
    numbers = {name: number for number, name in enumerate(night.shop.scenarios)}
    costs = _costs(lists, users)
    return JudgedCandidates(
        scenarios=np.array([numbers.get(name, -1) for name in columns["scenario"]], np.int64),
        ranks=np.stack([columns[name] for name in GENERATOR_ORDER], axis=1).astype(np.int64),
        outcomes=columns["outcomes"].astype(np.int64),
        worth=np.stack([columns[f"worth_{number}"] for number in names], axis=1),
        squares=np.stack([columns[f"squares_{number}"] for number in names], axis=1),
        costs=costs,
        proposed=(costs > 0).sum(axis=1),
    )


def _outcomes_query(shop: Shop) -> str:
    """Return SQL for the outcomes of a day by scenario and the ranks at which they had been proposed, in a fixed order."""
    values = ", ".join(f"{value} AS {name}" for name, value in _VALUES.items())
    names = range(len(shop.scenarios))
    # Decimal: whole millionths, so that the order of adding leaves no trace
    worth = ", ".join(
        f"greatest(0, sum({_worth(shop, scenario)}))::DECIMAL(18, 6) AS worth_{number}"
        for number, scenario in enumerate(shop.scenarios.values())
    )
    sums = ", ".join(
        f"sum(worth_{n})::DOUBLE AS worth_{n}, sum(worth_{n}::DOUBLE * worth_{n}::DOUBLE) AS squares_{n}" for n in names
    )
    ranks = ", ".join(
        f"coalesce(min(rank) FILTER (WHERE generator = '{name}'), 0) AS {name}" for name in GENERATOR_ORDER
    )
    # Twice over the candidates, each time with an equality that a hash join can use
    return f"""
        WITH events AS (
            SELECT scenario, user_key, item_id, event_type, {values} FROM acts
            WHERE event_date = $day AND event_type IN (SELECT unnest($events)) GROUP BY ALL
        ), outcomes AS (
            SELECT scenario, user_key, item_id, {worth} FROM events GROUP BY ALL
        ), ranked AS (
            SELECT *, row_number() OVER best_first AS rank
            FROM candidates WHERE user_key = '{EVERYBODY}' OR user_key IN (SELECT user_key FROM outcomes)
            WINDOW best_first AS (PARTITION BY user_key, scenario, generator ORDER BY generator_score DESC, item_id)
        ), proposals AS (
            SELECT o.scenario, o.user_key, o.item_id, generator, rank FROM outcomes o JOIN ranked c
                ON c.user_key = o.user_key AND c.item_id = o.item_id AND c.scenario IN (o.scenario, '{EVERYBODY}')
            UNION ALL SELECT o.scenario, o.user_key, o.item_id, generator, rank FROM outcomes o
                JOIN (SELECT * FROM ranked WHERE user_key = '{EVERYBODY}') c
                ON c.item_id = o.item_id AND c.scenario IN (o.scenario, '{EVERYBODY}')
        ), judged AS (
            SELECT o.*, {ranks} FROM outcomes o LEFT JOIN proposals p USING (scenario, user_key, item_id) GROUP BY ALL
        )
        SELECT scenario, {", ".join(GENERATOR_ORDER)}, count(*) AS outcomes, {sums} FROM judged GROUP BY ALL ORDER BY ALL"""


def _worth(shop: Shop, scenario: Scenario) -> str:
    """Return SQL for what an outcome's events of one type are worth in a scenario: its tasks on the item, by their weights."""
    parts = ["0"]
    for name, weight in scenario.utility.items():
        task = shop.tasks[name]
        if task.on == "item":
            event = task.event.replace("'", "''")
            parts.append(
                f"CASE WHEN event_type = '{event}' THEN {weight!r} * coalesce({task.value or '1'}, 0) ELSE 0 END"
            )
    return " + ".join(parts)


# How many lists there are of each length: of users, and of all users (which everybody gets)
_LENGTHS = f"""SELECT generator, user_key = '{EVERYBODY}' AS is_shared, length, count(*) FROM (
        SELECT generator, user_key, scenario, count(*) AS length FROM candidates GROUP BY ALL) GROUP BY ALL"""
_USERS = "SELECT count(DISTINCT user_key) FROM candidates WHERE user_key <> $everybody"


def _costs(lists: list[tuple[str, bool, int, int]], users: int) -> np.ndarray:
    """Return how many candidates each rank brings a user on average [generators, ranks]; of what everybody gets it is 1."""
    costs = np.zeros((len(GENERATOR_ORDER), max(length for _, _, length, _ in lists)))
    for generator, is_shared, length, count in lists:
        costs[GENERATOR_ORDER.index(generator), :length] += 0 if is_shared else count / users
    for generator, is_shared, length, _ in lists:
        if is_shared:
            costs[GENERATOR_ORDER.index(generator), :length] = 1.0
    return costs
