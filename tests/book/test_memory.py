"""Memory that was freed stays with the process."""

import ctypes
import platform
import subprocess
import sys

import pytest

from rfviz.book import memory as _memory

glibc = pytest.mark.skipif(
    not sys.platform.startswith("linux") or platform.libc_ver()[0] != "glibc", reason="only the C library of GNU"
)


@pytest.fixture(autouse=True)
def _as_by_default(monkeypatch):
    monkeypatch.delenv("RFVIZ_KEEP_MEMORY", raising=False)


@glibc
def test_the_c_library_can_be_told_so():
    assert _memory.keep() is True
    assert _memory.keep() is True  # again


@pytest.mark.parametrize("system", ["darwin", "win32"])
def test_other_systems_are_left_alone(monkeypatch, system):
    monkeypatch.setattr(sys, "platform", system)
    monkeypatch.setattr(ctypes, "CDLL", lambda name: pytest.fail("nothing is to be loaded"))
    assert _memory.keep() is False


def test_one_may_ask_to_leave_it_as_it_is(monkeypatch):
    monkeypatch.setenv("RFVIZ_KEEP_MEMORY", "0")
    monkeypatch.setattr(ctypes, "CDLL", lambda name: pytest.fail("nothing is to be loaded"))
    assert _memory.keep() is False


def test_other_c_libraries_are_left_alone(monkeypatch):
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(ctypes, "CDLL", lambda name: object())
    assert _memory.keep() is False


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
    assert _memory.keep() is False
    assert asked.keys() == {-1, -2, -4}  # the others are set all the same
    assert asked[-4] == 0 and asked[-1] > 2**30


SCRIPT = """
import resource
import torch
import rfviz

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
def test_importing_rfviz_keeps_large_pieces_of_memory_free_of_page_faults():
    """765 MiB are written: 195,840 pages of 4 KiB. Where the system gives pages of 2 MiB, this proves nothing."""
    done = subprocess.run([sys.executable, "-c", SCRIPT], check=True, capture_output=True, text=True)
    assert int(done.stdout) < 500
