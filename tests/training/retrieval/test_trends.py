"""How much items are turned to of late, beside a loop over all acts."""

from dataclasses import replace

import numpy as np
import pytest

from training.retrieval.trends import trend_moments, trends

MIDNIGHTS = 1_770_000_000.0 - 86_400.0 * np.arange(25, -1, -1)


def test_moments_are_the_midnights_and_what_lies_evenly_between():
    midnights = np.array([0.0, 86_400.0, 86_400.0 + 23 * 3600])  # the second day has 23 hours
    assert trend_moments(midnights, 1).tolist() == midnights.tolist()
    hours = trend_moments(midnights, 24)
    assert (len(hours), hours[0], hours[24], hours[48]) == (49, *midnights)
    np.testing.assert_allclose(np.diff(hours), [3600.0] * 24 + [3600 * 23 / 24] * 24)


@pytest.mark.parametrize("per_day", [1, 6])
def test_trends_are_what_each_moment_knew(journeys_of, per_day):
    walked, moments = journeys_of([[0, 1, 0], [2], [1, 1]], days=4), trend_moments(MIDNIGHTS, per_day)
    walked.seconds[1] = moments[-2]  # at the very moment: not before it
    found = trends(walked, 3, moments, [1.0, 5.0])
    for number, moment in enumerate(moments):
        for place, half_life in enumerate((1.0, 5.0)):
            age = (moment - walked.seconds) / 86_400
            weight = np.where(age > 0, 0.5 ** (age / half_life), 0)
            expected = [np.log1p(weight[walked.item == item].sum()) for item in range(3)]
            np.testing.assert_allclose(found[number, :, place], expected, atol=1e-5)


def test_what_comes_at_a_moment_or_later_changes_nothing_there(journeys_of):
    walked, moments = journeys_of([[0, 1, 2, 0], [2, 1], [1, 1, 0]], days=4), trend_moments(MIDNIGHTS, 6)
    now = len(moments) - 9
    is_later = walked.seconds >= moments[now]
    assert 0 < is_later.sum() < len(walked)
    other = replace(walked, item=np.where(is_later, (walked.item + 1) % 3, walked.item))
    first, second = (trends(acts, 3, moments, [0.1, 5.0]) for acts in (walked, other))
    assert (first[: now + 1] == second[: now + 1]).all()
    assert (first[now + 1 :] != second[now + 1 :]).any()
