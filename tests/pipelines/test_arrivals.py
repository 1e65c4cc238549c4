"""Which days a night cleans: the whole table of cases, without a file."""

import datetime as dt

import pytest

from nightshelf.errors import InputError
from nightshelf.rebuy import Rebuy
from pipelines.arrivals import find_arrivals, find_listings


def day(n: int) -> dt.date:
    return dt.date(2026, 2, n)


@pytest.fixture
def shop(tiny_shop):
    return tiny_shop(days=0, history_days=5, closed={"dates": [day(9)], "weekdays": ["sunday"]})  # 2026-02-08 is one


def lister(logs_of, *lacking):
    """Return a list_files under which every source has a log on `logs_of`, but for the (folder, day) in `lacking`."""

    def list_files(pattern: str) -> list[str]:
        here = [n for n in logs_of if str(day(n)) in pattern and not any(f in pattern and n == k for f, k in lacking)]
        return [pattern.replace("*", "part-0")] if here or "2026" not in pattern else []

    return list_files


def test_the_first_night_takes_the_whole_history(shop):
    arrivals = find_arrivals(shop, day(7), [], lister(range(1, 8)))
    assert arrivals.days == [day(n) for n in range(3, 8)]
    assert len(arrivals.files("search_log")) == 5


def test_a_later_night_takes_its_own_day_and_what_is_not_done(shop):
    assert find_arrivals(shop, day(7), [day(n) for n in (3, 4, 5)], lister(range(1, 8))).days == [day(6), day(7)]


def test_a_night_cleans_its_own_day_again(shop):
    assert find_arrivals(shop, day(7), [day(n) for n in range(3, 8)], lister(range(1, 8))).days == [day(7)]


def test_days_before_the_first_log_are_left_out(shop):
    assert find_arrivals(shop, day(7), [], lister([6, 7])).days == [day(6), day(7)]


def test_what_users_buy_again_is_looked_for_further_back_where_a_day_without_a_log_is_no_fault(shop):
    grocer = shop.model_copy(update={"rebuy": Rebuy.model_construct(event="purchase", days=8)})
    arrivals = find_arrivals(grocer, day(9), [], lister([1, 2, 4, 5, 6, 7], ("search", 4)))
    assert arrivals.days == [day(n) for n in (2, 4, 5, 6, 7, 8, 9)]
    assert arrivals.by_day["search_log"][day(4)] == []
    with pytest.raises(InputError, match="for 2026-02-06"):  # which is history
        find_arrivals(grocer, day(9), [], lister([1, 2, 4, 5, 7]))


def test_a_lacking_log_names_path_key_and_remedy(shop):
    with pytest.raises(
        InputError,
        match=r"no log of search_log for 2026-02-07: .*raw/search/2026-02-07.csv; .*sources.search_log.path, or, if .*"
        r"`closed: \{weekdays: \[sunday\], dates: \[2026-02-07, 2026-02-09\]\}`",
    ):
        find_arrivals(shop, day(7), [], lister(range(1, 8), ("search", 7)))


def test_a_lacking_day_of_history_is_told_too(shop):
    with pytest.raises(InputError, match="for 2026-02-05"):
        find_arrivals(shop, day(7), [], lister([3, 4, 6, 7]))


def test_a_gap_after_days_that_are_done_is_told(shop):
    with pytest.raises(InputError, match="for 2026-02-06"):
        find_arrivals(shop, day(7), [day(5)], lister([7]))


@pytest.mark.parametrize("closed", [8, 9])
def test_a_closed_day_needs_no_log(shop, closed):
    arrivals = find_arrivals(shop, day(closed), [day(n) for n in range(4, closed)], lister(range(1, closed)))
    assert arrivals.days == [day(closed)]
    assert arrivals.files("home_log") == []


def test_a_dated_catalogue_of_a_closed_day_is_the_one_before(shop):
    items = shop.items.model_copy(update={"path": "raw/items/{event_date}.csv"})
    listings, files = find_listings(shop, items, "items", [day(7), day(8)], lister([6, 7]))
    assert listings == {day(7): day(7), day(8): day(7)}
    assert sorted(files) == [day(6), day(7)]
    with pytest.raises(InputError, match="no items file for 2026-02-06"):
        find_listings(shop, items, "items", [day(6)], lister([5]))


def test_an_undated_catalogue_is_every_days(shop):
    listings, files = find_listings(shop, shop.items, "items", [day(6), day(7)], lister([]))
    assert listings == {day(6): None, day(7): None}
    assert list(files) == [None]
    with pytest.raises(InputError, match=r"no items file: nothing matches .*items\.csv; .*items\.path"):
        find_listings(shop, shop.items, "items", [day(7)], lambda pattern: [])
