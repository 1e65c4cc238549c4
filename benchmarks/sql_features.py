"""The feature tables once more, in DuckDB's SQL: an oracle for the tests, and what `make bench-features` compares with.

Nothing is shared with feature_jobs but the names and the definitions that docs/tables.md gives: windows are range joins on
the days, outcomes are attributed by one query per rule, and lists are sorted inside an aggregate.
"""

import datetime as dt

import duckdb

from nightshelf.config import Shop
from nightshelf.dates import day_bounds_utc, parse_duration
from nightshelf.feature_tables import OOV_BUCKETS
from nightshelf.features import (
    EXPOSURE_LENGTH,
    FAVOURITES,
    HALF_LIFE_DAYS,
    ITEM_GROUPS,
    OWN_HALF_LIFE_DAYS,
    OWN_LENGTH,
    PRICE_BANDS,
    QUERY_TOKEN,
    QUERY_TOKENS_LENGTH,
    SCENARIO_SEQUENCE_LENGTH,
    SEQUENCE_LENGTH,
    WINDOWS,
    Feature,
    attribute_columns,
    dense_features,
    index_features,
    outcome_events,
    sequence_events,
)
from nightshelf.tasks import Sampled, Task

TABLES = (
    "sessions",
    "user_features",
    "item_features",
    "item_scenario_features",
    "user_category_features",
    "user_scenario_features",
    "attribute_features",
    "user_sequences",
    "user_scenario_sequences",
    "training_examples",
)


def make_tables(
    db: duckdb.DuckDBPyConnection, shop: Shop, dates: list[dt.date], first_date: dt.date, night: dt.date
) -> None:
    """Create the tables of TABLES from `events`, `items`, `users` and `vocabularies` (of the night), and `shown`.

    Args:
        db: has those relations; `shown` are the impressions. Rows count by their day of arrival, as_of_date.
        shop: the shop.
        dates: the days of which features are made.
        first_date: the first of them; examples are the impressions after it.
        night: the day up to whose end labels know.
    """
    db.execute("SET TimeZone = 'UTC'")
    db.execute("CREATE OR REPLACE TEMP TABLE dates AS SELECT unnest($1)::DATE AS t", [dates])
    db.execute(
        """CREATE OR REPLACE TEMP TABLE acts AS
        SELECT * FROM events WHERE event_type <> 'impression'
        UNION ALL BY NAME SELECT * REPLACE ('searched' AS event_type) FROM events
            WHERE event_type = 'impression' AND position = 1 AND query IS NOT NULL
        UNION ALL BY NAME SELECT * REPLACE ('viewed' AS event_type, anchor_item_id AS item_id) FROM events
            WHERE event_type = 'impression' AND position = 1 AND anchor_item_id IS NOT NULL"""
    )
    _attribute(db, shop, "touched", hindsight=False)
    _attribute(db, shop, "touched_later", hindsight=True)
    _sum_days(db, shop)
    for name, query in (
        ("means", _means(shop)),
        ("sessions", _sessions(shop)),
        ("item_features", _item_features(shop)),
        ("favoured", _favourites(shop)),
        ("user_features", _user_features(shop)),
        ("item_scenario_features", _item_scenario_features(shop)),
        ("user_category_features", _user_category_features(shop, night)),
        ("user_scenario_features", _user_scenario_features(shop, night)),
        ("attribute_features", _attribute_features(shop, night)),
        ("user_sequences", _user_sequences(shop)),
        ("user_scenario_sequences", _user_scenario_sequences(shop)),
        ("labelled", _labels(shop, night)),
        ("training_examples", _training_examples(shop, first_date, night)),
    ):
        db.execute(f"CREATE OR REPLACE TABLE {name} AS {query}")


