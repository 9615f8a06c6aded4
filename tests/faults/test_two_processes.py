"""Two processes at one folder of results: one waits and says so; what the first has made, the second reads."""

import os
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path

import pytest
import torch
from processes import begin

from rfviz import errors
from rfviz.errors import RfvizError
from rfviz.lab.store import Store
from rfviz.storage.lock import FOLDER, locked

SCRIPT = """
import sys, torch
from pathlib import Path
from rfviz import errors
from rfviz.lab.store import Store
folder = Path(sys.argv[1])

def compute():
    print("computing", flush=True)
    sys.stdin.readline()
    return {"x": torch.arange(5)}, {}

print(Store(folder).get("result", errors, {}, compute)[0]["x"].tolist(), flush=True)
"""


def ask(folder: Path) -> subprocess.Popen:
    """Ask for a result in a process that computes until it reads a line."""
    return begin(["-c", SCRIPT, str(folder)], folder, stdin=subprocess.PIPE)


def test_the_second_waits_and_reads(tmp_path):
    first = ask(tmp_path)
    assert first.stdout.readline() == "computing\n"
    second = begin(["-c", SCRIPT, str(tmp_path)], tmp_path, stdin=subprocess.DEVNULL)  # would not compute for long
    name = Store(tmp_path).path("result", errors, {}).stem
    assert second.stderr.readline() == f"rfviz: another process is making {name} in {tmp_path}; waiting for it.\n"
    assert first.communicate("go on\n", timeout=60) == ("[0, 1, 2, 3, 4]\n", "")
    assert second.communicate(timeout=60) == ("[0, 1, 2, 3, 4]\n", "")  # and not a word of computing


def test_two_results_are_computed_at_the_same_time(tmp_path):
    first = ask(tmp_path)
    try:
        assert first.stdout.readline() == "computing\n"
        found = Store(tmp_path).get("another", errors, {}, lambda: ({"x": torch.ones(1)}, {}))
        assert found[0]["x"].item() == 1
    finally:
        os.killpg(first.pid, signal.SIGKILL)
        first.communicate()


def test_who_is_killed_keeps_nobody_waiting_and_leaves_nothing_half_written(tmp_path):
    first = ask(tmp_path)
    assert first.stdout.readline() == "computing\n"
    name = Store(tmp_path).path("result", errors, {}).name
    (tmp_path / f".{name}.x.part").write_bytes(b"half")
    os.killpg(first.pid, signal.SIGKILL)
    first.communicate()
    assert Store(tmp_path).get("result", errors, {}, lambda: ({"x": torch.ones(1)}, {}))[0]["x"].item() == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == [FOLDER, name]


def test_what_another_process_is_writing_is_not_taken_for_left_over(tmp_path):
    with locked(tmp_path, "a"):
        part = tmp_path / ".a.part"
        part.write_bytes(b"half")
        with locked(tmp_path, "a"):  # whoever has it may ask again
            assert part.exists()
        assert part.exists()
        with locked(tmp_path, "b"):
            assert part.exists()
    with locked(tmp_path, "a"):
        assert not part.exists()


def test_reading_does_not_wait(tmp_path):
    Store(tmp_path).get("result", errors, {}, lambda: ({"x": torch.ones(1)}, {}))
    holder = begin(
        ["-c", "import sys, time\nfrom pathlib import Path\nfrom rfviz.storage.lock import locked\n"
         "with locked(Path(sys.argv[1]), sys.argv[2]):\n    print('held', flush=True); time.sleep(600)",
         str(tmp_path), Store(tmp_path).path("result", errors, {}).stem],
        tmp_path,
    )  # fmt: skip
    try:
        assert holder.stdout.readline() == "held\n"
        assert Store(tmp_path).get("result", errors, {}, pytest.fail)[0]["x"].item() == 1
    finally:
        os.killpg(holder.pid, signal.SIGKILL)
        holder.communicate()


def test_a_folder_that_may_not_be_written_is_said_before_anything_is_computed(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RfvizError, match=r"cannot be written to .* RFVIZ_RUNS"):
        Store(tmp_path / "file").get("result", errors, {}, pytest.fail)
    closed = Path(tempfile.mkdtemp(dir="/tmp"))  # tmp_path may be closed to the user taken below
    with locked(closed, "result"):
        pass
    superuser = os.geteuid() == 0
    try:
        closed.chmod(0o555)
        if superuser:
            os.seteuid(65534)  # permissions do not bind the superuser
        with pytest.raises(RfvizError, match=r"cannot be written to \(.*Permission denied"):
            Store(closed).get("result", errors, {}, pytest.fail)
    finally:
        if superuser:
            os.seteuid(0)
        closed.chmod(0o755)
        shutil.rmtree(closed)
