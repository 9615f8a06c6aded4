"""What is kept of a long run in the repository: numbers as JSON, and pictures that are averages or made by the network.

No photograph is among them: a mean preferred stimulus over few neurons would show one, so it is left out.
"""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from rfviz import _torchvision_ops  # isort: skip  # noqa: F401  # torchvision may not load without it
from torchvision.utils import make_grid

from rfviz.kernels.inactivity import Effect, NoiseEffect
from rfviz.lab import provenance
from rfviz.lab.presets import FIGURE_LAYERS
from rfviz.lab.runs import Run
from rfviz.nets.models import ARCHITECTURES
from rfviz.pages import claims
from rfviz.pages.figures import min_max, stretch
from rfviz.storage.digests import tensor_digest
from rfviz.storage.files import atomic
from rfviz.training.distributed import world

FEWEST = 10
"""Images that a mean preferred stimulus averages over at least, for all their positions, to be shown."""

COLUMNS = 8
WIDTH = 480
"""Channels in a row of a sheet, and the least width of a sheet, px."""

BACKGROUND = 0.85


@dataclass(frozen=True)
class Reference:
    """A run that was exported.

    Parameters
    ----------
    facts : dict
        Everything in ``reference.json``.
    histories : dict from architecture to list of histories
        One per seed; see `rfviz.training.trainer.train`.
    effects : dict from architecture to list of NoiseEffect
    """

    facts: dict[str, Any]
    histories: dict[str, list[list[dict]]]
    effects: dict[str, list[NoiseEffect]]


def export(replicas: Sequence[Run], folder: Path, made_by: Mapping[str, str]) -> None:
    """Write the numbers of all replicas and the pictures of the first into a folder.

    Parameters
    ----------
    replicas : sequence of Run
        They differ in the seed, or in the weights that were given.
    folder : Path
        ``reference.json`` and the pictures in it are replaced. Of several processes, all compute and the first writes.
    made_by : mapping
        For people: the command, and whatever else is to be known.
    """
    first = replicas[0]
    networks: dict[str, list[dict]] = {name: [] for name in ARCHITECTURES}
    for run in replicas:
        for name, found in networks.items():
            noise = dataclasses.asdict(run.noise_effect(name))
            for effect in noise["effects"].values():
                effect["loss"], effect["top1"] = effect["loss"].tolist(), effect["top1"].tolist()
            responses = run.responses(name)
            found.append(
                {
                    "weights": tensor_digest(run.net(name).state_dict()),
                    "history": run.history(name),
                    "top1": run.accuracy(name),
                    "noise": noise,
                    "firing_rate": run.pooling_responses(name).firing_rate.tolist(),
                    "mean_firing_rate": {layer: each.firing_rate.mean().item() for layer, each in responses.items()},
                }
            )
    stated = [claim._asdict() for claim in claims.claims(replicas)]
    sheets = {name: pictures(first, name) for name in ARCHITECTURES}
    facts = {
        "made by": dict(made_by),
        "preset": first.preset.name,
        "recipes": {name: dataclasses.asdict(recipe) for name, recipe in first.preset.recipes.items()},
        "width": first.preset.width,
        "data": {
            "training images": len(first.images.train),
            "held-out images": len(first.images.evaluation),
            "classes": len(first.classes),
            "training images (hash)": first.images.train.fingerprint,
            "held-out images (hash)": first.images.evaluation.fingerprint,
            "side": int(first.images.evaluation[0][0].shape[1]),
        },
        "analysed with": provenance.environment(first.device),
        "code": first.code,
        "strongest": first.preset.strongest,
        "noise_seeds": first.preset.noise_seeds,
        "networks": networks,
        "claims": stated,
        "left out": {name: left_out for name, (_, left_out) in sheets.items()},
    }
    if world()[0] > 0:
        return
    written = set()
    for name, (drawn, _) in sheets.items():
        for what, sheet in drawn.items():
            path = folder / f"{name}-{what}.png"
            written.add(path)
            with atomic(path) as temporary:
                Image.fromarray(sheet).save(temporary, "PNG", optimize=True)
    with atomic(folder / "reference.json") as temporary:
        temporary.write_text(json.dumps(facts, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    for file in (
        set(folder.glob("*net34-*.png")) - written
    ):  # of an earlier export, and only now that the new one is there
        file.unlink()


def load(folder: Path) -> Reference:
    """Read what `export` wrote."""
    facts = json.loads((folder / "reference.json").read_text(encoding="utf-8"))
    histories, effects = {}, {}
    for name, networks in facts["networks"].items():
        histories[name] = [network["history"] for network in networks]
        effects[name] = [_noise(network["noise"]) for network in networks]
    return Reference(facts, histories, effects)


def _noise(stored: dict[str, Any]) -> NoiseEffect:
    effects = {
        row: Effect(
            tuple(each["channels"]), *(torch.tensor(each[key], dtype=torch.float64) for key in ("loss", "top1"))
        )
        for row, each in stored["effects"].items()
    }
    return NoiseEffect(**{**stored, "inactive": tuple(stored["inactive"]), "effects": effects})


def pictures(run: Run, architecture: str) -> tuple[dict[str, np.ndarray], dict[str, list[int]]]:
    """Return sheets with one picture per channel, and the channels that were left out of each.

    Returns
    -------
    sheets : dict from str to uint8 array (H, W, 3)
        ``conv1-filter``, and per layer ``LAYER-mean``, ``LAYER-strongest`` (contrast raised, one gain per channel) and
        ``LAYER-maximization``.
    left_out : dict from str to list of int
    """
    filters = run.net(architecture).conv1.weight.detach().cpu()
    sheets = {"conv1-filter": sheet([min_max(each) for each in filters])}
    left_out = {}
    white = run.whitening(architecture)
    for layer, found in run.responses(architecture, FIGURE_LAYERS).items():
        assert found.mean_stimulus is not None and found.strongest_stimulus is not None
        positions = found.neuron_count / found.image_count
        silent = (found.positive_count < FEWEST * positions).nonzero().flatten().tolist()
        left_out[layer] = silent
        for what, means in (("mean", found.mean_stimulus), ("strongest", found.strongest_stimulus)):
            sheets[f"{layer}-{what}"] = sheet(
                [None if channel in silent else stretch(mean)[0] for channel, mean in enumerate(means)]
            )
        driven = white.to_rgb(run.maximization(architecture, layer).images.float())
        sheets[f"{layer}-maximization"] = sheet(list(driven))
    return sheets, left_out


def sheet(images: Sequence[Tensor | None]) -> np.ndarray:
    """Put square images `(3, R, R)`, RGB in [0, 1], side by side, `COLUMNS` in a row; None leaves a gap.

    Small images are enlarged, pixel by pixel, until the sheet is `WIDTH` px wide or more.
    """
    side = next((image.shape[1] for image in images if image is not None), 1)
    gap = torch.full((3, side, side), BACKGROUND)
    whole = torch.stack([gap if image is None else image.clamp(0, 1) for image in images])
    scale = max(1, -(-(WIDTH // COLUMNS - 1) // side))
    whole = whole.repeat_interleave(scale, 2).repeat_interleave(scale, 3)
    grid = make_grid(whole, nrow=COLUMNS, padding=1, pad_value=BACKGROUND)
    return (grid.permute(1, 2, 0) * 255).round().byte().numpy()
