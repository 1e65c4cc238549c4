"""Which version serves: none before the first promotion, and no silence when the registry has lost the alias or the versions."""

import datetime as dt

import pyarrow as pa
import pytest

from nightshelf.errors import EngineError
from nightshelf.paths import artifact_dir, tracking_uri
from pipelines.arrow_schema import arrow_schema
from pipelines.models import champion_before, champion_of, registered_name
from pipelines.stage import Night
from pipelines.warehouse import Warehouse

DAY = dt.date(2026, 2, 14)


def test_what_the_registry_lost_is_told_and_what_a_person_deleted_counts_no_more(tiny_shop, tmp_path):
    from training import tracking

    shop = tiny_shop(days=0)
    tracking.ensure_tracker(tracking_uri(shop), artifact_dir(shop))
    warehouse = Warehouse(shop)
    before, night, after = (Night(shop, DAY + dt.timedelta(days=n), warehouse, "n") for n in (-2, 0, 1))
    assert champion_of(night) is None
    schema = arrow_schema(warehouse.specs["promotions"])
    for day, version in ((DAY - dt.timedelta(days=1), "1"), (DAY, "2")):
        row = {"as_of_date": day, "challenger": version, "champion": "", "promoted": True, "reason": "", "evidence": ""}
        warehouse.publish_arrow("promotions", pa.Table.from_pylist([row], schema), [day], f"run-{version}")
    with pytest.raises(EngineError, match=r"no version of nightshelf-.*whether MLFLOW_TRACKING_URI"):
        champion_before(after)

    client, name = tracking.MlflowClient(), registered_name(night)
    client.create_registered_model(name)
    assert [client.create_model_version(name, str(tmp_path / "gone")).version for _ in range(3)] == [1, 2, 3]
    assert tracking.versions(name) == {"1", "2", "3"} and tracking.versions("nobody") == set()
    with pytest.raises(EngineError, match=r"promoted on 2026-02-14; set the alias again .*that is left: 2\)"):
        champion_of(night)
    assert champion_of(before) is None
    assert champion_before(after) == "2"
    with pytest.raises(EngineError, match=r"files of version 2 of nightshelf-.* are gone: .*A model is damaged"):
        tracking.download(name, "2")
    client.delete_model_version(name, "2")
    assert champion_before(after) == "1"
    client.delete_model_version(name, "1")
    assert champion_before(after) is None, "a challenger of another night is left, which was never promoted"
