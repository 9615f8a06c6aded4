"""What a result was made with: code, machine, versions."""

import html
import json
import platform
import subprocess
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

import torch

from rfviz.storage.places import repository

_PACKAGES = ("torch", "torchvision", "numpy", "scikit-image", "matplotlib")


def commit() -> str:
    """Return the commit of the working tree, marked where files differ from it, or "unknown" outside a clone."""

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", "-C", str(repository()), *arguments], capture_output=True, text=True, check=True
        ).stdout.strip()

    try:
        return git("rev-parse", "--short=12", "HEAD") + (
            " (with local changes)" if git("status", "--porcelain") else ""
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def device_name(device: torch.device) -> str:
    """Return what a person would call the device."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    threads = torch.get_num_threads()
    return f"CPU ({platform.machine()}, {threads} thread{'s' * (threads != 1)})"


def environment(device: torch.device) -> dict[str, str]:
    """Return commit, device, versions and date."""
    return {
        "commit": commit(),
        "device": device_name(device),
        "Python": platform.python_version(),
        **{package: version(package) for package in _PACKAGES},
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
    }


class HowMade:
    """A folded table "How this page was made", for the end of a notebook.

    Parameters
    ----------
    facts : dict
        Name and value of each row.
    code : dict, optional
        Hash of the code of each part that made the page (`rfviz.lab.code`): a page whose code has changed since is
        marked as stale when the book is built.
    """

    def __init__(self, facts: dict[str, Any], code: Mapping[str, str] | None = None):
        self.facts, self.code = facts, dict(code or {})

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><th scope='row'>{html.escape(name)}</th><td>{html.escape(str(value))}</td></tr>"
            for name, value in self.facts.items()
        )
        code = html.escape(json.dumps(self.code))
        return (
            f'<details class="how-made" data-code="{code}">'
            f"<summary>How this page was made</summary><table>{rows}</table></details>"
        )

    def __repr__(self) -> str:
        return "\n".join(f"{name}: {value}" for name, value in self.facts.items())


STARTED = time.monotonic()
"""When this process imported the module: the start of a notebook."""
