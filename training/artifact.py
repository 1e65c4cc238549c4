"""A trained ranker as a folder: weights.safetensors, model.json, and manifest.json with the hash of each. No pickle."""

import hashlib
import json
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from nightshelf.errors import EngineError
from training.optimizers import TABLE
from training.ranking_model import RankingModel
from training.ranks import rank
from training.sharded_table import ShardedTable
from training.spec import ModelSpec

# The folder inside a model's own that holds the same model after it has learnt the other days too: for ranking.
SERVING = "serving"
_FILES = ("weights.safetensors", "model.json")


def save_model(model: RankingModel, folder: Path) -> None:
    """Write a ranker into `folder`; the manifest comes last, so that a folder without one is an unfinished one.

    Of several processes all take part, for a sharded table is gathered, and the first one writes.
    """
    weights = model.state_dict()
    if isinstance(model.fields.table, ShardedTable):
        weights[TABLE] = model.fields.table.gather()
    if rank():
        return
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "manifest.json").unlink(missing_ok=True)
    save_file({name: tensor.cpu().contiguous() for name, tensor in weights.items()}, folder / _FILES[0])
    (folder / _FILES[1]).write_text(model.spec.model_dump_json(indent=1) + "\n", encoding="utf-8")
    hashes = {name: file_hash(folder / name) for name in _FILES}
    (folder / "manifest.json").write_text(json.dumps({"sha256": hashes}, indent=1) + "\n", encoding="utf-8")


class OtherCodeError(EngineError):
    """A sound model that another version of this code has made: nothing but a training helps."""


class OtherShopError(EngineError):
    """A sound model of another shop file: nothing but a training helps."""


def load_model(folder: Path) -> RankingModel:
    """Read a ranker, ready to predict.

    Raises:
        EngineError: a file is missing, or differs from its hash.
        OtherCodeError: it does not fit this code.
    """
    spec = load_spec(folder)
    model = RankingModel(spec)
    try:
        model.load_state_dict(load_file(folder / _FILES[0]))
    except (RuntimeError, OSError, SafetensorError) as error:
        raise OtherCodeError(
            f"{folder}: the weights do not fit this code ({_short(error)}); train the model again"
        ) from None
    return model.eval()


def load_spec(folder: Path) -> ModelSpec:
    """Read what a ranker is made of, after checking every hash.

    Raises:
        EngineError: a file is missing, or differs from its hash.
        OtherCodeError: it does not fit this code.
    """
    verify(folder)
    try:
        return ModelSpec.model_validate_json((folder / _FILES[1]).read_bytes())
    except ValidationError as error:
        raise OtherCodeError(
            f"{folder}/model.json does not fit this code ({_short(error)}); train the model again"
        ) from None


def verify(folder: Path) -> None:
    """Compare every file with its hash.

    Raises:
        EngineError: a file is missing or differs.
    """
    manifest = _manifest(folder)
    for name in _FILES:
        path = folder / name
        if not path.is_file():
            raise EngineError(f'{path} is missing; put it back, or see docs/runbook.md, "A model is damaged"')
        if file_hash(path) != manifest.get(name):
            raise EngineError(
                f'{path} differs from its hash in manifest.json; do not use it: see docs/runbook.md, "A model is damaged"'
            )


def _manifest(folder: Path) -> dict[str, Any]:
    try:
        return dict(json.loads((folder / "manifest.json").read_text(encoding="utf-8"))["sha256"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise EngineError(
            f'{folder}/manifest.json cannot be read ({_short(error)}); see docs/runbook.md, "A model is damaged"'
        ) from None


def file_hash(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
