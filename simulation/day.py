"""One day of one chunk of users, from the state of the evening before to logs, truth and the state of this evening."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from simulation import behaviour, dirt
from simulation.behaviour import CHECKOUT, SCENARIOS, Chances
from simulation.catalogue import Catalogue, items_on
from simulation.people import begin_day
from simulation.plan import Plan, catalogue_of, day_folder, people_of
from simulation.policy import shelves_of
from simulation.rawlogs import FOLDERS, raw_lines, user_names, write_source
from simulation.rows import IMPRESSION, SOURCES, Rows, stack, take
from simulation.seeds import random_for
from simulation.statefile import load_state, save_state
from simulation.strangers import strangers
from simulation.traffic import draw_requests, end_day, pair_signals, react, show_items

_PAIRS_AT_ONCE = 200_000
_KIND_NAMES = ("impression", "click", "cart", "purchase")


def simulate_chunk(plan: Plan, day: int, home: Path, truth: Path, chunk: int) -> dict[str, Any]:
    """Simulate one chunk's day into the hidden folders that the caller made; return its statistics."""
    catalogue, people = catalogue_of(plan), people_of(plan, chunk)
    clock, item_day = plan.clock(day), items_on(catalogue, day)
    state, waiting = load_state(plan, truth, day - 1, chunk)
    state = begin_day(state, catalogue, item_day.season, random_for(plan.seed, "evolution", day, chunk))
    rng = random_for(plan.seed, "visits", day, chunk)
    requests = draw_requests(catalogue, people, state, item_day.season, clock, plan.impressions_per_user_day, rng)
    prefix = day * 10**12 + chunk * 10**8
    shown, context = show_items(catalogue, people, shelves_of(catalogue, item_day), item_day, requests, prefix, rng)
    chance = _chances(plan, chunk, day, shown, context, state, item_day)
    happened = react(shown, chance, clock, rng)
    now = happened["event_day"] == day
    today = stack([take(happened, now), take(waiting, waiting["event_day"] == day)])
    logged = _log(plan, day, chunk, today, np.flatnonzero(item_day.on_sale), clock.starts)
    written = stack([logged, take(waiting, waiting["event_day"] < day)])
    arriving = take(written, written["arrival"] == day)
    size = _write_logs(catalogue, plan, arriving, home, plan.date(day), chunk)
    end_day(catalogue, people, state, today, day, random_for(plan.seed, "evening", day, chunk))
    still_waiting = stack(
        [take(happened, ~now), take(waiting, waiting["event_day"] > day), take(written, written["arrival"] > day)]
    )
    folder = day_folder(truth, plan.date(day)).with_name(f".{plan.date(day)}.tmp")
    save_state(folder, chunk, state, still_waiting)
    pq.write_table(_outcomes(today), folder / f"outcomes-{chunk:04d}.parquet")
    pq.write_table(_dirt(plan, catalogue, arriving, day), folder / f"dirt-{chunk:04d}.parquet")
    counts = np.bincount(today["kind"], minlength=4)
    return {
        **dict(zip(("impressions", "clicks", "carts", "purchases"), counts.tolist(), strict=True)),
        "rows": len(arriving["ts"]),
        "bytes": size,
        "active_users": len(np.unique(requests.user)),
        **_predictability(shown, chance),
    }


def _chances(plan: Plan, chunk: int, day: int, shown: Rows, context: np.ndarray, state: Any, item_day: Any) -> Chances:
    """Return the outcome chances of the impressions, some at a time."""
    catalogue, people = catalogue_of(plan), people_of(plan, chunk)
    parts = []
    for start in range(0, max(1, len(context)), _PAIRS_AT_ONCE):
        part = slice(start, start + _PAIRS_AT_ONCE)
        item, user = shown["item"][part], shown["user"][part] - people.first
        signals = pair_signals(catalogue, people, state, item_day, day, user, item)
        near = catalogue.nearness[context[part], catalogue.leaf[item]]
        parts.append(behaviour.chances(shown["scenario"][part], signals, near))
    return Chances(*(np.concatenate([getattr(part, name) for part in parts]) for name in ("click", "cart", "purchase")))


def _log(plan: Plan, day: int, chunk: int, today: Rows, on_sale: np.ndarray, starts: np.ndarray) -> Rows:
    """Return today's rows as the logs will hold them: an hour lost, rows spoilt, strangers added."""
    rng = random_for(plan.seed, "dirt", day, chunk)
    logged = dirt.spoil(dirt.lose_hour(today, day, int(starts[0])), rng)
    if chunk:
        return logged
    home_rows = int((logged["source"] == 0).sum())
    return stack([logged, strangers(home_rows, on_sale, plan.users, day, starts, rng)])


def _write_logs(catalogue: Catalogue, plan: Plan, rows: Rows, home: Path, date: Any, chunk: int) -> int:
    size = 0
    for source, name in enumerate(FOLDERS):
        folder = home / "raw" / name / f".{date}.tmp"
        path = write_source(
            source, take(rows, rows["source"] == source), catalogue, plan.zone, folder, f"part-{chunk:04d}"
        )
        size += path.stat().st_size
    return size


def _outcomes(today: Rows) -> pa.Table:
    rows = take(today, today["kind"] != IMPRESSION)
    return pa.table({name: rows[name] for name in ("user", "item", "scenario", "kind", "ts")})


def _dirt(plan: Plan, catalogue: Catalogue, arriving: Rows, day: int) -> pa.Table:
    """Return the planted rows of today's logs: where they stand, how to know them, and the reason to find them by."""
    tables = []
    for source, name in enumerate(SOURCES):
        rows = take(arriving, (arriving["source"] == source) & (arriving["defect"] > 0))
        count = len(rows["ts"])
        tables.append(
            pa.table(
                {
                    "event_date": pa.array([plan.date(day)] * count, pa.date32()),
                    "source": pa.array([name] * count, pa.string()),
                    "reason": pa.array([dirt.DEFECTS[code] for code in rows["defect"]], pa.string()),
                    "user_id": user_names(rows["user"]),
                    "item_id": catalogue.skus.take(pa.array(rows["item"])),
                    "request_id": pa.array([f"r{request}" for request in rows["request"]], pa.string()),
                    "event_type": pa.array([_KIND_NAMES[kind] for kind in rows["kind"]], pa.string()),
                    "raw": pa.array(raw_lines(source, rows, catalogue, plan.zone), pa.string()),
                }
            )
        )
    return pa.concat_tables(tables)


def _predictability(shown: Rows, chance: Chances) -> dict[str, list[float]]:
    """Return sums by scenario from which the unpredictable share of outcomes follows: rows, chances, their squares."""
    scenario, seen = shown["scenario"], behaviour.examination(shown["scenario"], shown["position"])
    click = seen * chance.click
    cart = np.where(scenario == CHECKOUT, 0.0, click * chance.cart)
    purchase = click * chance.cart * chance.purchase
    sums = {"shown": np.ones(len(seen))}
    for task, p in (("click", click), ("cart", cart), ("purchase", purchase)):
        sums |= {f"chance_{task}": p, f"square_{task}": p * p}
    return {name: np.bincount(scenario, values, len(SCENARIOS)).tolist() for name, values in sums.items()}