def _attribute(db: duckdb.DuckDBPyConnection, shop: Shop, name: str, hindsight: bool) -> None:
    """Make one table of rule, impression and outcome, rule by rule; a rule that is given another follows it."""
    learned = {task.event for task in shop.tasks.values()}
    rules = [(n, task.event, task.given, task.window) for n, task in shop.tasks.items() if task.on == "item"]
    rules += [(f"event {e}", e, None, dt.timedelta(days=1)) for e in outcome_events(shop) if e not in learned]
    db.execute(
        f"""CREATE OR REPLACE TEMP TABLE {name} (rule VARCHAR, impression_id VARCHAR, scenario VARCHAR, user_key VARCHAR,
        item_id VARCHAR, as_of_date DATE, price DOUBLE, quantity INTEGER, dwell_seconds DOUBLE,
        rating DOUBLE, event_ts TIMESTAMPTZ)"""
    )
    order = "DESC" if shop.attribution == "last_touch" else "ASC"
    for rule, event, given, window in sorted(rules, key=lambda r: r[2] is not None):
        known = "s.as_of_date" if given is None else "h.known"
        held = (
            ""
            if given is None
            else f"""JOIN (SELECT impression_id, min(as_of_date) AS known FROM {name} WHERE rule = '{given}' GROUP BY 1) h
                ON h.impression_id = s.impression_id"""
        )
        own_scenario = "s.scenario = o.scenario DESC," if given is None else ""
        db.execute(
            f"""INSERT INTO {name} SELECT '{rule}', s.impression_id, s.scenario, o.user_key, o.item_id, o.as_of_date,
                o.price, o.quantity, o.dwell_seconds, o.rating, o.event_ts
            FROM events o JOIN shown s ON s.user_key = o.user_key AND s.item_id = o.item_id {held}
            WHERE o.event_type = '{event}' AND s.impression_ts <= o.event_ts
              AND s.impression_ts > o.event_ts - INTERVAL {int(window.total_seconds())} SECOND
              {"" if hindsight else f"AND {known} <= o.as_of_date"}
            QUALIFY row_number() OVER (PARTITION BY o.event_id ORDER BY s.impression_id = o.event_id DESC,
                coalesce(s.request_id = o.request_id, false) DESC, {own_scenario}
                s.impression_ts {order}, s.impression_id {order}) = 1"""
        )


def _sum_days(db: duckdb.DuckDBPyConnection, shop: Shop) -> None:
    """Sum up days of users and items: what was logged, and where outcomes belong."""
    first_rule: dict[str, str] = {}
    for name, task in shop.tasks.items():
        if task.on == "item":
            first_rule.setdefault(task.event, name)
    for event in outcome_events(shop):
        first_rule.setdefault(event, f"event {event}")
    kinds = ["impression", *outcome_events(shop)]
    counts = ", ".join(f"count(*) FILTER (kind = '{kind}') AS n_{kind}" for kind in kinds)
    counts += "".join(f", count(*) FILTER (kind = 'of {e}') AS a_{e}" for e in kinds[1:])
    belongs = " ".join(f"WHEN '{rule}' THEN 'of {event}'" for event, rule in first_rule.items())
    rules = ", ".join(f"'{rule}'" for rule in first_rule.values())
    db.execute(
        f"""CREATE OR REPLACE TEMP TABLE happened AS
        SELECT as_of_date AS d, user_key, item_id, scenario, event_type AS kind, event_date, price, dwell_seconds
            FROM events WHERE event_type <> 'impression'
        UNION ALL SELECT as_of_date, user_key, item_id, scenario, 'impression', event_date, NULL, NULL FROM shown
        UNION ALL SELECT as_of_date, user_key, item_id, scenario, CASE rule {belongs} END, NULL, NULL, NULL
            FROM touched WHERE rule IN ({rules})"""
    )
    outcome = ", ".join(f"'{e}'" for e in kinds[1:])
    log_price = f"CASE WHEN kind IN ({outcome}) THEN ln(1 + coalesce(i.price, h.price)) END"
    db.execute(
        f"""CREATE OR REPLACE TEMP TABLE days_of_users AS
        SELECT d, user_key, scenario, {counts}, sum(round(lp * 1e6)::BIGINT) AS lp, sum(round(lp * lp * 1e6)::BIGINT) AS lp2,
            count(lp) AS priced, sum(round(ln(1 + dwell) * 1e6)::BIGINT) AS dwell, count(dwell) AS dwelt,
            max(event_date) FILTER (kind IN ({outcome})) AS last
        FROM (SELECT h.*, {log_price} AS lp, CASE WHEN dwell_seconds >= 0 THEN dwell_seconds END AS dwell
              FROM happened h LEFT JOIN items i ON i.as_of_date = h.d AND i.item_id = h.item_id)
        GROUP BY d, user_key, scenario"""
    )
    db.execute(
        f"""CREATE OR REPLACE TEMP TABLE days_of_items AS
        SELECT d, item_id, scenario, {counts}, bool_or(kind NOT LIKE 'of %') AS logged,
            sum(round(ln(1 + CASE WHEN dwell_seconds >= 0 THEN dwell_seconds END) * 1e6)::BIGINT) AS dwell,
            count(CASE WHEN dwell_seconds >= 0 THEN 1 END) AS dwelt
        FROM happened GROUP BY d, item_id, scenario"""
    )


_IN_MONTH = "d BETWEEN t - 29 AND t"


