"""The promotion gate: a challenger takes the champion's place only if every check holds. Pure: numbers in, a decision out.

A tie does not promote, and neither does a number that is not finite: a comparison with NaN is false in every direction,
so each check asks for finite numbers first.
"""

import math
from dataclasses import asdict, dataclass

# The champion may be better by this much GAUC at most, at the lower 95 % bound of the paired bootstrap over users.
NON_INFERIORITY_MARGIN = 0.005
# Predicted over observed outcomes of the first task; outside, the probabilities are no probabilities.
CALIBRATION_RANGE = (0.5, 2.0)


@dataclass(frozen=True)
class Check:
    """One check of the gate: what was asked for, what was seen."""

    name: str
    observed: float | None
    expected: str
    passed: bool


@dataclass(frozen=True)
class Decision:
    """The gate's answer with its evidence."""

    promoted: bool
    reason: str
    checks: list[Check]

    def evidence(self) -> list[dict[str, object]]:
        """Return the checks as plain values, fit for JSON (a number that is not finite becomes its name)."""
        return [asdict(check) | {"observed": _plain(check.observed)} for check in self.checks]


def decide(
    auc_lower: float | None, calibration: float | None, difference: tuple[float | None, float | None] | None
) -> Decision:
    """Decide on a challenger.

    Args:
        auc_lower: lower 95 % bound of the challenger's AUC for the first task over all scenarios.
        calibration: its predicted over observed outcomes there.
        difference: mean and lower 95 % bound of its GAUC less the champion's on the same users and rows; None if there
            is no champion.
    """
    low, high = CALIBRATION_RANGE
    checks = [
        _check("better than chance: AUC, lower bound", auc_lower, "> 0.5", lambda value: value > 0.5),
        _check("calibrated: predicted / observed", calibration, f"{low} .. {high}", lambda value: low <= value <= high),
    ]
    if difference is not None:
        mean, lower = difference
        checks.append(_check("better than the champion: GAUC difference", mean, "> 0", lambda value: value > 0))
        checks.append(
            _check(
                "not worse by chance: GAUC difference, lower bound",
                lower,
                f"> -{NON_INFERIORITY_MARGIN}",
                lambda value: value > -NON_INFERIORITY_MARGIN,
            )
        )
    failed = [check for check in checks if not check.passed]
    if failed:
        first = failed[0]
        return Decision(
            False, f"kept the champion: {first.name} is {_plain(first.observed)}, expected {first.expected}", checks
        )
    return Decision(
        True,
        "promoted: every check held" + ("" if difference is not None else " (there was no champion to compare with)"),
        checks,
    )


def _check(name: str, observed: float | None, expected: str, holds) -> Check:  # type: ignore[no-untyped-def]
    return Check(name, observed, expected, observed is not None and math.isfinite(observed) and bool(holds(observed)))


def _plain(value: float | None) -> float | str:
    return "undefined" if value is None else round(value, 6) if math.isfinite(value) else str(value)
