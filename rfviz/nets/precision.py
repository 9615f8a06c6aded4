"""How exactly a network multiplies during an analysis."""

import contextlib
from collections.abc import Iterator

import torch

from rfviz.errors import unknown

PRECISIONS = ("float32", "bfloat16")


@contextlib.contextmanager
def multiplying(precision: str, device: torch.device) -> Iterator[None]:
    """Let networks on a device multiply in a precision, and put everything back afterwards.

    Parameters
    ----------
    precision : {"float32", "bfloat16"}
        ``"float32"`` multiplies in the network's own type. On a GPU this turns TF32 off, in which torch convolves by
        default with 10 bits of mantissa in place of 23. ``"bfloat16"`` multiplies with 7 bits (autocast).
    device : torch.device

    Raises
    ------
    RfvizError
        If the precision is unknown.
    """
    if precision not in PRECISIONS:
        raise unknown("precision", precision, PRECISIONS)
    if precision == "bfloat16":
        with torch.autocast(device.type, torch.bfloat16):
            yield
        return
    before = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = before
