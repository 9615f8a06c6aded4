"""One process at a time makes a result or a book; half-written files of killed ones are removed."""

import contextlib
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout
from tqdm.auto import tqdm

from rfviz.errors import RfvizError

FOLDER = ".locks"
"""Where the locked files are. The system frees a lock when its process ends, however it ends; the file stays."""

UNSAID = 5.0
"""Seconds that a process waits for another without saying so."""


@contextlib.contextmanager
def locked(folder: Path, name: str) -> Iterator[None]:
    """Hold the inter-process lock `name` in `folder` until the block ends; wait while another process holds it.

    A thread that holds the lock may ask for it again. Reading takes no lock: files are replaced atomically.

    Parameters
    ----------
    folder : Path
        Made if it is not there.
    name : str
        What is locked. Half-written files and folders right in `folder`, ``.NAME*.part``, are removed: whoever wrote
        them was killed.

    Raises
    ------
    RfvizError
        If nothing can be written there. That is tried first, not after hours of work.
    """
    try:
        (folder / FOLDER).mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / FOLDER / f"{name}.lock", is_singleton=True)
        try:
            lock.acquire(timeout=UNSAID)
        except Timeout:
            tqdm.write(f"rfviz: another process is making {name} in {folder}; waiting for it.", file=sys.stderr)
            lock.acquire()
        try:
            tempfile.TemporaryFile(dir=folder).close()
        except OSError:
            lock.release()
            raise
    except OSError as error:
        raise RfvizError(
            f"{folder} cannot be written to ({error}): choose another folder (for runs, with RFVIZ_RUNS). Earlier "
            "results are unchanged."
        ) from error
    try:
        if lock.lock_counter == 1:
            for left in folder.glob(f".{name}*.part"):
                shutil.rmtree(left, ignore_errors=True) if left.is_dir() else left.unlink(missing_ok=True)
        yield
    finally:
        lock.release()
