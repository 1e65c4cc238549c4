"""The items with the largest inner products, exactly, for many users at once.

On a CPU most of a row of scores is looked at once, where it was just made and still lies in the cache: only the maxima of groups
of items are kept. k groups have maxima of at least the k-th largest one, so that no lower score is among the k best; the few
groups that reach it are looked at again, and of their items again few are ranked.
"""

import math
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch

from training.workers import torch_workers

_CHUNK = 4096  # items of one product, at most some more: with the scores of a block of users, it stays in the cache
_USERS = 128  # whose products are made at once
_KEPT_USERS = (
    32  # … and so many where all of their scores fit in the next; else those of the best groups are made again
)
_KEPT_BYTES = 8 << 20
_MANY_GROUPS = 4096  # a row with more that reach the bound (as many equal scores) is sorted whole
_DEVICE_BYTES = 256 << 20  # of scores on an accelerator
_LEAST = np.finfo(np.float32).min
_NONE = np.iinfo(np.uint64).max


class NearestItems:
    """A catalogue, laid out once for the search of its k nearest items to many users."""

    def __init__(self, items: torch.Tensor, k: int) -> None:
        """Prepare the search.

        Args:
            items: vectors, float32 [I, D].
            k: how many items are found for each user; where there are fewer, the end of a row is filled up.
        """
        self._items, self._k = items.contiguous(), k
        self._laid = _laid_out(self._items, k) if len(items) and items.device.type == "cpu" else None

    def of(
        self, users: torch.Tensor, seen: tuple[torch.Tensor, torch.Tensor] | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the k items of the largest inner product for each user; ties go to the lower number.

        Args:
            users: vectors, float32 [U, D].
            seen: pairs of user and item, int64 [P] and [P], sorted by user: items that the user is not to get.

        Returns:
            Item numbers, int64 [U, k], -1 where there is none; and their inner products, float32 [U, k], -inf there.
        """
        found = torch.full((len(users), self._k), -1), torch.full((len(users), self._k), -torch.inf)
        if not len(users) or not len(self._items):
            return found
        nothing = torch.zeros(0, dtype=torch.int64, device=users.device)
        seen = seen or (nothing, nothing)
        if self._laid is None:
            _on_device(users, self._items, self._k, seen, found)
            return found
        search = _Search(users.contiguous(), self._laid, self._k, *(part.numpy() for part in seen))
        with torch.inference_mode(), torch_workers() as pool:
            for start, (numbers, scores) in pool.map(search.block, range(0, len(users), search.rows)):
                rows = slice(start, start + len(numbers))
                found[0][rows, : numbers.shape[1]] = torch.from_numpy(numbers)
                found[1][rows, : scores.shape[1]] = torch.from_numpy(scores)
        return found


@dataclass(frozen=True)
class _Laid:
    """A catalogue in groups of items, [G, size x D], and the same in chunks [n, D, chunk], zeros behind the last item.

    Column p x (chunk / size) + j of a chunk is item p of its group j, so that maxima of groups are those of rows side by side.
    """

    items: torch.Tensor
    groups: torch.Tensor
    chunks: torch.Tensor
    size: int
    is_kept: bool
    largest_norm: float

    @property
    def groups_of_chunk(self) -> int:
        """Return how many groups a chunk has."""
        return int(self.chunks.shape[2]) // self.size

    def place(self, items: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the chunk of items, and their columns in it."""
        group, place = np.divmod(items, self.size)
        number, inside = np.divmod(group, self.groups_of_chunk)
        return number, place * self.groups_of_chunk + inside


def _laid_out(items: torch.Tensor, k: int) -> _Laid:
    count, width = items.shape
    is_kept, spread = 4 * _KEPT_USERS * count <= _KEPT_BYTES, math.sqrt(count / max(1, k))
    # As many groups as there are items in the k best of them leave the least to do; to make these again costs more than to read
    size = max(1, round(spread)) if is_kept else min(8, max(1, round(spread / 5)))
    chunk = -(-count // max(1, round(count / _CHUNK)))
    chunk = -(-chunk // size) * size
    groups = _padded(items, size).view(-1, size * width)
    chunks = _padded(items, chunk).view(-1, chunk // size, size, width).permute(0, 3, 2, 1).reshape(-1, width, chunk)
    return _Laid(items, groups, chunks, size, is_kept, float(items.norm(dim=1).max()))


def _padded(items: torch.Tensor, multiple: int) -> torch.Tensor:
    """Return the items, zeros behind them up to a multiple."""
    missing = -len(items) % multiple
    return torch.cat([items, items.new_zeros((missing, items.shape[1]))]) if missing else items


class _Search:
    """One search on a CPU; `block` may run in several threads."""

    def __init__(self, users: torch.Tensor, laid: _Laid, k: int, seen_user: np.ndarray, seen_item: np.ndarray) -> None:
        self.users, self.laid, self.k = users, laid, min(k, len(laid.items))
        self.seen_user, self.seen_item = seen_user, seen_item
        number, _, chunk = laid.chunks.shape
        self.rows = min(_KEPT_USERS if laid.is_kept else _USERS, len(users))
        self.shape = (number if laid.is_kept else 1, self.rows, chunk)
        self.no_item = laid.place(np.arange(len(laid.items), number * chunk))[1]  # of the last chunk
        self.steps = np.arange(laid.size) * laid.groups_of_chunk
        self.buffers = threading.local()

    def block(self, start: int) -> tuple[int, tuple[np.ndarray, np.ndarray]]:
        """Return `start`, and numbers and scores [B, min(k, I)] of the users from there on."""
        users = self.users[start : start + self.rows]
        cut = slice(*np.searchsorted(self.seen_user, [start, start + len(users)]))
        row, item = self.seen_user[cut] - start, self.seen_item[cut]
        scores, maxima = self._scores(users, row, item)
        least = np.maximum(_kth_largest(maxima, self.k), _LEAST)
        row_of, group = np.divmod(np.flatnonzero(maxima >= least[:, None]), maxima.shape[1])
        counts = np.bincount(row_of, minlength=len(users))
        many = np.flatnonzero(counts > max(_MANY_GROUPS, 4 * self.k))
        if len(many):
            few = ~np.isin(row_of, many)
            row_of, group = row_of[few], group[few]
        if self.laid.is_kept:
            chunk, inside = np.divmod(group, self.laid.groups_of_chunk)
            first = (chunk * scores.shape[1] + row_of) * scores.shape[2] + inside
            value = np.take(scores.reshape(-1), first[:, None] + self.steps)
            kept = np.flatnonzero(value >= least[row_of][:, None])
        else:
            value = self._again(users, row_of, group)
            # A product made in another way may differ in the last digits
            slack = 1e-5 * self.laid.largest_norm * users.norm(dim=1).numpy()
            kept = np.flatnonzero(value >= (least - slack)[row_of][:, None])
        at, place_in_group = np.divmod(kept, self.laid.size)
        row_of, number, value = row_of[at], group[at] * self.laid.size + place_in_group, value.reshape(-1)[kept]
        if not self.laid.is_kept:
            count = len(self.laid.items)
            able = (number < count) & ~np.isin(row_of * count + number, row * count + item)
            row_of, number, value = row_of[able], number[able], value[able]
        best = _first(len(users), row_of, number, value, self.k)
        for place in many.tolist():
            whole = torch.mv(self.laid.items, users[place]).numpy()
            whole[item[row == place]] = -np.inf
            left = np.flatnonzero(whole > -np.inf)
            best[place] = _first(1, np.zeros(len(left), np.int64), left, whole[left], self.k)[0]
        return start, _split(best)

    def _scores(self, users: torch.Tensor, row: np.ndarray, item: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return scores [all chunks, or the last one, >= B, chunk] and maxima of groups [B, groups]; -inf for what is seen."""
        laid, groups = self.laid, self.laid.groups_of_chunk
        if not hasattr(self.buffers, "scores"):  # one for all blocks of a thread
            self.buffers.scores = torch.empty(self.shape)
            self.buffers.maxima = np.empty((self.shape[1], len(laid.chunks) * groups), np.float32)
        scores, maxima = self.buffers.scores, self.buffers.maxima[: len(users)]
        number, column = laid.place(item)
        order = np.argsort(number, kind="stable")
        cuts = np.searchsorted(number[order], np.arange(len(laid.chunks) + 1))
        for at, chunk in enumerate(laid.chunks):
            part = scores[at % len(scores), : len(users)]
            torch.mm(users, chunk, out=part)
            values, hidden = part.numpy(), order[cuts[at] : cuts[at + 1]]
            values[row[hidden], column[hidden]] = -np.inf
            if at == len(laid.chunks) - 1:
                values[:, self.no_item] = -np.inf
            of_groups = values.reshape(len(users), laid.size, groups)
            np.max(of_groups, axis=1, out=maxima[:, at * groups : (at + 1) * groups])
        return scores.numpy(), maxima

    def _again(self, users: torch.Tensor, row: np.ndarray, group: np.ndarray) -> np.ndarray:
        """Return the scores of the items of groups [n, size] to users whose rows [n] ascend."""
        cuts, groups = np.searchsorted(row, np.arange(len(users) + 1)).tolist(), torch.from_numpy(group)
        value = torch.empty((len(row), self.laid.size))
        for place, (start, end) in enumerate(pairwise(cuts)):
            items = self.laid.groups.index_select(0, groups[start:end]).view(-1, users.shape[1])
            torch.mv(items, users[place], out=value[start:end].view(-1))
        return value.numpy()


def _kth_largest(maxima: np.ndarray, k: int) -> np.ndarray:
    """Return a bound for each row [B] that at least k of its maxima [B, G] reach, and few more; -inf where there are fewer."""
    count = maxima.shape[1]
    size = max(1, round(math.sqrt(count / k)))
    whole = count // size * size
    parts = [maxima[:, :whole].reshape(len(maxima), size, -1).max(axis=1), maxima[:, whole:]] if size > 1 else [maxima]
    of_parts = np.concatenate(parts, axis=1) if len(parts) > 1 else parts[0]
    if of_parts.shape[1] < k:
        of_parts = maxima
    if count < k:
        return np.full(len(maxima), -np.inf, np.float32)
    place = of_parts.shape[1] - k
    return np.partition(of_parts, place, axis=1)[:, place]


def _first(rows: int, row: np.ndarray, number: np.ndarray, score: np.ndarray, k: int) -> np.ndarray:
    """Return the k first of each row, the largest score first and ties by number: both in one whole number [rows, k]."""
    bits = (score + np.float32(0)).view(np.uint32)  # … so that -0 is 0
    # As whole numbers, from the largest score to the least
    falling = np.where(bits >> 31, bits, bits ^ np.uint32(0x7FFFFFFF))
    counts = np.bincount(row, minlength=rows)
    slot = np.arange(len(row)) - (np.cumsum(counts) - counts)[row]
    packed = np.full((rows, max(k, int(counts.max(initial=0)))), _NONE, np.uint64)
    packed[row, slot] = (falling.astype(np.uint64) << np.uint64(32)) | number.astype(np.uint64)
    packed.sort(axis=1)
    return packed[:, :k]


def best_first(able: np.ndarray, numbers: np.ndarray, scores: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Return of those items [B, K] that are `able` the k with the largest scores, ties by number: numbers and scores [B, k]."""
    row, column = np.nonzero(able)
    return _split(_first(len(able), row, numbers[row, column], scores[row, column], k))


def _split(packed: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return numbers and scores of what `_first` packed."""
    falling = (packed >> np.uint64(32)).astype(np.uint32)
    score = np.where(falling >> 31, falling, falling ^ np.uint32(0x7FFFFFFF)).view(np.float32)
    is_there = packed != _NONE
    number = (packed & np.uint64(0xFFFFFFFF)).astype(np.int64)
    return np.where(is_there, number, -1), np.where(is_there, score, np.float32(-np.inf))


def _on_device(
    users: torch.Tensor,
    items: torch.Tensor,
    k: int,
    seen: tuple[torch.Tensor, torch.Tensor],
    found: tuple[torch.Tensor, torch.Tensor],
) -> None:
    """Search on an accelerator: a product and a topk, some users at once."""
    seen_user = seen[0].contiguous()
    for start, end in _blocks(len(users), max(1, _DEVICE_BYTES // (4 * len(items)))):
        scores = users[start:end] @ items.T
        cut = slice(*torch.searchsorted(seen_user, torch.tensor([start, end], device=users.device)).tolist())
        scores[seen[0][cut] - start, seen[1][cut]] = -torch.inf
        values, best = scores.topk(min(k + 1, len(items)), dim=1)
        # Rows in which equals stand side by side, or may have been left out by chance, are looked at again
        tied = ((values[:, 1:] == values[:, :-1]) & torch.isfinite(values[:, 1:])).any(1)
        best, values = best[:, :k], values[:, :k]
        for row in tied.nonzero().flatten().tolist():
            able = (scores[row] >= values[row, -1]).nonzero().flatten()
            order = scores[row, able].argsort(dim=0, descending=True, stable=True)[:k]
            best[row], values[row] = able[order], scores[row, able[order]]
        found[0][start:end, : best.shape[1]] = torch.where(torch.isfinite(values), best, -1).cpu()
        found[1][start:end, : best.shape[1]] = values.cpu()


def _blocks(count: int, rows: int) -> Iterator[tuple[int, int]]:
    for start in range(0, count, rows):
        yield start, min(start + rows, count)