def _means(shop: Shop) -> str:
    rates = [
        f"CASE WHEN sum(n_impression) > 0 THEN sum(n_{e}) / sum(n_impression) ELSE 0 END AS mean_{e}"
        for e in outcome_events(shop)
    ]
    return f"SELECT t, {', '.join(rates)}, min(d) AS first_day FROM dates JOIN days_of_items ON {_IN_MONTH} GROUP BY t"


def _shrunk(done: str, shown: str, mean: str) -> str:
    """Return (done + m · mean) / (shown + m), m = 2 / mean impressions between 20 and 1000."""
    m = f"greatest(20.0, least(1000.0, CASE WHEN {mean} > 0 THEN 2 / {mean} ELSE 1000.0 END))"
    return f"(({done}) + {m} * {mean}) / (({shown}) + {m})"


def _stored(rate: str) -> str:
    """Return a rate of another table as that one keeps it, in 32 bits."""
    return f"{rate}::FLOAT::DOUBLE"


def _counted(shop: Shop, owner: str, outcomes: str = "n") -> list[str]:
    """Return the windows, the decay of every event type and the recency, over rows of days.

    `outcomes`: n as they were logged, a as they were attributed.
    """
    columns, kinds = [], ["impression", *outcome_events(shop)]
    of = {kind: f"{outcomes if kind != 'impression' else 'n'}_{kind}" for kind in kinds}
    for kind in kinds:
        columns += [
            f"coalesce(sum({of[kind]}) FILTER (t - d < {days}), 0) AS {owner}_{kind}_count_{days}d" for days in WINDOWS
        ]
        decayed = f"sum(round({of[kind]} * pow(0.5, (t - d) / {HALF_LIFE_DAYS}) * 1e9)::BIGINT) / 1e9"
        columns.append(f"coalesce({decayed}, 0) AS {owner}_{kind}_decayed_count_30d")
    any_outcome = " OR ".join(f"{of[kind]} > 0" for kind in kinds[1:]) or "false"
    return [*columns, f"coalesce(min(t - d) FILTER ({any_outcome}), 30) AS {owner}_recency_days"]


def _count_names(shop: Shop, owner: str) -> list[str]:
    parts = (*(f"count_{days}d" for days in WINDOWS), "decayed_count_30d")
    return [f"{owner}_{kind}_{part}" for kind in ["impression", *outcome_events(shop)] for part in parts]


def _rates(shop: Shop, owner: str, prior: str) -> list[str]:
    """Return the rates over rows of `_counted`; `prior` names the rate of an event that its own is shrunk to."""
    shown = f"{owner}_impression_count_30d"
    return [
        f"{_shrunk(f'{owner}_{e}_count_30d', shown, prior.format(e))} AS {owner}_{e}_rate_30d"
        for e in outcome_events(shop)
    ]


def _id(feature: str, value: str) -> str:
    """Return the id of a value that has one, else its bucket; 0 of null."""
    bucket = f"1 + ('0x' || substr(sha256({value}), 1, 8))::BIGINT % {OOV_BUCKETS}"
    return f"""coalesce((SELECT index FROM vocabularies v WHERE v.feature = '{feature}' AND v.value = {value}
        AND evicted_on IS NULL), {bucket}, 0)"""


