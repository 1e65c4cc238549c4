"""The benchmark of accelerators, tried out on the CPU with nothing installed but torch, numpy and pyarrow."""

import json
import subprocess
import sys

import pytest
import torch

from benchmarks import gpu

# What such a machine does not have.
BARE = """
import runpy, sys
absent = ["pydantic", "yaml", "rich", "psutil", "mlflow", "safetensors", "torchjd", "pandas", "sklearn", "tensorboardX", "duckdb"]
sys.modules.update(dict.fromkeys(absent))
runpy.run_module("benchmarks.gpu", run_name="__main__")
"""


@pytest.mark.long
def test_a_machine_with_torch_alone_measures_both_models():
    command = [sys.executable, "-c", BARE, "--device", "cpu", "--rows", "1500", "--batch-sizes", "512", "1024"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    line = json.loads(done.stdout.splitlines()[-1])
    assert set(line["rows_per_s"]) == set(line["roofline_share"]) == {"mmoe_16", "mmoe_64", "ple_16", "ple_64"}
    assert all(rate > 0 for rate in line["rows_per_s"].values())
    assert all(0 < share < 1 for share in line["roofline_share"].values())
    assert "1,024 rows a step" in done.stderr


def test_what_a_cpu_alone_needs_is_loaded_on_a_cpu_alone():
    imported = "\n".join(BARE.splitlines()[:-1]).replace('"pydantic"', '"pydantic", "numba", "llvmlite"')
    done = subprocess.run(
        [sys.executable, "-c", f"{imported}\nimport benchmarks.gpu"], capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]


def test_without_an_accelerator_it_says_what_to_do(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["gpu"])
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda check_available=False: None)
    with pytest.raises(SystemExit, match=r"torch finds no accelerator .* --device cpu"):
        gpu.main()


@pytest.mark.parametrize("embedding", [16, 64])
def test_the_cost_of_a_row_is_that_of_its_layers(embedding):
    columns = gpu.draw(2000, torch.device("cpu"))
    setting = gpu.Setting("mmoe", embedding, torch.float32, 1000, compiled=False)
    cost = gpu.cost_of(setting, columns)
    inputs, experts, gates = gpu.FIELDS * embedding + gpu.DENSE, 4 * 64, 2 * 4
    weights = inputs * (experts + gates) + 4 * 64 * 32 + 2 * (32 * 16 + 16)
    assert cost["flop"] == pytest.approx(3 * 2 * weights, rel=1e-6)  # forwards, and back to inputs and weights
    distinct = sum(len(column.unique()) for column in columns.ids[:1000].unbind(1)) / 1000
    least = 4 * (gpu.FIELDS * (1 + embedding) + gpu.DENSE + 2 + 2 * 0.9 * distinct * embedding)
    kept = 2 * 4 * (inputs + experts + 4 * 32)
    assert least + kept < cost["bytes"] < 2 * (least + kept)
    assert columns.ids.max() < gpu.IDS
    assert columns.labels.mean(0).tolist() == pytest.approx([0.4, 0.2], abs=0.05)
