"""The state of a training, saved at intervals, so that a killed training resumes and ends the same.

Images, their order, their augmentation and the learning rate follow from the seed and the number of the step. So the
state is that number, the weights, the batch-norm statistics, the momentum, and what the history has counted so far.
"""

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from rfviz.storage.files import load_tensors, save_tensors

_log = logging.getLogger(__name__)

KEPT = 2
"""States that are kept: if the last one is damaged, the one before it is used."""


class States:
    """The files ``PATH.00000120``, one per state, numbered by the steps that were taken; none without a path."""

    def __init__(self, path: Path | None):
        self.path = path

    def files(self) -> list[Path]:
        """Return the files, the oldest first."""
        if self.path is None:
            return []
        found = self.path.parent.glob(f"{self.path.name}.*")
        return sorted(file for file in found if file.suffix[1:].isdigit())

    def save(self, step: int, tensors: Mapping[str, Tensor], values: Mapping[str, Any]) -> None:
        """Write a state, whole or not at all, and remove all but the last `KEPT`.

        States of later steps are removed too: they were damaged, or training would have resumed from them.
        """
        if self.path is None:
            return
        path = self.path.with_name(f"{self.path.name}.{step:08d}")
        save_tensors(tensors, path, {"step": step, **values})
        files = self.files()
        written = files.index(path)
        for file in [*files[: max(0, written + 1 - KEPT)], *files[written + 1 :]]:
            file.unlink(missing_ok=True)

    def last(self) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """Return the last state that can be read, or None."""
        for file in reversed(self.files()):
            try:
                return load_tensors(file, ours=True)
            except (OSError, SafetensorError, json.JSONDecodeError):
                _log.warning("rfviz: the training state %s is damaged: the one before it is used.", file)
        return None


def collect(net: nn.Module, optimizer: torch.optim.SGD, sums: Tensor) -> dict[str, Tensor]:
    """Return weights, statistics, momentum and the sums of the current epoch under one set of names."""
    weights = {f"weights/{name}": value for name, value in net.state_dict().items()}
    momenta = {
        f"momentum/{name}": buffer
        for name, parameter in net.named_parameters()
        if (buffer := optimizer.state[parameter].get("momentum_buffer")) is not None  # there is none at momentum 0
    }
    return {**weights, **momenta, "sums": sums}


def restore(net: nn.Module, optimizer: torch.optim.SGD, saved: Mapping[str, Tensor]) -> Tensor:
    """Put a state into a network and its optimizer; return the sums of the current epoch."""
    prefix = "weights/"
    net.load_state_dict({key.removeprefix(prefix): value for key, value in saved.items() if key.startswith(prefix)})
    for name, parameter in net.named_parameters():
        if f"momentum/{name}" not in saved:
            continue
        # empty_like keeps the memory format, on which the order of floating-point sums may depend
        optimizer.state[parameter]["momentum_buffer"] = torch.empty_like(parameter).copy_(saved[f"momentum/{name}"])
    return saved["sums"]
