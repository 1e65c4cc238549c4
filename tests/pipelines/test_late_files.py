"""Raw files that came after their day was cleaned are told, for no night reads them."""

import datetime as dt
import logging
import shutil

import pytest

from pipelines.stage import run_stage

DAYS = [dt.date(2026, 2, 1) + dt.timedelta(days=n) for n in range(3)]


@pytest.mark.histories
def test_a_file_that_comes_for_a_cleaned_day_is_told_and_taken_in_when_that_day_is_cleaned_again(tiny_shop, caplog):
    shop = tiny_shop(days=3)
    log = next(source for source in shop.sources if "home" in source.path)
    folder = (shop.home / log.path.replace("{event_date}", str(DAYS[0]))).parent
    run_stage("clean", shop, DAYS[0])
    caplog.set_level(logging.WARNING, "nightshelf")
    run_stage("clean", shop, DAYS[1])
    assert "came or changed" not in caplog.text
    first = next(folder.iterdir())
    shutil.copy2(first, folder / f"again-{first.name}")  # with the time of the other, as rsync copies
    run_stage("clean", shop, DAYS[2])
    assert f"1 files of {DAYS[0]} came or changed after that day was cleaned" in caplog.text
    assert f"stage clean --as-of-date {DAYS[0]}" in caplog.text
    caplog.clear()
    run_stage("clean", shop, DAYS[0])
    run_stage("clean", shop, DAYS[2])
    assert "came or changed" not in caplog.text
