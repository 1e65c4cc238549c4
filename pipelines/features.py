"""Stage `features`: events → impressions, acts and sums of the day, features, sequences, graph, examples, candidates.

A day's logs are read once: they become impressions, acts, and the sums of user_days, item_days and user_category_days,
of which every window and decay is made. So a night costs one day of logs, however long its windows are. What earlier
days lack, on a shop's first night or after a pause, is made in the same pass. Each table goes to files first and the
tables after it read those files; nothing is published before all are written.
"""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa

from nightshelf.example_window import ExampleWindow
from nightshelf.logs import get_logger
from pipelines.attempt import Attempt
from pipelines.example_days import AGAIN, ExampleDay
from pipelines.feature_days import OF_LOGS
from pipelines.feature_writer import FeatureWriter
from pipelines.stage import Night, StageResult
from pipelines.validate import connect, view_files


def run(night: Night) -> StageResult:
    """Write the night's partitions, and those of earlier days that are missing.

    Raises:
        InputError: no event arrived in the history window.
    """
    from feature_jobs.session import spark_session

    writer = FeatureWriter(Attempt(night, spark_session(night.shop)), night)
    _write_all(writer)
    rows = writer.tables.publish()
    night.warehouse.publish_arrow(
        "example_days", _example_days(night, writer.examples), [night.as_of_date], night.run_id
    )
    _tell_left_out(night, writer.window)
    reopened = [str(example.day) for example in writer.examples if example.reason == "late events"]
    message = f"{len(writer.dates)} days, {rows['training_examples']} examples" + (
        f", late events reopened {', '.join(reopened)}" if reopened else ""
    )
    read = sum(rows[table] for table in OF_LOGS)
    return StageResult(read, sum(rows.values()), inputs=["events", "items", "users"], message=message)


def _example_days(night: Night, examples: list[ExampleDay]) -> pa.Table:
    """Return the rows of the table example_days: a run that does again what another did tells the same."""
    told = [example for example in examples if example.reason != AGAIN]
    return pa.table(
        {
            "as_of_date": pa.array([night.as_of_date] * len(told), pa.date32()),
            "example_date": pa.array([example.day for example in told], pa.date32()),
            "reason": pa.array([example.reason for example in told], pa.string()),
        }
    )


def _tell_left_out(night: Night, window: ExampleWindow) -> None:
    """Say how many examples nobody will learn from, because the shop file has no more the scenario that they are of."""
    connection = connect(night)
    files = night.warehouse.files("training_examples", window.days)
    view_files(connection, "examples", files, night.warehouse.specs["training_examples"])
    if counts := connection.execute(window.left_out("examples")).fetchall():
        told = ", ".join(f"{name} ({count})" for name, count in counts)
        get_logger("features").warning(
            "training_examples of scenarios that the shop file has no more are left out: %s", told
        )


def _write_all(w: FeatureWriter) -> None:
    """Write every table after those that it reads."""
    from feature_jobs.storage import clear_cache

    _together(w.impressions, w.acts)
    _together(w.item_days, w.user_category_days, w.user_days, w.sessions)
    _together(w.vocabularies, w.choose_examples)
    _together(w.look_back, w.item_features, w.user_features, w.user_sequences, w.user_scenario_sequences)
    _together(w.item_scenario_features, w.item_graph, w.attribute_features)
    _together(w.training_examples, w.candidates, w.user_category_features, w.user_scenario_features)
    _together(w.normalization)
    clear_cache(w.tables.spark)


def _together(*writes: Callable[[], object]) -> None:
    """Write two tables at a time: planning and compiling keep one core busy, and the others can compute."""
    with ThreadPoolExecutor(2) as pool:
        for done in [pool.submit(_timed, write) for write in writes]:
            done.result()


def _timed(write: Callable[[], object]) -> None:
    """Do one part of the stage and say how long it took: a first night of a large shop takes hours."""
    start = time.perf_counter()
    write()
    get_logger("features").info("features: %s, %.1f s", write.__name__, time.perf_counter() - start)
