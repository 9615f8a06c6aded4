"""How a process of ours uses threads and memory on a CPU.

Threads that wait for each other sleep instead of spinning: when another program wants one of the cores, spinning makes
small networks train many times slower.

Memory that is freed stays with the process. A forward pass asks for large pieces of memory and frees them moments
later. The C library of Linux gives each back to the system at once, and gets it again as pages that must be cleared and
mapped: up to half of the time of a pass on a CPU. Told to keep them, it does not. ``RFVIZ_KEEP_MEMORY=0`` leaves it as
it is.
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


PRELOAD = "rfviz.book.preload"
"""Module that processes have imported when they begin (`rfviz.lab.forks`)."""

OPTIONS = (Option("mmap_max", -4, 0), Option("trim_threshold", -1, 2**31 - 1), Option("top_pad", -2, 2**28))


def prepare() -> None:
    """Set up this process, which has not loaded torch yet, and through its environment those that it starts."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if keep_memory():
        tunables = ":".join(f"glibc.malloc.{option.name}={option.value}" for option in OPTIONS)
        os.environ.setdefault("GLIBC_TUNABLES", tunables)


def keep_memory() -> bool:
    """Keep the memory that this process frees, where the C library can be told so; return whether it could."""
    if os.environ.get("RFVIZ_KEEP_MEMORY") == "0" or not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", lambda *_: 0)  # not every C library has it
    taken = [mallopt(option.number, option.value) for option in OPTIONS]
    return all(taken)
