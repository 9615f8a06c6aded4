"""Ctrl-C ends a run, in one line that says how to go on; nothing that was computed is lost."""

import os
import signal
from pathlib import Path

import pytest
from processes import SETTINGS, begin, command

LONG = ["-p", "smoke", *SETTINGS, "--epochs", "500"]


def interrupt(arguments: list[str], runs: Path, seen: str) -> tuple[int, str]:
    """Press Ctrl-C once something is seen on standard error; return the exit code and the last line."""
    process = begin(arguments, runs)
    said = ""
    while seen not in said:
        piece = os.read(process.stderr.fileno(), 4096).decode(errors="replace")
        assert piece, said  # it ended by itself
        said += piece
    os.killpg(process.pid, signal.SIGINT)  # a terminal interrupts all that a command started
    _, rest = process.communicate(timeout=60)
    return process.returncode, (said + rest).strip().splitlines()[-1]


@pytest.mark.parametrize(
    ("arguments", "seen"),
    [
        (["train", "-m", "resnet34", *LONG], "training resnet34:   0%"),
        (["run", "-p", "smoke", "--only", "methods"], "notebooks:"),
    ],
    ids=["training", "notebooks"],
)
def test_ctrl_c_ends_a_run_and_says_how_to_go_on(tmp_path, arguments, seen):
    code, last = interrupt(command(*arguments), tmp_path, seen)
    assert code == 130
    assert last.endswith("interrupted. Call the same command again to go on; finished results are kept.")
    assert not [path for path in tmp_path.rglob(".*") if path.suffix == ".part"]