def _user_features(shop: Shop) -> str:
    kinds = ["impression", *outcome_events(shop)]
    sums = _counted(shop, "user")
    sums += [f"sum({name}) AS {name}" for name in ("lp", "lp2", "priced", "dwell", "dwelt")] + ["max(last) AS last"]
    within = [
        f"coalesce(sum({'n' if k == 'impression' else 'a'}_{k}) FILTER (scenario = '{s}'), 0) AS in_{s}_{k}"
        for s in shop.scenarios
        for k in kinds
    ]
    mean = "CASE WHEN priced > 0 THEN lp / 1e6 / priced ELSE 0 END"
    columns = [
        *_rates(shop, "user", "mean_{}"),
        f"{mean} AS user_mean_log_price_30d",
        f"sqrt(greatest(0, CASE WHEN priced > 0 THEN lp2 / 1e6 / priced ELSE 0 END - ({mean}) * ({mean})))"
        " AS user_log_price_deviation_30d",
        "CASE WHEN dwelt > 0 THEN dwell / 1e6 / dwelt ELSE 0 END AS user_mean_log_dwell_30d",
        "coalesce(least(s.t - last, 30), 30) AS user_recency_days",
        "coalesce(n.count, 0) AS user_session_count_30d",
        "coalesce(n.seconds / 60 / n.count, 0) AS user_session_minutes_30d",
    ]
    for scenario in shop.scenarios if len(shop.scenarios) > 1 else ():
        shown = f"in_{scenario}_impression"
        columns.append(f"{shown} AS user_in_{scenario}_impression_count_30d")
        columns += [
            f"{_shrunk(f'in_{scenario}_{e}', shown, f'user_{e}_rate_30d')} AS user_in_{scenario}_{e}_rate_30d"
            for e in kinds[1:]
        ]
    ids = [f"{_id('user', 's.user_key')} AS user_index"]
    ids += [f"{_id(f'user_{a}', f'u.user_{a}')} AS user_{a}_index" for a in attribute_columns(shop)]
    ids += [f"{_id(name, f'f.{name}')} AS user_{name}_index" for name in FAVOURITES]
    counts = _count_names(shop, "user")
    return f"""WITH sums AS (
        SELECT t, user_key, {", ".join(sums + within)} FROM dates JOIN days_of_users ON {_IN_MONTH} GROUP BY t, user_key)
        SELECT s.t AS as_of_date, s.user_key, {", ".join([*ids, *counts, *columns])}
        FROM sums s JOIN means m ON m.t = s.t
        LEFT JOIN users u ON u.as_of_date = s.t AND u.user_key = s.user_key
        LEFT JOIN favoured f ON f.t = s.t AND f.user_key = s.user_key
        LEFT JOIN (
            SELECT t, user_key, count(*) AS count, sum(round(seconds)) AS seconds
            FROM dates JOIN sessions ON as_of_date BETWEEN t - 29 AND t GROUP BY t, user_key
        ) n ON n.t = s.t AND n.user_key = s.user_key"""


def _sessions(shop: Shop) -> str:
    kinds = ["impression", *outcome_events(shop)]
    counts = ", ".join(f"count(*) FILTER (kind = '{kind}') AS {kind}_count" for kind in kinds)
    gap = int(parse_duration(shop.session_gap).total_seconds() * 1e6)
    return f"""WITH moments AS (
            SELECT as_of_date, user_key, scenario, event_ts AS ts, event_type AS kind FROM acts UNION ALL
            SELECT as_of_date, user_key, scenario, impression_ts, 'impression' FROM shown WHERE sampling_rate = 1),
        starts AS (
            SELECT *, coalesce(epoch_us(ts) - epoch_us(lag(ts) OVER day) > {gap}, false) AS is_start FROM moments
            WINDOW day AS (PARTITION BY as_of_date, user_key ORDER BY ts)),
        numbered AS (
            SELECT *, 1 + count_if(is_start) OVER (PARTITION BY as_of_date, user_key ORDER BY ts) AS session FROM starts)
        SELECT as_of_date, user_key, session, min(ts) AS started_at, (epoch_us(max(ts)) - epoch_us(min(ts))) / 1e6 AS seconds,
            arg_min(scenario, (ts, scenario)) AS first_scenario, count(DISTINCT scenario) AS scenario_count, {counts}
        FROM numbered GROUP BY as_of_date, user_key, session"""


def _user_category_features(shop: Shop, night: dt.date) -> str:
    kinds = ["impression", *outcome_events(shop)]
    days = ", ".join(f"count(*) FILTER (kind = '{kind}') AS n_{kind}" for kind in kinds)
    own = _stored("user_{}_rate_30d")
    columns = [*_count_names(shop, "user_category"), *_rates(shop, "user_category", own), "user_category_recency_days"]
    return f"""WITH days AS (
            SELECT d, user_key, category_3, {days} FROM happened h
            JOIN items i ON i.as_of_date = h.d AND i.item_id = h.item_id
            WHERE category_3 IS NOT NULL AND kind NOT LIKE 'of %' GROUP BY ALL),
        sums AS (
            SELECT t, user_key, category_3, {", ".join(_counted(shop, "user_category"))}
            FROM (SELECT DATE '{night}' AS t) JOIN days ON {_IN_MONTH} GROUP BY ALL)
        SELECT t AS as_of_date, s.user_key, category_3, {", ".join(columns)}
        FROM sums s JOIN user_features u ON u.as_of_date = t AND u.user_key = s.user_key"""


def _user_scenario_features(shop: Shop, night: dt.date) -> str:
    name, own = "user_scenario", _stored("user_{}_rate_30d")
    columns = [*_count_names(shop, name), *_rates(shop, name, own), f"{name}_recency_days"]
    return f"""WITH sums AS (
            SELECT t, user_key, scenario, {", ".join(_counted(shop, name, "a"))}
            FROM (SELECT DATE '{night}' AS t) JOIN days_of_users ON {_IN_MONTH} GROUP BY ALL)
        SELECT t AS as_of_date, s.user_key, scenario, {", ".join(columns)}
        FROM sums s JOIN user_features u ON u.as_of_date = t AND u.user_key = s.user_key
        WHERE {" OR ".join(f"{column} > 0" for column in _count_names(shop, name))}"""


