"""The tracker: MLflow's client, and the only module that imports it. A tracker may be a database below home or a server.

A registered version's source is the folder `ranker` of its run: model.json, weights.safetensors and manifest.json as
training.artifact wrote them. Nothing in it is code or pickle; training.score.Ranker.load reads it.
"""

import os

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "3")  # a dead server is told in seconds, not minutes

import atexit
import logging
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from shutil import rmtree
from tempfile import mkdtemp
from urllib.parse import urlsplit
from urllib.request import url2pathname

import mlflow
from filelock import FileLock
from mlflow import MlflowClient
from mlflow.artifacts import download_artifacts
from mlflow.entities import Metric, Param, RunTag
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import (
    INVALID_PARAMETER_VALUE,
    RESOURCE_ALREADY_EXISTS,
    RESOURCE_DOES_NOT_EXIST,
    ErrorCode,
)
from mlflow.store.db import utils as database
from sqlalchemy.exc import SQLAlchemyError

from nightshelf.errors import EngineError, NightshelfError, without_login
from training.course import TrainingReport
from training.interruption import AskedToEnd
from training.recipe import Recipe

ARTIFACT = "ranker"
_NOT_THERE = {ErrorCode.Name(RESOURCE_DOES_NOT_EXIST), ErrorCode.Name(INVALID_PARAMETER_VALUE)}
_LOCK_SECONDS = 120
_LONGEST_TAG = 5000  # characters: a tracker takes no more
# The folder of artefacts of an embedded tracker, which its experiments are made with; a server has its own.
_artifact_root: dict[str, Path] = {}


def ensure_tracker(uri: str, artifact_dir: Path) -> None:
    """Use the tracker at `uri`; make or upgrade its database if it is embedded.

    Several processes that start at once migrate a database one after the other.

    Raises:
        EngineError: the database cannot be opened, or is being upgraded for too long.
    """
    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.ERROR)
    with _told(uri):
        mlflow.set_tracking_uri(uri)
        mlflow.set_registry_uri(uri)
        if uri.startswith("sqlite:///"):
            path = Path(uri.removeprefix("sqlite:///"))
            path.parent.mkdir(parents=True, exist_ok=True)
            artifact_dir.mkdir(parents=True, exist_ok=True)
            _artifact_root[uri] = artifact_dir
            with FileLock(f"{path}.lock", timeout=_LOCK_SECONDS):
                _upgrade(uri)


def log_training(name: str, report: TrainingReport, recipe: Recipe, folder: Path, tags: Mapping[str, str]) -> str:
    """Write a training into the experiment `name`: parameters, each epoch's metrics, the model's folder.

    Returns:
        the id of the run.

    Raises:
        EngineError: the tracker does not answer, or refuses; the run has the status FAILED, if it was begun.
    """
    with _told() as client, _run(client, name, tags) as run:
        _describe(client, run, recipe, report)
        client.log_artifacts(run, str(folder), ARTIFACT)
    return run


def log_failure(
    name: str, error: BaseException, report: TrainingReport | None, recipe: Recipe, tags: Mapping[str, str]
) -> str:
    """Write a training that ended without a model: a run with the tag `error`, and the epochs until then if there is a report.

    Its status is FAILED, or KILLED where the training was asked to end.

    Returns:
        the id of the run.

    Raises:
        EngineError: the tracker does not answer, or refuses.
    """
    with _told() as client:
        run = _begin_run(client, name, tags)
        _end_run(client, run, error)
        _describe(client, run, recipe, report)
    return run


@contextmanager
def _run(client: MlflowClient, name: str, tags: Mapping[str, str]) -> Iterator[str]:
    """Begin a run and end it, however the block does: none is left that seems to go on for ever."""
    run = _begin_run(client, name, tags)
    try:
        yield run
    except BaseException as error:
        with suppress(Exception):  # what ended the block is told
            _end_run(client, run, error)
        raise
    client.set_terminated(run)


def _begin_run(client: MlflowClient, name: str, tags: Mapping[str, str]) -> str:
    return str(client.create_run(_experiment(client, name), run_name=tags.get("run_id"), tags=dict(tags)).info.run_id)


def _end_run(client: MlflowClient, run: str, error: BaseException) -> None:
    told = str(error) if isinstance(error, NightshelfError) else f"{type(error).__name__}: {error}"
    client.set_tag(run, "error", told[:_LONGEST_TAG])
    is_asked = isinstance(error, AskedToEnd) or not isinstance(error, Exception)
    client.set_terminated(run, "KILLED" if is_asked else "FAILED")


