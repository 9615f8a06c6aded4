"""Files are written whole or not at all, and never pickled."""

import contextlib
import errno
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import torch

from rfviz.errors import RfvizError
from rfviz.storage import files
from rfviz.storage.files import atomic, load_tensors, save_tensors

NO_SPACE = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def save_text(text: str, path: Path) -> None:
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def raise_no_space(*arguments, **options):
    raise NO_SPACE


@pytest.fixture
def old(tmp_path) -> Path:
    path = tmp_path / "result.safetensors"
    save_tensors({"a": torch.arange(3)}, path, {"version": "old"})
    return path


def assert_still_old(path: Path) -> None:
    tensors, info = load_tensors(path)
    assert torch.equal(tensors["a"], torch.arange(3))
    assert info == {"version": "old"}
    assert [each.name for each in path.parent.iterdir()] == [path.name]  # no .part file


# -- round trip -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "dtype", [torch.float64, torch.float32, torch.bfloat16, torch.int64, torch.int32, torch.uint8, torch.bool]
)
def test_tensors_come_back_exactly(tmp_path, dtype):
    values = (torch.randn(4, 5, generator=torch.Generator().manual_seed(0)) * 100).to(dtype)
    tensors = {"m": values, "transposed": values.T, "scalar": values[1, 2].clone(), "empty": values[:0].clone()}
    save_tensors(tensors, tmp_path / "x.safetensors")
    loaded, info = load_tensors(tmp_path / "x.safetensors")
    assert info == {}
    assert loaded.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert loaded[name].dtype == dtype
        assert loaded[name].shape == tensor.shape
        assert torch.equal(loaded[name], tensor)


def test_values_that_are_not_finite_come_back(tmp_path):
    saved = torch.tensor([float("nan"), float("inf"), -float("inf"), -0.0])
    save_tensors({"x": saved}, tmp_path / "x.safetensors")
    loaded = load_tensors(tmp_path / "x.safetensors")[0]["x"]
    assert torch.equal(loaded.view(torch.int32), saved.view(torch.int32))


def test_parameters_are_saved_without_their_graph(tmp_path):
    layer = torch.nn.Conv2d(3, 4, 2).to(memory_format=torch.channels_last)
    save_tensors(dict(layer.named_parameters()), tmp_path / "x.safetensors")
    loaded, _ = load_tensors(tmp_path / "x.safetensors")
    assert torch.equal(loaded["weight"], layer.weight)
    assert not loaded["weight"].requires_grad


def test_info_comes_back(tmp_path):
    info = {"loss": [0.1, 1 / 3, 1e-300], "name": 'Zürich ä 漢字 "quoted"\n', "none": None, "nested": {"yes": True}}
    save_tensors({}, tmp_path / "x.safetensors", info)
    assert load_tensors(tmp_path / "x.safetensors") == ({}, info)


def test_folders_are_made(tmp_path):
    save_text("µ\n", tmp_path / "a" / "b" / "c.txt")
    assert (tmp_path / "a" / "b" / "c.txt").read_bytes() == "µ\n".encode()


def test_files_are_readable_by_others(old):
    assert old.stat().st_mode & 0o777 == 0o644


def test_nothing_is_pickled(old, tmp_path):
    """Not even what cannot be stored otherwise, and a pickle is never read."""
    with pytest.raises(TypeError, match="JSON"):
        save_tensors({}, tmp_path / "x.safetensors", {"object": object()})
    assert not (tmp_path / "x.safetensors").exists()

    class Bomb:
        def __reduce__(self):
            return Path.touch, (tmp_path / "exploded",)

    torch.save({"a": Bomb()}, old)
    with pytest.raises(files.SafetensorError):
        load_tensors(old)
    assert not (tmp_path / "exploded").exists()


# -- what goes wrong while writing -------------------------------------------------------------------------------------


def test_the_new_file_takes_the_place_of_the_old(old):
    save_tensors({"b": torch.ones(2)}, old, {"version": "new"})
    tensors, info = load_tensors(old)
    assert list(tensors) == ["b"]
    assert info == {"version": "new"}
    assert [each.name for each in old.parent.iterdir()] == [old.name]


def test_who_reads_the_old_file_meanwhile_reads_all_of_it(old):
    """So another file has taken its place: one that is written over changes under its readers, and can be cut off."""
    before = old.read_bytes()
    with old.open("rb") as reader:
        begun = reader.read(10)
        save_tensors({"b": torch.ones(200)}, old, {"version": "new"})
        assert begun + reader.read() == before
    assert old.read_bytes() != before


def write_half(path: Path, error: BaseException) -> None:
    with atomic(path) as temporary:
        temporary.write_bytes(b"half of it")
        assert temporary != path
        assert temporary.parent == path.parent
        raise error


