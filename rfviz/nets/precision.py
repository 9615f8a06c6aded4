"""Float32 in full: what a network computes on a GPU is what it computes on a CPU, but for rounding."""

import contextlib
from collections.abc import Iterator

import torch


@contextlib.contextmanager
def exact(device: torch.device) -> Iterator[None]:
    """Turn TF32 off, in which torch convolves on GPUs by default: 10 bits of mantissa in place of 23.

    Everything is put back afterwards. On a CPU nothing changes.
    """
    if device.type != "cuda":
        yield
        return
    before = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = before
