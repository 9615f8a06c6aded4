"""The page on the reference run, and what of a run is kept in the repository for it.

Numbers as JSON, and pictures that are averages or made by the network. No photograph is among them: a mean preferred
stimulus over few neurons would show one, so it is left out.
"""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from IPython.display import Markdown
from PIL import Image
from torch import Tensor

from rfviz import _torchvision_ops  # isort: skip  # noqa: F401  # torchvision may not load without it
from torchvision.utils import make_grid

from rfviz.kernels.noise import Effect, NoiseEffect
from rfviz.lab import provenance, results
from rfviz.lab.provenance import HowMade
from rfviz.lab.run import Run
from rfviz.nets.network import NETWORKS, network
from rfviz.pages import claims
from rfviz.pages.claims import Claim
from rfviz.pages.style import min_max, stretch
from rfviz.storage import places
from rfviz.storage.digests import tensor_digest
from rfviz.storage.files import atomic

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
    histories : dict from network to list of histories
        One per seed; see `rfviz.training.trainer.train`. Of networks whose training is told.
    effects : dict from network to list of NoiseEffect
    """

    facts: dict[str, Any]
    histories: dict[str, list[list[dict]]]
    effects: dict[str, list[NoiseEffect]]

    @property
    def chance(self) -> float:
        """Top-1 accuracy of guessing, a share."""
        return 1 / self.facts["data"]["classes"]

    @property
    def accuracies(self) -> dict[str, list[float]]:
        """Top-1 accuracy on held-out images of each network, a share, one per seed."""
        return {name: [each["top1"] for each in replicas] for name, replicas in self.facts["networks"].items()}

    @property
    def claims(self) -> list[Claim]:
        """What it says of the statements of the paper."""
        return [Claim(**each) for each in self.facts["claims"]]


def export(runs: Sequence[Run], folder: Path, made_by: Mapping[str, str]) -> None:
    """Write the numbers of some runs and the pictures of the first into a folder.

    Parameters
    ----------
    runs : sequence of Run
        They differ in the seed.
    folder : Path
        ``reference.json`` and the pictures in it are replaced.
    made_by : mapping
        For people: the command, and whatever else is to be known.
    """
    first = runs[0]
    names = [each.name for each in first.networks]
    stated = [claim._asdict() for claim in claims.gather(runs)]
    sheets = {name: pictures(first, name) for name in names}
    facts = {
        "made by": dict(made_by),
        "preset": first.given.name,
        "recipes": {name: dataclasses.asdict(first.recipe(name).for_images(len(first.train))) for name in names},
        "width": first.given.width,
        "data": {
            "training images": len(first.train),
            "held-out images": len(first.evaluation),
            "classes": len(first.classes),
            "training images (hash)": first.train.fingerprint,
            "held-out images (hash)": first.evaluation.fingerprint,
            "side": int(first.evaluation[0][0].shape[1]),
        },
        "analysed with": provenance.environment(first.device),
        "strongest": first.given.strongest,
        "networks": {name: [_numbers(run, name) for run in runs] for name in names},
        "claims": stated,
        "left out": {name: left_out for name, (_, left_out) in sheets.items()},
    }
    written = set()
    for name, (drawn, _) in sheets.items():
        for what, sheet in drawn.items():
            path = folder / f"{name}-{what}.png"
            written.add(path)
            with atomic(path) as temporary:
                Image.fromarray(sheet).save(temporary, "PNG", optimize=True)
    with atomic(folder / "reference.json") as temporary:
        temporary.write_text(json.dumps(facts, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    for file in set(folder.glob("*.png")) - written:  # of an earlier export, and only now that the new one is there
        if file.name.partition("-")[0] in NETWORKS:
            file.unlink()


def _numbers(run: Run, network: str) -> dict[str, Any]:
    noise = dataclasses.asdict(results.noise_effect(run, network))
    for effect in noise["effects"].values():
        effect["loss"], effect["top1"] = effect["loss"].tolist(), effect["top1"].tolist()
    found = results.stimuli(run, network)
    return {
        "weights": tensor_digest(run.net(network).state_dict()),
        "history": results.history(run, network),
        "top1": results.accuracy(run, network),
        "noise": noise,
        "firing_rate": results.pooling(run, network).firing_rate.tolist(),
        "mean_firing_rate": {layer: each.firing_rate.mean().item() for layer, each in found.items()},
    }


def load(folder: Path) -> Reference:
    """Read what `export` wrote."""
    facts = json.loads((folder / "reference.json").read_text(encoding="utf-8"))
    histories = {name: [each["history"] for each in replicas] for name, replicas in facts["networks"].items()}
    effects = {name: [_noise(each["noise"]) for each in replicas] for name, replicas in facts["networks"].items()}
    return Reference(facts, {name: found for name, found in histories.items() if all(found)}, effects)


def kept() -> Reference:
    """Read the reference run that is kept in the repository, in ``book/reference``."""
    return load(places.repository() / "book" / "reference")


def _noise(stored: dict[str, Any]) -> NoiseEffect:
    effects = {
        row: Effect(
            tuple(each["channels"]), *(torch.tensor(each[key], dtype=torch.float64) for key in ("loss", "top1"))
        )
        for row, each in stored["effects"].items()
    }
    return NoiseEffect(**{**stored, "inactive": tuple(stored["inactive"]), "effects": effects})


def pictures(run: Run, network: str) -> tuple[dict[str, np.ndarray], dict[str, list[int]]]:
    """Return sheets with one picture per channel, and the channels that were left out of each.

    Returns
    -------
    sheets : dict from str to uint8 array (H, W, 3)
        ``conv1-filter``, and per layer ``LAYER-mean``, ``LAYER-strongest`` (contrast raised, one gain per channel) and
        ``LAYER-maximization``.
    left_out : dict from str to list of int
    """
    filters = run.net(network).conv1.weight.detach().cpu()
    sheets = {"conv1-filter": sheet([min_max(each) for each in filters])}
    left_out = {}
    white, responses = run.whitening(network), results.stimuli(run, network)
    for layer in run.network(network).figure_layers:
        found = responses[layer]
        assert found.mean_stimulus is not None and found.strongest_stimulus is not None
        positions = found.neuron_count / found.image_count
        silent = (found.positive_count < FEWEST * positions).nonzero().flatten().tolist()
        left_out[layer] = silent
        for what, means in (("mean", found.mean_stimulus), ("strongest", found.strongest_stimulus)):
            sheets[f"{layer}-{what}"] = sheet(
                [None if channel in silent else stretch(mean)[0] for channel, mean in enumerate(means)]
            )
        driven = white.to_rgb(results.maxima(run, network, layer).images.float())
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


def conditions(found: Reference) -> Markdown:
    """Say on what and how the networks were trained."""
    data = found.facts["data"]
    (first, recipe), *others = found.facts["recipes"].items()
    rates = [f"{network(name).title}: {each['learning_rate']:g}" for name, each in others]
    beside = f" ({', '.join(rates)})" if rates else ""
    seeds = len(found.facts["networks"][first])
    return Markdown(
        f"Trained on {data['training images']:,} photographs of {data['classes']} classes, measured on "
        f"{data['held-out images']:,} others at {data['side']} × {data['side']} px: {recipe['epochs']} epochs in "
        f"batches of {recipe['batch_size']}, training crops of {recipe['crop']} px ({recipe['area'][0]:.0%} to "
        f"{recipe['area'][1]:.0%} of the image), a {recipe['schedule']} schedule of the learning rate with its top at "
        f"{recipe['learning_rate']:g}{beside}, weight decay {recipe['weight_decay']:g}, multiplied in "
        f"{recipe['precision']}; {seeds} network{'s' * (seeds > 1)} of each kind."
    )


def how_made(found: Reference) -> HowMade:
    """Return the folded table "How this page was made": nothing of it is computed, the commits say what was."""
    facts = found.facts
    hashes = {
        f"weights of {network(name).title} (hashes)": ", ".join(each["weights"] for each in replicas)
        for name, replicas in facts["networks"].items()
    }
    analysed = {f"analysed with: {key}": value for key, value in facts["analysed with"].items()}
    return HowMade({**facts["made by"], **facts["data"], **hashes, **analysed})