@pytest.mark.parametrize("error", [ValueError("mine"), KeyboardInterrupt()])
def test_an_error_in_the_block_leaves_the_old_file(old, error):
    with pytest.raises(type(error)):
        write_half(old, error)
    assert_still_old(old)


@pytest.mark.parametrize("step", ["os.fsync", "os.replace", "rfviz.storage.files.save_file"])
def test_a_full_disk_leaves_the_old_file(old, monkeypatch, step):
    monkeypatch.setattr(step, raise_no_space)
    with pytest.raises(RfvizError) as caught:
        save_tensors({"a": torch.zeros(1000)}, old, {"version": "new"})
    monkeypatch.undo()
    assert str(old) in str(caught.value)
    assert "No space left on device" in str(caught.value)
    assert "RFVIZ_RUNS" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.__cause__ is NO_SPACE
    assert_still_old(old)


@contextlib.contextmanager
def mounted(folder: Path, *options: str):
    """Mount a small file system in memory, where that is allowed."""
    folder.mkdir(exist_ok=True)
    if shutil.which("mount") is None or not sys.platform.startswith("linux"):
        pytest.skip("no mount command")
    command = ["mount", "-t", "tmpfs", "-o", ",".join(["size=64k", *options]), "tmpfs", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip(f"a small file system cannot be mounted: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def test_a_disk_that_is_really_full_leaves_the_old_file(tmp_path):
    with mounted(tmp_path / "small") as folder:
        path = folder / "result.safetensors"
        save_tensors({"a": torch.arange(3)}, path, {"version": "old"})
        with pytest.raises(RfvizError, match="cannot be written"):
            save_tensors({"a": torch.zeros(100_000)}, path, {"version": "new"})
        assert_still_old(path)
        with pytest.raises(RfvizError, match="No space left on device"):
            save_text("x" * 100_000, path)
        assert_still_old(path)


def test_a_read_only_disk_leaves_the_old_file(tmp_path):
    with mounted(tmp_path / "fixed") as folder:
        path = folder / "result.safetensors"
        save_tensors({"a": torch.arange(3)}, path, {"version": "old"})
        subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True)
        with pytest.raises(RfvizError, match="Read-only file system"):
            save_tensors({"a": torch.zeros(3)}, path, {"version": "new"})
        assert_still_old(path)


def test_a_folder_without_write_permission_leaves_the_old_file():
    with tempfile.TemporaryDirectory(dir="/tmp") as name:  # tmp_path may be closed to the user taken below
        folder, path = Path(name), Path(name) / "result.safetensors"
        save_tensors({"a": torch.arange(3)}, path, {"version": "old"})
        folder.chmod(0o555)
        superuser = os.geteuid() == 0
        if superuser:
            os.seteuid(65534)  # permissions do not bind the superuser
        try:
            with pytest.raises(RfvizError, match="Permission denied"):
                save_tensors({"a": torch.zeros(3)}, path, {"version": "new"})
        finally:
            if superuser:
                os.seteuid(0)
            folder.chmod(0o755)
        assert_still_old(path)


def test_a_file_where_a_folder_should_be_is_an_error(old):
    with pytest.raises(RfvizError, match="cannot be written"):
        save_text("text", old / "below.txt")
    assert_still_old(old)


@pytest.mark.parametrize(
    "moment", ["replace", *(pytest.param(each, marks=pytest.mark.thorough) for each in ("save_file", "fsync"))]
)
def test_a_killed_writer_leaves_the_old_file(old, moment):
    """Killed with half of the file written, before it is on the disk, and before it takes its place."""
    script = """
import os, pathlib, signal, sys, torch
from rfviz.storage import files
moment, path = sys.argv[1], pathlib.Path(sys.argv[2])
def kill(*arguments):
    os.kill(os.getpid(), signal.SIGKILL)
def half(tensors, temporary, metadata):
    complete(tensors, temporary, metadata)
    os.truncate(temporary, temporary.stat().st_size // 2)
    kill()
complete = files.save_file
if moment == "save_file":
    files.save_file = half
else:
    setattr(os, moment, kill)
files.save_tensors({"a": torch.zeros(1000)}, path, {"version": "new"})
"""
    ended = subprocess.run([sys.executable, "-c", script, moment, str(old)], cwd=Path(__file__).parents[2], check=False)
    assert ended.returncode == -signal.SIGKILL
    left = [each for each in old.parent.iterdir() if each != old]
    assert [each.suffix for each in left] == [".part"]  # the writer was at work, and could not clean up
    left[0].unlink()
    assert_still_old(old)
    save_tensors({"b": torch.ones(2)}, old, {"version": "new"})
    assert load_tensors(old)[1] == {"version": "new"}
