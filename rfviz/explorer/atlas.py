"""The pictures of a layer in two sheets: one row of cells per channel, and the images that its stimuli come from.

Small files and few: a browser loads one sheet and shows any channel of the layer at once.
"""

import io
import math
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from rfviz import _torchvision_ops  # isort: skip  # noqa: F401  # torchvision may not load without it
from torchvision.transforms.v2 import functional as resizing

from rfviz.explorer.facts import LayerFacts, describe
from rfviz.pages.style import NO_IMAGE, covered, min_max, stretch

LARGEST_CELL = 96
"""Side of a cell at most, px: pictures of larger receptive fields are reduced to it."""

SOURCE = 128
"""Longer side of the small copy of an image that stimuli come from, px."""


@dataclass(frozen=True)
class Atlas:
    """The pictures and numbers of one layer.

    Parameters
    ----------
    cells : uint8 Tensor, shape (3, C * S, columns * S)
        A row per channel; which column is what, `facts` tells.
    sources : uint8 Tensor, shape (3, H, W)
        Small copies of the images that preferred stimuli come from, in square cells of `SOURCE` px.
    facts : dict
        JSON values: what `rfviz.explorer.facts.describe` returns, and where each picture is.
    """

    cells: Tensor
    sources: Tensor
    facts: dict[str, Any]

    def files(self) -> tuple[bytes, bytes]:
        """Return the two sheets as WebP: cells without loss, sources small, because they only show a place."""
        return webp(self.cells), webp(self.sources, lossless=False)


def webp(pixels: Tensor, lossless: bool = True) -> bytes:
    """Encode a uint8 picture `(3, H, W)`."""
    buffer = io.BytesIO()
    image = Image.fromarray(pixels.permute(1, 2, 0).contiguous().numpy())
    image.save(buffer, "WEBP", lossless=lossless, quality=60 if lossless else 80, method=4, exact=True)
    return buffer.getvalue()


def to_cell(image: Tensor, side: int) -> Tensor:
    """Return a picture `(3, R, R)`, RGB in [0, 1], as uint8 of at most `side` px."""
    if image.shape[-1] > side:
        image = resizing.resize(image, [side, side], antialias=True)
    return (image.clamp(0, 1) * 255).round().byte()


def draw(layer: LayerFacts) -> Atlas:
    """Draw the two sheets of a layer.

    The columns are the filter of the first convolution (min-max scaled), the mean preferred stimulus as it is and with
    its contrast stretched, the mean over the strongest neurons likewise, the maximization image, and the
    preferred stimuli, strongest first; grey where there is no image.
    """
    found, facts = layer.found, describe(layer)
    side = min(found.receptive_field.size, LARGEST_CELL)
    columns: list[dict[str, Any]] = []
    pictures: list[list[Tensor | None]] = []  # by column and channel

    def add(key: str, of_channels: list[Tensor | None], size: int = side) -> None:
        columns.append({"key": key, "size": size})
        pictures.append(of_channels)

    if layer.filters is not None and layer.filters.shape[-1] <= side:
        add("filter", [min_max(each.float().cpu()) for each in layer.filters], layer.filters.shape[-1])
    fires = (found.positive_count > 0).tolist()
    if found.mean_stimulus is not None and found.mean_count is not None:
        means = [covered(*each) for each in zip(found.mean_stimulus, found.mean_count, strict=True)]
        add("mean", [mean if there else None for mean, there in zip(means, fires, strict=True)])
    for key, raised, counts in (
        ("stretched", found.mean_stimulus, found.mean_count),
        ("strongest", found.strongest_stimulus, found.strongest_count),
    ):
        if raised is None or counts is None:
            continue
        deviations = found.mean_deviation if key == "stretched" else found.strongest_deviation
        of_channels: list[Tensor | None] = []
        for each, count, there, channel in zip(deviations, counts, fires, facts["channels"], strict=True):
            stretched, gain = stretch(each)
            of_channels.append(covered(stretched, count) if there else None)
            channel.setdefault("gains", {})[key] = float(f"{gain:.4g}")
        add(key, of_channels)
    add("maximization", list(layer.whitening.to_rgb(layer.maxima.images.float().cpu())))

    stimuli, sources = _stimuli(layer, facts)
    for rank in range(found.top_values.shape[1]):
        add(f"stimulus {rank}", [stimuli.get((channel, rank)) for channel in range(found.channels)])

    cells = torch.full((3, found.channels * side, len(columns) * side), round(255 * NO_IMAGE), dtype=torch.uint8)
    for column, of_channels in enumerate(pictures):
        for channel, picture in enumerate(of_channels):
            if picture is not None:
                cell = to_cell(picture, side)
                top, left = channel * side, column * side
                cells[:, top : top + cell.shape[1], left : left + cell.shape[2]] = cell
    return Atlas(cells, sources, {**facts, "cell": side, "columns": columns})


def _stimuli(layer: LayerFacts, facts: dict[str, Any]) -> tuple[dict[tuple[int, int], Tensor], Tensor]:
    """Cut the preferred stimuli, by (channel, rank), and draw the sheet of sources; every image is read once."""
    wanted: dict[int, list[tuple[int, int]]] = {}
    for number, channel in enumerate(facts["channels"]):
        for rank, stimulus in enumerate(channel["stimuli"]):
            wanted.setdefault(int(stimulus[1]), []).append((number, rank))
    classes = getattr(layer.images, "classes", None)
    found, stimuli, listed = layer.found, {}, []
    across = max(1, math.ceil(math.sqrt(len(wanted))))
    down = max(1, math.ceil(len(wanted) / across))
    sheet = torch.full((3, down * SOURCE, across * SOURCE), round(255 * NO_IMAGE), dtype=torch.uint8)
    for cell, index in enumerate(sorted(wanted)):
        item = layer.images[index]
        image, label = item if isinstance(item, (tuple, list)) else (item, None)
        for channel, rank in wanted[index]:
            patch, inside = found.receptive_field.crop(image, *found.top_positions[channel, rank].tolist())
            stimuli[channel, rank] = torch.where(inside, patch, torch.tensor(NO_IMAGE))
        height, width = image.shape[1:]
        scale = SOURCE / max(height, width)
        small = resizing.resize(image, [max(1, round(height * scale)), max(1, round(width * scale))], antialias=True)
        top, left = cell // across * SOURCE, cell % across * SOURCE
        sheet[:, top : top + small.shape[1], left : left + small.shape[2]] = (small.clamp(0, 1) * 255).round().byte()
        name = None if classes is None or label is None else classes[int(label)]
        listed.append({"image": index, "height": height, "width": width, "class": name, "x": left, "y": top})
    facts |= {"source": SOURCE, "sources": listed}
    place = {index: cell for cell, index in enumerate(sorted(wanted))}
    for channel in facts["channels"]:
        for stimulus in channel["stimuli"]:
            stimulus[1] = place[int(stimulus[1])]
    return stimuli, sheet
