"""Memory that was freed stays with the process, and with those that it starts; threads that wait sleep."""

import ctypes
import os
import platform
import subprocess
import sys

import pytest

from rfviz.book import process

glibc = pytest.mark.skipif(
    not sys.platform.startswith("linux") or platform.libc_ver()[0] != "glibc", reason="only the C library of GNU"
)


@pytest.fixture(autouse=True)
def _as_by_default(monkeypatch):
    for name in ("RFVIZ_KEEP_MEMORY", "GLIBC_TUNABLES", "OMP_WAIT_POLICY"):
        monkeypatch.setenv(name, "")  # to be put back, whatever is set meanwhile
        monkeypatch.delenv(name)


@glibc
def test_the_c_library_can_be_told_so():
    assert process.keep_memory() is True
    assert process.keep_memory() is True  # again


@pytest.mark.parametrize("system", ["darwin", "win32"])
def test_other_systems_are_left_alone(monkeypatch, system):
    monkeypatch.setattr(sys, "platform", system)
    monkeypatch.setattr(ctypes, "CDLL", lambda name: pytest.fail("nothing is to be loaded"))
    assert process.keep_memory() is False


def test_one_may_ask_to_leave_it_as_it_is(monkeypatch):
    monkeypatch.setenv("RFVIZ_KEEP_MEMORY", "0")
    monkeypatch.setattr(ctypes, "CDLL", lambda name: pytest.fail("nothing is to be loaded"))
    assert process.keep_memory() is False


def test_other_c_libraries_are_left_alone(monkeypatch):
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(ctypes, "CDLL", lambda name: object())
    assert process.keep_memory() is False


@pytest.mark.parametrize("refused", [-1, -2, -4])
def test_an_option_that_is_refused_is_told(monkeypatch, refused):
    asked = {}

    class Library:
        @staticmethod
        def mallopt(option, value):
            asked[option] = value
            return int(option != refused)

    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(ctypes, "CDLL", lambda name: Library)
    assert process.keep_memory() is False
    assert asked.keys() == {-1, -2, -4}  # the others are set all the same
    assert asked[-4] == 0 and asked[-1] > 2**30


def test_the_environment_says_it_to_what_is_started(monkeypatch):
    process.prepare()
    assert os.environ["OMP_WAIT_POLICY"] == "PASSIVE"
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")  # who wants it otherwise is heard
    monkeypatch.delenv("GLIBC_TUNABLES", raising=False)
    monkeypatch.setenv("RFVIZ_KEEP_MEMORY", "0")
    process.prepare()
    assert os.environ["OMP_WAIT_POLICY"] == "ACTIVE" and "GLIBC_TUNABLES" not in os.environ


WORK = """
import resource
import torch

torch.set_num_threads(1)

def work():
    for megabytes in (32, 3, 17, 32, 1):  # as a network does: several at a time, freed in another order
        several = [torch.ones(megabytes << 18) for _ in range(3)]
        del several[1]

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

for _ in range(6):  # until there is a place for everything
    work()
before = faults()
for _ in range(3):
    work()
print(faults() - before)
"""


@glibc
@pytest.mark.parametrize(
    "where", [pytest.param("in the process itself", marks=pytest.mark.thorough), "in a process that it starts"]
)
def test_large_pieces_of_memory_are_kept_without_page_faults(where):
    """765 MiB are written: 195,840 pages of 4 KiB. Where the system gives pages of 2 MiB, this proves nothing."""
    prepared = "from rfviz.book import process\nprocess.prepare()\n"
    started = f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', {WORK!r}], check=True)"
    script = prepared + (WORK if where == "in the process itself" else started)
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    assert int(done.stdout) < 500
