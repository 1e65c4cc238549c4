import datetime as dt
from pathlib import Path

import pytest

from nightshelf.config import load_shop
from nightshelf.paths import source_path

DEMO = Path(__file__).resolve().parents[2] / "conf/shops/demo.yaml"


@pytest.mark.parametrize(
    ("pattern", "path"),
    [
        ("raw/{event_date}/*.csv", "/shop/home/raw/2026-02-03/*.csv"),
        ("../raw/./{event_date}.csv", "/shop/raw/2026-02-03.csv"),
        ("/logs/../raw/a.csv", "/raw/a.csv"),
        ("s3a://bucket/{event_date}/../x", "s3a://bucket/2026-02-03/../x"),
    ],
)
def test_a_pattern_starts_at_home_and_names_its_day(monkeypatch, pattern, path) -> None:
    monkeypatch.setenv("NIGHTSHELF_HOME", "/shop/home")
    assert source_path(load_shop(DEMO), pattern, dt.date(2026, 2, 3)) == path
