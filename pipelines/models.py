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

    Raises:
        EngineError: the registry knows nothing of the shop.
    """
    return _last_promoted(night, night.as_of_date - dt.timedelta(days=1))


def champion_of(night: Night) -> str | None:
    """Return the version that ranks this night's shelves, None if no version was ever promoted.

    For the newest night it is the registry's alias (which a person may have moved by hand); for a past one, the version
    that was promoted last until then.

    Raises:
        EngineError: a version was promoted, but the registry's alias is gone, or the registry knows nothing of the shop:
            popularity must not pass for it.
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
            f"the registry has no alias champion of {name}, though a version was promoted on {newest}; set the alias again "
            f"(the last promoted one that is left: {_last_promoted(night, newest) or 'none'}), or look whether "
            "MLFLOW_TRACKING_URI names the right registry"
        )
    return version


def is_newest_promotion(night: Night) -> bool:
    """Say whether no later night has promoted a version, so that this one may move the alias."""
    rows = night.warehouse.read("promotions", columns=("as_of_date", "promoted")).to_pylist()
    return all(row["as_of_date"] <= night.as_of_date for row in rows if row["promoted"])


def _last_promoted(night: Night, until: dt.date) -> str | None:
    """Return the version that was promoted last until a day; one that a person has deleted from the registry counts no more."""
    from training.tracking import versions

    rows = night.warehouse.read("promotions", columns=("as_of_date", "promoted", "challenger")).to_pylist()
    promoted = [row for row in rows if row["promoted"] and row["as_of_date"] <= until]
    if not promoted:
        return None
    name = registered_name(night)
    there = versions(name)
    if not there:
        raise EngineError(
            f"the registry has no version of {name}, though some were promoted; look whether MLFLOW_TRACKING_URI names the "
            "right registry"
        )
    left = [row for row in promoted if row["challenger"] in there]
    return max(left, key=lambda row: row["as_of_date"])["challenger"] if left else None
