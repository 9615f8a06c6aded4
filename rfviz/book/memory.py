"""Memory that is freed stays with the process.

A forward pass asks for large pieces of memory and frees them moments later. The C library of Linux gives each back to
the system at once, and gets it again as pages that must be cleared and mapped: about half of the time of a pass on a
CPU. Told to keep them, it does not. ``RFVIZ_KEEP_MEMORY=0`` leaves it as it is.
"""

import ctypes
import os
import sys
from typing import NamedTuple


class Option(NamedTuple):
    """An option of glibc's malloc: its name among the tunables, its number for mallopt, and the value it gets."""

    name: str
    number: int
    value: int


OPTIONS = (Option("mmap_max", -4, 0), Option("trim_threshold", -1, 2**31 - 1), Option("top_pad", -2, 2**28))


def wanted() -> bool:
    """Tell whether freed memory is to be kept."""
    return os.environ.get("RFVIZ_KEEP_MEMORY") != "0" and sys.platform.startswith("linux")


def keep() -> bool:
    """Keep the memory that this process frees, where the C library can be told so; return whether it could."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if wanted() else None  # not every C library has it
    return mallopt is not None and all([mallopt(option.number, option.value) for option in OPTIONS])


def environment() -> dict[str, str]:
    """Return the environment variables with which a process that is started keeps its memory from the beginning."""
    tunables = ":".join(f"glibc.malloc.{option.name}={option.value}" for option in OPTIONS)
    return {"GLIBC_TUNABLES": tunables} if wanted() else {}
