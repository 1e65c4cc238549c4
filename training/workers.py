"""Threads that compute side by side: few of a ranker's operations are large enough to be shared by a CPU's cores.

A model that they train together must not index a parameter in its forward pass (`weight[0]`): torch holds Python's lock while
it then asks for the parameter's own, which another thread may hold that waits for Python's. Its functions (`unbind`,
`index_select`, `narrow`) let go of Python's lock first.
"""

from concurrent.futures import ThreadPoolExecutor

import torch

from nightshelf.parallel import cores


def torch_workers(count: int = 0, processes: int = 1) -> ThreadPoolExecutor:
    """Return a pool of `count` threads (0: one a core), each of which computes with its share of the cores.

    So many `processes` share the cores.
    """
    count = count or cores()
    share = max(1, cores() // (count * processes))
    return ThreadPoolExecutor(count, initializer=_begin, initargs=(share,))


def flush_tiny_numbers() -> None:
    """Let this thread, and those that it starts, take numbers below 1e-38 (denormal float32) for 0.

    What a unit that never fires any more has learned decays to such numbers, and a processor multiplies by them many times as
    slowly (docs/benchmarks.md, "Denormal numbers").
    """
    torch.set_flush_denormal(True)


def _begin(share: int) -> None:
    torch.set_num_threads(share)
    flush_tiny_numbers()
