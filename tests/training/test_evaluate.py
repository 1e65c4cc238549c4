import pytest
import torch
from sklearn.metrics import roc_auc_score

from nightshelf.errors import EngineError
from nightshelf.tables import table_specs
from training.artifact import OtherCodeError, OtherShopError, load_model, save_model
from training.batches import Dataset
from training.data import load_examples
from training.evaluate import compare, evaluate
from training.predict import predict
from training.train_ranker import train_ranker


def test_one_row_per_scenario_task_and_metric_with_bounds_around_the_value(demo_shop, night, trained):
    rows = evaluate(trained.folder, demo_shop, night.inputs)
    keys = [(row["scenario"], row["task"], row["metric"]) for row in rows]
    assert len(keys) == len(set(keys)) == 7 * (3 * 5 + 2)
    names = set(table_specs(demo_shop)["model_metrics"].column_names) - {"as_of_date", "model_version", "role"}
    for row in rows:
        assert set(row) == names
        if row["value"] is not None and row["lower"] is not None:
            assert row["lower"] <= row["value"] <= row["upper"]
    of = {(row["scenario"], row["task"], row["metric"]): row for row in rows}
    examples, model = load_examples(demo_shop, night.inputs, split="test"), load_model(trained.folder)
    place = [task.name for task in model.spec.tasks].index("click")
    scores = predict(model, Dataset(examples, model.spec)).at_first[:, place]
    assert of["*", "click", "auc"]["value"] == pytest.approx(roc_auc_score(examples.labels[:, place], scores))
    assert of["*", "click", "auc"]["lower"] > 0.55
    assert 0.5 < of["*", "click", "pcoc"]["value"] < 2
    assert sum(of[s, "click", "auc"]["rows"] for s in demo_shop.scenarios) == of["*", "click", "auc"]["rows"]


def test_a_model_ties_with_itself_and_beats_a_spoiled_one(demo_shop, night, trained, tmp_path):
    tie = compare(trained.folder, trained.folder, demo_shop, night.inputs)
    assert tie["comparable"] and tie["finite"]
    assert tie["gauc_difference"] == tie["gauc_difference_lower"] == tie["logloss_difference"] == 0
    spoiled = load_model(trained.folder)
    for layer in (spoiled.pair_layer, spoiled.wide_pair):
        layer.weight.data.neg_()
    save_model(spoiled, tmp_path / "spoiled")
    found = compare(trained.folder, tmp_path / "spoiled", demo_shop, night.inputs)
    assert found["gauc_difference_lower"] > 0
    assert found["gauc_challenger"] - found["gauc_champion"] == pytest.approx(found["gauc_difference"])
    assert found["logloss_difference_upper"] < 0
    assert found["tasks"]["click"]["gauc_difference"] > 0


def test_models_of_other_losses_and_relations_are_comparable(demo_shop, night, trained, build, recipe, tmp_path):
    model, _ = build(recipe(losses={"spend": "zero_inflated_lognormal"}, task_relation="aitm"))
    save_model(model, tmp_path)
    assert compare(trained.folder, tmp_path, demo_shop, night.inputs)["comparable"] is True


def test_a_champion_of_another_shop_is_not_comparable(demo_shop, night, trained, recipe, tmp_path):
    fewer = demo_shop.model_copy(update={"tasks": {"click": demo_shop.tasks["click"]}})
    train_ranker(fewer, recipe(max_epochs=1), night.inputs, tmp_path / "old")
    found = compare(trained.folder, tmp_path / "old", demo_shop, night.inputs)
    assert found["comparable"] is False
    assert "tasks" in found["reason"] and found["gauc_difference"] is None


def test_a_model_of_other_scenarios_is_not_measured(demo_shop, night, trained):
    """Rows bear the numbers of the shop file's scenarios, which would be others of the model's."""
    first, *others = demo_shop.scenarios.items()
    shop = demo_shop.model_copy(update={"scenarios": dict([*others, first])})
    with pytest.raises(OtherShopError, match="it was trained for other scenarios; train the model again"):
        evaluate(trained.folder, shop, night.inputs)


def test_a_champion_of_another_code_is_not_comparable_and_a_broken_one_is_an_error(
    demo_shop, night, trained, build, recipe, tmp_path
):
    model, _ = build(recipe())
    model.pair_layer = torch.nn.Linear(model.pair_layer.in_features - 1, model.pair_layer.out_features, bias=False)
    save_model(model, tmp_path)
    found = compare(trained.folder, tmp_path, demo_shop, night.inputs)
    assert found["comparable"] is False
    assert "do not fit this code" in found["reason"] and found["gauc_difference"] is None
    with pytest.raises(OtherCodeError, match="train the model again"):
        evaluate(tmp_path, demo_shop, night.inputs)
    (tmp_path / "model.json").write_text("{}")
    with pytest.raises(EngineError, match="differs from its hash") as broken:
        compare(trained.folder, tmp_path, demo_shop, night.inputs)
    assert not isinstance(broken.value, OtherCodeError)
