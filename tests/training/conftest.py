"""A night's training inputs as Parquet files, drawn by the specs of nightshelf.tables, with a pattern worth learning."""

import datetime as dt
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from nightshelf.config import Shop, load_shop
from nightshelf.example_window import ExampleWindow
from nightshelf.features import (
    PRICE_BANDS,
    SEQUENCE_LENGTH,
    dense_features,
    index_features,
    item_dense,
    item_scenario_dense,
    sequence_events,
    user_dense,
)
from training.base_rates import regression_scales
from training.data import TrainingInputs, load_examples
from training.normalization import fit_normalization, load_normalization
from training.ranking_model import RankingModel
from training.recipe import Recipe
from training.spec import dense_names, model_spec
from training.steps import Steps

AS_OF = dt.date(2026, 2, 14)
DEMO = Path(__file__).parents[2] / "conf" / "shops" / "demo.yaml"


def _ids(rng, features, count, owner):
    columns = {}
    for feature in (f for f in features if f.owner == owner):
        own = feature.name in ("user_index", "item_index")
        top = count if own else (PRICE_BANDS if not feature.vocabulary else 8)
        columns[feature.name] = (np.arange(1, count + 1) if own else rng.integers(1, top + 1, count)).astype(np.int32)
    return columns


def _dense(rng, features, rows):
    return {
        f.name: rng.gamma(1.0, 2.0, rows).astype(np.float32) if "_count_" in f.name else rng.random(rows, np.float32)
        for f in features
    }


def _own(shop, items, user):
    """Return the lists of what a user may want again: some of the items of the user's taste."""
    kept = (items[: 1 + user % 3] + 1).tolist() if shop.rebuy else []
    return {"own_item_indexes": kept, "own_counts": [1.5] * len(kept), "own_age_days": [3.0] * len(kept)}