def _attribute_features(shop: Shop, night: dt.date) -> str:
    names, name = _item_attributes(shop), "attribute"
    columns = [*_count_names(shop, name), *_rates(shop, name, "mean_{}"), f"{name}_recency_days"]
    return f"""WITH latest AS (
            SELECT item_id, {", ".join(f"arg_max_null({column}, as_of_date) AS {column}" for column in names)}
            FROM items WHERE as_of_date BETWEEN DATE '{night}' - 29 AND DATE '{night}' GROUP BY item_id),
        bearing AS (UNPIVOT latest ON {", ".join(names)} INTO NAME attribute VALUE value),
        known AS (SELECT b.* FROM bearing b JOIN item_features f USING (item_id) WHERE as_of_date = DATE '{night}'),
        sums AS (
            SELECT attribute, value, count(DISTINCT k.item_id) AS items, {", ".join(_counted(shop, name))}
            FROM (SELECT DATE '{night}' AS t, * FROM known) k
            LEFT JOIN days_of_items x ON x.item_id = k.item_id AND logged AND {_IN_MONTH} GROUP BY ALL)
        SELECT t AS as_of_date, attribute, value, items, {", ".join(columns)} FROM sums, means WHERE t = DATE '{night}'"""


def _favourites(shop: Shop) -> str:
    weight = f"sum(round(n * pow(0.5, (t - d) / {HALF_LIFE_DAYS}) * 1e9)::BIGINT)"
    best = [
        f"""(SELECT t, user_key, {name} FROM (
            SELECT t, user_key, {name}, {weight} AS liking FROM dates JOIN (
                SELECT a.as_of_date AS d, user_key, {name}, count(*) AS n FROM events a
                JOIN items i ON i.as_of_date = a.as_of_date AND i.item_id = a.item_id
                WHERE event_type <> 'impression' AND {name} IS NOT NULL GROUP BY ALL) ON {_IN_MONTH} GROUP BY ALL)
            QUALIFY row_number() OVER (PARTITION BY t, user_key ORDER BY liking DESC, {name}) = 1)"""
        for name in FAVOURITES
    ]
    return " FULL JOIN ".join(["SELECT * FROM " + best[0], *(f"{other} USING (t, user_key)" for other in best[1:])])


def _item_attributes(shop: Shop) -> list[str]:
    attributes = [f"attribute_{a}" for a in (shop.items.attributes if shop.items else [])]
    return ["category_1", "category_2", "category_3", "brand", *attributes]


def _item_features(shop: Shop) -> str:
    kinds = ["impression", *outcome_events(shop)]
    names = _item_attributes(shop)
    latest = [f"arg_max_null({name}, d) AS {name}" for name in [*names, "price", "launch_date"]]
    ids = [f"{_id('item', 'item_id')} AS item_index"]
    ids += [f"{_id(name, name)} AS {name}_index" for name in names]
    counts = _count_names(shop, "item")
    rates = []
    for e in kinds[1:]:
        own = _shrunk(f"item_{e}_count_30d", "item_impression_count_30d", f"mean_{e}")
        rates.append(f"{own} AS item_{e}_rate_30d")
        for group in ITEM_GROUPS:
            over = f"OVER (PARTITION BY t, {group})"
            alike = _shrunk(f"sum(item_{e}_count_30d) {over}", f"sum(item_impression_count_30d) {over}", f"mean_{e}")
            rates.append(f"CASE WHEN {group} IS NULL THEN {own} ELSE {alike} END AS item_{group}_{e}_rate_30d")
    filled = [f"coalesce({name}, 0) AS {name}" for name in counts]
    return f"""WITH counted AS (
            SELECT t, item_id, {", ".join(_counted(shop, "item"))}, sum(dwell) AS dwell, sum(dwelt) AS dwelt,
                min(d) AS first_seen FROM dates JOIN days_of_items ON {_IN_MONTH} WHERE logged GROUP BY t, item_id),
        listed AS (
            SELECT t, item_id, {", ".join(latest)}, max(price) AS highest, min(d) AS since, max(d) AS last_day
            FROM dates JOIN (SELECT as_of_date AS d, * FROM items) ON {_IN_MONTH} GROUP BY t, item_id),
        newest AS (
            SELECT t, min(as_of_date) AS oldest, max(as_of_date) AS newest
            FROM dates JOIN items ON as_of_date BETWEEN t - 29 AND t GROUP BY t),
        every AS (
            SELECT coalesce(c.t, l.t) AS t, coalesce(c.item_id, l.item_id) AS item_id, * EXCLUDE (t, item_id)
            FROM counted c FULL JOIN listed l ON l.t = c.t AND l.item_id = c.item_id),
        known AS (
            SELECT oldest, e.* EXCLUDE ({", ".join(counts)}), {", ".join(filled)}, m.* EXCLUDE (t)
            FROM every e JOIN means m ON m.t = e.t LEFT JOIN newest n ON n.t = e.t
            WHERE e.first_seen IS NOT NULL OR e.last_day = n.newest),
        dated AS (
            SELECT k.*, least(k.since, first_seen) AS sight, v.since AS id_since
            FROM known k LEFT JOIN vocabularies v ON v.feature = 'item' AND v.value = k.item_id)
        SELECT t AS as_of_date, item_id, {", ".join([*ids, *counts, *rates])},
            coalesce(item_recency_days, 30) AS item_recency_days,
            CASE WHEN price IS NULL THEN 0 ELSE least({PRICE_BANDS}, 1 + floor({PRICE_BANDS} * percent_rank() OVER (
                PARTITION BY t, category_2, price IS NULL ORDER BY price))) END AS price_band,
            coalesce(ln(1 + price), 0) AS item_log_price,
            coalesce(CASE WHEN highest > 0 THEN 1 - price / highest END, 0) AS item_discount,
            CASE WHEN launch_date IS NOT NULL THEN least(365, greatest(0, t - launch_date))
                 WHEN t - sight > 7 OR first_seen = first_day OR since = oldest OR id_since < sight THEN 365
                 ELSE t - sight END AS item_age_days,
            CASE WHEN dwelt > 0 THEN dwell / 1e6 / dwelt ELSE 0 END AS item_mean_log_dwell_30d
        FROM dated"""


