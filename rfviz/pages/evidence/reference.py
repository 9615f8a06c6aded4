"""The page on the reference run, and what of a run is kept in the repository for it.

Numbers as JSON, and pictures that are averages or made by the network. No photograph is among them: a mean preferred
stimulus over few neurons would show one, so it is left out.
"""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from IPython.display import Markdown
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from rfviz import _torchvision_ops  # isort: skip  # noqa: F401  # torchvision may not load without it
from torchvision.utils import make_grid

from rfviz.kernels import effective
from rfviz.kernels.noise import Effect, NoiseEffect
from rfviz.lab import provenance, results
from rfviz.lab.results import Evidence
from rfviz.lab.run import Run
from rfviz.nets import models, receptive_field
from rfviz.nets.network import NETWORKS, network
from rfviz.pages import claims, colour, inactive, orientation, sharing, verdicts
from rfviz.pages.claims import Claim
from rfviz.pages.style import HowMade, Link, covered, min_max, place, roles, stretch
from rfviz.stats import NOTHING, Interval
from rfviz.storage import codec, places
from rfviz.storage.digests import tensor_digest
from rfviz.storage.files import atomic, load_tensors, save_tensors
from rfviz.training.recipe import Recipe

EXHIBIT = "exhibit.safetensors"

FEWEST = 10
"""Images that a mean preferred stimulus averages over at least, for all their positions, to be shown."""

COLUMNS = 8
WIDTH = 480
"""Channels in a row of a sheet, and the least width of a sheet, px."""

MOST = 96
"""Side of a picture on a sheet at most, px."""

FAR = 2
"""Receptive fields of layers that are shown, at most, in sides of an image."""

PAIR, IMAGENET = "trained on Caltech-101", "trained on ImageNet"
"""What readers call the networks that are kept."""

EXPLORED = {"reference": "reference-", "resnet18": "imagenet-"}
"""What the explorer puts before the names of the networks of a run that is kept, by its folder."""

LARGE = 59
"""Receptive fields, px, from which on sheets of maximization images are JPEG files."""

BACKGROUND = 0.85


