"""Keeps the state of a chunk of users, and the rows that wait for a later day, from evening to morning."""

from pathlib import Path

import numpy as np

from simulation.people import DayBook, UserState
from simulation.plan import Plan, catalogue_of, day_folder, people_of
from simulation.rows import COLUMNS, Rows, make_rows

_BOOKS = ("clicked", "carted", "bought", "bought_leaf")


def save_state(folder: Path, chunk: int, state: UserState, waiting: Rows) -> None:
    """Write the state of a chunk at the end of the day to which `folder` belongs."""
    arrays = {name: value for name, value in vars(state).items() if name not in _BOOKS}
    for name in _BOOKS:
        book: DayBook = getattr(state, name)
        arrays |= {f"{name}.keys": book.keys, f"{name}.days": book.days}
    arrays |= {f"waiting.{name}": waiting[name] for name in COLUMNS}
    np.savez(folder / f"state-{chunk:04d}.npz", **arrays)


def load_state(plan: Plan, truth: Path, day: int, chunk: int) -> tuple[UserState, Rows]:
    """Return the state at the end of `day` (-1: before the first day), and the rows that wait for later days."""
    if day < 0:
        return UserState.fresh(people_of(plan, chunk), catalogue_of(plan)), make_rows(0)
    with np.load(day_folder(truth, plan.date(day)) / f"state-{chunk:04d}.npz") as saved:
        arrays = dict(saved)
    waiting = {name: arrays.pop(f"waiting.{name}") for name in COLUMNS}
    state = UserState(**{name: value for name, value in arrays.items() if "." not in name})
    for name in _BOOKS:
        setattr(state, name, DayBook(arrays[f"{name}.keys"], arrays[f"{name}.days"]))
    return state, waiting
