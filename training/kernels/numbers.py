"""float32 and bfloat16 in kernels: bfloat16, which numpy has not, as the 16 bits that it is."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numba import njit, types
from numba.extending import overload


def kernel(function: Callable[..., Any], **how: Any) -> Callable[..., Any]:
    """Let numba compile a function at its first call with a kind of arrays; it holds no lock, so that threads run side by side.

    What is compiled is kept beside the source or in the user's cache; where neither can be written each process compiles anew.
    """
    try:
        return njit(function, nogil=True, cache=True, **how)
    except RuntimeError:
        return njit(function, nogil=True, **how)


def kernel_of_sums(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile, and let sums be taken in any order and a product be added without being rounded first."""
    return kernel(function, fastmath={"reassoc", "contract", "nsz"})


def array(tensor: torch.Tensor) -> np.ndarray:
    """Return a view of a tensor on the CPU that kernels take: bfloat16 as uint16."""
    tensor = tensor.detach() if tensor.requires_grad else tensor
    return (tensor.view(torch.uint16) if tensor.dtype == torch.bfloat16 else tensor).numpy()


def read(number):
    """Return a kernel's number as float32."""
    raise NotImplementedError("in kernels alone")


def write(out, value):
    """Return a float32 as a number of the array `out`: to the nearest, ties to even; what is no number stays none."""
    raise NotImplementedError("in kernels alone")


@overload(read)
def _read(number):
    if number == types.uint16:
        return lambda number: np.uint32(np.uint32(number) << np.uint32(16)).view(np.float32)
    return lambda number: number


@overload(write)
def _write(out, value):
    if out.dtype != types.uint16:
        return lambda out, value: value

    def rounded(out, value):
        """Return the upper 16 bits of a float32, rounded to the nearest, ties to even; 0x7FC0 for what is no number."""
        bits = np.float32(value).view(np.uint32)
        near = (bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16)
        is_number = (bits & np.uint32(0x7FFFFFFF)) <= np.uint32(0x7F800000)
        return np.uint16(near) if is_number else np.uint16(0x7FC0)

    return rounded
