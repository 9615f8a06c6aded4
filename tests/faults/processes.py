"""Runs of rfviz in processes of their own, which the tests of faults disturb."""

import os
import subprocess
import sys
from pathlib import Path

from reference import TINY

SETTINGS = [f"--set={key}={value}" for key, value in TINY.items()]


def begin(arguments: list[str], runs: Path, **options) -> subprocess.Popen:
    """Start Python with some arguments, one thread, and a folder of runs; output and errors come through pipes."""
    environment = {**os.environ, "RFVIZ_RUNS": str(runs), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, *arguments], env=environment, start_new_session=True, text=True,
        **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options},
    )  # fmt: skip


def command(*arguments: str) -> list[str]:
    return ["-m", "rfviz", *arguments]
