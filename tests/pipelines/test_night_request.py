"""What may be asked of a night, and which day it then is."""

import datetime as dt
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nightshelf.dates import day_bounds_utc
from nightshelf.errors import InputError
from pipelines.night_request import NightRequest, decide_as_of_date, read_request, scheduled_shop_file

ZONES = st.sampled_from(
    [
        "UTC",
        "Asia/Shanghai",
        "America/New_York",
        "Europe/Paris",
        "Australia/Lord_Howe",
        "Pacific/Apia",
        "America/Sao_Paulo",
        "Asia/Kathmandu",
    ]
)
MOMENTS = st.datetimes(dt.datetime(2000, 1, 2), dt.datetime(2035, 12, 31), timezones=st.just(dt.UTC))
SHOP = "conf/shops/demo.yaml"


@given(MOMENTS, ZONES)
def test_the_day_decided_is_over_and_the_next_is_not(moment: dt.datetime, zone: str) -> None:
    day = decide_as_of_date(None, None, moment, zone)
    _, end = day_bounds_utc(day, zone)
    _, next_end = day_bounds_utc(day + dt.timedelta(days=1), zone)
    assert end <= moment
    if next_end > end:  # Apia skipped a whole day at the end of 2011
        assert moment < next_end


@given(st.dates(dt.date(2000, 1, 3), dt.date(2035, 12, 31)), ZONES)
def test_a_manual_run_and_the_run_of_two_o_clock_agree(today: dt.date, zone: str) -> None:
    """Either is asked for on `today`; the schedule's partition key is the local day before."""
    by_hand = dt.datetime.combine(today, dt.time(2), ZoneInfo(zone)).astimezone(dt.UTC)
    key = str(today - dt.timedelta(days=1))
    if by_hand.astimezone(ZoneInfo(zone)).date() == today:  # a day that Apia did not skip
        assert decide_as_of_date(None, None, by_hand, zone) == decide_as_of_date(None, key, by_hand, zone)


@given(MOMENTS, ZONES, st.dates())
def test_what_was_asked_for_comes_first_then_the_partition(moment: dt.datetime, zone: str, day: dt.date) -> None:
    assert decide_as_of_date(day, "2026-01-01", moment, zone) == day
    assert decide_as_of_date(None, day.isoformat(), moment, zone) == day


@pytest.mark.parametrize(
    ("moment", "zone", "day"),
    [
        ("2026-02-14T18:00:00+00:00", "Asia/Shanghai", "2026-02-14"),  # 02:00 on the 15th there
        ("2026-02-14T15:59:59+00:00", "Asia/Shanghai", "2026-02-13"),  # one second before midnight there
        ("2026-03-08T07:00:00+00:00", "America/New_York", "2026-03-07"),  # the hour that does not exist
        ("2026-11-01T05:30:00+00:00", "America/New_York", "2026-10-31"),  # the hour that comes twice
    ],
)
def test_known_moments(moment: str, zone: str, day: str) -> None:
    assert str(decide_as_of_date(None, None, dt.datetime.fromisoformat(moment), zone)) == day


def test_a_partition_key_that_is_no_date_is_refused() -> None:
    with pytest.raises(InputError, match="not a date"):
        decide_as_of_date(None, "2026-02", dt.datetime(2026, 2, 14, tzinfo=dt.UTC), "UTC")


def test_an_empty_form_asks_for_everything() -> None:
    request = read_request({"shop": SHOP, "as_of_date": None, "retrain": True, "scenarios": []})
    assert request == NightRequest(shop=SHOP)
    assert read_request({"shop": SHOP, "as_of_date": ""}).as_of_date is None


@pytest.mark.parametrize("environment", [{}, {"NIGHTSHELF_SHOP": ""}, {"NIGHTSHELF_SHOP": SHOP}])
def test_the_schedule_serves_the_shop_of_the_variable_or_the_demo(environment: dict[str, str]) -> None:
    assert scheduled_shop_file(environment) == SHOP


@pytest.mark.parametrize(
    "name", ["var/movielens/movielens.yaml", "/srv/conf/shops/demo.yaml", "demo.yaml", SHOP + "\n"]
)
def test_a_shop_that_airflow_cannot_serve_is_told_by_the_variables_name(name: str) -> None:
    """`make up` would start servers whose DAGs cannot be read."""
    with pytest.raises(InputError, match=r"^NIGHTSHELF_SHOP=.*put the shop file into conf/shops"):
        scheduled_shop_file({"NIGHTSHELF_SHOP": name})


ATTACKS = [
    ";id",
    "$(id)",
    "`id`",
    "../../etc/passwd",
    "{{ 7*7 }}",
    "a\0b",
    "a\n",
    "--help",
    "|id",
    "&&id",
    "'",
    '"',
    "\u202egp",
    "x" * 10_000,
]


@pytest.mark.parametrize("attack", ATTACKS)
def test_text_that_a_shell_or_a_path_could_mistake_is_refused(attack: str) -> None:
    for values in (
        {"shop": attack},
        {"shop": f"conf/shops/{attack}.yaml"},
        {"shop": SHOP + attack},
        {"shop": SHOP, "as_of_date": attack},
        {"shop": SHOP, "as_of_date": "2026-02-14" + attack},
        {"shop": SHOP, "scenarios": [attack]},
        {"shop": SHOP, "retrain": attack},
        {"shop": SHOP, attack: "1"},
    ):
        with pytest.raises(InputError) as refusal:
            read_request(values)
        assert "\n" not in str(refusal.value)
        assert len(str(refusal.value)) < 1_000


@given(st.text(max_size=60))
def test_no_text_leaves_the_folder_of_shops(text: str) -> None:
    try:
        shop = read_request({"shop": text}).shop
    except InputError:
        return
    assert shop.startswith("conf/shops/")
    assert ".." not in shop
