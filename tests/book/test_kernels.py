"""Kernels that are forked with everything imported behave as kernels that begin from nothing."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import jupytext
import nbformat
import papermill
import psutil
import pytest
from nbclient.exceptions import DeadKernelError

import rfviz
from rfviz.book.batch import KERNEL, QUIET
from rfviz.book.kernels import ForkedKernelManager


def run(folder: Path, *cells: str, cwd: Path | None = None) -> list[nbformat.NotebookNode]:
    """Run a notebook of some cells and return what they put out."""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    before, after = folder / "before.ipynb", folder / "after.ipynb"
    jupytext.write(notebook, before)
    papermill.execute_notebook(
        str(before), str(after), kernel_name=KERNEL, progress_bar=False, extra_arguments=QUIET, cwd=cwd,
        shutdown_kernel="immediate", kernel_manager_class=ForkedKernelManager,
    )  # fmt: skip
    return [cell.outputs for cell in nbformat.read(after, as_version=4).cells]


def test_it_has_the_settings_of_its_time_and_place_and_shares_nothing(tmp_path, monkeypatch):
    ask = "import os, sys, torch\nprint(os.environ.get('SOME'), os.getcwd(), torch.get_num_threads(), os.getpid())"
    seen = []
    for number, (some, threads) in enumerate((("one", "1"), ("other", "2"))):
        monkeypatch.setenv("SOME", some)
        monkeypatch.setenv("OMP_NUM_THREADS", threads)
        folder = tmp_path / str(number)
        folder.mkdir()
        first, _ = run(tmp_path, ask, "torch.mine = 1", cwd=folder)
        said = first[0].text.split()
        assert said[:3] == [some, str(folder), threads]
        seen.append(int(said[3]))
    ((output,),) = run(tmp_path, "import torch; print(hasattr(torch, 'mine'))")
    assert output.text == "False\n"
    assert not any(psutil.pid_exists(pid) for pid in seen) and os.getpid() not in seen


def test_its_time_begins_with_it(tmp_path):
    """Not with the process that it was forked from: pages say how long they took."""
    run(tmp_path, "pass")  # there is such a process now
    before = time.monotonic()
    ((output,),) = run(tmp_path, "from rfviz.lab import provenance; print(provenance.STARTED)")
    assert before < float(output.text) < time.monotonic()


def test_all_of_the_package_is_imported_at_once(tmp_path):
    """What a kernel imported later could have been edited meanwhile."""
    ((output,),) = run(tmp_path, "import sys; print(*(name for name in sys.modules if name.startswith('rfviz')))")
    there = output.text.split()
    root = Path(rfviz.__file__).parent
    names = [path.relative_to(root.parent).with_suffix("").parts for path in root.rglob("*.py")]
    wanted = {".".join(each[:-1] if each[-1] == "__init__" else each) for each in names if each[-1] != "__main__"}
    assert len(wanted) > 100 and wanted <= {*there}


def test_figures_and_bars_are_shown(tmp_path):
    figure, bar = run(
        tmp_path,
        "import matplotlib.pyplot as plt\nplt.plot([1, 2])\nplt.show()",
        "from tqdm.auto import tqdm\nfor _ in tqdm(range(3)): pass\nprint('there')",
    )
    assert any("image/png" in output.get("data", {}) for output in figure)
    assert any(output.get("text") == "there\n" for output in bar)
    # of text: what is forked from the same process and has no notebook, as trainings, could show no other
    assert any(output.get("name") == "stderr" and "3/3" in output.text for output in bar)


def test_a_kernel_that_dies_is_noticed(tmp_path):
    with pytest.raises(DeadKernelError):
        run(tmp_path, "import os\nos._exit(3)")


@pytest.mark.thorough
def test_kernels_end_with_the_process_that_asked_for_them(tmp_path):
    """Even when that is killed, and can say nothing to them."""
    file = tmp_path / "pid"
    cell = (
        "import os, pathlib, sys, time\n"
        "begun = [os.getpid(), 'rfviz.pages.style' in sys.modules]\n"
        f"pathlib.Path({str(file)!r}).write_text(' '.join(map(str, begun)) + '.')\ntime.sleep(600)"
    )
    code = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\nfrom pathlib import Path\n"
    code += f"from test_kernels import run\nif __name__ == '__main__': run(Path({str(tmp_path)!r}), {cell!r})"
    script = tmp_path / "asks.py"
    script.write_text(code)
    asking = subprocess.Popen([sys.executable, str(script)])
    deadline = time.monotonic() + 60
    while not (file.exists() and file.read_text().endswith(".")):
        assert asking.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    kernel, imported = file.read_text().split()
    assert imported == "True."
    kernel = psutil.Process(int(kernel))
    asking.kill()
    asking.wait()
    psutil.wait_procs([kernel], timeout=30)
    assert not kernel.is_running()


def test_what_a_kernel_has_started_ends_with_it(tmp_path):
    ((output,),) = run(tmp_path, "import subprocess; print(subprocess.Popen(['sleep', '600']).pid)")
    begun = psutil.Process(int(output.text)) if psutil.pid_exists(int(output.text)) else None
    assert begun is None or not psutil.wait_procs([begun], timeout=10)[1] or begun.status() == psutil.STATUS_ZOMBIE


@pytest.mark.thorough
def test_an_interruption_while_everything_is_imported_says_nothing(tmp_path):
    """Ctrl-C reaches the process that kernels are forked from, too; threads that run notebooks come later."""
    script = tmp_path / "begins.py"
    script.write_text(
        "import threading, time\nfrom rfviz.lab import forks\n"
        "if __name__ == '__main__':\n"
        "    try:\n        began = forks.begin('rfviz.book.preload')\n"
        "        threading.Thread(target=forks.begin, args=('rfviz.book.preload',)).start()\n"
        "        print(began, flush=True)\n        time.sleep(60)\n"
        "    except KeyboardInterrupt:\n        time.sleep(1)\n"
    )
    begun = subprocess.Popen(
        [sys.executable, str(script)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    assert begun.stdout is not None and begun.stdout.readline() == "True\n"
    time.sleep(0.5)
    os.killpg(begun.pid, signal.SIGINT)
    assert begun.communicate(timeout=30) == ("", "") and begun.returncode == 0