@dataclass(frozen=True)
class Exhibit:
    """What an exported run shows of silent channels, for the figures and tables of other pages.

    Parameters
    ----------
    inactive : rfviz.pages.inactive.Shown
    evidence : dict from network to list of Evidence
        One per seed.
    read : dict from network and convolution to Tensor, shape (C,)
        See `rfviz.pages.sharing.Shown`.
    tables : dict from str to list of rows
        Tables of other pages, as text.
    answers : dict from str to str
        Their sentences, Markdown.
    """

    inactive: inactive.Shown
    evidence: dict[str, list[Evidence]]
    read: dict[str, dict[str, Tensor]]
    tables: dict[str, list[dict[str, str]]]
    answers: dict[str, str]

    def table(self, name: str) -> pd.DataFrame:
        """Return one of `tables`."""
        return pd.DataFrame(self.tables[name])

    @property
    def sharing(self) -> sharing.Shown:
        """What the functions of `rfviz.pages.sharing` take that are about silent channels; the rest is empty."""
        found, effects = roles([NETWORKS[name] for name in self.evidence]), self.inactive.effects
        more, equal = (
            inactive.more_inactive(effects, each, found.contrast) for each in (found.subject, found.accuracy_control)
        )
        return sharing.Shown(
            roles=found, steps={}, keeps=NOTHING, parts={}, sparsity={}, read=self.read, evidence=self.evidence,
            more_inactive=more, more_at_equal_accuracy=equal, explored=self.inactive.explored,
        )  # fmt: skip


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
    folder : Path
        Where it lies.
    """

    facts: dict[str, Any]
    histories: dict[str, list[list[dict]]]
    effects: dict[str, list[NoiseEffect]]
    folder: Path

    @cached_property
    def exhibit(self) -> Exhibit:
        """What it shows of silent channels."""
        tensors, info = load_tensors(self.folder / EXHIBIT, ours=True)
        found: Exhibit = codec.decode(Exhibit, tensors, info["values"])
        return dataclasses.replace(found, inactive=found.inactive._replace(explored=self.explored))

    @property
    def explored(self) -> str | None:
        """What the explorer puts before the names of its networks; None where it does not have the run."""
        return EXPLORED.get(self.folder.name)

    @property
    def chance(self) -> float:
        """Top-1 accuracy of guessing, a share."""
        return 1 / self.facts["data"]["classes"]

    @property
    def accuracies(self) -> dict[str, list[float]]:
        """Top-1 accuracy on held-out images of each network, a share, one per seed."""
        return {name: [each["top1"] for each in replicas] for name, replicas in self.facts["networks"].items()}

    def sheet(self, network: str, what: str) -> Tensor:
        """Read the pictures of a sheet, such as ``"maxpool-mean"``, `(C, 3, R, R)` in [0, 1]: `sheet` the other way.

        Of layers with as many channels as the stem, whose fields are of `MOST` px or less.
        """
        layer = what.rpartition("-")[0]
        side = receptive_field.of(models.build(network, 8, 2), layer).size
        (path,) = self.folder.glob(f"{network}-{what}.*")
        with Image.open(path) as file:
            whole = torch.from_numpy(np.asarray(file.convert("RGB")).copy()).permute(2, 0, 1)[:, 1:, 1:] / 255
        scale = _scale(side)
        tiles = whole.unfold(1, side * scale, side * scale + 1).unfold(2, side * scale, side * scale + 1)
        return tiles[..., ::scale, ::scale].permute(1, 2, 0, 3, 4).flatten(0, 1)[: self.effects[network][0].channels]

    @property
    def claims(self) -> list[Claim]:
        """What it says of the statements of the paper."""
        return [claims.claim_of(each) for each in self.facts["claims"]]


def export(runs: Sequence[Run], folder: Path, made_by: Mapping[str, str], numbers_only: bool = False) -> None:
    """Write the numbers of some runs and, unless they are not wanted, the pictures of the first into a folder.

    Parameters
    ----------
    runs : sequence of Run
        They differ in the seed.
    folder : Path
        ``reference.json`` and the pictures in it are replaced.
    made_by : mapping
        For people: the command, and whatever else is to be known.
    numbers_only : bool
    """
    first = runs[0]
    names = [each.name for each in first.networks]
    stated = [claim._asdict() for claim in claims.gather(runs)]
    sheets = {} if numbers_only else {name: pictures(first, name) for name in names}
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
            path = folder / f"{name}-{what}"
            written.add(path)
            kind: dict[str, Any] = {"format": "PNG", "optimize": True}
            if path.suffix == ".jpg":  # as fine as noise: a PNG would be four times as large
                kind = {"format": "JPEG", "quality": 90, "subsampling": 0}
            with atomic(path) as temporary:
                Image.fromarray(sheet).save(temporary, **kind)
    tensors, values = codec.encode(exhibit(runs))
    small = {name: each.float() if each.is_floating_point() else each.clone() for name, each in tensors.items()}
    save_tensors(small, folder / EXHIBIT, {"values": values})
    with atomic(folder / "reference.json") as temporary:
        temporary.write_text(json.dumps(facts, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    earlier = {*folder.glob("*.png"), *folder.glob("*.jpg")} - written
    for file in earlier:  # only now that the new ones are there
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


def exhibit(runs: Sequence[Run]) -> Exhibit:
    """Gather what an export keeps for the figures and tables of other pages."""
    shared = sharing.gather(runs)
    grey, coloured = orientation.gather(runs), colour.gather(runs)
    tables = {
        "selectivity": orientation.selectivity_table(grey),
        "colour classes": colour.class_table(coloured),
    }
    answers = {
        "selectivity": orientation.selectivity_answer(grey),
        "colour classes": colour.class_answer(coloured),
    }
    return Exhibit(
        inactive.gather(runs),
        {name: list(each) for name, each in shared.evidence.items()},
        {name: dict(each) for name, each in shared.read.items()},
        {name: _rows(table) for name, table in tables.items()},
        {name: str(answer.data) for name, answer in answers.items()},
    )


def _rows(table: pd.DataFrame) -> list[dict[str, str]]:
    return [{str(key): str(value) for key, value in row.items()} for row in table.reset_index().to_dict("records")]


def load(folder: Path) -> Reference:
    """Read what `export` wrote."""
    facts = json.loads((folder / "reference.json").read_text(encoding="utf-8"))
    histories = {name: [each["history"] for each in replicas] for name, replicas in facts["networks"].items()}
    effects = {name: [_noise(each["noise"]) for each in replicas] for name, replicas in facts["networks"].items()}
    return Reference(facts, {name: found for name, found in histories.items() if all(found)}, effects, folder)


def kept(name: str = "reference") -> Reference:
    """Read an exported run that is kept in the repository, in a folder of ``book``."""
    return load(places.repository() / "book" / name)


def kept_claims() -> dict[str, list[Claim]]:
    """Return what the runs that are kept say of the statements of the paper, by their names for readers.

    Of those trained on Caltech-101, what was measured over three pairs comes from them, the rest from the wide pair.
    """
    over_seeds = {claim.letter: claim for claim in kept("evidence/pair").claims}
    return {
        PAIR: [over_seeds.get(claim.letter, claim) for claim in kept().claims],
        IMAGENET: kept("evidence/resnet18").claims,
    }


def kept_examples() -> dict[str, verdicts.Example]:
    """Return channels of the runs that are kept to look at, named as in `kept_claims`."""
    over_seeds = "".join(claim.letter for claim in kept("evidence/pair").claims)
    return {
        PAIR: _example(kept(), " of the wide pair", over_seeds),
        IMAGENET: _example(kept("evidence/resnet18")),
    }


def _example(run: Reference, of: str = "", elsewhere: str = "") -> verdicts.Example:
    name, (effect, *_) = next(iter(run.effects.items()))
    return verdicts.Example(network(name), network(name).channel, effect.inactive, run.explored, of, elsewhere)


def _noise(stored: dict[str, Any]) -> NoiseEffect:
    effects = {
        row: Effect(
            channels=tuple(each["channels"]),
            loss=torch.tensor(each["loss"], dtype=torch.float64),
            top1=torch.tensor(each["top1"], dtype=torch.float64),
            loss_interval=Interval(*each["loss_interval"]),
            top1_interval=Interval(*each["top1_interval"]),
        )
        for row, each in stored["effects"].items()
    }
    return NoiseEffect(**{**stored, "inactive": tuple(stored["inactive"]), "effects": effects})


def pictures(run: Run, network: str) -> tuple[dict[str, np.ndarray], dict[str, list[int]]]:
    """Return sheets with one picture per channel, and the channels that were left out of each.

    Returns
    -------
    sheets : dict from str to uint8 array (H, W, 3)
        By the name of their file: ``conv1-filter``, and per layer ``LAYER-mean``, ``LAYER-strongest`` (contrast raised,
        one gain per channel) and ``LAYER-maximization`` (clear pictures in the layers of the figures, the paper's
        setting further up). Of the last blocks of layer2 and layer3, the channels that
        `rfviz.lab.results.some_maxima` takes; layers that see far more than an image are left out.
    left_out : dict from str to list of int
    """
    described, white = run.network(network), run.whitening(network)
    sheets = {"conv1-filter.png": sheet([min_max(each) for each in run.net(network).conv1.weight.detach().cpu()])}
    left_out = {}
    side = run.stimuli[0][0].shape[-1]
    for layer in (*described.figure_layers, described.last_block(2), described.last_block(3)):
        if receptive_field.of(run.net(network), layer).size > FAR * side:
            continue
        low = layer in described.figure_layers
        found = results.stimuli(run, network)[layer] if low else results.mean_stimuli(run, network, layer)
        maxima = (results.clear_maxima if low else results.some_maxima)(run, network, layer)
        chosen = range(found.channels) if low else effective.spread(found, run.preset.picture_channels)
        assert found.mean_count is not None and found.strongest_count is not None
        positions = found.neuron_count / found.image_count
        silent = (found.positive_count < FEWEST * positions).nonzero().flatten().tolist()
        left_out[layer] = [channel for channel in chosen if channel in silent]
        for what, means, counts in (
            ("mean", found.mean_deviation, found.mean_count),
            ("strongest", found.strongest_deviation, found.strongest_count),
        ):
            sheets[f"{layer}-{what}.png"] = sheet(
                [
                    None if channel in silent else covered(stretch(means[channel])[0], counts[channel])
                    for channel in chosen
                ]
            )
        small = found.receptive_field.size < LARGE
        sheets[f"{layer}-maximization.{'png' if small else 'jpg'}"] = sheet(list(white.to_rgb(maxima.images.float())))
    return sheets, left_out


def sheet(images: Sequence[Tensor | None]) -> np.ndarray:
    """Put square images `(3, R, R)`, RGB in [0, 1], side by side, `COLUMNS` in a row; None leaves a gap.

    Small images are enlarged, pixel by pixel, until the sheet is `WIDTH` px wide or more; those of more than `MOST` px
    are reduced to that.
    """
    images = [None if image is None else _reduced(image) for image in images]
    side = next((image.shape[1] for image in images if image is not None), 1)
    gap = torch.full((3, side, side), BACKGROUND)
    whole = torch.stack([gap if image is None else image.clamp(0, 1) for image in images])
    scale = _scale(side)
    whole = whole.repeat_interleave(scale, 2).repeat_interleave(scale, 3)
    grid = make_grid(whole, nrow=COLUMNS, padding=1, pad_value=BACKGROUND)
    return (grid.permute(1, 2, 0) * 255).round().byte().numpy()


def links(file: Path) -> list[Link]:
    """Return where on a `sheet` of a run that is kept which channels are; of other files, and other layers, nothing."""
    name, _, layer = file.stem.rpartition("-")[0].rpartition("-")
    explored = EXPLORED.get(file.parent.name)
    if explored is None or name not in NETWORKS or not place(NETWORKS[name], layer, 0, explored):
        return []
    with Image.open(file) as picture:
        width, height = picture.size
    step, found = (width - 1) // COLUMNS, []
    for row in range((height - 1) // step):
        for column in range(COLUMNS):
            there = place(NETWORKS[name], layer, row * COLUMNS + column, explored)
            left, top = column * step + 1, row * step + 1
            assert there is not None
            found.append(Link(left / width, top / height, (step - 1) / width, (step - 1) / height, *there))
    return found


def _scale(side: int) -> int:
    """By how much a sheet enlarges images of so many px."""
    return max(1, -(-(WIDTH // COLUMNS - 1) // side))


def _reduced(image: Tensor) -> Tensor:
    if image.shape[-1] <= MOST:
        return image
    return F.interpolate(image[None], size=(MOST, MOST), mode="bilinear", antialias=True)[0]


def conditions(found: Reference) -> Markdown:
    """Say on what and how the networks were trained."""
    data = found.facts["data"]
    recipes = {name: Recipe(**each) for name, each in found.facts["recipes"].items()}
    (first, recipe), *others = recipes.items()
    usual = _described(recipe)
    apart = {
        network(name).title: [mine for mine, ours in zip(_described(each), usual, strict=True) if mine != ours]
        for name, each in others
    }
    beside = [f"{title}: {', '.join(different)}" for title, different in apart.items() if different]
    seeds = len(found.facts["networks"][first])
    decay = recipe.cumulative_decay(recipe.steps(data["training images"]))
    what = "Trained" if not recipe.frozen else f"What comes after {recipe.frozen} was trained"
    return Markdown(
        f"{what} on {data['training images']:,} photographs of {data['classes']} classes, measured on "
        f"{data['held-out images']:,} others at {data['side']} × {data['side']} px: training crops of {recipe.crop} px "
        f"({recipe.area[0]:.0%} to {recipe.area[1]:.0%} of the image), a {recipe.schedule} schedule, "
        f"{', '.join(usual)}; cumulative decay D = {decay:.3g}{' of these parts' if recipe.frozen else ''}. "
        f"{''.join(f'{each}. ' for each in beside)}"
        f"{seeds} network{'s' * (seeds > 1)} of each kind."
    )


def _described(recipe: Recipe) -> list[str]:
    """Return in words what the recipes of a run may differ in."""
    return [
        f"{recipe.epochs} epochs", f"batches of {recipe.batch_size}", f"learning rate up to {recipe.learning_rate:g}",
        f"weight decay {recipe.weight_decay:.3g}", f"multiplied in {recipe.precision}",
    ]  # fmt: skip


def how_made(found: Reference, title: str = "How this page was made") -> HowMade:
    """Return the folded table on how something was made: nothing of it is computed, the commits say what was."""
    facts = found.facts
    hashes = {
        f"weights of {network(name).title} (hashes)": ", ".join(each["weights"] for each in replicas)
        for name, replicas in facts["networks"].items()
    }
    analysed = {f"analysed with: {key}": value for key, value in facts["analysed with"].items()}
    return HowMade({**facts["made by"], **facts["data"], **hashes, **analysed}, title=title)
