"""Which partitions of examples a night writes: labels ripen, late events reach back, and then a partition is settled."""

import datetime as dt

import pytest

from pipelines.example_days import days_to_write, in_groups

DAYS = [dt.date(2026, 2, day) for day in range(1, 11)]
NIGHT = DAYS[-1]


def reasons(labelled, touched=(), night=NIGHT):
    """Label windows last 3 days, and events are up to 2 days late: 6 days later a partition is settled."""
    asked = {}

    def find(doubtful):
        asked.update(doubtful)
        return set(doubtful).intersection(touched)

    found = days_to_write([d for d in DAYS if d <= night], labelled, night, 3, 6, find)
    return {example.day.day: example.reason for example in found}, {day.day: since.day for day, since in asked.items()}


def test_the_first_night_writes_all():
    assert reasons({}) == (dict.fromkeys(range(1, 11), "new"), {})


def test_a_night_writes_its_own_day_and_what_ripens():
    before = {day: NIGHT - dt.timedelta(days=1) for day in DAYS[:-1]}
    assert reasons(before) == ({7: "ripening", 8: "ripening", 9: "ripening", 10: "new"}, {4: 9, 5: 9, 6: 9})


def test_a_late_event_reopens_exactly_what_it_touches():
    before = {day: NIGHT - dt.timedelta(days=1) for day in DAYS[:-1]}
    found, _ = reasons(before, touched=[DAYS[4]])
    assert found == {5: "late events", 7: "ripening", 8: "ripening", 9: "ripening", 10: "new"}


def test_after_a_pause_what_had_not_ripened_is_written():
    paused = dict.fromkeys(DAYS[:6], DAYS[5])
    found, asked = reasons(paused)
    assert found == {4: "ripening", 5: "ripening", 6: "ripening", 7: "new", 8: "new", 9: "new", 10: "new"}
    assert asked == {1: 6, 2: 6, 3: 6}  # labelled before their late events could all have come


@pytest.mark.parametrize("later", [0, 3])
def test_a_night_that_is_run_again_forgets_what_later_ones_knew(later):
    night = DAYS[6]
    known = {day: night + dt.timedelta(days=later) for day in DAYS[:7]}
    found, _ = reasons(known, night=night)
    assert found == {2: "again", 3: "again", 4: "ripening", 5: "ripening", 6: "ripening", 7: "new"}


def test_days_come_in_groups_that_memory_can_hold():
    rows = dict(zip(DAYS, [4, 4, 3, 20, 1, 9], strict=False))
    groups = in_groups(rows, 10)
    assert [day for group in groups for day in group] == sorted(rows)
    assert [[rows[day] for day in group] for group in groups] == [[4, 4], [3], [20], [1, 9]]
    assert in_groups(dict.fromkeys(DAYS, 0), 10) == [DAYS]
    assert in_groups({}, 10) == []
