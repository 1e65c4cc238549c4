"""`nightshelf weights`: would other weights of the tasks rank a scenario's shelves better? Asked of the test days."""

import datetime as dt
import json

import numpy as np
from rich.console import Console
from rich.table import Table

from nightshelf.config import Shop
from nightshelf.errors import InputError
from nightshelf.paths import artifact_dir, tracking_uri
from pipelines.models import champion_of, registered_name
from pipelines.night import check_scenarios
from pipelines.stage import night_of
from pipelines.train import training_inputs


def find_weights(shop: Shop, as_of_date: dt.date, scenarios: tuple[str, ...]) -> list[dict[str, object]]:
    """Return for each scenario the weights that rank best, with what they gain and its 95 % bounds.

    Raises:
        InputError: there is no champion or are no test days of the night, or no such scenario.
        EngineError: the model cannot be read.
    """
    from training.evaluate import predict_test_days
    from training.tracking import download, ensure_tracker
    from training.utility_weights import search_weights

    check_scenarios(shop, scenarios)
    night = night_of(shop, as_of_date, f"{as_of_date}-weights")
    ensure_tracker(tracking_uri(shop), artifact_dir(shop))
    version = champion_of(night)
    if version is None:
        raise InputError(f"{shop.shop} has no champion on {as_of_date}; a night that trains makes one")
    examples, predictions = predict_test_days(download(registered_name(night), version), shop, training_inputs(night))
    tasks, rows = list(shop.tasks), []
    for name in scenarios or tuple(shop.scenarios):
        scenario = shop.scenarios[name]
        names = list(dict.fromkeys([*scenario.utility, *scenario.rank_by]))
        columns = [tasks.index(task) for task in names]
        chosen = (examples.scenario == list(shop.scenarios).index(name) + 1) & (examples.masks[:, columns] > 0).all(
            axis=1
        )
        if not chosen.any():
            told = f"{', '.join(names)} of no impression of the test days; the label windows must have ended"
            raise InputError(
                f"scenario {name!r}: {as_of_date} knows all of {told}: ask a later night, or another --scenario"
            )
        worth, present = (
            np.array([of.get(task, 0.0) for task in names]) for of in (scenario.utility, scenario.weights)
        )
        seen, outcomes = predictions[chosen][:, columns], examples.labels[chosen][:, columns]
        found = search_weights(seen.astype(float), outcomes, worth, present, examples.user[chosen])
        weights = dict(zip(names, found.weights.tolist(), strict=True))
        row = {"scenario": name, "impressions": int(chosen.sum()), "now": found.now, "found": found.found}
        bounds = dict(zip(("gain", "lower", "upper"), found.difference or (None,) * 3, strict=True))
        rows.append({**row, **bounds, "weights": weights, "is_better": found.is_better})
    return rows


def print_weights(rows: list[dict[str, object]], output: str) -> None:
    """Print the rows as a table or as JSON."""
    if output == "json":
        print(json.dumps(rows))
        return
    if output != "table":
        raise InputError(f"--format {output!r} is none; write table or json")
    table = Table(
        "scenario", "impressions", "now", "found", "gain", title="share of all outcomes' worth that stands on top"
    )
    for row in rows:
        now, found, gain, lower, upper = (
            f"{row[name]:.4f}" if row[name] is not None else "-" for name in ("now", "found", "gain", "lower", "upper")
        )
        table.add_row(str(row["scenario"]), f"{row['impressions']:,}", now, found, f"{gain} ({lower} … {upper})")
    console = Console()
    console.print(table)
    for row in rows:
        weights = ", ".join(f"{task}: {weight:g}" for task, weight in row["weights"].items())  # type: ignore[attr-defined]
        advice = f"write rank_by: {{{weights}}}" if row["is_better"] else "no other weights are better beyond chance"
        console.print(f"{row['scenario']}: {advice}", soft_wrap=True, markup=False)