def _item_scenario_features(shop: Shop) -> str:
    name, own = "item_scenario", _stored("item_{}_rate_30d")
    columns = [*_count_names(shop, name), *_rates(shop, name, own), f"{name}_recency_days"]
    return f"""WITH sums AS (
            SELECT t, scenario, item_id, {", ".join(_counted(shop, name, "a"))}
            FROM dates JOIN days_of_items ON {_IN_MONTH} GROUP BY ALL)
        SELECT t AS as_of_date, scenario, s.item_id, {", ".join(columns)}
        FROM sums s JOIN item_features f ON f.as_of_date = t AND f.item_id = s.item_id
        WHERE item_scenario_impression_count_30d > 0"""


def _place(column: str, names: list[str]) -> str:
    return f"coalesce(list_position({names!r}, {column}), 0)"


def _end(shop: Shop) -> str:
    return f"((t + 1)::TIMESTAMP AT TIME ZONE '{shop.timezone}')"


def _lists(shop: Shop, keys: str, length: int) -> str:
    """Return SQL for the last acts of 30 days per t and `keys`, in lists, oldest first; each kind keeps its share of them."""
    kind, where = _place("event_type", sequence_events(shop)), _place("scenario", list(shop.scenarios))
    order = ["event_ts", "as_of_date", "kind", "place", "item", "category", "dwell"]
    listed = f"ORDER BY {', '.join(order)}"
    newest = ", ".join(f"{name} DESC" for name in order)
    own_place = f"row_number() OVER (PARTITION BY t, {keys}, kind ORDER BY {newest})"
    is_own = f"own_place <= {length // len(sequence_events(shop))}"
    return f"""SELECT t, {keys}, list(item {listed}) AS items, list(kind {listed}) AS kinds, list(place {listed}) AS places,
            list(category {listed}) AS categories, list(dwell {listed}) AS dwells,
            list((epoch_us({_end(shop)}) - epoch_us(event_ts)) / 86400e6 {listed}) AS ages
        FROM (SELECT * FROM (SELECT *, {own_place} AS own_place FROM (
                SELECT t, a.user_key, a.scenario, a.as_of_date, event_ts, {kind} AS kind, {where} AS place,
                    {_id("item", "a.item_id")} AS item, {_id("category_3", "i.category_3")} AS category,
                    coalesce(dwell_seconds, 0) AS dwell
                FROM dates JOIN acts a ON a.as_of_date BETWEEN t - 29 AND t
                LEFT JOIN items i ON i.as_of_date = a.as_of_date AND i.item_id = a.item_id))
            QUALIFY row_number() OVER (PARTITION BY t, {keys} ORDER BY {is_own} DESC, {newest}) <= {length})
        GROUP BY t, {keys}"""


