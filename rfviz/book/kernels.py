"""Kernels, and the build of the book, that begin with everything imported; see `rfviz.lab.forks`."""

import contextlib
import importlib
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from jupyter_client.connect import KernelConnectionInfo
from jupyter_client.manager import AsyncKernelManager
from jupyter_client.provisioning import LocalProvisioner
from tqdm import tqdm

from rfviz.book.process import PRELOAD
from rfviz.lab import forks, provenance

_NAME = "kernel"


class _Forked:
    """A forked process as `subprocess.Popen` presents one."""

    stdin = stdout = stderr = None

    def __init__(self, process: BaseProcess):
        self.process, self.pid = process, process.pid

    def poll(self) -> int | None:
        return self.process.exitcode

    def wait(self) -> int | None:
        self.process.join()
        return self.process.exitcode

    def send_signal(self, signum: int) -> None:
        if self.process.is_alive() and self.pid is not None:
            os.kill(self.pid, signum)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)


class _Provisioner(LocalProvisioner):
    async def launch_kernel(self, cmd: list[str], **kwargs: Any) -> KernelConnectionInfo:
        here = Path(cmd[0]).parent == Path(sys.executable).parent and "ipykernel_launcher" in cmd
        if not (here and forks.begin(PRELOAD)):
            return await super().launch_kernel(cmd, **kwargs)
        arguments = cmd[cmd.index("ipykernel_launcher") + 1 :]
        given = arguments, dict(kwargs["env"]), kwargs.get("cwd")
        process = forks.process(_kernel, given, daemon=False, name=_NAME)
        process.start()
        self.process = _Forked(process)  # type: ignore[assignment]
        self.pid = self.pgid = process.pid  # of a group of its own: what it has started ends with it
        return self.connection_info


class ForkedKernelManager(AsyncKernelManager):
    """Manages a kernel that is a fork, if it is one of this Python."""

    def __init__(self, **kwargs: Any):
        super().__init__(**kwargs)
        self.provisioner = _Provisioner(kernel_spec=self.kernel_spec, parent=self)


def kill_all() -> None:
    """End the kernels of this process at once."""
    for process in multiprocessing.active_children():
        if process.name == _NAME and process.pid is not None:
            with contextlib.suppress(ProcessLookupError):  # it has no group yet
                os.killpg(process.pid, signal.SIGKILL)
            process.kill()


@contextlib.contextmanager
def ended() -> Iterator[None]:
    """End at the end of a block what is left of its kernels: `multiprocessing` would wait for them forever."""
    try:
        yield
    finally:
        kill_all()


def _kernel(arguments: Sequence[str], environment: Mapping[str, str], folder: str | None) -> None:
    """Be a kernel."""
    import matplotlib
    import torch
    from ipykernel.kernelapp import IPKernelApp

    os.setsid()  # where Ctrl-C does not reach it
    forks.end_with_parent()
    os.environ.clear()
    os.environ.update(environment)
    if folder is not None:
        os.chdir(folder)
    # What is otherwise asked for when it is imported:
    provenance.STARTED = time.monotonic()
    matplotlib.rcParams["backend"] = environment.get("MPLBACKEND", "module://matplotlib_inline.backend_inline")
    if threads := environment.get("OMP_NUM_THREADS"):
        torch.set_num_threads(int(threads))
    tqdm.set_lock(threading.RLock())  # not one that processes share: it would be left behind by a kernel that is killed
    sys.argv = ["ipykernel_launcher", *arguments]
    IPKernelApp.launch_instance(list(arguments))


def call(module: str, arguments: Sequence[str], environment: Mapping[str, str], output: Path) -> int:
    """Call the ``main`` of a module in a process of its own and return the exit code.

    Parameters
    ----------
    module : str
    arguments : sequence of str
        Of its command line.
    environment : mapping
        Variables, all of them.
    output : Path
        File that gets what it writes to standard output and standard error.
    """
    given = module, list(arguments), dict(environment), output
    process = forks.process(_main, given, daemon=True)
    output.write_bytes(b"")
    process.start()
    try:
        while process.is_alive():
            process.join(forks.A_WHILE)
    finally:
        process.kill()
        process.join()
    return process.exitcode or 0


def _main(module: str, arguments: list[str], environment: dict[str, str], output: Path) -> None:
    forks.end_with_parent()
    os.environ.clear()
    os.environ.update(environment)
    with output.open("w", encoding="utf-8") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    importlib.import_module(module).main(arguments)
