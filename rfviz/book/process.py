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

PRELOAD = "rfviz.book.preload"
"""Module that processes have imported when they begin (`rfviz.lab.forks`)."""

OPTIONS = {"mmap_max": (-4, 0), "trim_threshold": (-1, 2**31 - 1), "top_pad": (-2, 2**28)}
"""Of glibc's malloc, by name among the tunables: the number for mallopt, and the value it gets."""


def prepare() -> None:
    """Set up this process, which has not loaded torch yet, and through its environment those that it starts."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if keep_memory():
        tunables = ":".join(f"glibc.malloc.{name}={value}" for name, (_, value) in OPTIONS.items())
        os.environ.setdefault("GLIBC_TUNABLES", tunables)


def keep_memory() -> bool:
    """Keep the memory that this process frees, where the C library can be told so; return whether it could."""
    if os.environ.get("RFVIZ_KEEP_MEMORY") == "0" or not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", lambda *_: 0)  # not every C library has it
    taken = [mallopt(*option) for option in OPTIONS.values()]
    return all(taken)
