"""Stage `evaluate`: challenger and champion on the same validation impressions, per scenario and task, with bounds."""

from typing import Any

import pyarrow as pa

from nightshelf.logs import get_logger
from nightshelf.paths import artifact_dir, tracking_uri
from pipelines.arrow_schema import arrow_schema
from pipelines.models import champion_before, registered_name
from pipelines.stage import Night, StageResult
from pipelines.train import challenger, training_inputs


def run(night: Night) -> StageResult:
    """Write model_metrics of this night, for the challenger and for the champion that it would replace.

    After an upgrade of nightshelf the champion may be of a code that is gone, and after a change of the shop file of other
    scenarios, tasks or features: then the challenger is measured alone.
    """
    if not night.retrain:
        return StageResult(message="no retraining was asked for: nothing to evaluate")
    from training import tracking
    from training.artifact import OtherCodeError, OtherShopError
    from training.evaluate import evaluate

    tracking.ensure_tracker(tracking_uri(night.shop), artifact_dir(night.shop))
    inputs = training_inputs(night)
    version, folder = challenger(night)
    asked = [("challenger", version, folder)]
    if (before := champion_before(night)) is not None:
        asked.append(("champion", before, tracking.download(registered_name(night), before)))
    rows: list[dict[str, Any]] = []
    for role, number, artefact in asked:
        constant = {"as_of_date": night.as_of_date, "model_version": number, "role": role}
        try:
            rows += [constant | row for row in evaluate(artefact, night.shop, inputs)]
        except (OtherCodeError, OtherShopError) as error:
            if role == "challenger":
                raise
            get_logger("evaluate").warning("the champion, version %s, is measured no more: %s", number, error)
    table = pa.Table.from_pylist(rows, schema=arrow_schema(night.warehouse.specs["model_metrics"]))
    written = night.warehouse.publish_arrow("model_metrics", table, [night.as_of_date], night.run_id)
    return StageResult(rows_out=written, inputs=["training_examples"], message=f"version {version}")