def _user_scenario_sequences(shop: Shop) -> str:
    return f"""SELECT t AS as_of_date, user_key, scenario, items AS item_indexes, kinds AS event_type_indexes,
            categories AS category_indexes, ages AS age_days
        FROM ({_lists(shop, "user_key, scenario", SCENARIO_SEQUENCE_LENGTH)})"""


def _user_sequences(shop: Shop) -> str:
    words = "string_split(trim(regexp_replace(lower(query), '[^\\p{L}\\p{N}]+', ' ', 'g')), ' ')"
    is_exposure = not isinstance(shop.negatives, Sampled)
    event, days = (shop.rebuy.event, shop.rebuy.days) if shop.rebuy else ("", 0)
    return f"""WITH done AS ({_lists(shop, "user_key", SEQUENCE_LENGTH)}),
        words AS (
            SELECT as_of_date, user_key, event_ts, place, {_id(QUERY_TOKEN, "word")} AS word
            FROM (SELECT *, unnest({words}) AS word, generate_subscripts({words}, 1) AS place
                  FROM acts WHERE event_type = 'searched') WHERE word <> ''),
        asked AS (
            SELECT t, user_key, list(word ORDER BY event_ts, as_of_date, place, word) AS words,
                list((epoch_us({_end(shop)}) - epoch_us(event_ts)) / 86400e6
                    ORDER BY event_ts, as_of_date, place, word) AS word_ages
            FROM (SELECT *, row_number() OVER (
                    PARTITION BY t, user_key ORDER BY event_ts DESC, as_of_date DESC, place DESC, word DESC) AS nth
                FROM dates JOIN words ON as_of_date BETWEEN t - 29 AND t)
            WHERE nth <= {QUERY_TOKENS_LENGTH} GROUP BY t, user_key),
        pairs AS (
            SELECT d, user_key, category_3, {_id("category_3", "category_3")} AS category, count(*) AS n
            FROM happened h JOIN items i ON i.as_of_date = h.d AND i.item_id = h.item_id
            WHERE kind = 'impression' AND category_3 IS NOT NULL AND {is_exposure} GROUP BY ALL),
        seen AS (
            SELECT t, user_key, list(category ORDER BY d, category, n) AS categories,
                list(n ORDER BY d, category, n) AS counts, list(t - d ORDER BY d, category, n) AS days
            FROM (SELECT * FROM dates JOIN pairs ON {_IN_MONTH}
                QUALIFY row_number() OVER (PARTITION BY t, user_key ORDER BY d DESC, category DESC, n DESC) <= {EXPOSURE_LENGTH})
            GROUP BY t, user_key),
        chosen AS (SELECT DISTINCT user_key, item_id, as_of_date AS d FROM acts WHERE event_type = '{event}'),
        own AS (
            SELECT t, user_key, list({_id("item", "item_id")} ORDER BY n, -age, item_id) AS own_item_indexes,
                list(n ORDER BY n, -age, item_id) AS own_counts, list(age ORDER BY n, -age, item_id) AS own_age_days
            FROM (SELECT t, user_key, item_id, min(t - d) AS age,
                    sum(round(0.5 ** ((t - d) / {OWN_HALF_LIFE_DAYS}) * 1e6)::BIGINT) / 1e6 AS n
                FROM dates JOIN chosen ON d BETWEEN t - {days - 1} AND t GROUP BY t, user_key, item_id
                QUALIFY row_number() OVER (PARTITION BY t, user_key ORDER BY n DESC, age, item_id) <= {OWN_LENGTH})
            GROUP BY t, user_key)
        SELECT coalesce(a.t, s.t) AS as_of_date, coalesce(a.user_key, s.user_key) AS user_key,
            {_id("user", "coalesce(a.user_key, s.user_key)")} AS user_index, coalesce(items, []) AS item_indexes,
            coalesce(kinds, []) AS event_type_indexes, coalesce(places, []) AS scenario_indexes,
            coalesce(ages, []) AS age_days, coalesce(a.categories, []) AS category_indexes, coalesce(dwells, []) AS dwell_seconds,
            coalesce(words, []) AS query_token_indexes, coalesce(word_ages, []) AS query_token_age_days,
            coalesce(s.categories, []) AS shown_category_indexes,
            coalesce(counts, []) AS shown_counts, coalesce(days, []) AS shown_age_days,
            coalesce(own_item_indexes, []) AS own_item_indexes, coalesce(own_counts, []) AS own_counts,
            coalesce(own_age_days, []) AS own_age_days
        FROM done a FULL JOIN seen s ON s.t = a.t AND s.user_key = a.user_key
        LEFT JOIN asked q ON q.t = a.t AND q.user_key = a.user_key
        LEFT JOIN own o ON o.t = coalesce(a.t, s.t) AND o.user_key = coalesce(a.user_key, s.user_key)"""


