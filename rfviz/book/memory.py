"""Memory that is freed stays with the process. Imported for its effect.

A forward pass asks for large pieces of memory and frees them moments later. The C library of Linux gives each back to
the system at once, and gets it again as pages that must be cleared and mapped: about half of the time of a pass on a
CPU. Told to keep them, it does not. ``RFVIZ_KEEP_MEMORY=0`` leaves it as it is.
"""

import ctypes
import os
import sys

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX = -1, -2, -4  # numbers of the options of glibc's mallopt


def keep() -> bool:
    """Keep freed memory, where the C library can be told so; return whether it could."""
    if os.environ.get("RFVIZ_KEEP_MEMORY") == "0" or not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # not every C library has it
    if mallopt is None:
        return False
    return all([mallopt(_MMAP_MAX, 0), mallopt(_TRIM_THRESHOLD, 2**31 - 1), mallopt(_TOP_PAD, 2**28)])


keep()
