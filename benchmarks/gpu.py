"""make bench-gpu: how fast MMoE and PLE train on an accelerator, beside what its memory and its arithmetic would allow.

Twenty categorical columns of 100,000 ids (low ones frequent) and five dense ones lie on the device; a model of two tasks trains
on them with the ranker's own parts and optimizers, in float32 (products in TF32 where there is such a thing) and in bfloat16, as
it is and compiled where that can be, by several batch sizes: the fastest counts. The ranker itself is not compiled: what is
fastest as it is is told beside it. The roofline (Williams, Waterman and Patterson 2009) is the lower of two rates:

  memory      the measured rate of a copy, over the bytes that a row must move: its columns, its vectors once, what the dense
              part keeps for the way back (written and read), and each touched row of the table read and written once
  arithmetic  the measured rate of a product of large matrices in the same precision, over the FLOP of a row (counted by torch)

Needs torch, numpy and pyarrow, nothing else; on a CPU numba, too. Prints a table and one JSON line.

  make bench-gpu        (or: python3 -m benchmarks.gpu --rows 8000000; on a CPU: --device cpu --rows 20000 --batch-sizes 4096)
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.tabular import Columns, TabularModel, batch_loss, shuffled_batches, train_epoch
from training.backbones.plain import MMoE
from training.backbones.ple import PLE
from training.optimizers import TABLE, make_optimizers

FIELDS, DENSE, IDS = 20, 5, 100_000
TASKS = [SimpleNamespace(name=name, kind="binary", given=None, loss="cross_entropy") for name in ("click", "purchase")]
RATES = SimpleNamespace(dense=0.005, embedding=0.05)
RECIPE = SimpleNamespace(
    learning_rate=RATES, weight_decay=1e-5, l2_embedding=1e-6, embedding_optimizer="rowwise_adagrad"
)
EMBEDDINGS = (16, 64)
_SETTLE = 3  # batches before the clock starts


@dataclass(frozen=True)
class Setting:
    """One way of training."""

    model: str
    embedding: int
    precision: torch.dtype
    batch_size: int
    compiled: bool

    def __str__(self) -> str:
        compiled = ", compiled" if self.compiled else ""
        return f"{str(self.precision).removeprefix('torch.')}, {self.batch_size:,} rows a step{compiled}"


@dataclass(frozen=True)
class Limits:
    """What the device does at best: bytes a second of a copy, FLOP a second of a product by precision."""

    copy: float
    matmul: dict[torch.dtype, float]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", help="by default the accelerator that torch finds")
    parser.add_argument("--rows", type=int, default=4_000_000)
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[16_384, 65_536, 262_144])
    asked = parser.parse_args()
    found = torch.accelerator.current_accelerator(check_available=True)
    if asked.device is None and found is None:
        sys.exit(
            "torch finds no accelerator on this machine; run it where there is one, or try it out with --device cpu"
        )
    device = torch.device(asked.device or found)
    torch.set_float32_matmul_precision("high")
    limits, columns = measure(device), draw(asked.rows, device)
    rows_per_s, as_it_is, shares, table = {}, {}, {}, []
    for model in ("mmoe", "ple"):
        for embedding in EMBEDDINGS:
            tried = {
                Setting(model, embedding, precision, size, compiled): 0.0
                for precision in (torch.float32, torch.bfloat16)
                for size in asked.batch_sizes
                for compiled in ((False, True) if device.type == "cuda" else (False,))
            }
            for setting in tried:
                tried[setting] = rate(setting, columns)
                print(f"{model} {embedding}: {setting}: {tried[setting]:,.0f} rows/s", file=sys.stderr, flush=True)
            best = max(tried, key=lambda setting: tried[setting])
            cost = cost_of(best, columns)
            by_memory, by_arithmetic = limits.copy / cost["bytes"], limits.matmul[best.precision] / cost["flop"]
            name = f"{model}_{embedding}"
            rows_per_s[name] = round(tried[best])
            as_it_is[name] = round(max(found for setting, found in tried.items() if not setting.compiled))
            shares[name] = round(tried[best] / min(by_memory, by_arithmetic), 4)
            limit = "memory" if by_memory < by_arithmetic else "arithmetic"
            table.append(
                (name, f"{tried[best]:,.0f}", str(best), cost["bytes"], cost["flop"], limit, f"{shares[name]:.1%}")
            )
    head = ("model", "rows/s", "fastest", "bytes a row", "FLOP a row", "limit", "reached")
    print_table([head, *((*row[:3], f"{row[3]:,.0f}", f"{row[4]:,.0f}", *row[5:]) for row in table)])
    print(
        json.dumps(
            {
                "rows_per_s": rows_per_s,
                "rows_per_s_not_compiled": as_it_is,
                "roofline_share": shares,
                "device": name_of(device),
                "copy_gb_per_s": round(limits.copy / 1e9, 1),
                "matmul_tflop_per_s": {
                    str(kind).removeprefix("torch."): round(r / 1e12, 2) for kind, r in limits.matmul.items()
                },
                "torch": torch.__version__,
            }
        )
    )


def draw(rows: int, device: torch.device) -> Columns:
    """Return random rows on the device; four in ten are clicks, half as many are bought."""
    generator = torch.Generator(device).manual_seed(1)

    def uniform(*shape: int) -> torch.Tensor:
        """Return numbers from 0 to 1, float32 [shape], the same in each run."""
        return torch.rand(shape, generator=generator, device=device)

    ids = (uniform(rows, FIELDS).square_() * IDS).int()
    labels = (uniform(rows, len(TASKS)) < torch.tensor([0.4, 0.2], device=device)).float()
    return Columns(ids, uniform(rows, DENSE), labels)


def make(setting: Setting, device: torch.device) -> tuple[TabularModel, list[torch.optim.Optimizer]]:
    """Return an untrained model on the device, and its optimizers."""
    torch.manual_seed(1)
    # Sizes as a recipe gives them; its own classes would need pydantic.
    if setting.model == "mmoe":
        backbone: Any = MMoE(len(TASKS), SimpleNamespace(experts=4, expert_sizes=[64, 32]), 0.0)  # type: ignore[arg-type]
    else:
        sizes: Any = SimpleNamespace(levels=1, shared_experts=2, task_experts=1, expert_sizes=[64, 32])
        backbone = PLE(len(TASKS), sizes, 0.0)
    tasks: Any = TASKS
    fields = {f"c{place}": IDS for place in range(FIELDS)}
    model = TabularModel(fields, DENSE, tasks, setting.embedding, backbone, [16], precision=setting.precision)
    recipe: Any = RECIPE
    model.to(device)
    optimizers = make_optimizers(model, nn.Module(), recipe)
    if setting.compiled:
        setattr(model, "dense_part", torch.compile(model.dense_part))  # noqa: B010
    return model, optimizers


def rate(setting: Setting, columns: Columns) -> float:
    """Return how many rows a second are trained on."""
    device = columns.labels.device
    model, optimizers = make(setting, device)
    few = columns.take(torch.arange(min(len(columns), _SETTLE * setting.batch_size), device=device))
    train_epoch(model, few, optimizers, setting.batch_size, seed=1, epoch=0)
    synchronize(device)
    start = time.perf_counter()
    train_epoch(model, columns, optimizers, setting.batch_size, seed=1, epoch=1)
    synchronize(device)
    return len(columns) / (time.perf_counter() - start)


def cost_of(setting: Setting, columns: Columns) -> dict[str, float]:
    """Return the bytes and the FLOP of a row, counted in one step as it is, without a compiler."""
    model, _ = make(
        Setting(setting.model, setting.embedding, setting.precision, setting.batch_size, False), columns.labels.device
    )
    batch = next(shuffled_batches(columns, min(setting.batch_size, len(columns)), seed=1, epoch=0))
    table, kept = dict(model.named_parameters())[TABLE], {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        """Note the bytes of what autograd saves for the backward pass; a storage that several tensors share counts once."""
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with (
        FlopCounterMode(display=False) as counter,
        torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
    ):
        batch_loss(model, batch).backward()
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    saved = sum(size for place, size in kept.items() if place not in weights)
    columns_read = sum(part.nbytes for part in (batch.ids, batch.dense, batch.labels))
    vectors = batch.ids.numel() * table.shape[1] * table.element_size()
    assert table.grad is not None
    touched = len(table.grad.coalesce().indices()[0]) * (table.shape[1] + 1) * table.element_size()
    moved = columns_read + vectors + 2 * saved + 2 * touched
    return {"bytes": moved / len(batch), "flop": counter.get_total_flops() / len(batch)}


def measure(device: torch.device) -> Limits:
    """Return the device's rates, the best of ten."""
    on_cpu = device.type == "cpu"
    source = torch.ones(2**26 if on_cpu else 2**30, dtype=torch.uint8, device=device)
    target, side = torch.empty_like(source), 1024 if on_cpu else 8192
    matmul = {}
    for kind in (torch.float32, torch.bfloat16):
        left, right = (torch.randn(side, side, device=device).to(kind) for _ in range(2))
        matmul[kind] = 2 * side**3 / seconds(lambda a=left, b=right: a @ b, device)  # type: ignore[misc]
    return Limits(2 * len(source) / seconds(lambda: target.copy_(source), device), matmul)


def seconds(work: Any, device: torch.device) -> float:
    """Return the least seconds of ten runs."""
    times = []
    for _ in range(10):
        synchronize(device)
        start = time.perf_counter()
        work()
        synchronize(device)
        times.append(time.perf_counter() - start)
    return min(times)


def synchronize(device: torch.device) -> None:
    """Wait until the device has done what it was given."""
    if device.type != "cpu":
        torch.accelerator.synchronize()


def name_of(device: torch.device) -> str:
    """Return what the device calls itself."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)


def print_table(rows: list[tuple[str, ...]]) -> None:
    """Print rows of text, as wide as they need."""
    widths = [max(len(row[place]) for row in rows) for place in range(len(rows[0]))]
    for row in rows:
        print("  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)), file=sys.stderr)


if __name__ == "__main__":
    main()
