"""### Keeps a shop's tables small, every Sunday at 06:00 in the shop's time zone.

Merges the many little files of the ledgers, forgets states of the tables that are older than `keep` in the shop file says, and
deletes the files that nobody can read any more, with parts of shelves that killed nights left. What the tables hold does not
change, and readers notice nothing.
The task is one command, `nightshelf maintain --shop F`; with `--dry-run` it only tells what it would delete.

- `maintain`: Merges, forgets and deletes, under the same lock as a night. *Red:* exit code 4: a night was running; it is
  tried again for six hours. Nothing is lost when it is ended in the middle: the next run goes on.
"""

import datetime as dt

from airflow.sdk import DAG, CronTriggerTimetable

from pipelines.airflow_stage import MaintainOperator, scheduled_shop, shop_param, triage_notes

SHOP_FILE, SHOP = scheduled_shop()

with DAG(
    dag_id="table_maintenance",
    description="Small files merged, old states forgotten, unreadable files deleted.",
    doc_md=__doc__,
    schedule=CronTriggerTimetable("0 6 * * 0", timezone=SHOP.timezone),
    start_date=dt.datetime(2026, 1, 1, tzinfo=dt.UTC),
    catchup=False,
    max_active_runs=1,
    dagrun_timeout=dt.timedelta(hours=10),
    tags=["nightshelf", "weekly", SHOP.shop],
    params={
        "shop": shop_param(SHOP_FILE),
    },
) as dag:
    MaintainOperator(
        task_id="maintain",
        doc_md=triage_notes(__doc__)["maintain"],
        owner="nightshelf",
        retries=12,
        retry_delay=dt.timedelta(minutes=30),
        execution_timeout=dt.timedelta(hours=2),
    )
