import pytest

from benchmarks.growth import exponent
from benchmarks.shelves import PROGRAMS, _power
from benchmarks.whole_shelves import Served
from nightshelf.parallel import cores
from nightshelf.stopwatch import Stopwatch
from pipelines.serve import _summary

READ = "part %d of 2: %d candidates of %d users read in %.1f s"


def served(shelves: int, seconds: float, pairs: int, spent: dict[str, float]) -> str:
    """Return what a part tells of its shelves."""
    watch = Stopwatch()
    watch.seconds.update(spent)
    watch.count("pairs", pairs)
    return _summary(shelves, seconds, watch)


def test_twice_the_seconds_for_twice_as_many_is_a_power_of_one() -> None:
    assert exponent((1000, 3.0), (2000, 6.0)) == 1.0
    assert exponent((1000, 3.0), (8000, 6.0)) == pytest.approx(1 / 3, abs=1e-3)


def test_a_search_grows_by_the_median_of_its_rounds() -> None:
    def trial(rate: float) -> dict[str, dict[str, float]]:
        return {name: {"users_per_s": rate} for name in PROGRAMS}

    rounds = {"200k": [trial(500), trial(500), trial(50)], "1m": [trial(100), trial(100), trial(100)]}
    assert _power(rounds, "ours") == 1.0


def test_parts_that_were_made_side_by_side_are_read_from_the_log() -> None:
    log = [
        READ % (1, 90, 30, 1.5),
        READ % (2, 60, 10, 0.5),
        served(60, 6.0, 300, {"all": 10.0, "scored": 8.0, "rows": 0.5}),
        served(20, 2.0, 100, {"all": 2.0, "scored": 1.8, "rows": 0.06}),
    ]
    found, together = Served.of("\n".join(log)), min(cores(), 2)
    assert (found.parts, found.users, found.shelves, found.pairs) == (2, 40, 80, 400)
    assert (found.read_s, found.serving_s) == (2.0 / together, 8.0 / together)
    assert found.shares == {"scored": 0.85, "chose": 0.11, "made_rows": 0.04}
