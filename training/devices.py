"""Where a training computes: the accelerator of its process, or the CPU."""

import os

import torch


def training_device() -> torch.device:
    """Return this process's accelerator, or the CPU where torch finds none (CUDA_VISIBLE_DEVICES= hides NVIDIA's).

    Apple's is left alone: it knows no sparse gradients.
    """
    found = torch.accelerator.current_accelerator(check_available=True)
    if found is None or found.type == "mps":
        return torch.device("cpu")
    return torch.device(found.type, int(os.environ.get("LOCAL_RANK", "0")))
