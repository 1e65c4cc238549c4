"""User features: what a user did of late, and who the user is, known at the end of a day."""

import datetime as dt

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from feature_jobs.rates import mean_of_micros, mean_rates, shrunk_rate
from feature_jobs.schema import conform
from feature_jobs.sessions import session_days
from feature_jobs.statistics import attributed, logged, overall_rates, statistics, sums
from feature_jobs.vocabularies import add_index
from feature_jobs.windows import LONGEST_WINDOW, spread_over_dates
from nightshelf.config import Shop
from nightshelf.features import FAVOURITES, attribute_columns, outcome_events
from nightshelf.tables import table_specs


def user_features(
    user_days: DataFrame,
    item_days: DataFrame,
    sessions: DataFrame,
    favourites: DataFrame,
    users: DataFrame,
    vocabularies: DataFrame,
    shop: Shop,
    dates: list[dt.date],
) -> DataFrame:
    """Return one row per as_of_date of `dates` and user with an event in the 30 days of arrival up to it.

    Args:
        user_days, item_days, sessions: of the 30 days of arrival up to each of `dates`.
        favourites: `favourites` of `dates`.
        users: the user table as known on each of `dates`.
        vocabularies: the night's.
        shop: gives event types, scenarios and attributes.
        dates: the wanted days.
    """
    windowed = spread_over_dates(user_days.withColumnRenamed("as_of_date", "day"), dates)
    micros = ("log_price_micros", "log_price_square_micros", "priced", "log_dwell_micros", "dwelt")
    rows = windowed.groupBy("as_of_date", "user_key").agg(
        *sums(logged(shop)),
        *(F.sum(name).alias(name) for name in micros),
        *_scenario_sums(shop),
        F.max("last_outcome_date").alias("last_outcome_date"),
    )
    rows = rows.join(F.broadcast(mean_rates(item_days, outcome_events(shop), dates)), "as_of_date")
    rows = rows.withColumns(_columns(shop))
    if in_scenarios := _scenario_columns(shop):  # Spark Connect takes no empty dict
        rows = rows.withColumns(in_scenarios)
    rows = add_index(rows, vocabularies, "user", "user_key", "user_index")
    attributes = [f"user_{name}" for name in attribute_columns(shop)]
    known = users.select("as_of_date", "user_key", *attributes)
    rows = rows.join(known, ["as_of_date", "user_key"], "left")
    rows = rows.join(favourites, ["as_of_date", "user_key"], "left")
    rows = rows.join(_session_features(sessions, dates), ["as_of_date", "user_key"], "left")
    for feature, column in [*((name, name) for name in attributes), *((name, f"user_{name}") for name in FAVOURITES)]:
        rows = add_index(rows, vocabularies, feature, column, f"{column}_index")
    rows = rows.na.fill(0, ["user_session_count_30d", "user_session_minutes_30d"])
    return conform(rows, table_specs(shop)["user_features"])


def _columns(shop: Shop) -> dict[str, Column]:
    longest = LONGEST_WINDOW
    columns = statistics("user", shop, overall_rates(shop))
    mean = mean_of_micros("log_price_micros", "priced")
    variance = mean_of_micros("log_price_square_micros", "priced") - mean * mean
    columns["user_mean_log_price_30d"] = mean
    columns["user_log_price_deviation_30d"] = F.sqrt(F.greatest(variance, F.lit(0.0)))
    columns["user_mean_log_dwell_30d"] = mean_of_micros("log_dwell_micros", "dwelt")
    columns["user_recency_days"] = F.coalesce(  # by the day of the outcome, not of its arrival
        F.least(F.datediff("as_of_date", "last_outcome_date"), F.lit(longest)), F.lit(longest)
    )
    return columns


def _session_features(sessions: DataFrame, dates: list[dt.date]) -> DataFrame:
    days = spread_over_dates(session_days(sessions), dates).groupBy("as_of_date", "user_key")
    sums = days.agg(F.sum("sessions").alias("n"), F.sum("session_seconds").alias("seconds"))
    minutes = (F.col("seconds") / 60 / F.col("n")).alias("user_session_minutes_30d")
    return sums.select("as_of_date", "user_key", F.col("n").alias("user_session_count_30d"), minutes)


def _scenario_sums(shop: Shop) -> list[Column]:
    if len(shop.scenarios) == 1:
        return []
    return [
        F.sum(F.when(F.col("scenario") == scenario, F.col(column)).otherwise(0))
        .cast("double")
        .alias(f"{kind}_in_{scenario}")
        for scenario in shop.scenarios
        for kind, column in attributed(shop).items()
    ]


def _scenario_columns(shop: Shop) -> dict[str, Column]:
    columns = {}
    for scenario in shop.scenarios if len(shop.scenarios) > 1 else ():
        shown = F.col(f"impression_in_{scenario}")
        columns[f"user_in_{scenario}_impression_count_30d"] = shown
        for event in outcome_events(shop):
            rate = shrunk_rate(F.col(f"{event}_in_{scenario}"), shown, F.col(f"user_{event}_rate_30d"))
            columns[f"user_in_{scenario}_{event}_rate_30d"] = rate
    return columns
