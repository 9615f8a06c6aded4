"""The state of a long pass, written now and then: a killed pass goes on from there."""

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


class Checkpoint:
    """A file that holds the last state of a pass.

    Parameters
    ----------
    path : Path
    made_of : mapping
        What the pass depends on, as JSON values: the state of another pass is refused.
    every : float
        Seconds between two writings.
    discard_unusable : bool
        Remove a file that is damaged or belongs to another pass, with a warning, instead of refusing it.
    """

    def __init__(self, path: Path, made_of: Mapping[str, Any], every: float, discard_unusable: bool = False):
        self.path, self.every, self.discard_unusable = path, every, discard_unusable
        self.made_of = json.loads(json.dumps(made_of))
        self._written = time.monotonic()

    def read(self) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """Return the tensors and values of the last state, or None if there is none.

        Raises
        ------
        RfvizError
            If the file cannot be read; or, unless such files are discarded, if it is damaged or belongs to another
            pass.
        """
        if not self.path.exists():
            return None
        try:
            tensors, info = load_tensors(self.path, ours=True)
            made_of, values = info["made_of"], info["values"]
        except OSError as error:
            raise RfvizError(f"the checkpoint {self.path} cannot be read ({error}): choose another file.") from error
        except (SafetensorError, KeyError, json.JSONDecodeError):
            self._refuse("is damaged")
            return None
        if made_of != self.made_of:
            differ = sorted(key for key in {*made_of, *self.made_of} if made_of.get(key) != self.made_of.get(key))
            self._refuse(f"belongs to another pass (other {', '.join(differ)})")
            return None
        return tensors, values

    def _refuse(self, reason: str) -> None:
        """Raise an error or, where unusable files are discarded, remove the file."""
        if not self.discard_unusable:
            raise RfvizError(f"the checkpoint {self.path} {reason}: remove it to begin anew, or choose another file.")
        _log.warning("rfviz: the checkpoint %s %s: the pass begins anew.", self.path, reason)
        self.remove()

    @property
    def due(self) -> bool:
        """Whether it is time to write."""
        return time.monotonic() - self._written >= self.every

    def write(self, tensors: Mapping[str, Tensor], values: Mapping[str, Any]) -> None:
        """Replace the last state, atomically."""
        save_tensors(tensors, self.path, {"made_of": self.made_of, "values": dict(values)})
        self._written = time.monotonic()

    def remove(self) -> None:
        """Remove the file: the pass has ended."""
        self.path.unlink(missing_ok=True)