def _describe(client: MlflowClient, run: str, recipe: Recipe, report: TrainingReport | None) -> None:
    """Write the recipe of a run, and the metrics of its report."""
    params = [Param(key, str(value)[:500]) for key, value in _flat(recipe.model_dump()).items()]
    if report is None:
        client.log_batch(run, params=params)
        return
    metrics = [
        Metric(key, value, 0, int(row["epoch"]))
        for row in report.epochs
        for key, value in row.items()
        if key != "epoch" and math.isfinite(value)
    ]
    metrics += [
        Metric(key, float(getattr(report, key)), 0, 0)
        for key in ("train_rows", "validation_rows", "test_rows", "best_epoch", "seconds", "halvings")
    ]
    client.log_batch(run, metrics, params, [RunTag("warm_started", str(report.warm_started).lower())])


def register(run: str, name: str, tags: Mapping[str, str]) -> str:
    """Register the model of a run as a new version of `name` and return the version.

    Raises:
        EngineError: the tracker does not answer, or refuses.
    """
    with _told() as client:
        try:
            client.create_registered_model(name)
        except MlflowException as error:
            if error.error_code != ErrorCode.Name(RESOURCE_ALREADY_EXISTS):
                raise
        source = f"{client.get_run(run).info.artifact_uri}/{ARTIFACT}"
        return str(client.create_model_version(name, source, run, tags=dict(tags)).version)


def set_alias(name: str, alias: str, version: str) -> None:
    """Let an alias name a version; the last writer wins, so write under a lock and read again."""
    with _told() as client:
        client.set_registered_model_alias(name, alias, version)


def get_alias(name: str, alias: str) -> str | None:
    """Return the version that an alias names, or None."""
    with _told() as client:
        try:
            return str(client.get_model_version_by_alias(name, alias).version)
        except MlflowException as error:
            if error.error_code in _NOT_THERE:
                return None
            raise


def versions(name: str) -> set[str]:
    """Return the versions of a model that the registry has, also those without an alias; none if it does not know the model."""
    with _told() as client:
        found: set[str] = set()
        token: str | None = None
        while token != "":
            page = client.search_model_versions(f"name = '{name}'", page_token=token)
            found |= {str(one.version) for one in page}
            token = page.token or ""
        return found


def get_tags(name: str, version: str) -> dict[str, str]:
    """Return the tags of a version."""
    with _told() as client:
        return dict(client.get_model_version(name, version).tags)


def set_tag(name: str, version: str, key: str, value: str) -> None:
    """Write one tag of a version."""
    with _told() as client:
        client.set_model_version_tag(name, version, key, value)


def download(name: str, version: str) -> Path:
    """Return a local folder with a version's model: the embedded tracker's own, or a copy of a server's.

    Raises:
        EngineError: there is no such version, or its files are gone.
    """
    with _told() as client:
        source = client.get_model_version_download_uri(name, version)
        target = None
        if not source.startswith(("/", "file:")):
            target = mkdtemp(prefix="nightshelf-")
            atexit.register(rmtree, target, ignore_errors=True)
        elif not _local(source).is_dir():  # what a server lacks, the server tells
            raise EngineError(
                f"the files of version {version} of {name} are gone: there is no {source}; see docs/runbook.md, "
                '"A model is damaged"'
            )
        return Path(download_artifacts(artifact_uri=source, dst_path=target))


def _local(source: str) -> Path:
    return Path(source if source.startswith("/") else url2pathname(urlsplit(source).path))


def _experiment(client: MlflowClient, name: str) -> str:
    found = client.get_experiment_by_name(name)
    if found is None:
        root = _artifact_root.get(mlflow.get_tracking_uri())
        try:
            return str(client.create_experiment(name, artifact_location=(root / name).as_uri() if root else None))
        except MlflowException as error:  # another process was first
            found = client.get_experiment_by_name(name)
            if found is None:
                raise error
    return str(found.experiment_id)


def _upgrade(uri: str) -> None:
    engine = database.create_sqlalchemy_engine_with_retry(uri)
    try:
        if database._is_empty_database(engine):
            database._initialize_tables(engine)
        elif database._get_schema_version(engine) != database._get_latest_schema_revision():
            database._upgrade_db(engine)
    finally:
        engine.dispose()


def _flat(values: Mapping[str, object], prefix: str = "") -> dict[str, object]:
    flat: dict[str, object] = {}
    for key, value in values.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat


@contextmanager
def _told(uri: str | None = None) -> Iterator[MlflowClient]:
    """Tell the tracker's failures in one line."""
    try:
        yield MlflowClient(uri, uri)
    except (MlflowException, SQLAlchemyError, OSError) as error:
        where = uri or mlflow.get_tracking_uri()
        where, told = (without_login(" ".join(text.split()))[:300] for text in (where, str(error)))
        raise EngineError(
            f"MLflow at {where}: {told}; see that it runs and that the disk has room, then run the stage again"
        ) from None
