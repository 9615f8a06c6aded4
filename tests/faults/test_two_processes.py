"""Two processes at one folder of results: one waits and says so; what the first has made, the second reads."""

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
import torch
from processes import begin

from rfviz import errors
from rfviz.errors import RfvizError
from rfviz.lock import NAME, alone
from rfviz.store import Store

SCRIPT = """
import sys, time, torch
from pathlib import Path
from rfviz import errors
from rfviz.store import Store
folder, seconds = Path(sys.argv[1]), float(sys.argv[2])

def compute():
    print("computing", flush=True)
    time.sleep(seconds)
    return {"x": torch.arange(5)}, {}

print(Store(folder).get("result", errors, {}, compute)[0]["x"].tolist(), flush=True)
"""


def ask(folder: Path, seconds: float) -> subprocess.Popen:
    return begin(["-c", SCRIPT, str(folder), str(seconds)], folder)


def test_the_second_waits_and_reads(tmp_path):
    first = ask(tmp_path, 6)
    assert first.stdout.readline() == "computing\n"
    second = ask(tmp_path, 0)
    out, said = second.communicate(timeout=60)
    assert out == "[0, 1, 2, 3, 4]\n"  # and not a word of computing
    assert said.splitlines() == [
        f"rfviz: another process is writing to {tmp_path}; waiting for it, then: the result result."
    ]
    assert first.communicate(timeout=60) == ("[0, 1, 2, 3, 4]\n", "")


def test_who_is_killed_keeps_nobody_waiting_and_leaves_nothing_half_written(tmp_path):
    first = ask(tmp_path, 600)
    assert first.stdout.readline() == "computing\n"
    (tmp_path / ".result-0123.safetensors.x.part").write_bytes(b"half")
    os.killpg(first.pid, signal.SIGKILL)
    first.communicate()
    since = time.monotonic()
    assert Store(tmp_path).get("result", errors, {}, lambda: ({"x": torch.ones(1)}, {}))[0]["x"].item() == 1
    assert time.monotonic() - since < 30
    assert sorted(path.name.split("-")[0] for path in tmp_path.iterdir()) == [NAME, "result"]


def test_what_another_process_is_writing_is_not_taken_for_left_over(tmp_path):
    with alone(tmp_path, "a test"):
        part = tmp_path / ".a.part"
        part.write_bytes(b"half")
        with alone(tmp_path, "a part of it"):  # the same process may ask again
            assert part.exists()
        assert part.exists()
    with alone(tmp_path, "another"):
        assert not part.exists()


def test_reading_does_not_wait(tmp_path):
    Store(tmp_path).get("result", errors, {}, lambda: ({"x": torch.ones(1)}, {}))
    holder = begin(
        ["-c", "import sys, time\nfrom pathlib import Path\nfrom rfviz.lock import alone\n"
         "with alone(Path(sys.argv[1]), 'x'):\n    print('held', flush=True); time.sleep(600)", str(tmp_path)],
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
