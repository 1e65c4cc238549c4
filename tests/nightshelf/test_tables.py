from pathlib import Path

from nightshelf.config import load_shop
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


def test_no_label_is_among_the_features() -> None:
    from nightshelf.features import dense_features, index_features

    shop = load_shop(DEMO)
    names = [f.name for f in [*index_features(shop), *dense_features(shop)]]
    assert len(set(names)) == len(names)
    assert not [name for name in names if name.startswith(("label_", "mask_"))]
