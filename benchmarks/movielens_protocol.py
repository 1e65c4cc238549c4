"""The protocol of Scenario-Wise-Rec (arXiv 2412.17374) on MovieLens-1M: three age groups as scenarios, a random split.

A rating above 3 is a like. Six columns of ids with embeddings of 16, the age from 0 to 1; Adam at 1e-3 with a decay of 1e-5,
batches of 4,096, the epoch with the best validation AUC after four without a better one. Sizes are the paper's.
"""

import copy
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from pyarrow import csv
from sklearn.metrics import log_loss, roc_auc_score
from torch.nn import functional

from benchmarks.tabular import Columns, TabularModel
from pipelines.movielens import FOLDER
from training.averaging import WeightAverage
from training.backbone_sizes import (
    AdaSparseSizes,
    ADLSizes,
    BackboneSizes,
    HAMURSizes,
    HiNetSizes,
    M2MSizes,
    M3oESizes,
    MMoESizes,
    PEPNetSizes,
    PlainSizes,
    PLESizes,
    SARNetSizes,
    StarSizes,
)
from training.backbones import make_backbone
from training.backbones.moving import MovingMoments, StepCount
from training.backbones.penalties import collect_penalties
from training.spec import TaskSpec

COLUMNS = ("user", "movie", "gender", "occupation", "zip", "genre")
GROUPS = {1: 1, 18: 1, 25: 2, 35: 3, 45: 3, 50: 3, 56: 3}
SCENARIOS, EMBEDDING, BATCH, PATIENCE = 3, 16, 4096, 4
_PAIR = ([0, 2, 3, 4], [1, 5])
_WIDTH = len(COLUMNS) * EMBEDDING + 1


@dataclass(frozen=True)
class Course:
    """How weights move: by default as the protocol says."""

    rate: float = 1e-3
    decay: float = 1e-5
    embedding_decay: float = 1e-5
    average: float = 0.0  # how much of the weights' moving average a step keeps


OURS = Course(rate=3e-3, embedding_decay=3e-4, average=0.999)  # by validation rows, seed 1


@dataclass(frozen=True)
class Entry:
    """A model of the table: its backbone and towers, and what the paper and a re-run of its authors' code reached."""

    backbone: BackboneSizes
    tower_sizes: list[int] = field(default_factory=list)
    # "all": one tower; "scenario": each scenario's own; "heads": each scenario is a task of the backbone, with gates of its own.
    towers: str = "scenario"
    dropout: float = 0.0
    first_embeddings: float = (
        1.0  # times the ranker's, whose deviation is .02 at first; in the authors' code it is .0001
    )
    pair: bool = False  # reads the product of user and movie, as the ranker reads that of a taste and a target
    course: Course = Course()
    paper: float | None = None
    re_run: float | None = None


