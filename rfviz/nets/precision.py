"""What decides how sums are rounded: TF32 on a GPU, and the number of threads on a CPU."""

import contextlib
from collections.abc import Iterator

import torch


@contextlib.contextmanager
def exact(device: torch.device) -> Iterator[None]:
    """Turn TF32 off, in which torch convolves on GPUs by default: 10 bits of mantissa in place of 23.

    So a GPU computes what a CPU does, but for rounding. Everything is put back afterwards. On a CPU nothing changes.
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


@contextlib.contextmanager
def threads(count: int | None) -> Iterator[None]:
    """Compute on so many threads of the CPU inside the block; None leaves them as they are."""
    if count is None:
        yield
        return
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
