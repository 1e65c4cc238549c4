"""### A fresh shelf for every shopper in every scenario, every night at 02:00 in the shop's time zone.

Where summer time begins at 02:00 (most of Europe and North America), so that one day a year has none: at 03:00.

Raw logs of the day that ended go in; the tables `recommendations`, `model_metrics` and `promotions` come out, and one HTML
report. Each task is one command, `nightshelf stage NAME --shop F --as-of-date D`: run it by hand to see what the task saw.

**Trigger it**: every field may stay empty. `as_of_date` is the last day whose logs the night may know; empty means the last
day that was complete, in the shop's time zone, when the run was asked for. `retrain: no` keeps the champion and only makes
new shelves. `scenarios`: only these shelves are made anew; none chosen means all.

**Red?** Each stage publishes everything or nothing, so yesterday's shelves are still there, and clearing the red task is
always safe. Exit code 2 (input or configuration) and 3 (a gate) are not retried: mend the cause first, then clear the task.
Exit code 4 (an engine or service) was retried twice. The error at the end of the log names value, place and remedy; all
stages of a night are in `nightshelf sql "select * from stage_runs"`. More in docs/runbook.md.

- `clean`: Reads the raw logs into `events`; what is broken goes to `quarantine` with its reason. *Red:* a source is
  missing, empty or changed its columns: ask who writes it, or correct the shop file; a day without logs that is no
  fault belongs under `closed:`.
- `validate_events`: Checks the day's events against expectations. *Red:* `data_checks` says which check, observed
  against expected. Most often the share in quarantine: look at its reasons.
- `features`: Makes impressions, labels, features, sequences, item graph and training examples, point-in-time. *Red:*
  an engine failure: memory or disk; raise `spark.driver_memory` in the shop file.
- `validate_examples`: Checks what the model will learn from, and learns how many candidates are worth ranking. *Red:*
  `data_checks` says which; a label rate that jumped is often a log that stopped.
- `retrieve`: Trains the two-tower model, if the shop file names one, and proposes candidates of the whole catalogue. *Red:*
  memory, or the recipe: the log names the key.
- `train`: Trains the challenger, from the champion's weights if there is one. *Red:* loss not finite: see the run in
  MLflow. A trigger with `retrain: no` still brings fresh shelves.
- `evaluate`: Measures challenger and champion on the same later impressions. *Red:* too few mature impressions: is a
  source late?
- `promote`: Makes the challenger champion if the gate says so; a no leaves the champion and is not red. *Red:* MLflow
  is away: nothing was promoted; clear the task when it is back.
- `shelves`: With `serving.tasks` in the shop file: serves a share of the users, beside other tasks. *Red:* features or model
  cannot be read: the log names the file.
- `recommend`: Gathers candidates, scores and ranks them for every user and scenario. Without a champion by
  popularity. *Red:* features or model cannot be read: the log names the file.
- `publish`: Audits the shelves and moves `recommendations` to them in one commit. *Red:* the audit said no: the old
  shelves stay up; `data_checks` says which rule.
- `export`: Copies the shelves to where the shop file's `exports` name: PostgreSQL, Redis, a folder. *Red:* a server is away; its
  readers have the version before, those of the others the new one. Clear the task when it is back.
- `report`: Writes the night's HTML report. *Red:* the shelves are out already: read the log, clear the task.
"""

import datetime as dt

from airflow.sdk import DAG, Asset, CronPartitionTimetable, Param, chain

from nightshelf.dates import unskipped_hour
from pipelines.airflow_stage import GPU_POOL, scheduled_shop, shelves, shop_param, stage, triage_notes
from pipelines.night_request import SCENARIO_PATTERN

SHOP_FILE, SHOP = scheduled_shop()
NOTES = triage_notes(__doc__)
START = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
# What a storefront's own DAG may wait for (PartitionedAssetTimetable hands it the same date).
RECOMMENDATIONS = Asset("recommendations")

with DAG(
    dag_id="nightly_recommendations",
    description="Raw logs in, a fresh shelf for every shopper in every scenario out.",
    doc_md=__doc__,
    # The run at 02:00 carries the day before as its partition key, and a backfill goes over partition keys. On a day
    # without a 02:00 the key would be that day itself, which is not over.
    schedule=CronPartitionTimetable(
        f"0 {unskipped_hour(SHOP.timezone, 2, START.date())} * * *",
        timezone=SHOP.timezone,
        run_offset=-1,
        key_format="%Y-%m-%d",
    ),
    start_date=START,
    catchup=False,
    max_active_runs=1,
    dagrun_timeout=dt.timedelta(hours=10),
    tags=["nightshelf", "nightly", SHOP.shop],
    params={
        "as_of_date": Param(
            None,
            type=["null", "string"],
            format="date",
            title="as_of_date",
            description="The last day whose logs the night may know. Empty: the last complete day in the shop's time zone.",
        ),
        "shop": shop_param(SHOP_FILE),
        "retrain": Param(
            True, type="boolean", title="Retrain", description="No: the champion stays, and only the shelves are new."
        ),
        "scenarios": Param(
            [],
            type="array",
            items={"type": "string", "pattern": SCENARIO_PATTERN},
            examples=sorted(SHOP.scenarios),
            title="Scenarios",
            description="The scenarios whose shelves are made anew; none means all.",
        ),
    },
) as dag:
    chain(
        stage("clean", NOTES),
        stage("validate_events", NOTES),
        stage("features", NOTES, hours=4),
        stage("validate_examples", NOTES),
        stage("retrieve", NOTES, hours=2, pool=GPU_POOL),
        stage("train", NOTES, hours=6, pool=GPU_POOL),
        stage("evaluate", NOTES),
        stage("promote", NOTES),
        *shelves(NOTES, SHOP.serving.tasks, hours=4),
        stage("recommend", NOTES, hours=4),
        stage("publish", NOTES, outlets=[RECOMMENDATIONS]),
        stage("export", NOTES),
        stage("report", NOTES),
    )
