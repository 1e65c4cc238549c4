"""Every table of nightshelf, by name. Columns that depend on the shop (features, labels) come from nightshelf/features.py."""

from nightshelf.config import Shop
from nightshelf.daily_tables import daily_tables
from nightshelf.feature_tables import feature_tables
from nightshelf.ledger_tables import ledgers
from nightshelf.log_tables import log_tables
from nightshelf.shelf_tables import shelf_tables
from nightshelf.table_spec import TableSpec


def table_specs(shop: Shop) -> dict[str, TableSpec]:
    """Return the spec of every table of this shop, by name."""
    return {
        spec.name: spec
        for spec in [*log_tables(shop), *daily_tables(shop), *feature_tables(shop), *shelf_tables(shop), *ledgers()]
    }
