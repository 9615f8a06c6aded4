"""Reading and writing the files of a run: tensors in safetensors, everything else in JSON, each written
atomically. Nothing is ever pickled.
"""

import contextlib
import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from rfviz.errors import RfvizError
from rfviz.storage.digests import digest, tensor_digest

HALF_WRITTEN = ".*.part"
"""Names of what is being written: where no process writes, they are left over from one that was killed."""

_INFO = "rfviz"  # the one key that we use of a safetensors file's metadata: several would have no fixed order
_DIGEST = "of what was written"  # in it


@contextlib.contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Give a temporary file to write to; it replaces `path` when the block ends without an error.

    Raises
    ------
    RfvizError
        If the file cannot be written, because the disk is full or the folder read-only. What stood there stays.
    """
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
        os.close(handle)
        temporary = Path(name)
        yield temporary
        with temporary.open("rb+") as written:
            os.fsync(written.fileno())
        temporary.chmod(0o644)  # mkstemp makes private files
        os.replace(temporary, path)
    except (OSError, SafetensorError) as error:
        raise RfvizError(
            f"{path} cannot be written ({error}): free some space or choose another folder (for runs, with "
            "RFVIZ_RUNS). Earlier results are unchanged."
        ) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def save_tensors(tensors: Mapping[str, Tensor], path: Path, info: Mapping[str, Any] | None = None) -> None:
    """Write named tensors, and an object of JSON values beside them, to one safetensors file."""
    contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    whole = {**(info or {}), _DIGEST: digest([tensor_digest(contiguous), json.dumps(info or {})])}
    with atomic(path) as temporary:
        save_file(contiguous, temporary, metadata={_INFO: json.dumps(whole)})


def load_info(path: Path) -> dict[str, Any]:
    """Return the JSON object of a file that `save_tensors` has written, without its tensors; nothing is checked."""
    with safe_open(str(path), framework="pt") as file:
        return json.loads((file.metadata() or {})[_INFO])


def load_tensors(path: Path, *, ours: bool = False) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the tensors and the JSON object of a safetensors file.

    Parameters
    ----------
    path : Path
    ours : bool
        The file must be one that `save_tensors` has written.

    Raises
    ------
    SafetensorError
        If it is no such file, or was written by `save_tensors` and has changed since.
    """
    with safe_open(str(path), framework="pt") as file:
        metadata = file.metadata() or {}
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # not a dict
    info = json.loads(metadata.get(_INFO, "{}"))
    written = info.pop(_DIGEST, None) if isinstance(info, dict) else None
    if ours and written is None:
        raise SafetensorError(f"{path} has lost what says that it is whole")
    if written is not None and written != digest([tensor_digest(tensors), json.dumps(info)]):
        raise SafetensorError(f"{path} has changed since it was written")
    return tensors, info
