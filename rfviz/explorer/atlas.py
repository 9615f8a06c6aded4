"""The pictures of a layer in four sheets: two of them with a row of cells per channel, what is made of many patches and
its stimuli; the images that these come from, and maps of where in them it fires.

Small files and few: a browser loads one sheet and shows any channel of the layer at once.
"""

import io
import math
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from PIL import Image
from torch import Tensor

from rfviz import _torchvision_ops  # isort: skip  # noqa: F401  # torchvision may not load without it
from torchvision.transforms.v2 import functional as resizing

from rfviz.explorer.facts import LayerFacts, describe, nearest
from rfviz.images.data import NO_CLASS
from rfviz.kernels.tuning.opponent import opponent
from rfviz.nets.receptive_field import EXACT, ReceptiveField
from rfviz.pages.style import NO_IMAGE, as_rgb, covered, min_max, stretch

if TYPE_CHECKING:
    from rfviz.pages.evidence.reference import Reference

LARGEST_CELL = 96
"""Side of a cell at most, px: pictures of larger receptive fields are reduced to it."""

PHOTOGRAPH_CELL = 64
"""The same where there are no means: photographs are seen larger as sources."""

LOSSLESS = 32
"""Receptive fields up to which stimuli are kept without loss, px."""

TALLEST = 16383
"""Side of a WebP picture at most, px."""

SOURCE = 128
"""Longer side of the small copy of an image that stimuli come from, px."""

PLANES = ("luminance", "l-m", "s")
"""Columns of the three planes of colour of the mean over the strongest neurons, as of `opponent.AXES`."""

FIRES = (213, 94, 0)
"""Colour of maps of where a channel fires, RGB: the stronger the response, the less is seen through it."""

STEPS = 31
"""Responses of such a map are rounded to so many steps of the largest response of the channel."""


class Drawn(NamedTuple):
    """The pictures and numbers of one layer, as a browser takes them.

    Parameters
    ----------
    cells : bytes
        A sheet as WebP, with a row of cells per channel; which column is what, `facts` tells. Where the rows would be
        too many, they go on beside.
    stimuli : bytes
        The same of the stimuli, strongest first.
    sources : bytes
        Small copies of the images that preferred stimuli come from, in square cells of `SOURCE` px.
    maps : bytes
        Where over the images channels fire, RGBA, in square cells.
    facts : dict
        JSON values: what `rfviz.explorer.facts.describe` returns, and where each picture is.
    """

    cells: bytes
    stimuli: bytes
    sources: bytes
    maps: bytes
    facts: dict[str, Any]


def _encoded(cells: Tensor, stimuli: Tensor, sources: Tensor, maps: Tensor, facts: dict[str, Any]) -> Drawn:
    """Encode the sheets: without loss but for photographs of some size."""
    lossless = True, facts["field"]["size"] <= LOSSLESS, False, True
    with ThreadPoolExecutor() as pool:  # Pillow encodes without holding Python's lock
        return Drawn._make([*pool.map(webp, (cells, stimuli, sources, maps), lossless), facts])


def webp(pixels: Tensor, lossless: bool = True) -> bytes:
    """Encode a uint8 picture `(3, H, W)`, or `(4, H, W)` with transparency."""
    buffer = io.BytesIO()
    image = Image.fromarray(pixels.permute(1, 2, 0).contiguous().numpy())
    image.save(buffer, "WEBP", lossless=lossless, quality=60 if lossless else 85, method=4, exact=True)
    return buffer.getvalue()


def to_cell(image: Tensor, side: int) -> Tensor:
    """Return a picture `(3, R, R)`, RGB in [0, 1], as uint8 of at most `side` px."""
    image = as_rgb(image)
    if max(image.shape[1:]) > side:
        image = resizing.resize(image, [side, side], antialias=True)
    return (image.clamp(0, 1) * 255).round().byte()


