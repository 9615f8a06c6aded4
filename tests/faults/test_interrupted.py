"""Ctrl-C ends a run, in one line that says how to go on; nothing that was computed is lost."""

import contextlib
import os
import select
import signal
import time
from pathlib import Path

import psutil
import pytest
from PIL import Image
from processes import SETTINGS, begin, command

from rfviz.images import photographs

pytestmark = pytest.mark.faults

LONG = ["-p", "smoke", *SETTINGS, "--epochs", "500"]


def kernels(parent: int) -> list[psutil.Process]:
    """Return the kernels of a process: what is forked from its server of forks."""
    servers = [each for each in psutil.Process(parent).children() if "forkserver" in " ".join(each.cmdline())]
    return [kernel for server in servers for kernel in server.children()]


def interrupt(arguments: list[str], runs: Path, seen: str) -> tuple[int, str]:
    """Press Ctrl-C once something is seen on standard error, and again; return the exit code and the last line."""
    process = begin(arguments, runs)
    said = ""
    while seen not in said:
        piece = os.read(process.stderr.fileno(), 4096).decode(errors="replace")
        assert piece, said  # it ended by itself
        said += piece
    if "notebooks" in seen:
        while not kernels(process.pid):
            time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)  # a terminal interrupts all that a command started
    while piece and "interrupted." not in said:
        assert select.select([process.stderr], [], [], 180)[0], said
        piece = os.read(process.stderr.fileno(), 4096).decode(errors="replace")
        said += piece
    with contextlib.suppress(ProcessLookupError):  # it may have ended
        os.killpg(process.pid, signal.SIGINT)
    _, rest = process.communicate(timeout=180)
    asked = [each.info["environ"] or {} for each in psutil.process_iter(["environ"])]
    assert str(runs) not in [environment.get("RFVIZ_RUNS") for environment in asked]  # nothing goes on
    return process.returncode, (said + rest).strip().splitlines()[-1]


@pytest.mark.parametrize(
    ("arguments", "seen"),
    [
        (["train", "-m", "resnet34", *LONG], "training resnet34:   0%"),
        pytest.param(["run", "--only", "01", *LONG], "notebooks:", marks=pytest.mark.thorough),
        pytest.param(["run", "-p", "smoke", *SETTINGS], "responses:", marks=pytest.mark.thorough),
    ],
    ids=["training", "notebooks", "results side by side"],
)
def test_ctrl_c_ends_a_run_and_says_how_to_go_on(tmp_path, arguments, seen):
    code, last = interrupt(command(*arguments), tmp_path, seen)
    assert code == 130
    assert last.endswith("interrupted. Call the same command again to go on; finished results are kept.")
    assert not [path for path in tmp_path.rglob(".*") if path.suffix == ".part"]


TAKEN = """
import os, signal, threading, time
from concurrent.futures import ThreadPoolExecutor
from rfviz.lab import forks

def work():
    time.sleep(0.5)
    signal.pthread_kill(threading.get_ident(), signal.SIGINT)
    time.sleep(60)

try:
    list(forks.results([ThreadPoolExecutor().submit(work)]))
except KeyboardInterrupt:
    os._exit(130)
"""
"""The system hands Ctrl-C to the thread that works, not to the one that waits for it."""


def test_ctrl_c_that_another_thread_gets_ends_the_wait(tmp_path):
    with begin(["-c", TAKEN], tmp_path) as process:
        try:
            assert process.wait(timeout=40) == 130
        finally:
            process.kill()


SLOWLY = """
import sys, time
from rfviz.book import cli
from rfviz.explorer.own import NetSource

def slowly(*_):
    sys.stderr.write("drawing")
    sys.stderr.flush()
    time.sleep(60)

NetSource.drawn = slowly
sys.argv[0] = "rfviz"
cli.main()
"""
"""The command line; a layer of an explorer takes a minute."""


def test_ctrl_c_ends_an_explorer_at_once(tmp_path):
    (images := tmp_path / "images").mkdir()
    for name in ("chelsea", "coffee"):
        Image.fromarray(photographs.photograph(name).permute(1, 2, 0).numpy()).save(images / f"{name}.jpg")
    words = ["explore", "torchvision:squeezenet1_1", str(images), "--out", str(tmp_path / "out")]
    options = ["--weights", "random", "--size", "64", "--layers", "features.0, features.1"]
    began = time.monotonic()
    code, last = interrupt(["-c", SLOWLY, *words, *options], tmp_path, "drawing")
    assert code == 130 and time.monotonic() - began < 50
    assert last.endswith("interrupted. Call the same command again to go on; finished results are kept.")
