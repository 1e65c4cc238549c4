"""What a night's report says: each function answers one question with rows, by SQL over the night's tables.

Every function takes a connection whose views are the tables (pipelines.sql.connect) and the night's date, and returns a list
of dictionaries, empty where the night has nothing to tell, e.g. no promotion in a night without training.
"""

import datetime as dt
from typing import TYPE_CHECKING, Any

from nightshelf.config import Shop

if TYPE_CHECKING:
    import duckdb

Row = dict[str, Any]


def ask(tables: "duckdb.DuckDBPyConnection", query: str, **values: Any) -> list[Row]:
    """Return the rows of a query as dictionaries."""
    cursor = tables.execute(query, values or None)
    names = [column[0] for column in cursor.description or []]
    return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]


def stages(tables: "duckdb.DuckDBPyConnection", day: dt.date) -> list[Row]:
    """Return the last finished attempt of each stage of the night, in the order in which they ran."""
    query = """
        SELECT stage, status, seconds, peak_memory_mb, rows_in, rows_out, rows_quarantined, message, started_at FROM stage_runs
        WHERE as_of_date = $day QUALIFY row_number() OVER (PARTITION BY stage ORDER BY started_at DESC) = 1 ORDER BY started_at"""
    return ask(tables, query, day=day)


def sources(tables: "duckdb.DuckDBPyConnection", day: dt.date) -> list[Row]:
    """Return the night's row counts of each source."""
    return ask(
        tables, "SELECT * EXCLUDE (as_of_date) FROM source_counts WHERE as_of_date = $day ORDER BY source", day=day
    )


def rows_by_day(tables: "duckdb.DuckDBPyConnection", day: dt.date, days: int) -> list[Row]:
    """Return the row counts of all sources together for each of the last days."""
    query = """
        SELECT as_of_date AS day, sum(kept) AS kept, sum(quarantined) AS quarantined, sum(duplicates) AS duplicates
        FROM source_counts WHERE as_of_date <= $day AND as_of_date > $day - $days::INT GROUP BY 1 ORDER BY 1"""
    return ask(tables, query, day=day, days=days)


def quarantine(tables: "duckdb.DuckDBPyConnection", day: dt.date, days: int) -> list[Row]:
    """Return how many rows each reason set aside, this night and in the last days, with one example value."""
    query = """
        SELECT reason, count(*) FILTER (WHERE as_of_date = $day) AS tonight, count(*) AS in_window,
            string_agg(DISTINCT source, ', ' ORDER BY source) AS sources, min(left(evidence, 90)) AS evidence
        FROM quarantine WHERE as_of_date <= $day AND as_of_date > $day - $days::INT
        GROUP BY reason ORDER BY in_window DESC, reason"""
    return ask(tables, query, day=day, days=days)


def checks(tables: "duckdb.DuckDBPyConnection", day: dt.date) -> list[Row]:
    """Return for each table how many expectations held, and those that did not."""
    query = """
        SELECT table_name, count(*) AS rules, count(*) FILTER (WHERE success) AS held,
            list({'rule': expectation, 'column': column_name, 'severity': severity, 'observed': observed, 'expected': expected}
                 ORDER BY severity, expectation, column_name) FILTER (WHERE NOT success) AS broken
        FROM data_checks WHERE as_of_date = $day GROUP BY table_name ORDER BY table_name"""
    return ask(tables, query, day=day)


def drift(tables: "duckdb.DuckDBPyConnection", day: dt.date, limit: int = 8) -> list[Row]:
    """Return the features and labels that moved most by more than chance, since the night whose model serves."""
    query = """
        SELECT name, scenario, reference_date, reference_rows, rows, psi, psi_noise, ks, js, died
        FROM feature_drift WHERE as_of_date = $day AND (psi > psi_noise OR died)
        ORDER BY died DESC, psi - psi_noise DESC, name, scenario LIMIT $limit"""
    return ask(tables, query, day=day, limit=limit)


def metrics(tables: "duckdb.DuckDBPyConnection", day: dt.date) -> list[Row]:
    """Return the night's model metrics, all scenarios together (`*`) first."""
    query = (
        "SELECT * EXCLUDE (as_of_date) FROM model_metrics WHERE as_of_date = $day ORDER BY role, scenario, task, metric"
    )
    return ask(tables, query, day=day)


