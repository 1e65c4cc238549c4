"""What the generators reached: how many of a day's outcomes the night before had proposed, by generator and in all.

What is no candidate can stand on no shelf. So recall of the union is the ceiling of everything that comes after, and a generator
that falls silent shows here first. Of the union the first CANDIDATES count that a user had in the scenario: every generator's
best, in GENERATOR_ORDER, then every generator's second, and so on; an item counts once a generator, as in candidate_quotas.
"""

import datetime as dt
from statistics import median

import pyarrow as pa

from nightshelf.dates import days_back
from nightshelf.features import outcome_events
from nightshelf.generators import GENERATOR_ORDER
from pipelines.arrow_schema import arrow_schema
from pipelines.candidate_lists import CANDIDATE_TABLES, EVERYBODY
from pipelines.rules import Rule, between, check_rules
from pipelines.stage import Night
from pipelines.usual import FEWEST_NIGHTS, NIGHTS
from pipelines.validate import Row, connect, view_files

TABLE = "candidate_recall"
ALL = "*"
# Candidates of a night that lies further back were made for other days.
_DAYS = 7
CANDIDATES = 500
# A recall below this share of the usual one is a warning.
_LEAST_OF_USUAL = 0.5
# A generator that reaches nothing is a warning where it usually reaches so many: by chance it would be one night in 20,000.
_FEWEST_USUAL = 10


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
    told = {"day": night.as_of_date, "events": events, "order": list(GENERATOR_ORDER), "most": CANDIDATES}
    rows = connection.execute(_QUERY, told).fetchall()
    counts = {(event, generator): (found, candidates) for event, generator, found, candidates in rows}
    return [
        {
            "as_of_date": night.as_of_date,
            "candidates_of": before,
            "event_type": event,
            "generator": generator,
            "outcomes": outcomes,
            "found": found,
            "recall": found / outcomes,
            "candidates_per_user": candidates,
        }
        for event in events
        if (event, "outcomes") in counts
        for outcomes, _ in [counts[event, "outcomes"]]
        for generator in (ALL, *night.shop.generators)
        for found, candidates in [counts.get((event, generator), (0, 0.0))]
    ]


# Twice over the candidates, each time with an equality that a hash join can use. Ranks are looked at only where a user was
# proposed more than counts.
_QUERY = f"""
    WITH outcomes AS (
        SELECT DISTINCT event_type, scenario, user_key, item_id FROM acts
        WHERE event_date = $day AND event_type IN (SELECT unnest($events))
    ), judged AS (
        SELECT DISTINCT scenario, user_key FROM outcomes
    ), lists AS (
        SELECT user_key, scenario, generator, count(*) AS length FROM candidates
        WHERE user_key = '{EVERYBODY}' OR user_key IN (SELECT user_key FROM judged) GROUP BY ALL
    ), everybodys AS (
        SELECT j.scenario, generator, length FROM (SELECT DISTINCT scenario FROM judged) j
            JOIN lists l ON l.user_key = '{EVERYBODY}' AND l.scenario IN (j.scenario, '{EVERYBODY}')
    ), proposed AS (
        SELECT j.scenario, j.user_key, generator, length FROM judged j
            JOIN lists l ON l.user_key = j.user_key AND l.scenario IN (j.scenario, '{EVERYBODY}')
        UNION ALL SELECT scenario, user_key, generator, length FROM judged JOIN everybodys USING (scenario)
    ), lengths AS (
        SELECT scenario, user_key, generator, sum(length) AS length FROM proposed GROUP BY ALL
        UNION ALL SELECT scenario, user_key, '{ALL}', least(sum(length), $most) FROM proposed GROUP BY ALL
    ), means AS (
        SELECT event_type, generator, sum(length) / any_value(users) AS candidates_per_user
        FROM (SELECT event_type, scenario, user_key, count(*) OVER (PARTITION BY event_type) AS users FROM outcomes
              GROUP BY event_type, scenario, user_key)
        JOIN lengths USING (scenario, user_key) GROUP BY ALL
    ), reached AS (
        SELECT o.*, generator, c.user_key AS listed_for, c.scenario AS listed_in FROM outcomes o JOIN candidates c
            ON c.user_key = o.user_key AND c.item_id = o.item_id AND c.scenario IN (o.scenario, '{EVERYBODY}')
        UNION ALL SELECT o.*, generator, c.user_key, c.scenario FROM outcomes o
            JOIN (SELECT * FROM candidates WHERE user_key = '{EVERYBODY}') c
            ON c.item_id = o.item_id AND c.scenario IN (o.scenario, '{EVERYBODY}')
    ), cut AS (
        SELECT scenario, user_key FROM proposed GROUP BY ALL HAVING sum(length) > $most
    ), ranked AS (
        SELECT user_key AS listed_for, scenario AS listed_in, item_id, generator,
            row_number() OVER (PARTITION BY user_key, scenario, generator ORDER BY generator_score DESC, item_id) AS rank
        FROM candidates WHERE user_key IN (SELECT user_key FROM cut UNION SELECT '{EVERYBODY}')
    ), places AS (
        SELECT r.event_type, r.scenario, r.user_key, r.item_id, sum(least(length, rank - (
            list_position($order, p.generator) > list_position($order, r.generator))::INT)) AS place
        FROM reached r JOIN cut USING (scenario, user_key) JOIN ranked USING (listed_for, listed_in, item_id, generator)
            JOIN proposed p ON p.scenario = r.scenario AND p.user_key = r.user_key
        GROUP BY r.event_type, r.scenario, r.user_key, r.item_id, r.generator
    ), found AS (
        SELECT event_type, generator, scenario, user_key, item_id FROM reached
        UNION SELECT event_type, '{ALL}', scenario, user_key, item_id FROM reached ANTI JOIN cut USING (scenario, user_key)
        UNION SELECT event_type, '{ALL}', scenario, user_key, item_id FROM places WHERE place <= $most
    )
    SELECT event_type, generator, coalesce(found, 0), candidates_per_user FROM means
        LEFT JOIN (SELECT event_type, generator, count(*) AS found FROM found GROUP BY ALL) USING (event_type, generator)
    UNION ALL SELECT event_type, 'outcomes', count(*), 0 FROM outcomes GROUP BY event_type"""


