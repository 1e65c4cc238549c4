"""What the generators reached: how many of a day's outcomes the night before had proposed, by generator and in all.

What is no candidate can stand on no shelf. So recall of the union is the ceiling of everything that comes after, and a generator
that falls silent shows here first.
"""

import datetime as dt
from statistics import median

import pyarrow as pa

from nightshelf.dates import days_back
from nightshelf.features import outcome_events
from nightshelf.generators import GENERATOR_ORDER
from pipelines.candidate_lists import CANDIDATE_TABLES, EVERYBODY
from pipelines.rules import Rule, between, check_rules
from pipelines.stage import Night
from pipelines.usual import FEWEST_NIGHTS, NIGHTS
from pipelines.validate import Row, connect, view_files
from pipelines.warehouse import arrow_schema

TABLE = "candidate_recall"
ALL = "*"
# Candidates of a night that lies further back were made for other days.
_DAYS = 7
# A recall below this share of the usual one is a warning.
_LEAST_OF_USUAL = 0.5


def night_before(night: Night, day: dt.date) -> dt.date | None:
    """Return the last night before `day` whose candidates were made for it; None if there is none in a week."""
    known = set(night.warehouse.partitions("candidates"))
    return max((earlier for earlier in days_back(day, _DAYS)[:-1] if earlier in known), default=None)


def candidate_recall(night: Night) -> list[Row]:
    """Return a row per outcome event and generator, and one of all (`*`), of the night's day; none without earlier candidates.

    An outcome is a user's event on an item in a scenario, once a day. It is reached where a candidate of the last night
    before was the user's own, or everybody's, in that scenario or in all.
    """
    before = night_before(night, night.as_of_date)
    if before is None:
        return []
    connection = connect(night)
    proposed = [file for table in CANDIDATE_TABLES for file in night.warehouse.files(table, [before])]
    for table, files in (("acts", night.warehouse.files("acts", [night.as_of_date])), ("candidates", proposed)):
        view_files(connection, table, files, night.warehouse.specs[table])
    events = outcome_events(night.shop)
    # Twice over the candidates, each time with an equality that a hash join can use
    query = f"""
        WITH outcomes AS (
            SELECT DISTINCT event_type, scenario, user_key, item_id FROM acts
            WHERE event_date = $day AND event_type IN (SELECT unnest($events))
        ), reached AS (
            SELECT o.*, generator FROM outcomes o JOIN candidates c
                ON c.user_key = o.user_key AND c.item_id = o.item_id AND c.scenario IN (o.scenario, '{EVERYBODY}')
            UNION SELECT o.*, generator FROM outcomes o
                JOIN (SELECT * FROM candidates WHERE user_key = '{EVERYBODY}') c
                ON c.item_id = o.item_id AND c.scenario IN (o.scenario, '{EVERYBODY}')
        )
        SELECT event_type, generator, count(*) AS found FROM reached GROUP BY ALL
        UNION ALL SELECT event_type, '{ALL}', count(DISTINCT (scenario, user_key, item_id)) FROM reached GROUP BY event_type
        UNION ALL SELECT event_type, 'outcomes', count(*) FROM outcomes GROUP BY event_type"""
    rows = connection.execute(query, {"day": night.as_of_date, "events": events}).fetchall()
    counts = {(event, generator): found for event, generator, found in rows}
    return [
        {
            "as_of_date": night.as_of_date,
            "candidates_of": before,
            "event_type": event,
            "generator": generator,
            "outcomes": counts[event, "outcomes"],
            "found": counts.get((event, generator), 0),
            "recall": counts.get((event, generator), 0) / counts[event, "outcomes"],
        }
        for event in events
        if (event, "outcomes") in counts
        for generator in (ALL, *GENERATOR_ORDER)
        if generator != "two_tower" or night.shop.retrieval
    ]


def check_candidate_recall(night: Night) -> list[Row]:
    """Publish the night's candidate_recall; return the results of the rules on it: what all reach falls far below the usual."""
    rows = candidate_recall(night)
    table = pa.Table.from_pylist(rows, arrow_schema(night.warehouse.specs[TABLE]))
    night.warehouse.publish_arrow(TABLE, table, [night.as_of_date], night.run_id)
    if not rows:
        return []
    usual = usual_recalls(night)
    events = sorted({row["event_type"] for row in rows})
    return check_rules(night, TABLE, [between("row_count", "", "count(*)", 1, None), *_rules(events, usual)])


def _rules(events: list[str], usual: dict[str, float]) -> list[Rule]:
    rules = []
    for event in (event for event in events if event in usual):
        fact = f"max(recall) FILTER (WHERE generator = '{ALL}' AND event_type = '{event}')"
        least = usual[event] * _LEAST_OF_USUAL
        told = f"at least {least:.4f}, {_LEAST_OF_USUAL:g} times the {usual[event]:.4f} of the last nights"
        rules.append(between("recall_as_usual", event, fact, least, None, "warning", told))
    return rules


def usual_recalls(night: Night) -> dict[str, float]:
    """Return the median recall of all generators together on the last nights, by event; of events with too few nights none."""
    days: list[dt.date] = [day for day in night.warehouse.partitions(TABLE) if day < night.as_of_date][-NIGHTS:]
    past: dict[str, list[float]] = {}
    for row in night.warehouse.read(TABLE, days, ("event_type", "generator", "recall")).to_pylist() if days else []:
        if row["generator"] == ALL:
            past.setdefault(row["event_type"], []).append(row["recall"])
    return {event: median(recalls) for event, recalls in past.items() if len(recalls) >= FEWEST_NIGHTS}
