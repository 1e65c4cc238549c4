"""Turn the engine-neutral table specs into Spark's types, and close every transform with them."""

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from pyspark.sql.types import (
    ArrayType,
    BooleanType,
    DataType,
    DateType,
    DoubleType,
    FloatType,
    IntegerType,
    LongType,
    StringType,
    StructField,
    StructType,
    TimestampType,
)

from nightshelf.table_spec import ColumnType, TableSpec

SPARK_TYPES: dict[ColumnType, DataType] = {
    "string": StringType(),
    "int32": IntegerType(),
    "int64": LongType(),
    "float32": FloatType(),
    "float64": DoubleType(),
    "bool": BooleanType(),
    "date": DateType(),
    "timestamp": TimestampType(),
    "list<int32>": ArrayType(IntegerType()),
    "list<float32>": ArrayType(FloatType()),
}


def spark_schema(spec: TableSpec) -> StructType:
    """Return the Spark schema of a table; every column is nullable, as in its files."""
    return StructType([StructField(column.name, SPARK_TYPES[column.type]) for column in spec.columns])


def conformed(spec: TableSpec) -> list[Column]:
    """Return the columns of the spec in its order and types, for a select."""
    return [F.col(column.name).cast(SPARK_TYPES[column.type]).alias(column.name) for column in spec.columns]


def conform(df: DataFrame, spec: TableSpec) -> DataFrame:
    """Return exactly the columns of the spec, in its order and types: the closing select of every transform."""
    return df.select(conformed(spec))
