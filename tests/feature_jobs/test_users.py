"""The user table: whoever has not consented has no attributes."""

import pytest

from feature_jobs.users import read_members
from nightshelf.identity import ensure_key
from nightshelf.paths import source_path

pytestmark = pytest.mark.spark


@pytest.mark.parametrize("consent", [None, "agreed"])
def test_attributes_are_known_of_those_who_agreed(spark, tiny_shop, write_log, consent):
    table = {"path": "raw/members.csv", "format": "csv", "columns": {"user_id": "id", "age_band": "age"}}
    shop = tiny_shop(days=0, users={**table, **({"consent": consent} if consent else {})})
    rows = [["id", "age", "agreed"], ["a", "young", "Yes"], ["b", "old", ""], ["c", "old", "no"], ["d", "old", "1"]]
    file = source_path(shop, shop.users.path, None)
    write_log(shop.home / "raw" / "members.csv", rows)
    members = read_members(spark, shop.users, [file], ensure_key(shop), []).collect()
    ages = sorted((row.user_age_band or "-") for row in members)
    assert ages == (["-", "-", "old", "young"] if consent else ["old", "old", "old", "young"])
