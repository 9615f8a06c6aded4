"""A series of trainings: how many channels of the stem fall silent, by cumulative decay, with and without skips.

Every training is a run of the preset `PRESET` with another cumulative decay D (`rfviz.training.recipe.Recipe.decay`).
Networks without any skips have that preset's recipe for them, the others one and the same. A second arm adds a penalty
that keeps every channel of the stem firing (`Recipe.alive`).
"""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rfviz.errors import RfvizError, first_line, unknown
from rfviz.kernels.silent import RARE, inactive_channels
from rfviz.lab import results, together
from rfviz.lab.run import Run, open_run, trained
from rfviz.storage.digests import tensor_digest
from rfviz.storage.files import atomic

FILE = "series.json"

PRESET = "quick"

NETWORKS = ("resnet34", "resnet34-plain-layer1", "plainnet34")

DECAYS = (0.01, 0.5, 1.5, 3.0, 6.0, 15.0)
"""Cumulative decays D; 6 is the preset's own."""

SEEDS = (0, 1, 2)

PENALTY = 0.1
"""Weight of the penalty in the second arm."""

PENALIZED = (6.0,)
"""Cumulative decays of the second arm."""


@dataclass(frozen=True)
class Cell:
    """One training of the series.

    Parameters
    ----------
    network : str
    decay : float
        Cumulative decay D.
    alive : float
        Weight of the penalty; see `rfviz.training.recipe.Recipe`.
    seed : int
    """

    network: str
    decay: float
    alive: float
    seed: int

    @property
    def name(self) -> str:
        """What it is called, such as ``resnet34-D4-seed0``."""
        return f"{self.network}-D{self.decay:g}{'-alive' if self.alive else ''}-seed{self.seed}"

    def run(self) -> Run:
        """Open the run that this training belongs to."""
        penalty = {"alive": self.alive} if self.alive else {}
        return open_run(PRESET, self.seed, networks=self.network, decay=self.decay, **penalty)

    @property
    def command(self) -> str:
        """The command that trains this network alone."""
        penalty = f" --set alive={self.alive:g}" if self.alive else ""
        return (
            f"rfviz train --preset {PRESET} --networks {self.network} --seed {self.seed} "
            f"--set decay={json.dumps(self.decay)}{penalty}"
        )


def cells() -> list[Cell]:
    """Return all trainings of the series: those of one seed before those of the next."""
    arms = [(decay, 0.0) for decay in DECAYS] + [(decay, PENALTY) for decay in PENALIZED]
    return [Cell(network, *arm, seed) for seed in SEEDS for arm in arms for network in NETWORKS]


def train(chosen: Sequence[Cell]) -> None:
    """Train what is not there yet, several networks at a time."""
    together.train([cell.run() for cell in chosen])


def measure(cell: Cell) -> dict[str, Any]:
    """Return what is kept of a training, as JSON values.

    Returns
    -------
    dict
        The cell; ``command`` and hash of the ``weights``; ``top1``, ``train_top1`` (shares) and
        ``loss`` (nats) at the end; for the first pooling layer on the evaluation images the ``firing_rate`` of each
        channel, how many channels are ``inactive`` and ``rarely_active``, and how many were ``inactive_by_epoch``.
    """
    run = cell.run()
    kept, pooled = trained(run, cell.network), results.pooling(run, cell.network)
    last, rates = kept.history[-1], pooled.firing_rate
    inactive = len(inactive_channels(pooled))
    return {
        **dataclasses.asdict(cell),
        "command": cell.command,
        "weights": tensor_digest(kept.weights),
        "top1": last["evaluation_top1"],
        "train_top1": last["train_top1"],
        "loss": last["evaluation_loss"],
        "firing_rate": [float(f"{rate:.4g}") for rate in rates.tolist()],
        "inactive": inactive,
        "rarely_active": int((rates < RARE).sum()) - inactive,
        "inactive_by_epoch": [sum(rate == 0 for rate in epoch["firing_rate"]) for epoch in kept.history],
    }


def chosen(only: str | None = None) -> list[Cell]:
    """Return the cells whose name begins with `only`; all by default.

    Raises
    ------
    RfvizError
        If there is none.
    """
    found = [cell for cell in cells() if cell.name.startswith(only or "")]
    if not found:
        raise unknown("training of the series", str(only), [cell.name for cell in cells()])
    return found


def load(folder: Path) -> dict[str, Any]:
    """Return what `export` wrote: ``made by``, and the ``trainings``; none where there is no such file.

    Raises
    ------
    RfvizError
        If the file is damaged.
    """
    path = folder / FILE
    if not path.is_file():
        return {"made by": {}, "trainings": []}
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise RfvizError(
            f"{path} is damaged ({first_line(error)}): remove it, or take it from the repository."
        ) from error


def export(folder: Path, found: Sequence[dict[str, Any]], made_by: Mapping[str, str]) -> None:
    """Write what was measured of all trainings, one line each."""
    lines = ",\n".join(json.dumps(each) for each in found)
    with atomic(folder / FILE) as temporary:
        temporary.write_text(
            f'{{"made by": {json.dumps(dict(made_by))},\n"trainings": [\n{lines}\n]}}\n', encoding="utf-8"
        )
