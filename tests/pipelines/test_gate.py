import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.gate import decide

GOOD = {"auc_lower": 0.7, "calibration": 1.0}
BAD = [None, math.nan, math.inf, -math.inf]


def test_the_first_model_needs_no_opponent() -> None:
    assert decide(**GOOD, difference=None).promoted


def test_a_better_challenger_is_promoted() -> None:
    assert decide(**GOOD, difference=(0.002, -0.001)).promoted


@pytest.mark.parametrize(
    ("changed", "blamed"),
    [
        ({"difference": (0.0, 0.0)}, "better than the champion"),
        ({"difference": (-0.01, -0.02)}, "better than the champion"),
        ({"difference": (0.001, -0.006)}, "not worse by chance"),
        ({"auc_lower": 0.5}, "better than chance"),
        ({"calibration": 2.5}, "calibrated"),
        *(({"difference": (value, 0.0)}, "better than the champion") for value in BAD),
        *(({"difference": (0.01, value)}, "not worse by chance") for value in (None, math.nan, -math.inf)),
        *(({"auc_lower": value}, "better than chance") for value in BAD),
        *(({"calibration": value}, "calibrated") for value in BAD),
    ],
)
def test_anything_less_keeps_the_champion(changed: dict, blamed: str) -> None:  # type: ignore[type-arg]
    decision = decide(**(GOOD | {"difference": (0.01, 0.005)} | changed))
    assert not decision.promoted
    assert blamed in decision.reason
    json.dumps(decision.evidence(), allow_nan=False)


@given(st.floats(), st.floats(), st.floats(), st.floats())
def test_whatever_is_promoted_is_finite_and_better(auc: float, calibration: float, mean: float, lower: float) -> None:
    if decide(auc, calibration, (mean, lower)).promoted:
        assert all(map(math.isfinite, (auc, calibration, mean, lower)))
        assert auc > 0.5
        assert mean > 0
