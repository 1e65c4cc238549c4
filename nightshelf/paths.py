"""Where things lie below a shop's home."""

import datetime as dt
import os
from pathlib import Path

from nightshelf.config import Shop


def warehouse_dir(shop: Shop) -> Path:
    """Return the folder of the tables: data files and the Iceberg catalogue."""
    return shop.home / "warehouse"


def run_dir(shop: Shop, table: str, run_id: str) -> Path:
    """Return the folder, never written twice, in which one attempt writes its files of a table."""
    return warehouse_dir(shop) / "data" / table / f"run={run_id}"


def tracking_uri(shop: Shop) -> str:
    """Return the MLflow tracking and registry address: `$MLFLOW_TRACKING_URI`, or a database below home."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{shop.home / 'mlflow' / 'mlflow.db'}"


def artifact_dir(shop: Shop) -> Path:
    """Return the folder of MLflow's artefacts when the tracker is the embedded one."""
    return shop.home / "mlflow" / "artifacts"


def checkpoint_dir(shop: Shop, as_of_date: dt.date) -> Path:
    """Return the folder from which a night's training goes on after it was killed: the same in each attempt."""
    return shop.home / "checkpoints" / str(as_of_date)


def shelf_parts_dir(shop: Shop) -> Path:
    """Return the folder of finished parts of shelves that no night has taken over yet."""
    return shop.home / "shelf_parts"


def scratch_dir(shop: Shop) -> Path:
    """Return the folder of what a running stage does not keep in memory."""
    return shop.home / "tmp"


def report_file(shop: Shop, as_of_date: dt.date) -> Path:
    """Return the file of a night's report."""
    return shop.home / "reports" / f"{as_of_date}.html"


def views_file(shop: Shop) -> Path:
    """Return the DuckDB file whose views are the shop's tables."""
    return shop.home / f"{shop.shop}.duckdb"


def data_docs_file(shop: Shop, as_of_date: dt.date) -> Path:
    """Return the page of a night's data checks."""
    return shop.home / "data_docs" / str(as_of_date) / "index.html"


def truth_dir(shop: Shop) -> Path:
    """Return the folder of a simulated shop's truth, which no stage reads."""
    return shop.home / "truth"


def source_path(shop: Shop, pattern: str, event_date: dt.date | None = None) -> str:
    """Return a source's path: relative patterns start at home, `{event_date}` becomes the day."""
    if event_date is not None:
        pattern = pattern.replace("{event_date}", event_date.isoformat())
    if "://" in pattern:
        return pattern
    return os.path.normpath(shop.home / pattern)  # without `..`: Spark names the files that it read in this form