def promotions(tables: "duckdb.DuckDBPyConnection", day: dt.date) -> list[Row]:
    """Return the night's promotion decisions."""
    return ask(
        tables,
        "SELECT challenger, champion, promoted, reason, evidence FROM promotions WHERE as_of_date = $day",
        day=day,
    )


def task_rates(tables: "duckdb.DuckDBPyConnection", day: dt.date, shop: Shop) -> list[Row]:
    """Return per event date the share of mature impressions with each outcome (weighted back where negatives are sampled)."""
    rates = [
        f"sum(label_{task} * sample_weight) FILTER (WHERE mask_{task} = 1)"
        f" / nullif(sum(sample_weight) FILTER (WHERE mask_{task} = 1), 0) AS {task}"
        for task, spec in shop.tasks.items()
        if spec.kind == "binary"
    ]
    columns = ", ".join(["event_date AS day", "count(*) AS impressions", *rates])
    seen = f"as_of_date <= $day AND event_date > $day - {shop.history_days}"
    return ask(tables, f"SELECT {columns} FROM training_examples WHERE {seen} GROUP BY 1 ORDER BY 1", day=day)


def shelves(tables: "duckdb.DuckDBPyConnection", day: dt.date) -> list[Row]:
    """Return for each scenario its shelves, how much of the catalogue they show, and how their scores are spread."""
    query = """
        SELECT scenario, count(DISTINCT user_key) FILTER (WHERE user_key <> '*') AS users, count(*) AS rows, max(rank) AS longest,
            count(DISTINCT item_id) AS items,
            count(DISTINCT item_id) / nullif((SELECT count(*) FROM items WHERE as_of_date = $day), 0) AS coverage,
            quantile_cont(score, [0.05, 0.25, 0.5, 0.75, 0.95]) AS score_quantiles
        FROM recommendations WHERE as_of_date = $day GROUP BY scenario ORDER BY scenario"""
    return ask(tables, query, day=day)


def generators(tables: "duckdb.DuckDBPyConnection", day: dt.date) -> list[Row]:
    """Return the share of each candidate generator in the shelves of each scenario."""
    query = """
        SELECT scenario, source, count(*) / sum(count(*)) OVER (PARTITION BY scenario) AS share
        FROM recommendations WHERE as_of_date = $day GROUP BY scenario, source ORDER BY scenario, source"""
    return ask(tables, query, day=day)


def candidate_recall(tables: "duckdb.DuckDBPyConnection", day: dt.date) -> list[Row]:
    """Return for each generator, all together first, what it had proposed of the day's outcomes: event → recall."""
    query = """
        SELECT generator, any_value(candidates_of) AS candidates_of,
            avg(candidates_per_user) AS candidates, map_from_entries(list((event_type, recall) ORDER BY event_type)) AS recalls
        FROM candidate_recall WHERE as_of_date = $day GROUP BY generator ORDER BY generator <> '*', max(recall) DESC, generator"""
    return ask(tables, query, day=day)


def candidate_quotas(tables: "duckdb.DuckDBPyConnection", day: dt.date) -> list[Row]:
    """Return for each scenario that cuts anything: generator → quota (null: all), candidates a user, worth kept."""
    query = """
        SELECT scenario,
            map_from_entries(list((generator, quota) ORDER BY generator) FILTER (WHERE generator <> '*')) AS quotas,
            any_value(ranked_per_user) FILTER (WHERE generator = '*') AS ranked,
            any_value(proposed_per_user) FILTER (WHERE generator = '*') AS proposed,
            any_value(worth_kept / nullif(worth_found, 0)) FILTER (WHERE generator = '*') AS kept
        FROM candidate_quotas WHERE as_of_date = $day GROUP BY scenario HAVING count(quota) > 0 ORDER BY scenario"""
    return ask(tables, query, day=day)


def top_items(tables: "duckdb.DuckDBPyConnection", day: dt.date, limit: int = 5) -> list[Row]:
    """Return the items that lie on most shelves of each scenario, with the share of its users that see them."""
    query = """
        SELECT scenario, item_id, coalesce(any_value(title), item_id) AS title,
            count(*) / any_value(users) AS share, avg(rank) AS mean_rank
        FROM recommendations
        JOIN (SELECT scenario, count(DISTINCT user_key) AS users FROM recommendations
              WHERE as_of_date = $day AND user_key <> '*' GROUP BY scenario)
            USING (scenario)
        LEFT JOIN (SELECT item_id, title FROM items WHERE as_of_date = $day) USING (item_id)
        WHERE as_of_date = $day AND user_key <> '*' GROUP BY scenario, item_id
        QUALIFY row_number() OVER (PARTITION BY scenario ORDER BY count(*) DESC, item_id) <= $limit
        ORDER BY scenario, share DESC, item_id"""
    return ask(tables, query, day=day, limit=limit)


