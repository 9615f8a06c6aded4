"""Full disks and read-only folders: one clear line, and what was computed before stays."""

import contextlib
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from processes import SETTINGS, begin, command

pytestmark = [pytest.mark.faults, pytest.mark.thorough]

TRAIN = command("train", "-m", "resnet34", "-p", "smoke", *SETTINGS)


@contextlib.contextmanager
def mounted(folder: Path, size: str):
    """Mount a small file system in memory, where that is allowed."""
    folder.mkdir()
    if shutil.which("mount") is None or not sys.platform.startswith("linux"):
        pytest.skip("no mount command")
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        pytest.skip(f"a small file system cannot be mounted: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def call(arguments: list[str], runs: Path) -> tuple[int, str]:
    """Return the exit code and what was said last on standard error, progress bars aside."""
    process = begin(arguments, runs)
    _, said = process.communicate(timeout=120)
    return process.returncode, said.strip().replace("\r", "\n").splitlines()[-1]


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*.safetensors")}


def test_a_disk_that_fills_up_and_one_that_becomes_read_only(tmp_path):
    with mounted(tmp_path / "small", "3m") as runs:  # holds the whitening, not the weights, which take 8 MB
        code, said = call(TRAIN, runs)
        assert code == 2
        assert "No space left on device" in said and "Earlier results are unchanged" in said and "RFVIZ_RUNS" in said
        before = contents(runs)
        assert [Path(name).name.split("-")[:2] for name in before] == [["data", "whitening"]]
        assert not [path for path in runs.rglob(".*") if path.suffix == ".part"]

        subprocess.run(["mount", "-o", "remount,size=30m", str(runs)], check=True)
        assert call(TRAIN, runs)[0] == 0  # room was made, and it goes on
        assert contents(runs).items() >= before.items()

        before = contents(runs)
        subprocess.run(["mount", "-o", "remount,ro", str(runs)], check=True)
        process = begin(TRAIN, runs)
        out, _ = process.communicate(timeout=120)
        assert process.returncode == 0 and "top-1 on held-out images" in out  # what is there can be read
        code, said = call([*TRAIN, "--epochs", "2"], runs)
        assert code == 2
        assert "cannot be written to" in said and "Read-only file system" in said
        assert contents(runs) == before
