"""The files around the code agree with each other and with the code."""

import re
import subprocess
import sys
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest
import yaml

from rfviz.lab.presets import PRESETS

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def locked(lock: str = "requirements.lock") -> dict[str, str]:
    lines = [line for line in (ROOT / lock).read_text().splitlines() if not line.startswith("#")]
    return {name.lower().replace("_", "-"): pinned for name, pinned in (line.split("==") for line in lines)}


def requirements() -> list[str]:
    return [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["dev"]]


@pytest.mark.parametrize("requirement", requirements())
def test_the_lock_satisfies_every_requirement(requirement: str) -> None:
    packaging = pytest.importorskip("packaging.requirements")
    wanted = packaging.Requirement(requirement)
    assert wanted.specifier.contains(locked()[wanted.name.lower()])


@pytest.mark.parametrize("requirement", PROJECT["optional-dependencies"]["bench"])
def test_the_lock_of_the_benchmarks_satisfies_every_peer(requirement: str) -> None:
    packaging = pytest.importorskip("packaging.requirements")
    wanted = packaging.Requirement(requirement)
    assert wanted.specifier.contains(locked("requirements-bench.lock")[wanted.name.lower()])
    assert not locked().keys() & locked("requirements-bench.lock").keys()


def test_the_environment_is_the_locked_one() -> None:
    wrong = {
        name: (pinned, version(name)) for name, pinned in locked().items() if version(name).split("+")[0] != pinned
    }
    assert not wrong


def test_conda_installs_the_lock_and_the_same_python() -> None:
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    plain = [entry for entry in environment["dependencies"] if isinstance(entry, str)]
    (pip,) = (entry["pip"] for entry in environment["dependencies"] if isinstance(entry, dict))
    assert environment["name"] == PROJECT["name"]
    assert f"python{PROJECT['requires-python']}" in plain
    assert "--requirement requirements.lock" in pip
    assert "--editable ." in pip


def test_the_lock_names_releases_not_builds_or_places() -> None:
    text = (ROOT / "requirements.lock").read_text() + (ROOT / "requirements-bench.lock").read_text()
    assert "+" not in text
    assert "://" not in text
    assert " @ " not in text


def test_every_preset_is_described_in_readme_and_book() -> None:
    readme = (ROOT / "README.md").read_text()
    page = (ROOT / "book" / "reproduce.md").read_text()
    for preset in PRESETS.values():
        assert re.search(
            rf"\| `{preset.name}`[^|]*\| {re.escape(preset.summary)} \| {re.escape(preset.where)} \|", readme
        )
        assert re.search(rf"`{preset.name}`.*\n  - .*\n  - {re.escape(preset.where)}", page, re.IGNORECASE)


def test_the_commands_of_the_readme_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"`?make ([a-z]+)", (ROOT / "README.md").read_text()):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_links_in_the_tree_are_symbolic_and_point_inside() -> None:
    assert (ROOT / "book" / "_toc.yml").readlink() == Path("../_toc.yml")
    assert (ROOT / "book" / "notebooks").readlink() == Path("../notebooks")


def test_notebooks_hold_no_outputs_and_short_cells() -> None:
    for path in (ROOT / "notebooks").glob("*.md"):
        text = path.read_text()
        assert len(re.findall(r"^# ", text, re.MULTILINE)) == 1
        assert "tags: [parameters, hide-input]" in text
        for cell in re.findall(r"```\{code-cell\} ipython3\n(.*?)```", text, re.DOTALL):
            code = re.sub(r"^(---\n.*?\n---\n|:tags:.*\n)", "", cell, flags=re.DOTALL if cell.startswith("---") else 0)
            assert len(code.strip().splitlines()) <= 12, path


def test_every_promise_of_the_book_has_tests_that_exist() -> None:
    listed = (ROOT / "tests" / "PROMISES.md").read_text(encoding="utf-8")
    page = (ROOT / "book" / "reliability.md").read_text(encoding="utf-8").partition("## What it depends on")[0]
    tests = re.compile(r"^  - `tests/.*\n", re.MULTILINE)
    assert tests.sub("", listed).partition("## ")[2].strip() == page.partition("## ")[2].strip()
    promises = re.split(r"^- ", listed, flags=re.MULTILINE)[1:]
    assert len(promises) >= 20 and all(tests.search(each) for each in promises)
    named = set(re.findall(r"`(tests/[a-z_/0-9]+\.py)(?:::([a-z_0-9]+))?`", listed))
    assert len(named) > 40
    for file, test in named:
        assert f"\ndef {test}(" in (ROOT / file).read_text(encoding="utf-8") if test else (ROOT / file).exists(), (
            file,
            test,
        )
    faults = {f"tests/faults/{path.name}" for path in (ROOT / "tests" / "faults").glob("test_*.py")}
    assert faults - {"tests/faults/test_broken_copies.py"} <= {file for file, _ in named}


def test_the_oldest_packages_are_the_lower_bounds() -> None:
    """What `make oldest` installs: every dependency once, at the least version that is allowed."""
    done = subprocess.run(
        [sys.executable, ROOT / "tests" / "lower_bounds.py"], capture_output=True, text=True, check=True
    )
    oldest = dict(line.split("==") for line in done.stdout.splitlines())
    assert {re.split(r"[=><]", each)[0] for each in PROJECT["dependencies"]} < set(oldest)
    assert oldest["torch"] == locked()["torch"] and oldest["torchvision"] == locked()["torchvision"]
