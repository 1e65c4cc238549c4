"""The items with the largest inner products, exactly, for many users at once.

Of each user's scores a row lies in groups; the k best items lie in the k groups with the largest maxima. So most of a row is
passed over once, in the order in which it lies in memory, and only what is left is ranked.
"""

import math
import threading

import torch

from training.workers import torch_workers

_BLOCK_BYTES = 64 << 20  # of scores
_MOST_BYTES = 256 << 20  # … so that products have some rows where a catalogue is large
_ROWS = 32


def nearest_items(
    users: torch.Tensor, items: torch.Tensor, k: int, seen: tuple[torch.Tensor, torch.Tensor] | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the k items of the largest inner product for each user; ties go to the lower number.

    Args:
        users: vectors, float32 [U, D].
        items: vectors, float32 [I, D].
        k: how many; where there are fewer, the end of a row is filled up.
        seen: pairs of user and item, int64 [P] and [P], sorted by user: items that the user is not to get.

    Returns:
        Item numbers, int64 [U, k], -1 where there is none; and their inner products, float32 [U, k], -inf there.
    """
    found = torch.full((len(users), k), -1), torch.full((len(users), k), -torch.inf)
    if not len(users) or not len(items):
        return found
    groups = _group_count(len(items), k)
    width = -(-len(items) // groups) * groups
    rows = max(1, _BLOCK_BYTES // (4 * width), min(_ROWS, _MOST_BYTES // (4 * width)))
    users_of = seen[0].contiguous() if seen else None
    buffers = threading.local()

    @torch.inference_mode()
    def search(start: int) -> None:
        end = min(start + rows, len(users))
        if not hasattr(
            buffers, "scores"
        ):  # one for all blocks of a thread: what is behind the last item stays without a score
            buffers.scores = torch.full((min(rows, len(users)), width), -torch.inf, device=users.device)
        block = buffers.scores[: end - start]
        torch.mm(users[start:end], items.T, out=block[:, : len(items)])
        if seen is not None and users_of is not None:
            cut = torch.searchsorted(users_of, torch.tensor([start, end], device=users.device)).tolist()
            block[seen[0][cut[0] : cut[1]] - start, seen[1][cut[0] : cut[1]]] = -torch.inf
        best, values = _best(block, min(k, len(items)), groups)
        found[0][start:end, : best.shape[1]] = torch.where(torch.isfinite(values), best, -1).cpu()
        found[1][start:end, : best.shape[1]] = values.cpu()

    blocks = range(0, len(users), rows)
    if users.device.type == "cpu" and len(blocks) > 1:
        with torch_workers() as pool:
            list(pool.map(search, blocks))
    else:
        for start in blocks:
            search(start)
    return found


def _group_count(items: int, k: int) -> int:
    """Return how many groups leave the least to do: they are ranked, and so are few more than k items of the k best of them."""
    size = max(1, round(math.sqrt(items / max(1, k))))
    return -(-items // size)


def _best(scores: torch.Tensor, k: int, groups: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the columns [B, k] of the largest scores [B, size x groups] and these, largest first, ties by column."""
    if groups <= k or groups == scores.shape[1]:
        values, best = scores.topk(min(k + 1, scores.shape[1]), dim=1)
        tied = torch.zeros(len(scores), dtype=torch.bool, device=scores.device)
    else:
        values, best, tied = _best_of_groups(scores, k, groups)
    # Rows in which equals stand side by side, or may have been left out by chance, are looked at again
    tied |= ((values[:, 1:] == values[:, :-1]) & torch.isfinite(values[:, 1:])).any(1)
    best, values = best[:, :k], values[:, :k]
    for row in tied.nonzero().flatten().tolist():
        able = (scores[row] >= values[row, -1]).nonzero().flatten()
        order = scores[row, able].argsort(dim=0, descending=True, stable=True)[:k]
        best[row], values[row] = able[order], scores[row, able[order]]
    return best, values


def _best_of_groups(scores: torch.Tensor, k: int, groups: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return the largest scores [B, k or k + 1] in order, their columns, and in which rows a group too many was as good."""
    # Column c is in group c % groups: a maximum over groups is then one over rows that lie side by side
    maxima = scores.unflatten(1, (-1, groups)).amax(1)
    least, group = maxima.topk(k, dim=1, sorted=False)
    least = least.amin(1, keepdim=True)  # k scores at least are as large
    tied = (maxima >= least).sum(1) > k
    of_groups = scores.unflatten(1, (-1, groups))
    chosen = of_groups.gather(2, group.unsqueeze(1).expand(-1, of_groups.shape[1], -1)).flatten(1)
    # What may be among the best, packed to the left: few more than k a row
    place = (chosen >= least).flatten().nonzero().squeeze(1)
    row, place_in_row = place // chosen.shape[1], place % chosen.shape[1]
    counts = torch.bincount(row, minlength=len(scores))
    width = int(counts.max())
    slot = (
        torch.arange(len(row), device=row.device)
        + (torch.arange(len(counts), device=row.device) * width - counts.cumsum(0) + counts)[row]
    )
    packed = torch.full((len(scores) * width,), -torch.inf, device=scores.device)
    packed[slot] = chosen.flatten()[place]
    values, order = packed.view(-1, width).topk(min(k + 1, width), dim=1)
    numbers = torch.zeros(len(packed), dtype=torch.int64, device=scores.device)
    numbers[slot] = place_in_row // k * groups + group.flatten()[row * k + place_in_row % k]
    return values, numbers.view(-1, width).gather(1, order), tied
