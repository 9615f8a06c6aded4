"""One process at a time writes to a folder; what killed ones left half written goes."""

import contextlib
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout
from tqdm.auto import tqdm

from rfviz.errors import RfvizError
from rfviz.files import HALF_WRITTEN

NAME = ".lock"
"""The file that is locked. The system frees it when its process ends, however it ends; the file itself stays."""


@contextlib.contextmanager
def alone(folder: Path, what: str) -> Iterator[None]:
    """Wait until no other process writes to a folder, then keep others waiting until the block ends.

    A process that already has the folder may ask again. Reading takes no lock: files are written whole.

    Parameters
    ----------
    folder : Path
        Made if it is not there. Half-written files (`rfviz.files.HALF_WRITTEN`) right in it are removed.
    what : str
        What for, for the line that says that it waits.

    Raises
    ------
    RfvizError
        If nothing can be written there.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / NAME, is_singleton=True)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            tqdm.write(f"rfviz: another process is writing to {folder}; waiting for it, then: {what}.", file=sys.stderr)
            lock.acquire()
    except OSError as error:
        raise RfvizError(
            f"{folder} cannot be written to ({error}): choose another folder with RFVIZ_RUNS. Earlier results are "
            "unchanged."
        ) from error
    try:
        if lock.lock_counter == 1:
            for left in folder.glob(HALF_WRITTEN):
                shutil.rmtree(left, ignore_errors=True) if left.is_dir() else left.unlink(missing_ok=True)
        yield
    finally:
        lock.release()
