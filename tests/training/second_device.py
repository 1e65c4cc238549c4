"""A second device, made of the CPU: whatever mixes its tensors with the CPU's fails there, as on an accelerator.

Everything else computes what the CPU computes, through torch's own machinery for devices, autograd's threads included.
"""

from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

NAME = "second"
_aten = torch.ops.aten
# An accelerator takes these from the CPU, too.
_ACROSS = {_aten._to_copy.default, _aten.copy_.default, _aten.index.Tensor, _aten.index_put_.default}


class Elsewhere(torch.Tensor):
    """A tensor of the second device; `inner` holds its numbers. `asked` notes what was computed there."""

    inner: torch.Tensor
    asked: ClassVar[set[Any]] = set()
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, inner: torch.Tensor) -> "Elsewhere":
        """Wrap a tensor of the CPU."""
        layout: dict[str, Any] = {"layout": inner.layout}
        if inner.layout == torch.strided:
            layout |= {"strides": inner.stride(), "storage_offset": inner.storage_offset()}
        made = torch.Tensor._make_wrapper_subclass(cls, inner.shape, dtype=inner.dtype, device=f"{NAME}:0", **layout)
        made.inner = inner
        return made

    def __repr__(self) -> str:
        return f"Elsewhere({self.inner})"

    def tolist(self) -> Any:
        """Return its numbers."""
        return self.inner.tolist()

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Compute on the CPU; refuse what an accelerator would refuse."""
        kwargs = kwargs or {}
        cls.asked.add(func)
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
        strangers = [t for t in tensors if not isinstance(t, Elsewhere) and t.ndim]
        if strangers and func not in _ACROSS:
            raise RuntimeError(f"{func}: a tensor {tuple(strangers[0].shape)} of the CPU among those of {NAME}")
        to = kwargs.get("device")
        if to is not None:
            kwargs = {**kwargs, "device": "cpu"}
        args_in, kwargs_in = tree_map(_unwrap, (args, kwargs))
        found = func(*args_in, **kwargs_in)
        returns = func._schema.returns
        if not returns:
            return None
        if returns[0].alias_info is not None and returns[0].alias_info.is_write:
            written = kwargs["out"] if "out" in kwargs else args[0]
            assert written.shape == _unwrap(written).shape, f"{func} changes the shape of a tensor, which {NAME} cannot"
            return written
        goes_home = to is not None and torch.device(to).type == "cpu"
        return found if goes_home else tree_map(_wrap, found)


def _unwrap(value: Any) -> Any:
    return value.inner if isinstance(value, Elsewhere) else value


def _wrap(value: Any) -> Any:
    return Elsewhere(value) if isinstance(value, torch.Tensor) else value


# Whatever else makes tensors is made of these.
_MAKERS = [_aten.empty.memory_format, _aten.empty_strided.default, _aten.eye.default, _aten.eye.m]
_MAKERS += [_aten.arange.default, _aten.arange.start, _aten.arange.start_step]


def _made_by(maker: Any) -> Callable[..., Elsewhere]:
    def make(*args: Any, **kwargs: Any) -> Elsewhere:
        return Elsewhere(maker(*args, **{**kwargs, "device": "cpu"}))

    return make


def register() -> torch.library.Library:
    """Give this process the second device, as its accelerator; it has it while the library is kept."""
    _setup_privateuseone_for_python_backend(NAME)
    torch.inference_mode = torch.no_grad  # type: ignore[misc,assignment]  # in which a tensor like these cannot be a view
    torch.__future__.set_swap_module_params_on_conversion(True)  # a module's parameters stay the objects that they are
    library = torch.library.Library("aten", "IMPL")
    for maker in _MAKERS:
        library.impl(maker, _made_by(maker), "PrivateUse1")
    return library
