"""The items with the largest inner products, exactly, for many users at once.

Of each user's scores a row lies in groups; the k best items lie in the k groups with the largest maxima. So most of a row is
passed over once, in the order in which it lies in memory, and only what is left is ranked.
"""

import math

import torch

_BLOCK_BYTES = 64 << 20  # of scores: more does not pay


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
    seen = seen and (seen[0].contiguous(), seen[1])
    groups = _group_count(len(items), k)
    size = -(-len(items) // groups)
    rows = max(1, _BLOCK_BYTES // (4 * groups * size))
    # One buffer for all blocks: the columns behind the last item stay without a score
    scores = torch.full((min(rows, len(users)), groups * size), -torch.inf, device=users.device)
    for start in range(0, len(users), rows):
        end = min(start + rows, len(users))
        block = scores[: end - start]
        torch.mm(users[start:end], items.T, out=block[:, : len(items)])
        if seen is not None:
            cut = torch.searchsorted(seen[0], torch.tensor([start, end], device=seen[0].device)).tolist()
            block[seen[0][cut[0] : cut[1]] - start, seen[1][cut[0] : cut[1]]] = -torch.inf
        best, values = _best(block, min(k, len(items)), groups)
        found[0][start:end, : best.shape[1]] = torch.where(torch.isfinite(values), best, -1).cpu()
        found[1][start:end, : best.shape[1]] = values.cpu()
    return found


def _group_count(items: int, k: int) -> int:
    """Return how many groups leave the fewest numbers to rank: √(items · k), a group having √(items / k) items."""
    size = max(1, round(math.sqrt(items / max(1, k))))
    return -(-items // size)


def _best(scores: torch.Tensor, k: int, groups: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the columns [B, k] of the largest scores [B, size x groups] and these, largest first, ties by column."""
    if groups <= k or groups == scores.shape[1]:
        columns, chosen, next_best = None, scores, None
    else:
        # Column c is in group c % groups: a maximum over groups is then one over rows that lie side by side
        maxima, group = scores.unflatten(1, (-1, groups)).amax(1).topk(k + 1, dim=1)
        next_best = maxima[:, k]
        first = torch.arange(0, scores.shape[1], groups, device=scores.device)
        columns = (first[:, None] + group[:, None, :k]).flatten(1)
        chosen = scores.gather(1, columns)
    values, place = chosen.topk(min(k + 1, chosen.shape[1]), dim=1)
    best = place if columns is None else columns.gather(1, place)
    best, rest = best[:, :k], values[:, k:]
    values = values[:, :k]
    last = values[:, -1]
    # What ties with the last place may have been left out by chance
    tied = (rest == last[:, None]).any(1)
    if next_best is not None:
        tied |= next_best == last
    tied &= torch.isfinite(last)
    by_column = best.argsort(1)
    values, best = values.gather(1, by_column), best.gather(1, by_column)
    by_value = values.argsort(dim=1, descending=True, stable=True)
    values, best = values.gather(1, by_value), best.gather(1, by_value)
    for row in tied.nonzero().flatten().tolist():
        able = (scores[row] >= last[row]).nonzero().flatten()
        order = scores[row, able].argsort(dim=0, descending=True, stable=True)[:k]
        best[row], values[row] = able[order], scores[row, able[order]]
    return best, values
