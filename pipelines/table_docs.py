"""Write docs/tables.md from the table specs: `python -m pipelines.table_docs > docs/tables.md` (make docs)."""

import sys
from collections.abc import Iterator
from pathlib import Path

from nightshelf.config import load_shop
from nightshelf.table_spec import TableSpec
from nightshelf.tables import table_specs

_HEAD = """# The tables of the demo shop

Made by `make docs` from nightshelf/*_tables.py; columns that follow from the shop file (features, labels, predictions) are
shown as the demo shop has them. Every table has one partition a day, `as_of_date`, and is read with `nightshelf sql`.
"""


def tables_markdown() -> str:
    """Return the page: each table's grain, keys and columns."""
    shop = load_shop(Path(__file__).resolve().parent.parent / "conf" / "shops" / "demo.yaml")
    return "\n".join([_HEAD, *(line for spec in table_specs(shop).values() for line in _section(spec))])


def _section(spec: TableSpec) -> Iterator[str]:
    yield f"## {spec.name}\n"
    keys = f" Unique inside a partition: {', '.join(spec.keys)}." if spec.keys else ""
    yield f"One row per {spec.grain}.{keys}\n"
    yield "| column | type | null | meaning |\n|---|---|---|---|"
    for column in spec.columns:
        yield f"| {column.name} | {column.type} | {'yes' if column.nullable else ''} | {column.meaning} |"
    yield ""


if __name__ == "__main__":
    sys.stdout.write(tables_markdown())
