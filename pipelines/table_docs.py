"""Write docs/tables.md from the table specs: `python -m pipelines.table_docs > docs/tables.md` (make docs).

The examples come from docs/examples.json, which `python -m pipelines.table_docs --examples conf/shops/demo.yaml` writes anew from
the newest night of that shop.
"""

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import duckdb

from nightshelf.column_lineage import lineage_of
from nightshelf.config import Shop, load_shop
from nightshelf.lineage import MADE
from nightshelf.table_spec import TableSpec
from nightshelf.tables import table_specs
from nightshelf.units import unit_of
from pipelines.warehouse import Warehouse

_ROOT = Path(__file__).resolve().parent.parent
_EXAMPLES = _ROOT / "docs" / "examples.json"
_LONGEST = 40
_HEAD = """# The tables of the demo shop

Made by `make docs` from nightshelf/*_tables.py and nightshelf/lineage.py; columns that follow from the shop file (features,
labels, predictions) are shown as the demo shop has them. Every table has one partition a day, `as_of_date`, and is read with
`nightshelf sql`. *from* names the column that a value is taken from as it is, or, after "computed", what it is made of. The
examples are of one night of the demo shop; a column that was null throughout has none.
"""


def tables_markdown() -> str:
    """Return the page: each table's grain, keys, stage and inputs, and its columns with unit, lineage and an example."""
    shop = load_shop(_ROOT / "conf" / "shops" / "demo.yaml")
    examples = json.loads(_EXAMPLES.read_text())
    return "\n".join([_HEAD, *(line for spec in table_specs(shop).values() for line in _section(spec, shop, examples))])


def _section(spec: TableSpec, shop: Shop, examples: dict[str, dict[str, str]]) -> Iterator[str]:
    yield f"## {spec.name}\n"
    keys = f" Unique inside a partition: {', '.join(spec.keys)}." if spec.keys else ""
    made = MADE[spec.name]
    origin = f" Made by {made.stage}" + (f" from {', '.join(made.of)}." if made.of else ".")
    yield f"One row per {spec.grain}.{keys}{origin}\n"
    yield "| column | type | null | meaning | unit | from | example |\n|---|---|---|---|---|---|---|"
    specs = table_specs(shop)
    for column in spec.columns:
        example = examples.get(spec.name, {}).get(column.name, "")
        cells = [column.name, column.type, "yes" if column.nullable else "", column.meaning, unit_of(column, shop)]
        cells += [lineage_of(spec.name, column.name, specs), example and f"`{example}`"]
        yield f"| {' | '.join(cells)} |"
    yield ""


def table_examples(warehouse: Warehouse) -> dict[str, dict[str, str]]:
    """Return table → column → a value of its newest partition: of the row with the first keys where it is not null."""
    examples = {}
    for name, spec in warehouse.specs.items():
        days = warehouse.partitions(name)
        if days:
            rows = warehouse.read(name, days[-1:])
            examples[name] = _first_values(rows, spec)
    return examples


def _first_values(rows: object, spec: TableSpec) -> dict[str, str]:
    order = ", ".join(f'"{key}"' for key in spec.keys) or "ALL"
    connection = duckdb.connect()
    connection.execute("SET TimeZone = 'UTC'")
    connection.register("rows", rows)
    found = {}
    for column in spec.columns:
        query = f'SELECT CAST("{column.name}" AS VARCHAR) FROM rows WHERE "{column.name}" IS NOT NULL ORDER BY {order} LIMIT 1'
        values = connection.execute(query).fetchall()
        if values and values[0][0]:
            text = " ".join(values[0][0].replace("|", "¦").replace("`", "'").split())
            found[column.name] = text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"
    return found


def main() -> None:
    """Write the page, or the examples."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--examples", type=Path, help="a shop file; write docs/examples.json from its newest night")
    asked = parser.parse_args()
    if asked.examples:
        examples = table_examples(Warehouse(load_shop(asked.examples)))
        _EXAMPLES.write_text(json.dumps(examples, indent=1, ensure_ascii=False) + "\n")
    else:
        sys.stdout.write(tables_markdown())


if __name__ == "__main__":
    main()
