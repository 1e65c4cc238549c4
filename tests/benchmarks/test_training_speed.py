import pytest

from benchmarks.training_speed import OURS, json_line, medians_of, ratios_of


def trials(ours, rechub, fuxictr):
    rest = {"load": 9.0, "predict": 8.0, "peak_gb": 0.5}
    rates = {"ours": ours, "ours, averaged": 0.9 * ours, "rechub": rechub, "deepctr": 1.0, "fuxictr": fuxictr}
    return {name: {"train": rate, "auc": rate / 1000, **rest} for name, rate in rates.items()}


# The second round fell into a slow spell, which hit all programs alike.
ROUNDS = [trials(100.0, 10.0, 20.0), trials(10.0, 1.0, 2.0), trials(120.0, 10.0, 30.0)]


def test_ratios_are_those_of_programs_that_ran_one_after_the_other():
    assert ratios_of(ROUNDS, "ours") == (10.0, 5.0)
    assert ratios_of(ROUNDS, "ours, averaged") == (9.0, 4.5)


def test_the_line_says_what_was_measured_of_each_program():
    line = json_line({2048: medians_of(ROUNDS)}, {name: {"2048": ratios_of(ROUNDS, name)} for name in OURS})
    assert line["rows_per_s"] == {
        "ours": {"2048": 100},
        "ours, averaged": {"2048": 90},
        "rechub": {"2048": 10},
        "deepctr": {"2048": 1},
        "fuxictr": {"2048": 20},
    }
    assert line["ratio_rechub"] == {"2048": 10.0} and line["ratio_fastest_peer"] == {"2048": 5.0}
    assert line["averaged_ratio_fastest_peer"] == {"2048": 4.5}
    assert (line["auc_ours"], line["auc_best_peer"]) == (0.1, 0.02)
    assert line["peak_gb"] == 0.5 and line["peak_gb_peers"] == pytest.approx(
        dict.fromkeys(("rechub", "deepctr", "fuxictr"), 0.5)
    )
