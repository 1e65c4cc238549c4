from pathlib import Path

from nightshelf.config import load_shop
from nightshelf.lineage import MADE, RAW, made_of
from nightshelf.tables import table_specs

DEMO = Path(__file__).resolve().parents[2] / "conf/shops/demo.yaml"


def test_every_table_is_well_declared() -> None:
    specs = table_specs(load_shop(DEMO))
    for name, spec in specs.items():
        names = spec.column_names
        assert names[0] == "as_of_date", name
        assert len(set(names)) == len(names), name
        assert set(spec.keys) <= set(names), name
        assert all(column.meaning for column in spec.columns), name


def test_every_table_is_told_by_whom_and_of_what_it_is_made() -> None:
    specs = table_specs(load_shop(DEMO))
    assert set(MADE) == set(specs)
    for name, made in MADE.items():
        assert set(made.of) <= {*specs, RAW} - {name}, name
    assert made_of("training_examples", "item_cart_count_7d", specs) == "item_features.item_cart_count_7d"
    assert made_of("recommendations", "score", specs) == "shelf_drafts.score"
    assert made_of("anchor_lifts", "lift", specs) == ""


def test_no_label_is_among_the_features() -> None:
    from nightshelf.features import dense_features, index_features

    shop = load_shop(DEMO)
    names = [f.name for f in [*index_features(shop), *dense_features(shop)]]
    assert len(set(names)) == len(names)
    assert not [name for name in names if name.startswith(("label_", "mask_"))]