def draw(layer: LayerFacts) -> Drawn:
    """Draw the sheets of a layer.

    The columns are the filter of the first convolution (min-max scaled), the mean preferred stimulus as it is and with
    its contrast stretched, the mean over the strongest neurons likewise, its planes of colour, and the maximization
    images; grey where there is no image.
    """
    found, facts = layer.found, describe(layer)
    means = found.strongest_stimulus is not None or found.mean_stimulus is not None
    side = min(found.receptive_field.size, LARGEST_CELL if means else PHOTOGRAPH_CELL)
    columns: list[dict[str, Any]] = []
    pictures: list[list[Tensor | None]] = []  # by column and channel

    def add(key: str, of_channels: list[Tensor | None], size: int = side) -> None:
        columns.append({"key": key, "size": size})
        pictures.append(of_channels)

    def add_stretched(key: str, deviations: Tensor, counts: Tensor) -> None:
        shown: list[Tensor | None] = []
        for each, count, there, channel in zip(deviations, counts, fires, facts["channels"], strict=True):
            stretched, gain = stretch(each)
            shown.append(covered(stretched, count) if there else None)
            channel.setdefault("gains", {})[key] = float(f"{gain:.4g}")
        add(key, shown)

    if layer.filters is not None and layer.filters.shape[-1] <= side:
        add("filter", [min_max(each.float().cpu()) for each in layer.filters], layer.filters.shape[-1])
    fires = (found.positive_count > 0).tolist()
    if found.mean_stimulus is not None and found.mean_count is not None:
        covering = [covered(*each) for each in zip(found.mean_stimulus, found.mean_count, strict=True)]
        add("mean", [mean if there else None for mean, there in zip(covering, fires, strict=True)])
        add_stretched("stretched", found.mean_deviation, found.mean_count)
    if found.strongest_stimulus is not None and found.strongest_count is not None:
        add_stretched("strongest", found.strongest_deviation, found.strongest_count)
        assert found.competing_patch is not None
        if found.strongest_stimulus.shape[1] == 3:
            apart = opponent(found.strongest_stimulus) - opponent(found.competing_patch)
            for plane, key in enumerate(PLANES):
                grey = torch.where(found.strongest_count > 0, apart[:, plane], 0)[:, None].expand(-1, 3, -1, -1).float()
                add_stretched(key, grey, found.strongest_count)
    for key, maxima in (("maximization", layer.maxima), ("clear", layer.clear)):
        if maxima is not None:
            add(key, list(layer.whitening.to_rgb(maxima.images.float().cpu())))

    patches, sources = _stimuli(layer, facts)
    last = max((stimulus[6] for channel in facts["channels"] for stimulus in channel["stimuli"]), default=0)
    by_place = [[patches.get((channel, place)) for channel in range(found.channels)] for place in range(last + 1)]
    maps = _maps(layer, facts)
    facts |= {"cell": side, "rows": _rows(found.channels, side), "columns": columns}
    return _encoded(
        _in_cells(pictures, found.channels, side), _in_cells(by_place, found.channels, side), sources, maps, facts
    )


