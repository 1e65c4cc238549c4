from pathlib import Path
from typing import get_args

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks import recipes
from benchmarks.recipes import (
    BACKBONES,
    BALANCES,
    ENCODERS,
    RELATIONS,
    Trained,
    _bounds,
    _losses,
    _smallest,
    measured_cells,
    variants,
)
from nightshelf.config import load_shop
from nightshelf.errors import InputError
from training.bootstrap import user_draws
from training.data import TrainingInputs
from training.recipe import EncoderSizes, TaskRelation, load_recipe

CELLS = [("home", "click"), ("cart", "click")]


def drawn(gain=0.0, seed=0, users=400):
    """Return GAUC of two cells, the first one better by `gain`; one user in four has none in the second."""
    rng = np.random.default_rng(seed)
    weight = rng.integers(1, 9, users).astype(float)
    first, second = 0.6 + 0.05 * rng.standard_normal((2, users))
    second[::4] = np.nan
    return {CELLS[0]: (first + gain, weight), CELLS[1]: (second, weight)}


def test_every_backbone_balance_encoder_and_relation_is_a_recipe_of_its_own():
    made = variants(load_recipe(Path("conf/models/ple.yaml")))
    assert len(made) == len(BACKBONES) + 1 + len(BALANCES) + len(ENCODERS) + len(RELATIONS)
    assert {recipe.backbone.kind for recipe in made.values()} == set(BACKBONES)
    assert {recipe.balancing for recipe in made.values()} == set(BALANCES)
    kinds = {
        kind
        for sizes in get_args(get_args(EncoderSizes)[0])
        for kind in get_args(sizes.model_fields["kind"].annotation)
    }
    assert {recipe.sequence_encoder.kind for recipe in made.values()} == kinds == set(ENCODERS)
    assert {recipe.task_relation for recipe in made.values()} == {"esmm", *RELATIONS} == set(get_args(TaskRelation))
    assert not any(recipe.warm_start for recipe in made.values())


def test_the_mean_counts_cells_alike_and_users_by_weight():
    model, draws = Trained([drawn(), drawn(seed=1)], 1.0), user_draws(400, 0, 20)
    found = model.replicates(CELLS, draws)
    assert found.shape == (21,)
    expected = []
    for gauc in model.gauc:
        for value, weight in gauc.values():
            kept = np.isfinite(value)
            expected.append(np.average(value[kept], weights=weight[kept]))
    assert found[0] == pytest.approx(np.mean(expected))
    assert 0 < found[1:].std() < 0.01


@pytest.mark.parametrize("seeds", [3, 5])
def test_bounds_know_what_chance_did_in_the_trainings(seeds):
    rng, covered = np.random.default_rng(3), []
    for _ in range(200):
        models = [Trained([drawn(rng.normal(0, 0.01)) for _ in range(seeds)], 1.0) for _ in range(2)]
        draws = user_draws(400, 0, 200)
        one, other = (model.replicates(CELLS[:1], draws) for model in models)
        low, high = _bounds(one - other)
        covered.append(low <= 0 <= high)
    # The two are equal but for chance: bounds by users alone would all be narrower than any difference.
    assert 0.8 < np.mean(covered) <= 1


def test_a_model_that_is_worse_somewhere_is_told_with_its_bounds():
    draws = user_draws(400, 0, 200)
    control, better, worse = (Trained([drawn(gain)], 1.0) for gain in (0.0, 0.02, -0.02))
    assert _losses(better, {"single_task": control}, CELLS, draws) == []
    (told,) = _losses(worse, {"single_task": control}, CELLS, draws)
    assert told.startswith("single_task in home x click: -0.0200 (-0.0200 … -0.0200)")


def test_the_smallest_scenario_has_the_least_weight():
    assert _smallest({"one": Trained([drawn()], 1.0)}) == "cart"


def test_a_cell_with_few_users_is_not_measured():
    gauc = drawn()
    value, weight = np.full(400, np.nan), np.ones(400)
    value[:29] = 0.5
    assert measured_cells(Trained([{**gauc, ("campaign", "purchase"): (value, weight)}], 1.0)) == CELLS
    value[29] = 0.5
    assert len(measured_cells(Trained([{**gauc, ("campaign", "purchase"): (value, weight)}], 1.0))) == 3


def test_a_shop_with_too_few_users_is_told():
    with pytest.raises(InputError, match="no scenario and task has 30 users with an AUC"):
        measured_cells(Trained([drawn(users=20)], 1.0))


def test_models_apart_learn_from_their_own_rows_and_tasks_alone(monkeypatch, tmp_path):
    table = pa.table({"scenario": ["home", "cart", "home"], "label": [1.0, 0.0, 0.0]})
    pq.write_table(table, tmp_path / "day.parquet")
    shop, learnt = load_shop(Path("conf/shops/demo.yaml")), []
    shop = shop.model_copy(update={"scenarios": dict.fromkeys(("home", "cart"), shop.scenarios["cart"])})
    inputs = TrainingInputs(None, [tmp_path / "day.parquet"], [], [], [], [])

    def train(shop, recipe, inputs, out):
        rows = pa.concat_tables(pq.read_table(file) for file in inputs.training_examples)["scenario"].to_pylist()
        learnt.append((rows, {task for task, weight in recipe.task_weights.items() if weight}))
        out.mkdir()
        (out / "number").write_text(str(len(learnt)))

    def gauc(folder, shop, inputs):
        return {(s, t): int((folder / "number").read_text()) for s in shop.scenarios for t in ("click", "cart")}

    monkeypatch.setattr(recipes, "train_ranker", train)
    monkeypatch.setattr(recipes, "gauc_by_user", gauc)
    plain = load_recipe(Path("conf/models/ple.yaml"))
    by_task = recipes._train_apart("task_alone", plain, shop, inputs, 1)
    assert [tasks for _, tasks in learnt] == [{"click"}, {"cart"}, {"purchase"}]
    assert all(len(rows) == 3 for rows, _ in learnt)
    assert {cell: number for cell, number in by_task.gauc[0].items() if cell[0] == "home"} == {
        ("home", "click"): 1,
        ("home", "cart"): 2,
    }
    learnt.clear()
    by_scenario = recipes._train_apart("scenario_alone", plain, shop, inputs, 2)
    assert [rows for rows, _ in learnt] == [["home"] * 2, ["home"] * 2, ["cart"], ["cart"]]
    assert by_scenario.gauc[1] == {(s, t): n for s, n in (("home", 2), ("cart", 4)) for t in ("click", "cart")}