def check_candidate_recall(night: Night) -> list[Row]:
    """Publish the night's candidate_recall; return the results of the rules on it: far less reached than usual, or nothing."""
    rows = candidate_recall(night)
    table = pa.Table.from_pylist(rows, arrow_schema(night.warehouse.specs[TABLE]))
    night.warehouse.publish_arrow(TABLE, table, [night.as_of_date], night.run_id)
    if not rows:
        return []
    usual = usual_recalls(night)
    rules = [between("row_count", "", "count(*)", 1, None), *_recall_rules(rows, usual), *_silence_rules(rows, usual)]
    return check_rules(night, TABLE, rules)


def _recall_rules(rows: list[Row], usual: dict[tuple[str, str], float]) -> list[Rule]:
    rules = []
    for event in sorted({row["event_type"] for row in rows if (row["event_type"], ALL) in usual}):
        fact = f"max(recall) FILTER (WHERE generator = '{ALL}' AND event_type = '{event}')"
        least = usual[event, ALL] * _LEAST_OF_USUAL
        told = f"at least {least:.4f}, {_LEAST_OF_USUAL:g} times the {usual[event, ALL]:.4f} of the last nights"
        rules.append(between("recall_as_usual", event, fact, least, None, "warning", told))
    return rules


def _silence_rules(rows: list[Row], usual: dict[tuple[str, str], float]) -> list[Rule]:
    """Return the rules that a generator which usually reaches something proposes something, and reaches something."""
    expected: dict[str, float] = {}
    for row in rows:
        name = row["generator"]
        expected[name] = expected.get(name, 0) + row["outcomes"] * usual.get((row["event_type"], name), 0)
    rules = []
    for name, found in expected.items():
        told = f"at least 1, the last nights' recall gives {found:.0f}"
        mine = f"FILTER (WHERE generator = '{name}')"
        if found > 0:
            proposing = f"max((candidates_per_user > 0)::INT) {mine}"
            rules.append(between("generator_proposes", name, proposing, 1, None, "warning", "any candidates"))
        if found >= _FEWEST_USUAL:
            rules.append(between("generator_reaches", name, f"(sum(found) {mine})::BIGINT", 1, None, "warning", told))
    return rules


def usual_recalls(night: Night) -> dict[tuple[str, str], float]:
    """Return the median recall of the last nights, by event and generator; of those with too few nights none."""
    days: list[dt.date] = [day for day in night.warehouse.partitions(TABLE) if day < night.as_of_date][-NIGHTS:]
    past: dict[tuple[str, str], list[float]] = {}
    for row in night.warehouse.read(TABLE, days, ("event_type", "generator", "recall")).to_pylist() if days else []:
        past.setdefault((row["event_type"], row["generator"]), []).append(row["recall"])
    return {key: median(recalls) for key, recalls in past.items() if len(recalls) >= FEWEST_NIGHTS}
