"""The schema that a table's spec means in Arrow, and so in Parquet and Iceberg."""

import pyarrow as pa

from nightshelf.table_spec import ColumnType, TableSpec

_ARROW: dict[ColumnType, pa.DataType] = {
    "string": pa.string(),
    "int32": pa.int32(),
    "int64": pa.int64(),
    "float32": pa.float32(),
    "float64": pa.float64(),
    "bool": pa.bool_(),
    "date": pa.date32(),
    "timestamp": pa.timestamp("us", tz="UTC"),
    "list<int32>": pa.list_(pa.int32()),
    "list<float32>": pa.list_(pa.float32()),
}


def arrow_schema(spec: TableSpec) -> pa.Schema:
    """Return the Arrow schema of a table."""
    return pa.schema([pa.field(c.name, _ARROW[c.type], nullable=True) for c in spec.columns])


def conform(rows: pa.Table, spec: TableSpec) -> pa.Table:
    """Return rows with the columns of a spec, in its order, cast to its types."""
    return rows.select(spec.column_names).cast(arrow_schema(spec))
