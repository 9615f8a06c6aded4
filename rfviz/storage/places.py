"""Where the project and its data live on this machine."""

import os
import subprocess
from pathlib import Path


def repository() -> Path:
    """Return the folder that this package was cloned into, or the current folder where it was installed elsewhere."""
    root = Path(__file__).resolve().parents[2]
    return root if (root / "pyproject.toml").exists() else Path.cwd()


def git(*arguments: str) -> str | None:
    """Return what git says of the repository; None where it has nothing to say, as outside a clone."""
    command = ["git", "-C", str(repository()), *arguments]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def data_folder() -> Path:
    """Return where data sets are kept: ``RFVIZ_DATA``, or ``data/`` in the repository whatever the current folder."""
    return Path(os.environ.get("RFVIZ_DATA") or repository() / "data").resolve()
