"""Stage `promote`: the gate decides; only then does the registry's alias `champion` move. A no is written down, not red."""

import json

import pyarrow as pa

from nightshelf.errors import EngineError
from nightshelf.logs import get_logger
from pipelines.arrow_schema import arrow_schema
from pipelines.gate import Decision, decide
from pipelines.models import champion_before, is_newest_promotion, registered_name
from pipelines.stage import Night, StageResult
from pipelines.train import challenger, training_inputs


def run(night: Night) -> StageResult:
    """Write the night's decision to promotions and, if it is a yes, move the alias."""
    if not night.retrain:
        return StageResult(message="no retraining was asked for: the champion stays")
    version, _ = challenger(night)
    before = champion_before(night)
    decision = _decide(night, version, before)
    moves = decision.promoted and is_newest_promotion(night)
    if moves:
        _move_alias(night, version)
    row = {
        "as_of_date": night.as_of_date,
        "challenger": version,
        "champion": before or "",
        "promoted": decision.promoted,
        "reason": decision.reason
        if moves or not decision.promoted
        else f"{decision.reason}; a later night holds the alias",
        "evidence": json.dumps(decision.evidence()),
    }
    table = pa.Table.from_pylist([row], schema=arrow_schema(night.warehouse.specs["promotions"]))
    night.warehouse.publish_arrow("promotions", table, [night.as_of_date], night.run_id)
    get_logger("promote").info("version %s: %s", version, decision.reason)
    return StageResult(rows_out=1, inputs=["model_metrics"], message=decision.reason)


def _decide(night: Night, version: str, before: str | None) -> Decision:
    from training import tracking
    from training.evaluate import compare

    metrics = night.warehouse.read("model_metrics", [night.as_of_date]).to_pylist()
    root = next(name for name, task in night.shop.tasks.items() if task.given is None)
    of_root = {
        m["metric"]: m for m in metrics if (m["model_version"], m["scenario"], m["task"]) == (version, "*", root)
    }
    difference: tuple[float | None, float | None] | None = None
    if before is not None:
        name = registered_name(night)
        found = compare(
            tracking.download(name, version), tracking.download(name, before), night.shop, training_inputs(night)
        )
        if found["comparable"]:
            difference = (found["gauc_difference"], found["gauc_difference_lower"])  # type: ignore[assignment]
        else:  # the shop file changed: the old model cannot rank the new night, so the new one must stand alone
            get_logger("promote").warning(
                "version %s cannot be compared with version %s: %s", version, before, found["reason"]
            )
    return decide(of_root.get("auc", {}).get("lower"), of_root.get("pcoc", {}).get("value"), difference)


def _move_alias(night: Night, version: str) -> None:
    from training import tracking

    name = registered_name(night)
    tracking.set_alias(name, "champion", version)
    if (seen := tracking.get_alias(name, "champion")) != version:  # the registry's last writer wins: look again
        raise EngineError(
            f"the alias champion of {name} is {seen}, not {version}: another process moved it; run promote again"
        )
