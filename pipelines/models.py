"""Which model version a night may use: the registry's alias for the newest night, the promotions ledger for a past one."""

import datetime as dt

from pipelines.stage import Night


def registered_name(night: Night) -> str:
    """Return the shop's name in the model registry."""
    return f"nightshelf-{night.shop.shop}"


def champion_before(night: Night) -> str | None:
    """Return the version that held the alias before this night: the parent of its training and its gate's opponent.

    It comes from the ledger, so that a night that is run again meets the same opponent and decides alike.
    """
    return _last_promoted(night, night.as_of_date - dt.timedelta(days=1))


def champion_of(night: Night) -> str | None:
    """Return the version that ranks this night's shelves, None if no version was ever promoted.

    For the newest night it is the registry's alias (which a person may have moved by hand); for a past one, the version
    that was promoted last until then.
    """
    from training.tracking import get_alias

    promotions = night.warehouse.read("promotions", columns=("as_of_date", "promoted")).to_pylist()
    newest = max((row["as_of_date"] for row in promotions if row["promoted"]), default=None)
    if newest is None or night.as_of_date >= newest:
        return get_alias(registered_name(night), "champion")
    return _last_promoted(night, night.as_of_date)


def is_newest_promotion(night: Night) -> bool:
    """Say whether no later night has promoted a version, so that this one may move the alias."""
    rows = night.warehouse.read("promotions", columns=("as_of_date", "promoted")).to_pylist()
    return all(row["as_of_date"] <= night.as_of_date for row in rows if row["promoted"])


def _last_promoted(night: Night, until: dt.date) -> str | None:
    rows = night.warehouse.read("promotions", columns=("as_of_date", "promoted", "challenger")).to_pylist()
    known = [row for row in rows if row["promoted"] and row["as_of_date"] <= until]
    return max(known, key=lambda row: row["as_of_date"])["challenger"] if known else None