ENTRIES = {
    "shared_bottom": Entry(PlainSizes(kind="shared_bottom", sizes=[128]), [8], paper=0.8095, re_run=0.8078),
    "mmoe": Entry(MMoESizes(kind="mmoe", experts=3, expert_sizes=[16]), [8], "heads", paper=0.8086, re_run=0.8049),
    "ple": Entry(
        PLESizes(shared_experts=1, task_experts=2, expert_sizes=[16]), [8], "heads", paper=0.8091, re_run=0.8060
    ),
    "cross_stitch": Entry(PlainSizes(kind="cross_stitch", sizes=[64, 32]), [8], "heads"),
    "single_scenario": Entry(PlainSizes(kind="single_scenario", sizes=[128]), [8]),
    "star": Entry(
        StarSizes(kind="star", input=_WIDTH, sizes=[128, 64, 32], auxiliary_sizes=[32]),
        [],
        "all",
        # It divides columns by their deviation: what chance gave an id that is seldom met shall not look like what was learned.
        first_embeddings=0.005,
        paper=0.8096,
        re_run=0.8004,
    ),
    "sar_net": Entry(
        SARNetSizes(kind="sar_net", input=_WIDTH, shared_experts=8, scenario_experts=2, expert_sizes=[16]),
        [32, 32],
        "all",
        paper=0.8092,
        re_run=0.8070,
    ),
    "m2m": Entry(M2MSizes(kind="m2m", experts=4, expert_sizes=[64, 16], scenario_size=16), [], "all", paper=0.8115),
    "adasparse": Entry(
        AdaSparseSizes(kind="adasparse", input=_WIDTH, scenario_size=16, sizes=[32, 32]),
        [],
        "all",
        dropout=0.2,
        paper=0.8108,
        re_run=0.8092,
    ),
    "adl": Entry(ADLSizes(kind="adl", input=_WIDTH, clusters=3, sizes=[64, 64]), [], "all", paper=0.8083),
    "epnet": Entry(
        PEPNetSizes(kind="epnet", input=_WIDTH, scenario_size=16, sizes=[128, 64, 32]),
        [],
        "all",
        paper=0.8097,
        re_run=0.7953,
    ),
    "ppnet": Entry(
        PEPNetSizes(kind="ppnet", input=_WIDTH, scenario_size=16, sizes=[128, 64, 32]),
        [],
        "heads",
        paper=0.8063,
        re_run=0.8056,
    ),
    "pepnet": Entry(
        PEPNetSizes(kind="pepnet", input=_WIDTH, scenario_size=16, sizes=[128, 64, 32]),
        [],
        "heads",
    ),
    "hinet": Entry(HiNetSizes(kind="hinet", expert_sizes=[32, 16], task_sizes=[16]), [8], "all"),
    "hamur": Entry(HAMURSizes(kind="hamur", input=_WIDTH, sizes=[256, 128], hyper_size=64, core=35, adapter_size=32)),
    "m3oe": Entry(
        M3oESizes(kind="m3oe", input=_WIDTH, entrance_sizes=[128, 64], shared_experts=4, expert_sizes=[64, 32]), [32]
    ),
    # Not the protocol's way of training: faster, with the weights' average, and embeddings that decay more.
    "ours": Entry(PlainSizes(kind="shared_bottom", sizes=[64, 32]), [16], pair=True, course=OURS),
    "ours, mmoe": Entry(
        MMoESizes(kind="mmoe", experts=3, expert_sizes=[32, 16]), [16], "heads", pair=True, course=OURS
    ),
    "ours, sar_net": Entry(
        SARNetSizes(kind="sar_net", input=64, shared_experts=4, scenario_experts=2, expert_sizes=[32]),
        [16],
        pair=True,
        course=OURS,
    ),
}


@dataclass
class Found:
    """What one training found: the AUC of the validation rows; AUC and log loss of the test rows, and the AUC of each scenario
    there; and how long it took.
    """

    validation_auc: float
    auc: float
    logloss: float
    by_scenario: list[float]
    epochs: int


def read_ratings(wheel: Path) -> Columns:
    """Read the ratings as the protocol has them; `scenario` is the age group."""
    with zipfile.ZipFile(wheel) as archive:
        users, movies, ratings = (_table(archive, name) for name in ("user", "item", "inter"))
    movies = movies.set_column(3, "genre", pc.list_element(pc.split_pattern(movies["genre"], " "), 0))
    # A join gives no order; the ratings' own decides the split.
    ratings = ratings.append_column("place", pa.array(range(len(ratings))))
    rows = ratings.join(users, "user_id").join(movies, "item_id").sort_by("place")
    names = ("user_id", "item_id", "gender", "occupation", "zip_code", "genre")
    ids = [rows[name].combine_chunks().dictionary_encode().indices.to_numpy() for name in names]
    age = rows["age"].cast(pa.int64()).to_numpy()
    liked = pc.greater(rows["rating"].cast(pa.float64()), 3).to_numpy()
    return Columns(
        torch.from_numpy(np.stack(ids, 1).astype(np.int64)),
        torch.from_numpy((age - age.min()) / (age.max() - age.min())).float().unsqueeze(1),
        torch.from_numpy(liked).float().unsqueeze(1),
        torch.tensor([GROUPS[a] for a in age.tolist()]),
    )


def _table(archive: zipfile.ZipFile, name: str) -> pa.Table:
    """Return an atomic file of RecBole, tab-separated with headers `name:type`, as texts."""
    with archive.open(f"{FOLDER}/ml-1m.{name}") as file:
        header = file.readline().decode().rstrip("\n").split("\t")
        columns = [column.split(":")[0] for column in header]
        read = csv.ReadOptions(column_names=columns)
        parse = csv.ParseOptions(delimiter="\t", quote_char=False)
        return csv.read_csv(file, read, parse, csv.ConvertOptions(column_types=dict.fromkeys(columns, pa.string())))


