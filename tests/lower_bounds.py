"""Print the oldest version that pyproject.toml allows of each package, as pip reads it; or the tests to run with them.

Run by ``make oldest``, outside the environment of the project: only the standard library is there.
"""

import re
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]

FOR_TESTS = ("pytest", "hypothesis", "beautifulsoup4", "playwright")
"""What the tests need besides, at the locked versions."""

ROOMS = ("tests/storage", "tests/images", "tests/nets", "tests/training", "tests/kernels", "tests/test_stats.py")
"""What is tested with them: everything that computes, no book and no browser."""


def lower_bounds() -> list[str]:
    """Return one requirement per package, such as ``numpy==2.0``."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    found = []
    for requirement in project["dependencies"]:
        name, version = re.match(r"([A-Za-z0-9-]+)(?:>=|==)([^,]+)", requirement).groups()
        found.append(f"{name}=={version}")
    locked = (ROOT / "requirements.lock").read_text(encoding="utf-8").splitlines()
    return found + [line for line in locked if line.split("==")[0].lower() in FOR_TESTS]


if __name__ == "__main__":
    sys.stdout.write("\n".join(ROOMS if "--tests" in sys.argv else lower_bounds()) + "\n")
