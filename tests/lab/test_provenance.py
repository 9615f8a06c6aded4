"""The facts about machine, versions and commit."""

import platform
import re
import subprocess
from importlib.metadata import version
from pathlib import Path

import pytest
import torch

from rfviz.lab import provenance
from rfviz.lab.provenance import commit, device_name, environment, processor
from rfviz.storage import places

CPU = torch.device("cpu")


def git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=Somebody", "-c", "user.email=somebody@example.org", "-c", "commit.gpgsign=false"]
    return subprocess.run(
        ["git", "-C", str(folder), *identity, *arguments], check=True, capture_output=True, text=True
    ).stdout.strip()


@pytest.fixture
def clone(tmp_path, monkeypatch) -> Path:
    """A repository with one commit that is taken for ours."""
    git(tmp_path, "init", "--quiet")
    (tmp_path / "file.txt").write_text("one\n")
    git(tmp_path, "add", "file.txt")
    git(tmp_path, "commit", "--quiet", "-m", "First")
    monkeypatch.setattr(places, "repository", lambda: tmp_path)
    return tmp_path


def test_commit_of_a_clean_clone(clone):
    head = git(clone, "rev-parse", "HEAD")
    assert len(head) == 40
    assert commit() == head[:12]


@pytest.mark.parametrize("name", ["file.txt", "new.txt"])
def test_commit_says_whether_files_differ(clone, name):
    (clone / name).write_text("two\n")
    assert commit() == git(clone, "rev-parse", "HEAD")[:12] + " (with local changes)"


def test_commit_outside_a_clone_is_unknown(tmp_path, monkeypatch):
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    monkeypatch.setattr(places, "repository", lambda: tmp_path)
    assert commit() == "unknown"


def test_commit_without_commits_is_unknown(tmp_path, monkeypatch):
    git(tmp_path, "init", "--quiet")
    monkeypatch.setattr(places, "repository", lambda: tmp_path)
    assert commit() == "unknown"


def test_commit_without_git_is_unknown(clone, monkeypatch):
    monkeypatch.setenv("PATH", str(clone))  # no programs there
    assert commit() == "unknown"


def test_commit_without_the_folder_is_unknown(tmp_path, monkeypatch):
    monkeypatch.setattr(places, "repository", lambda: tmp_path / "gone")
    assert commit() == "unknown"


def test_environment_has_the_versions():
    facts = environment(CPU)
    for package in ("torch", "torchvision", "numpy", "scikit-image", "matplotlib"):
        assert facts[package] == version(package)
    assert re.fullmatch(r"3\.\d+\.\d+\S*", facts["Python"])
    assert facts["commit"] == commit()
    assert facts["device"] == device_name(CPU)
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d UTC", facts["date"])


@pytest.mark.parametrize(("threads", "said"), [(1, ", 1 thread)"), (3, ", 3 threads)")])
def test_device_name_of_a_cpu_has_its_threads(monkeypatch, threads, said):
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    assert device_name(CPU).startswith(f"CPU ({processor()}, ") and device_name(CPU).endswith(said)
    assert device_name(CPU, 3).endswith("3 threads)")


def test_a_processor_has_a_name(monkeypatch, tmp_path):
    assert processor().strip()
    monkeypatch.setattr(provenance, "Path", lambda _: tmp_path / "no such file")
    assert processor() == (platform.processor() or platform.machine())
    (tmp_path / "cpuinfo").write_text("processor\t: 0\nmodel name\t: A: b\n\nprocessor\t: 1\nmodel name\t: A: b\n")
    monkeypatch.setattr(provenance, "Path", lambda _: tmp_path / "cpuinfo")
    assert processor() == "A: b"
