import re
from pathlib import Path

import pytest

from nightshelf.column_lineage import lineage_of
from nightshelf.config import load_shop
from nightshelf.lineage import MADE, RAW, made_of
from nightshelf.table_spec import Column
from nightshelf.tables import table_specs
from nightshelf.units import unit_of

SHOPS = Path(__file__).resolve().parents[2] / "conf/shops"
DEMO = SHOPS / "demo.yaml"


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


@pytest.mark.parametrize("file", sorted(SHOPS.glob("*.yaml")), ids=lambda file: file.stem)
def test_every_column_has_a_lineage_and_every_number_a_unit(file: Path) -> None:
    shop = load_shop(file)
    specs = table_specs(shop)
    for name, spec in specs.items():
        for column in spec.columns:
            told = lineage_of(name, column.name, specs)
            assert told, (name, column.name)
            for table, other in re.findall(r"\b([a-z_]+)\.(\w+)", told):
                assert other in specs[table].column_names, (name, column.name, told)
            if column.type not in ("string", "bool"):
                assert unit_of(column, shop), (name, column.name)


def test_lineage_names_the_columns_that_a_feature_is_computed_from() -> None:
    shop = load_shop(SHOPS / "demo.yaml")
    specs = table_specs(shop)
    assert lineage_of("training_examples", "user_cart_count_7d", specs) == "user_features.user_cart_count_7d"
    assert lineage_of("user_features", "user_cart_count_7d", specs) == "computed: user_days.cart_count"
    rate = lineage_of("user_features", "user_in_product_page_cart_rate_30d", specs)
    assert rate == "computed: user_days.cart_attributed, user_days.impression_count"
    rate = lineage_of("item_features", "item_category_3_click_rate_30d", specs)
    assert rate == "computed: item_days.click_attributed, item_days.impression_count, items.category_3"
    assert lineage_of("user_features", "user_device_index", specs) == "computed: users.user_device, vocabularies.index"
    assert lineage_of("events", "price", specs) == "the field that the shop file names"
    with pytest.raises(KeyError):
        lineage_of("user_features", "strange", specs)


def test_a_unit_follows_the_kind_of_the_task() -> None:
    shop = load_shop(SHOPS / "demo.yaml")
    names = ("p_spend", "p_click", "label_click", "item_log_price")
    units = {name: unit_of(Column(name, "float64", ""), shop) for name in names}
    assert units == {
        "p_spend": "the shop's currency",
        "p_click": "probability, 0 … 1",
        "label_click": "0 or 1",
        "item_log_price": "natural logarithm of 1 + the shop's currency",
    }
    with pytest.raises(KeyError):
        unit_of(Column("strange", "float64", ""), shop)


def test_no_label_is_among_the_features() -> None:
    from nightshelf.features import dense_features, index_features

    shop = load_shop(DEMO)
    names = [f.name for f in [*index_features(shop), *dense_features(shop)]]
    assert len(set(names)) == len(names)
    assert not [name for name in names if name.startswith(("label_", "mask_"))]