def _labels(shop: Shop, night: dt.date) -> str:
    """Labels and masks of every impression, as known at the end of the night."""
    _, end = day_bounds_utc(night, shop.timezone)
    columns, joins = [], []
    for name, task in shop.tasks.items():
        columns.append(f"(impression_ts <= TIMESTAMPTZ '{end}' - INTERVAL {_seconds(task)} SECOND)::INT AS over_{name}")
        if task.on == "item":
            value = {
                "amount": "price * coalesce(quantity, 1)", "quantity": "coalesce(quantity, 1)", "price": "price",
                "dwell_seconds": "dwell_seconds", "rating": "rating", None: "1",
            }[task.value]  # fmt: skip
            total = f"sum(round(coalesce({value}, 0) * 1e4)::BIGINT) / 1e4" if task.kind == "regression" else "1"
            if task.value == "rating":
                total = "last(rating ORDER BY event_ts, rating) FILTER (rating IS NOT NULL)"
            joins.append(
                f"""LEFT JOIN (SELECT impression_id, {total} AS value FROM touched_later WHERE rule = '{name}' GROUP BY 1)
                of_{name} USING (impression_id)"""
            )
            columns.append(f"coalesce(of_{name}.value, 0) AS raw_{name}")
        else:
            soonest = int(parse_duration(task.not_before).total_seconds()) if task.not_before else 0
            wait = f"""(SELECT min(epoch_us(e.event_ts)) FROM events e WHERE e.user_key = shown.user_key
                AND e.event_type = '{task.event}' AND e.event_ts > impression_ts) - epoch_us(impression_ts)"""
            given = f"coalesce(of_{task.given}.value, 0) > 0 AND " if task.given else ""
            columns.append(
                f"coalesce(({given}{wait} >= {soonest}e6 AND {wait} < {_seconds(task)}e6)::INT, 0) AS raw_{name}"
            )
    masks, labels = [], []
    for name, task in shop.tasks.items():
        needs_given = task.given and (task.on == "any_item" or isinstance(shop.negatives, Sampled))
        is_asked = f" * (raw_{task.given} > 0)::INT" if needs_given else ""
        masks.append(f"over_{name}{is_asked} AS mask_{name}")
        labels.append(f"raw_{name} * mask_{name} AS label_{name}")
    return f"""SELECT *, {", ".join(masks)}, {", ".join(labels)}
        FROM (SELECT shown.*, {", ".join(columns)} FROM shown {" ".join(joins)})"""


def _training_examples(shop: Shop, first_date: dt.date, night: dt.date) -> str:
    root = next(name for name, task in shop.tasks.items() if task.given is None)
    labels = [f"{kind}_{task}" for task in shop.tasks for kind in ("label", "mask")]
    keys = ["impression_id", "event_date", "impression_ts", "scenario", "user_key", "item_id", "request_id"]
    return f"""SELECT l.as_of_date, {", ".join(f"l.{key}" for key in keys)}, l.event_date - 1 AS feature_date,
            DATE '{night}' AS labels_as_of, coalesce(position, 0) AS position, coalesce(propensity, 0) AS propensity,
            1 / sampling_rate AS sample_weight, {", ".join(labels)},
            CASE WHEN propensity > 0 THEN least(1 / propensity, 100) ELSE 1 END AS inverse_propensity,
            hour(impression_ts AT TIME ZONE '{shop.timezone}') AS hour,
            isodow(impression_ts AT TIME ZONE '{shop.timezone}') AS weekday,
            {", ".join(f"coalesce({f.name}, 0) AS {f.name}" for f in index_features(shop))},
            {", ".join(_known_or_unseen(f) for f in dense_features(shop))}
        FROM labelled l
        LEFT JOIN user_features u ON u.as_of_date = l.event_date - 1 AND u.user_key = l.user_key
        LEFT JOIN item_features i ON i.as_of_date = l.event_date - 1 AND i.item_id = l.item_id
        LEFT JOIN item_scenario_features p
            ON p.as_of_date = l.event_date - 1 AND p.item_id = l.item_id AND p.scenario = l.scenario
        WHERE l.event_date > DATE '{first_date}' AND over_{root} = 1"""


def _known_or_unseen(feature: Feature) -> str:
    return f"coalesce({feature.name}, {feature.unseen}, 0) AS {feature.name}"


def _seconds(task: Task) -> int:
    return int(task.window.total_seconds())
