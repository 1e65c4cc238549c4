"""Which model version a night may use: the registry's alias for the newest night, the promotions ledger for a past one."""

import datetime as dt

from nightshelf.errors import EngineError
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

    Raises:
        EngineError: a version was promoted, but the registry's alias is gone: popularity must not pass for it.
    """
    from training.tracking import get_alias

    promotions = night.warehouse.read("promotions", columns=("as_of_date", "promoted")).to_pylist()
    newest = max((row["as_of_date"] for row in promotions if row["promoted"]), default=None)
    if newest is not None and night.as_of_date < newest:
        return _last_promoted(night, night.as_of_date)
    name = registered_name(night)
    version = get_alias(name, "champion")
    if version is None and newest is not None:
        raise EngineError(
            f"the registry has no alias champion of {name}, though version {_last_promoted(night, newest)} was promoted "
            f"on {newest}; set the alias again, or look whether MLFLOW_TRACKING_URI names the right registry"
        )
    return version


def is_newest_promotion(night: Night) -> bool:
    """Say whether no later night has promoted a version, so that this one may move the alias."""
    rows = night.warehouse.read("promotions", columns=("as_of_date", "promoted")).to_pylist()
    return all(row["as_of_date"] <= night.as_of_date for row in rows if row["promoted"])


def _last_promoted(night: Night, until: dt.date) -> str | None:
    rows = night.warehouse.read("promotions", columns=("as_of_date", "promoted", "challenger")).to_pylist()
    known = [row for row in rows if row["promoted"] and row["as_of_date"] <= until]
    return max(known, key=lambda row: row["as_of_date"])["challenger"] if known else None