def _rows(channels: int, side: int) -> int:
    return min(channels, TALLEST // side)


def _in_cells(pictures: list[list[Tensor | None]], channels: int, side: int) -> Tensor:
    """Put pictures, by column and channel, into cells: a row per channel; after some rows, new columns begin."""
    rows, columns = _rows(channels, side), max(1, len(pictures))
    shape = (3, rows * side, -(-channels // rows) * columns * side)
    cells = torch.full(shape, round(255 * NO_IMAGE), dtype=torch.uint8)
    for column, of_channels in enumerate(pictures):
        for channel, picture in enumerate(of_channels):
            if picture is not None:
                cell = to_cell(picture, side)
                top, left = channel % rows * side, (channel // rows * columns + column) * side
                cells[:, top : top + cell.shape[1], left : left + cell.shape[2]] = cell
    return cells


def of_sheets(kept: "Reference", network: str, layer: str, field: ReceptiveField) -> Drawn:
    """Draw what the repository keeps of a layer of a network: its sheets, and how often its channels fire."""
    names = {"stretched": "mean", "strongest": "strongest", "clear": "maximization"}
    sheets = {"filter": kept.sheet(network, "conv1-filter")}
    sheets |= {key: kept.sheet(network, f"{layer}-{name}") for key, name in names.items()}
    gone = {*kept.facts["left out"][network][layer]}
    fires = kept.exhibit.evidence[network][0].fires[layer]
    alike = nearest(sheets["strongest"], torch.tensor([each not in gone for each in range(len(fires))]))
    inactive = kept.effects[network][0].inactive if layer == "maxpool" else None
    side = field.size
    channels = [
        {
            "statistics": {"firing_rate": float(f"{100 * rate:.6g}")},
            "fires": rate > 0,
            "inactive": None if inactive is None else channel in inactive,
            "stimuli": [],
            "nearest": alike[channel],
        }
        for channel, rate in enumerate(fires.tolist())
    ]
    pictures = [
        [
            None if channel in gone and key not in ("filter", "clear") else each
            for channel, each in enumerate(of_channels)
        ]
        for key, of_channels in sheets.items()
    ]
    facts = {
        "field": {"size": side, "stride": field.stride, "start": field.start, "how": EXACT},
        "objective": "before_relu",
        "ranges": [],
        "channels": channels,
        "source": SOURCE,
        "sources": [],
        "cell": side,
        "rows": _rows(len(fires), side),
        "columns": [{"key": key, "size": pictures.shape[-1]} for key, pictures in sheets.items()],
    }
    nothing = _grid(0, 1, 0, 3)[0]
    return _encoded(_in_cells(pictures, len(fires), side), nothing, nothing, _grid(0, 1, 0, 4)[0], facts)


def _stimuli(layer: LayerFacts, facts: dict[str, Any]) -> tuple[dict[tuple[int, int], Tensor], Tensor]:
    """Cut the stimuli, by (channel, place), and draw the sheet of sources; every image is read once."""
    wanted: dict[int, list[tuple[int, list]]] = {}
    for number, channel in enumerate(facts["channels"]):
        for stimulus in channel["stimuli"]:
            wanted.setdefault(int(stimulus[1]), []).append((number, stimulus))
    classes = getattr(layer.images, "classes", None)
    field, stimuli, listed = layer.found.receptive_field, {}, []
    sheet, cells = _grid(len(wanted), SOURCE, round(255 * NO_IMAGE), 3)
    for index, (top, left) in zip(sorted(wanted), cells, strict=True):
        item = layer.images[index]
        image, label = item if isinstance(item, (tuple, list)) else (item, None)
        image = as_rgb(image)
        height, width = image.shape[1:]
        for channel, stimulus in wanted[index]:
            if field.size > min(height, width):  # what of the image it sees
                up, before, below, behind = (max(0, edge) for edge in stimulus[2:6])
                patch = image[:, up:below, before:behind]
                shrink = min(1, PHOTOGRAPH_CELL / max(patch.shape[1:]))
                patch = resizing.resize(patch, [max(1, int(shrink * s)) for s in patch.shape[1:]], antialias=True)
            else:
                patch, inside = field.crop(image, *stimulus[7:9])
                patch = torch.where(inside, patch, torch.tensor(NO_IMAGE))
            stimuli[channel, stimulus[6]] = patch
        scale = SOURCE / max(height, width)
        small = resizing.resize(image, [max(1, round(height * scale)), max(1, round(width * scale))], antialias=True)
        sheet[:, top : top + small.shape[1], left : left + small.shape[2]] = (small.clamp(0, 1) * 255).round().byte()
        name = None if not classes or label is None or int(label) == NO_CLASS else classes[int(label)]
        listed.append({"image": index, "height": height, "width": width, "class": name, "x": left, "y": top})
    facts |= {"source": SOURCE, "sources": listed}
    number_of = {index: number for number, index in enumerate(sorted(wanted))}
    for stimuli_of_image in wanted.values():
        for _, stimulus in stimuli_of_image:
            stimulus[1] = number_of[int(stimulus[1])]
    return stimuli, sheet


def _maps(layer: LayerFacts, facts: dict[str, Any]) -> Tensor:
    """Draw the sheet of maps, and put the place of each behind the stimuli of its channel and image.

    Of a map `(h, w)`, the stimuli get ``[..., left, top, width, height]`` in the sheet.
    """
    side = max((max(each.shape) for each in layer.maps.values()), default=1)
    sheet, cells = _grid(len(layer.maps), side, 0, 4)
    largest = layer.found.maximum.clamp(min=torch.finfo(torch.float32).tiny)
    drawn = {}
    for (index, channel), (top, left) in zip(sorted(layer.maps), cells, strict=True):
        fires = layer.maps[index, channel]
        alpha = (fires / largest[channel] * STEPS).clamp(0, STEPS).round() * (255 / STEPS)
        place = sheet[:, top : top + fires.shape[0], left : left + fires.shape[1]]
        place[:3] = torch.tensor(FIRES, dtype=torch.uint8)[:, None, None]
        place[3] = alpha.round().byte()
        drawn[index, channel] = [left, top, fires.shape[1], fires.shape[0]]
    numbers = [each["image"] for each in facts["sources"]]
    for channel, told in enumerate(facts["channels"]):
        told["stimuli"] = [
            [*stimulus[:7], *drawn.get((numbers[stimulus[1]], channel), ())] for stimulus in told["stimuli"]
        ]
    return sheet


def _grid(count: int, side: int, value: int, planes: int) -> tuple[Tensor, list[tuple[int, int]]]:
    """Return an empty sheet of so many square cells, and the top left corner of each."""
    across = max(1, math.ceil(math.sqrt(count)))
    down = max(1, math.ceil(count / across))
    sheet = torch.full((planes, down * side, across * side), value, dtype=torch.uint8)
    return sheet, [(cell // across * side, cell % across * side) for cell in range(count)]