def example_users(tables: "duckdb.DuckDBPyConnection", day: dt.date) -> list[Row]:
    """Return up to three users to look at: the busiest one, one in the middle, and one whom nobody knows yet."""
    query = """
        WITH known AS (
            SELECT user_key, coalesce(any_value(len(item_indexes)), 0) AS events
            FROM (SELECT DISTINCT user_key FROM recommendations WHERE as_of_date = $day AND user_key <> '*')
            LEFT JOIN (SELECT * FROM user_sequences WHERE as_of_date = $day) USING (user_key) GROUP BY user_key
        ), placed AS (
            SELECT *, row_number() OVER (ORDER BY events DESC, user_key) AS place, count(*) OVER () AS users,
                row_number() OVER (ORDER BY events, user_key) AS from_below
            FROM known
        )
        SELECT user_key, events,
            CASE WHEN place = 1 THEN 'the busiest' WHEN from_below = 1 THEN 'the least known' ELSE 'in the middle' END AS who
        FROM placed WHERE place = 1 OR place = (users + 1) // 2 OR from_below = 1 ORDER BY place"""
    return ask(tables, query, day=day)


def shelf_of(tables: "duckdb.DuckDBPyConnection", day: dt.date, user: str, length: int = 5) -> list[Row]:
    """Return the head of each of a user's shelves, with titles and reasons."""
    query = """
        SELECT scenario, rank, coalesce(title, item_id) AS title, score, source, reason
        FROM recommendations LEFT JOIN (SELECT item_id, title FROM items WHERE as_of_date = $day) USING (item_id)
        WHERE as_of_date = $day AND user_key = $user AND rank <= $length ORDER BY scenario, rank"""
    return ask(tables, query, day=day, user=user, length=length)


def item_shelves(tables: "duckdb.DuckDBPyConnection", day: dt.date) -> list[Row]:
    """Return for each scenario with an anchor its shelves of items, and what ties their places to the anchors: source → share."""
    query = """
        SELECT scenario, sum(anchors) AS anchors, sum(places) AS rows, any_value(items) AS items, any_value(coverage) AS coverage,
            map_from_entries(list((source, places / total) ORDER BY places DESC, source)) AS sources
        FROM (SELECT scenario, source, count(*) AS places, count(*) FILTER (WHERE rank = 1) AS anchors,
                sum(count(*)) OVER (PARTITION BY scenario) AS total
              FROM item_recommendations WHERE as_of_date = $day GROUP BY scenario, source)
        JOIN (SELECT scenario, count(DISTINCT item_id) AS items,
                count(DISTINCT item_id) / nullif((SELECT count(*) FROM items WHERE as_of_date = $day), 0) AS coverage
              FROM item_recommendations WHERE as_of_date = $day GROUP BY scenario) USING (scenario)
        GROUP BY scenario ORDER BY scenario"""
    return ask(tables, query, day=day)


def shelves_beside(tables: "duckdb.DuckDBPyConnection", day: dt.date, length: int = 5) -> list[Row]:
    """Return the heads of the shelves of one item: of those with a shelf, the one that stands on most shelves of users."""
    query = """
        WITH titles AS (SELECT item_id, coalesce(title, item_id) AS title FROM items WHERE as_of_date = $day),
        chosen AS (
            SELECT item_id FROM recommendations
            WHERE as_of_date = $day AND item_id IN (SELECT anchor_item_id FROM item_recommendations WHERE as_of_date = $day)
            GROUP BY item_id ORDER BY count(*) DESC, item_id LIMIT 1
        )
        SELECT scenario, anchor_item_id, a.title AS anchor, rank, t.title, lift, source, reason
        FROM item_recommendations r JOIN titles t USING (item_id) JOIN titles a ON a.item_id = anchor_item_id
        WHERE as_of_date = $day AND anchor_item_id = (FROM chosen) AND rank <= $length ORDER BY scenario, rank"""
    return ask(tables, query, day=day, length=length)