def split(rows: int, seed: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return the rows of train, validation and test, 8:1:1 by chance."""
    order = torch.randperm(rows, generator=torch.Generator().manual_seed(seed))
    train, validation = int(0.8 * rows), int(0.1 * rows)
    return order[:train], order[train : train + validation], order[train + validation :]


def make_model(entry: Entry, fields: dict[str, int], seed: int) -> TabularModel:
    """Return an untrained model of the table."""
    torch.manual_seed(seed)
    heads = SCENARIOS if entry.towers == "heads" else 1
    tasks = [TaskSpec(name=f"like_{place}", kind="binary") for place in range(heads)]
    apart = entry.towers == "scenario"
    backbone = make_backbone(entry.backbone, heads, SCENARIOS, entry.dropout)
    pair = _PAIR if entry.pair else None
    model = TabularModel(fields, 1, tasks, EMBEDDING, backbone, entry.tower_sizes, SCENARIOS, apart, pair)
    model.fields.table.weight.data.mul_(entry.first_embeddings)
    model.fields.table.sparse = False  # the protocol's Adam moves every row of the table
    return model


def logits(model: TabularModel, batch: Columns) -> torch.Tensor:
    """Return the logit of each row [N]: of its scenario's head where there are several."""
    found = model.logits(batch.ids, batch.dense, batch.scenario)
    if found.shape[1] == 1:
        return found[:, 0]
    assert batch.scenario is not None
    return found.gather(1, batch.scenario.unsqueeze(1) - 1)[:, 0]


def train(entry: Entry, columns: Columns, fields: dict[str, int], seed: int, most_epochs: int) -> Found:
    """Train one model by the protocol and tell how it does on the test rows."""
    train_rows, validation_rows, test_rows = split(len(columns), seed)
    model = make_model(entry, fields, seed)
    optimizer, average = make_optimizer(model, entry.course), WeightAverage(model, entry.course.average)
    best, best_auc, waited, epoch = copy.deepcopy(model.state_dict()), 0.0, 0, 0
    validation = columns.take(validation_rows)
    while waited < PATIENCE and epoch < most_epochs:
        epoch, waited = epoch + 1, waited + 1
        model.train()
        for rows in train_rows[torch.randperm(len(train_rows))].split(BATCH):
            batch = columns.take(rows)
            with collect_penalties() as penalties:
                found = logits(model, batch)
            loss = functional.binary_cross_entropy_with_logits(found, batch.labels[:, 0])
            loss = sum((penalty.mean() for penalty in penalties), loss)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            settle(model)
            average.update()
        # Steps go on from their own weights; the average of them is what is looked at.
        own = copy.deepcopy(model.state_dict())
        average.apply()
        auc = roc_auc_score(validation.labels[:, 0], predict(model, validation))
        if auc > best_auc:
            best, best_auc, waited = copy.deepcopy(model.state_dict()), auc, 0
        model.load_state_dict(own)
    model.load_state_dict(best)
    test = columns.take(test_rows)
    found, labels = predict(model, test), test.labels[:, 0].numpy()
    assert test.scenario is not None
    groups: Iterable[np.ndarray] = ((test.scenario == place + 1).numpy() for place in range(SCENARIOS))
    each = [roc_auc_score(labels[group], found[group]) for group in groups]
    return Found(best_auc, roc_auc_score(labels, found), log_loss(labels, found), each, epoch)


def make_optimizer(model: TabularModel, course: Course) -> torch.optim.Adam:
    """Return the optimizer of all weights, the table's with a decay of its own."""
    table = model.fields.table.weight
    others = [weight for weight in model.parameters() if weight is not table]
    groups = [{"params": [table], "weight_decay": course.embedding_decay}, {"params": others}]
    return torch.optim.Adam(groups, lr=course.rate, weight_decay=course.decay, fused=True)


@torch.inference_mode()
def predict(model: TabularModel, columns: Columns) -> np.ndarray:
    """Return the probability of a like for each row [N]."""
    model.eval()
    parts = torch.arange(len(columns)).split(4 * BATCH)
    return torch.cat([logits(model, columns.take(rows)) for rows in parts]).double().sigmoid().numpy()


def settle(model: TabularModel) -> None:
    """Let what moves along with training take in a step."""
    for part in model.modules():
        if isinstance(part, MovingMoments | StepCount):
            part.settle()