def write_inputs(
    shop: Shop, folder: Path, users=60, items=40, days=4, per_day=12, seed=0, files=1, as_of=AS_OF
) -> SimpleNamespace:
    """Write one night's tables: `per_day` impressions of each user and day; clicks follow the history's category."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    features = index_features(shop)
    user_ids, item_ids = _ids(rng, features, users, "user"), _ids(rng, features, items, "item")
    user_cols, item_cols = _dense(rng, user_dense(shop), users), _dense(rng, item_dense(shop), items)
    scenarios = list(shop.scenarios)
    pair = [_dense(rng, item_scenario_dense(shop), items) for _ in scenarios]
    feature_days = [as_of - dt.timedelta(days=days - d) for d in range(days)]
    lengths = rng.integers(0, SEQUENCE_LENGTH + 1, (days, users))
    taste = rng.integers(1, 9, users)
    by_taste = [np.flatnonzero(item_ids["category_3_index"] == t) for t in range(9)]
    sequences, liked = [], []
    for day in range(days):
        for u in range(users):
            own = by_taste[taste[u]]
            n = int(lengths[day, u]) if len(own) else 0
            sequences.append({
                "as_of_date": feature_days[day], "user_key": f"u{u:06d}", "user_index": u + 1,
                "item_indexes": (own[rng.integers(0, len(own), n)] + 1).tolist() if n else [],
                "event_type_indexes": rng.integers(1, len(sequence_events(shop)) + 1, n).tolist(),
                "scenario_indexes": rng.integers(1, len(scenarios) + 1, n).tolist(),
                "age_days": np.sort(rng.random(n) * 10)[::-1].tolist(),
                "shown_category_indexes": [int(taste[u]), 1 + u % 8], "shown_counts": [u % 5, 1], "shown_age_days": [2.0, 0.0],
                **_own(shop, own, u),
            })  # fmt: skip
            liked.append(n > 0)
    liked = np.array(liked).reshape(days, users)
    rows = days * users * per_day
    day, user = np.repeat(np.arange(days), users * per_day), np.tile(np.repeat(np.arange(users), per_day), days)
    item, scenario = rng.integers(0, items, rows), rng.integers(0, len(scenarios), rows)
    scenario = np.repeat(scenario[:: max(1, per_day // 3)], max(1, per_day // 3))[:rows]
    match = (item_ids["category_3_index"][item] == taste[user]) & liked[day, user]
    p_click = np.where(match, 0.7, 0.1)
    click = (rng.random(rows) < p_click).astype(np.float32)
    draws = {"click": click, "cart": click * (rng.random(rows) < 0.4), "purchase": click * (rng.random(rows) < 0.25)}
    draws["spend"] = draws["purchase"] * rng.gamma(2.0, 20.0, rows)
    names = [f.name for f in dense_features(shop)]
    table = {
        "as_of_date": [as_of] * rows,
        "impression_id": [f"{h:08x}" for h in rng.permutation(rows)],
        "event_date": [feature_days[d] + dt.timedelta(days=1) for d in day],
        "feature_date": [feature_days[d] for d in day],
        "impression_ts": [dt.datetime(2026, 2, 1, tzinfo=dt.UTC)] * rows,
        "labels_as_of": [as_of] * rows,
        "scenario": np.array(scenarios)[scenario],
        "user_key": [f"u{u:06d}" for u in user],
        "item_id": [f"i{i:06d}" for i in item],
        "request_id": [f"r{r // max(1, per_day // 3)}" for r in range(rows)],
        "position": (np.arange(rows) % max(1, per_day // 3) + 1).astype(np.int32),
        "propensity": np.zeros(rows, np.float32),
        "sample_weight": np.ones(rows, np.float32),
        **{name: values[user] for name, values in user_ids.items()},
        **{name: values[item] for name, values in item_ids.items()},
        **{name: values[user] for name, values in user_cols.items()},
        **{name: values[item] for name, values in item_cols.items()},
        **{f.name: np.stack([p[f.name] for p in pair])[scenario, item] for f in item_scenario_dense(shop)},
    }
    assert all(name in table for name in names)
    for name in shop.tasks:
        table[f"label_{name}"] = np.asarray(draws.get(name, click), np.float32)
        table[f"mask_{name}"] = np.ones(rows, np.float32)
    vocabulary = [
        {
            "as_of_date": as_of,
            "feature": f.vocabulary,
            "value": f"v{i}",
            "index": i,
            "bucket": 1 + i % 8,
            "since": as_of,
        }
        for f in features
        if f.vocabulary
        for i in range(1, int(max({**user_ids, **item_ids}[f.name])) + 1)
    ]
    list_type = {
        "item_indexes": pa.list_(pa.int32()),
        "event_type_indexes": pa.list_(pa.int32()),
        "scenario_indexes": pa.list_(pa.int32()),
        "age_days": pa.list_(pa.float32()),
        "shown_category_indexes": pa.list_(pa.int32()),
        "shown_counts": pa.list_(pa.int32()),
        "shown_age_days": pa.list_(pa.float32()),
        "own_item_indexes": pa.list_(pa.int32()),
        "own_counts": pa.list_(pa.float32()),
        "own_age_days": pa.list_(pa.float32()),
    }
    sequence_schema = pa.schema(
        [("as_of_date", pa.date32()), ("user_key", pa.string()), ("user_index", pa.int32()), *list_type.items()]
    )
    last = feature_days[-1]
    tables = {
        "user_features": pa.table(
            {"as_of_date": [last] * users, "user_key": [f"u{u:06d}" for u in range(users)], **user_ids, **user_cols}
        ),
        "item_features": pa.table(
            {"as_of_date": [last] * items, "item_id": [f"i{i:06d}" for i in range(items)], **item_ids, **item_cols}
        ),
        "item_scenario_features": pa.concat_tables(
            pa.table(
                {
                    "as_of_date": [last] * items,
                    "scenario": [s] * items,
                    "item_id": [f"i{i:06d}" for i in range(items)],
                    **p,
                }
            )
            for s, p in zip(scenarios, pair, strict=True)
        ),
        "user_sequences": pa.Table.from_pylist(sequences, schema=sequence_schema),
        "vocabularies": pa.table(
            {k: [row[k] for row in vocabulary] for k in ("as_of_date", "feature", "value", "since")}
            | {k: pa.array([row[k] for row in vocabulary], pa.int32()) for k in ("index", "bucket")}
        ),
    }
    paths = {}
    for name, content in tables.items():
        pq.write_table(content, folder / f"{name}.parquet")
        paths[name] = [folder / f"{name}.parquet"]
    examples = pa.table(table)
    paths["training_examples"] = []
    for part in range(files):
        path = folder / f"training_examples-{part}.parquet"
        pq.write_table(examples.slice(part * rows // files, (part + 1) * rows // files - part * rows // files), path)
        paths["training_examples"].append(path)
    window = ExampleWindow(
        feature_days[0], feature_days[-1], feature_days[-1] + dt.timedelta(days=1), as_of, tuple(shop.scenarios)
    )
    scales = fit_normalization(paths["training_examples"], names, window)
    paths["normalization"] = [folder / "normalization.parquet"]
    pq.write_table(pa.Table.from_pylist(scales), *paths["normalization"])
    inputs = TrainingInputs(
        window,
        paths["training_examples"],
        paths["user_sequences"],
        paths["item_features"],
        paths["vocabularies"],
        paths["normalization"],
    )
    return SimpleNamespace(
        inputs=inputs, paths=paths, scenarios=scenarios, feature_date=last, rows=rows, users=users, items=items
    )


def small_recipe(**changes) -> Recipe:
    """Return a recipe that trains in a blink."""
    small = {
        "embedding_size": 8,
        "bucketize": ["user_recency_days", "item_age_days"],
        "attention_size": 8,
        "backbone": {"kind": "ple", "expert_sizes": [16, 8]},
        "tower_sizes": [8],
        "batch_size": 256,
        "max_epochs": 2,
        "dropout": 0.0,
    }
    return Recipe.model_validate({"name": "small", **small, **changes})


@pytest.fixture(scope="session")
def demo_shop() -> Shop:
    return load_shop(DEMO)


@pytest.fixture(scope="session")
def night(demo_shop, tmp_path_factory) -> SimpleNamespace:
    return write_inputs(demo_shop, tmp_path_factory.mktemp("night"))


@pytest.fixture(scope="session")
def shelf(demo_shop, night):
    from training.shelf_features import ShelfFeatures

    tables = ("user_features", "item_features", "item_scenario_features", "user_sequences", "vocabularies")
    return ShelfFeatures.load(demo_shop, night.feature_date, *(night.paths[table] for table in tables))


@pytest.fixture(scope="session")
def trained(demo_shop, night, tmp_path_factory):
    from training.train_ranker import train_ranker

    folder = tmp_path_factory.mktemp("trained") / "ranker"
    report = train_ranker(demo_shop, small_recipe(max_epochs=4), night.inputs, folder)
    return SimpleNamespace(folder=folder, report=report)


@pytest.fixture(scope="session")
def make_night(demo_shop):
    return lambda folder, shop=demo_shop, **sizes: write_inputs(shop, folder, **sizes)


@pytest.fixture(scope="session")
def recipe():
    return small_recipe


@pytest.fixture(scope="session")
def example_night(demo_shop, night):
    return load_examples(demo_shop, night.inputs)


@pytest.fixture(scope="session")
def build(demo_shop, night, example_night):
    """Return build(recipe) → an untrained ranker of that recipe, and its spec."""

    def make(recipe: Recipe):
        users, targets = dense_names(demo_shop)
        normalization = load_normalization(night.inputs.normalization, [*users, *targets], recipe.bucketize)
        spec = model_spec(demo_shop, recipe, example_night.vocabularies, normalization, "2026-02-14")
        torch.manual_seed(0)
        return RankingModel(spec), spec

    return make


@pytest.fixture(scope="session")
def take_steps():
    """Return take_steps(model, dataset, count): moves the weights so many times by all rows; returns the losses."""

    def take(model, dataset, count):
        scales, ones = regression_scales(dataset, model.spec), torch.ones(len(model.spec.tasks))
        model.chain.log_scale.copy_(scales.log())
        steps, losses = Steps(model, scales), []
        model.train()
        for _ in range(count):
            losses.append(steps.gradient(dataset, torch.arange(len(dataset.chunks)), ones))
            steps.move()
        return losses

    return take
