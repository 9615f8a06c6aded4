"""Timing in turns, peak memory, and the machine."""

import os
import platform
import resource
import statistics
import subprocess
import time
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import torch

from rfviz.lab.provenance import processor

PACKAGES = ("torch", "torchvision", "numpy", "zennit-crp", "torch-lucent", "captum")


def seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def in_turn(works: dict[str, Callable[[], object]], runs: int) -> dict[str, list[float]]:
    """Run all works in turn, once to warm up and then `runs` times; return the seconds of each."""
    for work in works.values():
        work()
    found: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(runs):
        for name, work in works.items():
            found[name].append(seconds(work))
    return found


def compared(times: dict[str, list[float]], work: str, reference: str) -> dict[str, Any]:
    """Return medians, and the median, smallest and largest ratio of pairs."""
    ratios = [a / b for a, b in zip(times[work], times[reference], strict=True)]
    return {
        "seconds": statistics.median(times[work]),
        "reference_seconds": statistics.median(times[reference]),
        "ratio": statistics.median(ratios),
        "ratios": [min(ratios), max(ratios)],
        "runs": len(ratios),
    }


def peak_mb() -> float:
    """Largest memory that this process has held, MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def machine() -> dict[str, Any]:
    """Describe the machine, for people."""
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "none"
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return {
        "processor": processor(),
        "threads": torch.get_num_threads(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "memory": f"{pages / 2**30:.0f} GiB",
        "GPU": gpu,
        "system": platform.system(),
    }


def versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        found[package] = version(package)
    return found | {"torch": str(torch.__version__)}  # with its build


def commit() -> str:
    described = ["git", "describe", "--always", "--dirty", "--abbrev=10"]
    return subprocess.run(described, capture_output=True, text=True, check=False).stdout.strip() or "unknown"
