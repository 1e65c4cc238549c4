"""Where a training or a ranking computes: the accelerator of its process, or the CPU."""

import os

import torch

from nightshelf.errors import InputError


def training_device() -> torch.device:
    """Return this process's accelerator, or the CPU where there is none.

    Raises:
        InputError: torchrun has started more processes on this machine than it has accelerators.
    """
    found = _accelerator()
    if found is None:
        return torch.device("cpu")
    place, count = int(os.environ.get("LOCAL_RANK", "0")), torch.accelerator.device_count()
    if place >= count:
        raise InputError(
            f"process {place + 1} on this machine has no accelerator of its own ({count} are here): give torchrun "
            f"--nproc-per-node {count}, or hide them from it (CUDA_VISIBLE_DEVICES=)"
        )
    return torch.device(found.type, place)


def ranking_device(place: int = 0) -> torch.device:
    """Return the accelerator for this one of the parts that are ranked side by side, or the CPU."""
    found = _accelerator()
    return torch.device("cpu") if found is None else torch.device(found.type, place % torch.accelerator.device_count())


def _accelerator() -> torch.device | None:
    """Return what torch finds (CUDA_VISIBLE_DEVICES= hides NVIDIA's). Apple's is left alone: it knows no sparse gradients."""
    found = torch.accelerator.current_accelerator(check_available=True)
    return None if found is None or found.type == "mps" else found
