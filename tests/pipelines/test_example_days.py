"""Which partitions of examples a night writes: labels ripen, late events reach back, and then a partition is settled."""

import datetime as dt

import pytest

from pipelines.example_days import ExampleDay, days_to_write, in_groups

DAYS = [dt.date(2026, 2, day) for day in range(1, 11)]
NIGHT = DAYS[-1]


def reasons(labelled, touched=(), night=NIGHT, last=None):
    """Label windows last 3 days, and 6 days later nothing can come any more. The night before ran, if `last` is not told.

    Returns:
        the days that are written → why, and those that are looked at → what they know.
    """
    asked = {}

    def find(doubtful):
        asked.update(doubtful)
        return set(doubtful).intersection(touched)

    last = last or night - dt.timedelta(days=1)
    found = days_to_write([d for d in DAYS if d <= night], labelled, last, night, 3, 6, find)
    return {example.day.day: example.reason for example in found}, {day.day: since.day for day, since in asked.items()}


def after_each_night(last):
    """Return what partitions know that nights one by one, up to `last`, let ripen."""
    return {day: min(last, day + dt.timedelta(days=3)) for day in DAYS if day <= last}


def test_the_first_night_writes_all_also_when_it_is_run_again():
    for labelled in ({}, dict.fromkeys(DAYS, NIGHT)):
        assert days_to_write(DAYS, labelled, None, NIGHT, 3, 6, set) == [ExampleDay(day, "new") for day in DAYS]


def test_a_night_writes_its_own_day_and_what_ripens_and_looks_at_what_came_since_the_night_before():
    found, asked = reasons(after_each_night(DAYS[-2]))
    assert found == {7: "ripening", 8: "ripening", 9: "ripening", 10: "new"}
    assert asked == {4: 9, 5: 9, 6: 9}  # the night before saw the last that may come for the third


def test_a_late_event_reopens_exactly_what_it_touches():
    found, _ = reasons(after_each_night(DAYS[-2]), touched=[DAYS[4]])
    assert found == {5: "late events", 7: "ripening", 8: "ripening", 9: "ripening", 10: "new"}


def test_after_a_pause_what_had_not_ripened_is_written():
    found, asked = reasons(after_each_night(DAYS[5]), last=DAYS[5])
    assert found == {4: "ripening", 5: "ripening", 6: "ripening", 7: "new", 8: "new", 9: "new", 10: "new"}
    assert asked == {1: 6, 2: 6, 3: 6}  # labelled before their late events could all have come


@pytest.mark.parametrize("later", [0, 3])
def test_a_night_that_is_run_again_forgets_what_later_ones_knew(later):
    night = DAYS[6]
    known = {day: night + dt.timedelta(days=later) for day in DAYS[:7]}
    found, asked = reasons(known, touched=[DAYS[1]], night=night)
    assert found == {1: "again", 2: "late events", 3: "again", 4: "ripening", 5: "ripening", 6: "ripening", 7: "new"}
    assert asked == {1: 6, 2: 6, 3: 6}


def test_a_night_that_is_run_again_after_a_pause_tells_the_same():
    before = after_each_night(DAYS[5])
    found, asked = reasons(before, touched=[DAYS[2]], last=DAYS[5])
    again = before | {DAYS[day - 1]: NIGHT for day in found}
    assert reasons(again, touched=[DAYS[2]], last=DAYS[5]) == (found, asked)


def test_nights_after_one_that_was_run_again_do_not_count():
    """The fifth was run again after the eighth: what had ripened since is to be written, and looked at since the fifth."""
    known = after_each_night(DAYS[7]) | dict.fromkeys(DAYS[1:5], DAYS[4])
    found, asked = reasons(known, night=DAYS[8])
    assert found == {3: "ripening", 4: "ripening", 5: "ripening", 6: "ripening", 7: "ripening", 8: "ripening", 9: "new"}
    assert asked == {1: 5, 2: 5}


def test_days_come_in_groups_that_memory_can_hold():
    rows = dict(zip(DAYS, [4, 4, 3, 20, 1, 9], strict=False))
    groups = in_groups(rows, 10)
    assert [day for group in groups for day in group] == sorted(rows)
    assert [[rows[day] for day in group] for group in groups] == [[4, 4], [3], [20], [1, 9]]
    assert in_groups(dict.fromkeys(DAYS, 0), 10) == [DAYS]
    assert in_groups({}, 10) == []
