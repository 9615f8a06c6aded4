"""SIGKILL at any moment: what was computed before stays, and the next call ends with what an undisturbed one has.

With RFVIZ_SOAK=1 (`make soak`), the whole book is killed too, at 24 moments.
"""

import json
import os
import random
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import nbformat
import pytest
from processes import SETTINGS, begin, command
from reference import TINY

from rfviz.storage.digests import digest, tensor_digest
from rfviz.storage.files import load_tensors

pytestmark = pytest.mark.faults

SOAK = bool(os.environ.get("RFVIZ_SOAK"))
STAGES = """
from rfviz.explorer.sources import RunSource
from rfviz.lab import results
from rfviz.lab.run import open_run
run = open_run("smoke", **OVERRIDES)
run.progress = False
print("ready", flush=True)
for network in run.networks:
    results.stimuli(run, network.name), results.noise_effect(run, network.name)
    for layer in network.stream:
        results.maxima(run, network.name, layer)
    if len(run.networks) > 1:
        RunSource(run).drawn(network.name, "maxpool")
"""
"""Training, response pass, maximization, Table 1 and, of two networks, the explorer's pictures, of a tiny run."""

BOOK = command("book", "-p", "smoke", *SETTINGS)


def silently(arguments: list[str], runs: Path) -> subprocess.Popen:
    return begin(arguments, runs, stderr=subprocess.DEVNULL)


def finish(arguments: list[str], runs: Path) -> float:
    """Run to the end and return the seconds from the first line it prints, or from its start."""
    process = silently(arguments, runs)
    process.stdout.readline()
    since = time.monotonic()
    process.communicate()
    assert process.returncode == 0
    return time.monotonic() - since


def killed(arguments: list[str], runs: Path, seconds: float, *, ready: bool) -> bool:
    """Kill a run and all that it started so many seconds after it began; return whether it was still at work."""
    process = silently(arguments, runs)
    if ready:
        assert process.stdout.readline() == "ready\n"
    try:
        process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
    assert process.returncode in (0, -signal.SIGKILL)  # it may just have come to its end
    return process.returncode != 0


def results(runs: Path) -> dict[tuple, str]:
    """Return the digest of every result of the one run in a folder, by name and arguments; speeds are no results."""
    found = {}
    for path in sorted(runs.glob("*/results/*.safetensors")):
        tensors, info = load_tensors(path, ours=True)  # fails where a file has changed since it was written
        values = info["values"]
        for epoch in values.get("history", []) if isinstance(values, dict) else []:
            epoch.pop("images_per_second")
        found[info["name"], *info["arguments"]] = digest([tensor_digest(tensors), values])
    return found


def left_over(runs: Path) -> list[Path]:
    return [path for path in runs.rglob(".*") if path.suffix in {".part", ".old"}]


@pytest.mark.parametrize(
    ("wanted", "networks"),
    [
        (24 if SOAK else 1, "resnet34"), pytest.param(3, "resnet34,plainnet34", marks=pytest.mark.thorough),
    ],
)  # fmt: skip
def test_results_after_kills_are_those_of_an_undisturbed_run(tmp_path, wanted, networks):
    stages = ["-c", STAGES.replace("OVERRIDES", str({**TINY, "networks": networks}))]
    undisturbed, disturbed = tmp_path / "undisturbed", tmp_path / "disturbed"
    whole = finish(stages, undisturbed)
    moments, kills = random.Random(5), 0  # noqa: S311
    while kills < wanted:
        before = results(disturbed)
        if killed(stages, disturbed, moments.uniform(0, whole), ready=True):
            kills += 1
            after = results(disturbed)
            assert before.items() <= after.items()  # nothing that was there is lost
        else:
            assert results(disturbed) == results(undisturbed)
            shutil.rmtree(disturbed)  # it has come to its end: begin anew
    finish(stages, disturbed)
    assert results(disturbed) == results(undisturbed)
    assert len(results(disturbed)) >= 6 * len(networks.split(","))
    assert not left_over(disturbed)


TIMES = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d UTC|\d+ s for this page|[\d,.]+ images/s|[0-9a-f]{32}|0x[0-9a-f]+")
"""What differs from one making of a page to the next: times, and names of widgets."""


def shown(runs: Path) -> dict[str, object]:
    """Return what the notebooks of the one book in a folder show, and the names of its pages."""
    (folder,) = runs.iterdir()
    found: dict[str, object] = {"pages": sorted(str(p.relative_to(folder)) for p in folder.glob("html/**/*.html"))}
    for path in sorted(folder.glob("book/**/*.ipynb")):
        outputs = [cell.get("outputs", []) for cell in nbformat.read(path, as_version=4).cells]
        found[path.name] = TIMES.sub("", json.dumps(outputs).replace(str(runs), ""))
    return found


@pytest.mark.skipif(not SOAK, reason="takes half an hour: make soak")
def test_a_book_after_kills_is_that_of_an_undisturbed_run(tmp_path):
    undisturbed, disturbed = tmp_path / "undisturbed", tmp_path / "disturbed"
    since = time.monotonic()
    finish(BOOK, undisturbed)
    whole = time.monotonic() - since
    moments, kills = random.Random(6), 0  # noqa: S311
    while kills < 24:
        page = next(disturbed.glob("*/html/index.html"), None)
        if killed(BOOK, disturbed, moments.uniform(5, whole), ready=False):
            kills += 1
            assert page is None or page.exists() or (page.parents[1] / ".html.old" / "index.html").exists()
        elif kills % 2:
            shutil.rmtree(disturbed)
        else:  # its notebooks would not be run again
            shutil.rmtree(next(disturbed.glob("*/book")))
    finish(BOOK, disturbed)
    assert results(disturbed) == results(undisturbed)
    assert shown(disturbed) == shown(undisturbed)
    assert not left_over(disturbed)
