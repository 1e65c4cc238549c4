"""What each process of test_sharded_table.py does: looks up, steps, saves and loads, and writes what it saw into a folder."""

import gc
import sys
from pathlib import Path

import psutil
import torch

from nightshelf.errors import InputError
from training.ranks import joined_ranks, rank, ranks
from training.sharded_table import ShardedAdagrad, ShardedTable

ROWS, WIDTH, STEPS, L2, LARGE = 20_001, 16, 6, 0.01, 2_000_000


def first_weights() -> torch.Tensor:
    """Return the whole table before the first step."""
    return torch.randn(ROWS, WIDTH, generator=torch.Generator().manual_seed(1))


def look_ups(of_rank: int, step: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Return the two look-ups of a rank's step: rows [..., 3], many of them more than once, and their vectors' gradients."""
    chance = torch.Generator().manual_seed(100 * of_rank + step)
    shapes = [(5 + of_rank, 20, 3), (7, 3)]
    # Few rows, so that ranks, look-ups and steps meet in them; the first and the last of the table are among them.
    few = torch.cat([torch.tensor([0, ROWS - 1]), torch.arange(10, ROWS, 331)])
    ids = [few[torch.randint(len(few), shape, generator=chance)] for shape in shapes]
    return [(some, torch.randn(*some.shape, WIDTH, generator=chance)) for some in ids]


def rate(step: int) -> float:
    return 0.05 / (1 + step)


def resident_bytes() -> int:
    """Return the main memory that this process has."""
    gc.collect()
    return psutil.Process().memory_info().rss


def step_once(table: ShardedTable, optimizer: ShardedAdagrad, step: int) -> None:
    found = [((table(ids) * gradient).sum(), ids) for ids, gradient in look_ups(rank(), step)]
    loss = torch.stack([part for part, _ in found]).sum()
    table.learn([torch.autograd.grad(loss, table.looked_up)], counts=True)
    optimizer.param_groups[0]["lr"] = rate(step)
    optimizer.step()


def main(folder: Path) -> None:
    table = ShardedTable(first_weights(), torch.device("cpu"), L2)
    optimizer = ShardedAdagrad(table, 1.0)
    seen = {"rows": len(table.weight)}
    with torch.inference_mode():
        seen["found"] = [table(ids).clone() for ids, _ in look_ups(rank(), 0)]
        # The first rank asks for nothing here, while the others ask.
        seen["nothing"] = table(torch.full((rank(), 3), 7)).clone()
    for step in range(STEPS // 2):
        step_once(table, optimizer, step)
    half, learnt = table.gather(), optimizer.state_dict()
    learnt = {**learnt, "state": {0: {"sum": learnt["state"][0]["sum"].clone()}}}
    for step in range(STEPS // 2, STEPS):
        step_once(table, optimizer, step)
    seen["whole"] = table.gather()
    # Taken up in the middle, with the same rows and sums, it comes to the same end.
    half = torch.empty(ROWS, WIDTH) if rank() else half
    torch.distributed.broadcast(half, 0)
    table.load(half)
    again = ShardedAdagrad(table, 1.0)
    again.load_state_dict(learnt)
    for step in range(STEPS // 2, STEPS):
        step_once(table, again, step)
    seen["again"] = table.gather()
    # All ranks looked up the same, of which one counts; a look-up that nothing was learnt of moves nothing.
    table.load(first_weights())
    alike = ShardedAdagrad(table, rate(0))
    for ids, gradient in look_ups(0, 0):
        loss = (table(ids) * gradient).sum()
        table.learn([torch.autograd.grad(loss, table.looked_up)], counts=rank() == 0)
        alike.step()
    table(torch.tensor([5]))
    alike.step()
    seen["alike"] = table.gather()
    seen["refused"] = []
    for other in (torch.zeros(ROWS + 1, WIDTH), torch.zeros(ROWS, WIDTH + 4)):
        try:
            table.load(other)
        except InputError as error:
            seen["refused"].append(str(error))
    for wrong in (torch.zeros(ranks(), 6), torch.zeros(ranks() - 1, 8), torch.zeros(2 * ranks() - 2, 8)):
        try:
            ShardedTable(wrong, torch.device("cpu"), L2)
        except InputError as error:
            seen["refused"].append(str(error))
    before = resident_bytes()
    large = ShardedTable(torch.ones(LARGE, WIDTH), torch.device("cpu"), L2)
    seen["bytes"], seen["large"] = resident_bytes() - before, len(large.weight)
    torch.save(seen, folder / f"{rank()}.pt")


if __name__ == "__main__":
    with joined_ranks():
        main(Path(sys.argv[1]))
