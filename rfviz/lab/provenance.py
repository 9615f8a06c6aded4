"""What a result was made with: code, machine, versions."""

import platform
import time
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import torch

from rfviz.storage.places import git

_PACKAGES = ("torch", "torchvision", "numpy", "scikit-image", "matplotlib")


def commit() -> str:
    """Return the commit of the working tree, marked where files differ from it, or "unknown" outside a clone."""
    head, changed = git("rev-parse", "--short=12", "HEAD"), git("status", "--porcelain")
    return "unknown" if head is None or changed is None else head + (" (with local changes)" if changed else "")


def processor() -> str:
    """Return what the CPU is called; on another kind, sums are rounded differently."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def device_name(device: torch.device, threads: int | None = None) -> str:
    """Return what a person would call the device, and of a CPU its instructions and threads."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    threads = threads or torch.get_num_threads()
    return f"CPU ({processor()}, {torch.backends.cpu.get_cpu_capability()}, {threads} thread{'s' * (threads != 1)})"


def environment(device: torch.device) -> dict[str, str]:
    """Return commit, device, versions and date."""
    return {
        "commit": commit(),
        "device": device_name(device),
        "Python": platform.python_version(),
        **{package: version(package) for package in _PACKAGES},
        "torch": str(torch.__version__),  # which says for what it was built, unlike the name of the package on PyPI
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
    }


STARTED = time.monotonic()
"""When this process imported the module: the start of a notebook."""
