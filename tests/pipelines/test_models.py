"""Which version serves: none before the first promotion, and no silence when the registry has lost the alias."""

import datetime as dt

import pyarrow as pa
import pytest

from nightshelf.errors import EngineError
from nightshelf.paths import artifact_dir, tracking_uri
from pipelines.arrow_schema import arrow_schema
from pipelines.models import champion_of
from pipelines.stage import Night
from pipelines.warehouse import Warehouse

DAY = dt.date(2026, 2, 14)


def test_a_lost_alias_is_told_and_a_shop_without_a_champion_is_not(tiny_shop):
    from training.tracking import ensure_tracker

    shop = tiny_shop(days=0)
    ensure_tracker(tracking_uri(shop), artifact_dir(shop))
    warehouse = Warehouse(shop)
    night = Night(shop, DAY, warehouse, "n")
    assert champion_of(night) is None
    row = {"as_of_date": DAY, "challenger": "7", "champion": "", "promoted": True, "reason": "", "evidence": "[]"}
    schema = arrow_schema(warehouse.specs["promotions"])
    warehouse.publish_arrow("promotions", pa.Table.from_pylist([row], schema), [DAY], "n")
    with pytest.raises(EngineError, match="version 7 was promoted on 2026-02-14; set the alias again"):
        champion_of(night)
    assert champion_of(Night(shop, DAY - dt.timedelta(days=1), warehouse, "n")) is None
