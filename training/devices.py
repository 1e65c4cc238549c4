"""Where a training computes: the accelerator of its process, or the CPU."""

import os

import torch

from nightshelf.errors import InputError


def training_device() -> torch.device:
    """Return this process's accelerator, or the CPU where torch finds none (CUDA_VISIBLE_DEVICES= hides NVIDIA's).

    Apple's is left alone: it knows no sparse gradients.

    Raises:
        InputError: torchrun has started more processes on this machine than it has accelerators.
    """
    found = torch.accelerator.current_accelerator(check_available=True)
    if found is None or found.type == "mps":
        return torch.device("cpu")
    place, count = int(os.environ.get("LOCAL_RANK", "0")), torch.accelerator.device_count()
    if place >= count:
        raise InputError(
            f"process {place + 1} on this machine has no accelerator of its own ({count} are here): give torchrun "
            f"--nproc-per-node {count}, or hide them from it (CUDA_VISIBLE_DEVICES=)"
        )
    return torch.device(found.type, place)
