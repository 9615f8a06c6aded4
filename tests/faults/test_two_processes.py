"""Two processes at one folder of results: one waits and says so; what the first has made, the second reads."""

import os
import re
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path

import pytest
from processes import begin

from rfviz.errors import RfvizError
from rfviz.images import whitening
from rfviz.lab import presets
from rfviz.lab.run import Run, data_whitening, open_run
from rfviz.storage.lock import FOLDER, locked

pytestmark = pytest.mark.faults

SCRIPT = """
import sys
from rfviz.images import whitening
from rfviz.lab.run import data_whitening, open_run
from rfviz.storage import lock

lock.UNSAID = 0.5
fit = whitening.fit

def slowly(*arguments):
    print("computing", flush=True)
    sys.stdin.readline()
    return fit(*arguments)

whitening.fit = slowly
run = open_run("smoke")
run.progress = False
print(sorted(data_whitening(run)), flush=True)
"""
"""Asks for a result, and computes until a line is typed."""

RESULT = "['matrix', 'mean']\n"


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """Where the results of the run are kept that `SCRIPT` opens."""
    monkeypatch.setenv("RFVIZ_RUNS", str(tmp_path))
    return tmp_path / "smoke" / "results"


def ask(runs: Path, **options) -> subprocess.Popen:
    """Ask for the result in another process."""
    return begin(["-c", SCRIPT], runs, **{"stdin": subprocess.PIPE, **options})


def opened(seed: int = 0) -> Run:
    run = open_run("smoke", seed)
    run.progress = False
    return run


def test_the_second_waits_and_reads(folder, tmp_path):
    first = ask(tmp_path)
    assert first.stdout.readline() == "computing\n"
    second = ask(tmp_path, stdin=subprocess.DEVNULL)  # would not compute for long
    waits = rf"rfviz: another process is making data-whitening-\w{{8}} in {re.escape(str(folder))}; waiting for it\.\n"
    assert re.fullmatch(waits, second.stderr.readline())
    assert first.communicate("go on\n", timeout=60) == (RESULT, "")
    assert second.communicate(timeout=60) == (RESULT, "")  # and not a word of computing


def test_two_results_are_computed_at_the_same_time(folder, tmp_path):
    first = ask(tmp_path)
    try:
        assert first.stdout.readline() == "computing\n"
        assert data_whitening.path(opened(seed=1)).exists()
    finally:
        os.killpg(first.pid, signal.SIGKILL)
        first.communicate()


def test_who_is_killed_keeps_nobody_waiting_and_leaves_nothing_half_written(folder, tmp_path):
    first = ask(tmp_path)
    assert first.stdout.readline() == "computing\n"
    (lock,) = (folder / FOLDER).glob("data-whitening-*.lock")
    (folder / f".{lock.stem}-01234567.safetensors.x.part").write_bytes(b"half")
    os.killpg(first.pid, signal.SIGKILL)
    first.communicate()
    made = data_whitening.path(opened())
    assert sorted(path.name for path in folder.iterdir()) == [FOLDER, made.name]


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


def test_reading_does_not_wait(folder, tmp_path, monkeypatch):
    made = data_whitening.path(opened())
    holder = begin(
        ["-c", "import sys, time\nfrom pathlib import Path\nfrom rfviz.storage.lock import locked\n"
         "with locked(Path(sys.argv[1]), sys.argv[2]):\n    print('held', flush=True); time.sleep(600)",
         str(folder), made.stem.rpartition("-")[0]],
        tmp_path,
    )  # fmt: skip
    try:
        assert holder.stdout.readline() == "held\n"
        monkeypatch.setattr(whitening, "fit", pytest.fail)
        assert sorted(data_whitening(opened())) == ["matrix", "mean"]
    finally:
        os.killpg(holder.pid, signal.SIGKILL)
        holder.communicate()


def test_a_folder_that_may_not_be_written_is_said_before_anything_is_computed(tmp_path, monkeypatch):
    monkeypatch.setattr(whitening, "fit", pytest.fail)

    def ask_in(place: Path) -> None:
        data_whitening(Run(presets.get("smoke"), 0, place, progress=False))

    (tmp_path / "file").write_text("")
    with pytest.raises(RfvizError, match=r"cannot be written to .* RFVIZ_RUNS"):
        ask_in(tmp_path / "file")
    closed = Path(tempfile.mkdtemp(dir="/tmp"))  # tmp_path may be closed to the user taken below
    with locked(closed / "results", "result"):
        pass
    superuser = os.geteuid() == 0
    try:
        (closed / "results").chmod(0o555)
        closed.chmod(0o755)
        if superuser:
            os.seteuid(65534)  # permissions do not bind the superuser
        with pytest.raises(RfvizError, match=r"cannot be written to \(.*Permission denied"):
            ask_in(closed)
    finally:
        if superuser:
            os.seteuid(0)
        (closed / "results").chmod(0o755)
        shutil.rmtree(closed)
