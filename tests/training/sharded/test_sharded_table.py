"""A table that TorchRec shards over two and three processes, beside torch's whole one and our row-wise Adagrad."""

import runpy
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from training.optimizers import RowwiseAdagrad

pytestmark = pytest.mark.sharded


@pytest.fixture(scope="module")
def process():
    """Return the module that each process runs."""
    return SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("table_process.py"))))


@pytest.fixture(scope="module", params=[2, 3])
def seen(request, torchrun, tmp_path_factory):
    """Return what each of two, and of three, processes saw."""
    folder = tmp_path_factory.mktemp("seen")
    torchrun("table_process.py", request.param, folder)
    return [torch.load(folder / f"{rank}.pt") for rank in range(request.param)]


def whole_table(process, look_ups):
    """Return torch's whole table after steps, each of a list of look-ups and a rate."""
    table = nn.Embedding(process.ROWS, process.WIDTH, sparse=True)
    table.load_state_dict({"weight": process.first_weights()})
    optimizer = RowwiseAdagrad(table.weight, 1.0, process.L2)
    for of_step, rate in look_ups:
        table.weight.grad = None
        torch.stack([(table(ids) * gradient).sum() for ids, gradient in of_step]).sum().backward()
        optimizer.param_groups[0]["lr"] = rate
        optimizer.step()
    return table.weight.detach()


def test_a_look_up_gives_the_whole_tables_bits(process, seen):
    weights = process.first_weights()
    for rank, of_rank in enumerate(seen):
        for (ids, _), found in zip(process.look_ups(rank, 0), of_rank["found"], strict=True):
            assert torch.equal(found, weights[ids])
        assert torch.equal(of_rank["nothing"], weights[torch.full((rank, 3), 7)])


def test_steps_move_it_as_rowwise_adagrad_moves_the_whole_one(process, seen):
    ranks = range(len(seen))
    look_ups = [[pair for rank in ranks for pair in process.look_ups(rank, step)] for step in range(process.STEPS)]
    expected = whole_table(process, [(of_step, process.rate(step)) for step, of_step in enumerate(look_ups)])
    ids = torch.cat([some.flatten() for some, _ in look_ups[0]])
    assert len(ids.unique()) < len(ids) / 4
    assert (expected - process.first_weights()).abs().max() > 0.05
    assert (seen[0]["whole"] - expected).abs().max() <= 1e-6
    assert all(len(of_rank["whole"]) == 0 for of_rank in seen[1:])


def test_loaded_in_the_middle_it_goes_on_to_the_same_bits(seen):
    assert torch.equal(seen[0]["again"], seen[0]["whole"])


def test_what_all_ranks_look_up_alike_counts_once(process, seen):
    expected = whole_table(process, [([look_up], process.rate(0)) for look_up in process.look_ups(0, 0)])
    assert (seen[0]["alike"] - expected).abs().max() <= 1e-6


def test_each_rank_holds_its_share_of_the_rows(process, seen):
    block = -(-process.ROWS // len(seen))
    assert [of_rank["rows"] for of_rank in seen] == [block] * (len(seen) - 1) + [process.ROWS - block * (len(seen) - 1)]
    whole = process.LARGE * (process.WIDTH + 1) * 4  # with a sum of squares a row
    for of_rank in seen:
        assert of_rank["bytes"] == pytest.approx(whole / len(seen), rel=0.05)
    assert sum(of_rank["large"] for of_rank in seen) == process.LARGE


def test_what_does_not_fit_is_refused_in_one_line(process, seen):
    for of_rank in seen:
        assert [message.split(";")[0] for message in of_rank["refused"]] == [
            "a table of 20002 x 16 weights does not fit into a sharded one of 20001 x 16",
            "a table of 20001 x 20 weights does not fit into a sharded one of 20001 x 16",
            "embedding_size: 6",
            f"embedding_table: {len(seen) - 1} rows are too few for {len(seen)} processes",
            *(["embedding_table: 4 rows are too few for 3 processes"] if len(seen) == 3 else []),
        ]
        assert not any("\n" in message for message in of_rank["refused"])


def test_a_row_beyond_the_table_is_an_error(torchrun):
    assert "idx < num_rows" in torchrun("unknown_row_process.py", 2, 10, fails=True)
