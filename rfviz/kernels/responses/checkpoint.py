"""Where a long pass stands, written now and then, so that a killed pass goes on from there."""

import json
import logging
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from torch import Tensor

from rfviz.errors import RfvizError
from rfviz.storage.files import load_tensors, save_tensors

_log = logging.getLogger(__name__)


def remove_damaged(path: Path) -> None:
    """Remove the checkpoints of a pass, one of each process, if one of them is damaged, and say so."""
    files = list(path.parent.glob(f"{path.name}*"))
    for file in files:
        try:
            load_tensors(file, ours=True)
        except (OSError, SafetensorError, json.JSONDecodeError):
            _log.warning("rfviz: the checkpoint %s is damaged: the pass begins anew.", file)
            for each in files:
                each.unlink(missing_ok=True)
            return


class Checkpoint:
    """A file that holds the last state of a pass.

    Parameters
    ----------
    path : Path
    made_of : mapping
        What the pass depends on, as JSON values: the state of another pass is refused.
    every : float
        Seconds between two writings.
    """

    def __init__(self, path: Path, made_of: Mapping[str, Any], every: float):
        self.path, self.every = path, every
        self.made_of = json.loads(json.dumps(made_of))
        self._written = time.monotonic()

    def read(self) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """Return the tensors and values of the last state, or None if there is no file.

        Raises
        ------
        RfvizError
            If the file is damaged, or belongs to another pass.
        """
        if not self.path.exists():
            return None
        try:
            tensors, info = load_tensors(self.path)
            made_of, values = info["made_of"], info["values"]
        except (SafetensorError, KeyError, json.JSONDecodeError) as error:
            raise RfvizError(f"the checkpoint {self.path} is damaged: remove it to begin anew.") from error
        except OSError as error:
            raise RfvizError(f"the checkpoint {self.path} cannot be read ({error}): choose another file.") from error
        if made_of != self.made_of:
            differ = sorted(key for key in {*made_of, *self.made_of} if made_of.get(key) != self.made_of.get(key))
            raise RfvizError(
                f"the checkpoint {self.path} belongs to another pass (other {', '.join(differ)}): remove it to begin "
                "anew, or choose another file."
            )
        return tensors, values

    @property
    def due(self) -> bool:
        """Whether it is time to write."""
        return time.monotonic() - self._written >= self.every

    def write(self, tensors: Mapping[str, Tensor], values: Mapping[str, Any]) -> None:
        """Replace the last state, whole or not at all."""
        save_tensors(tensors, self.path, {"made_of": self.made_of, "values": dict(values)})
        self._written = time.monotonic()

    def remove(self) -> None:
        """Remove the file: the pass has ended."""
        self.path.unlink(missing_ok=True)
