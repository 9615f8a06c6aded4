"""What the pages have in common: figures, colours, how pictures are shown, tables of sentences, the note on how made.

A page of the book is a module of this room. ``gather(runs)`` returns everything that the page shows, computed if need
be; its figures, tables and sentences take what was gathered and compute nothing that takes time.
"""

import ast
import html
import io
import itertools
import json
import math
import re
import time
from collections.abc import Callable, Mapping, Sequence
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from IPython.core.getipython import get_ipython
from IPython.display import HTML, Markdown
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure, SubFigure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.patches import Rectangle
from matplotlib.text import Text
from matplotlib.transforms import Bbox
from numpy.typing import ArrayLike
from PIL import Image, PngImagePlugin
from torch import Tensor

from rfviz.errors import unknown
from rfviz.kernels.responses import FLAT
from rfviz.lab import provenance
from rfviz.lab.code import source_digest
from rfviz.lab.result import RESULTS
from rfviz.lab.run import Run
from rfviz.nets.network import Network, accuracy_control, contrast

GREY = "#767676"

FRAME: dict[str, Any] = {"edgecolor": "#AAAAAA", "linewidth": 0.9, "zorder": -1}
"""The thin frame around an image, which may be as white as the paper; the image covers the inner half of the line."""

NO_IMAGE = 0.85
"""Grey level that stands for pixels outside the image."""

WIDTH = 7.2
"""Width of every figure, inches."""


TYPE = 10
"""Size of all type in figures, points."""

DPI = 160
"""Output pixels per inch of a figure."""

REACH = 10
"""Output pixels from the centre of a point in a diagram to the edge of its link."""

LINKS = "rfviz-links"
"""Name of the text in the file of a figure that says where in it which channels are."""


class Place(NamedTuple):
    """Where the explorer shows a channel, and which one that is, for people."""

    address: str
    label: str


class Link(NamedTuple):
    """A rectangle of a picture, in shares of its width and height from the left and the top, that leads to a place."""

    left: float
    top: float
    width: float
    height: float
    address: str
    label: str


def place(network: Network, layer: str, channel: int, explored: str | None = "") -> Place | None:
    """Return where the explorer shows a channel; None where it does not.

    Parameters
    ----------
    network : Network
    layer : str
        A filter of the first convolution is shown with the channel of the first pooling layer.
    channel : int
    explored : str or None
        What the explorer puts before the names of the networks of a run: nothing of the run that the book is made of;
        None of runs that it does not have. See `rfviz.pages.evidence.reference.EXPLORED`.
    """
    layer = network.stream[0] if layer == "conv1" else layer
    layers = network.figure_layers if explored else (*network.stream, *network.high_layers)
    if explored is None or layer not in layers:
        return None
    return Place(
        f"explorer.html#{explored}{network.name}/{layer}/{channel}",
        f"{network.title}, {network.layer_title(layer)}, channel {channel}: in the explorer",
    )


def channel_link(network: Network, layer: str, channel: int, explored: str | None = "") -> str:
    """Return the number of a channel for a sentence or a table, as HTML, with a link to its `place` if it has one."""
    there = place(network, layer, channel, explored)
    return f'<a href="{there.address}">{channel}</a>' if there else str(channel)


class _Layout(ConstrainedLayoutEngine):
    """One size of type, room for it, charts without a frame, and every pixel of a picture k × k output pixels."""

    def execute(self, fig: Figure) -> None:
        for text in fig.findobj(Text):
            text.set_fontsize(TYPE)
        for axes in fig.findobj(Axes):
            axes.tick_params(which="both", labelsize=TYPE)  # of ticks that are still to come
            axes.set_axes_locator(None)  # type: ignore[arg-type]  # as it begins
            if not axes.images:
                axes.spines[["top", "right"]].set_visible(False)
        super().execute(fig)
        for axes in fig.findobj(Axes):
            if axes.images:
                _to_whole_pixels(axes)


def _to_whole_pixels(axes: Axes) -> None:
    """Shrink axes towards their anchor until a pixel of their pictures covers k × k output pixels, and these exactly.

    Several pictures in the same axes have to be whole numbers of their pixels apart. Those that are larger than their
    place are reduced instead, with smoothing.
    """
    axes.apply_aspect()
    panel, picture, place = axes.get_figure(root=False), axes.images[0], axes.bbox.frozen()
    assert panel is not None
    anchor: Any = axes.get_anchor()
    drawn = picture.get_window_extent()
    scale = drawn.width / picture.get_size()[1]
    whole = math.floor(scale + 1e-6)
    for each in axes.images:
        each.set_interpolation("nearest" if whole else "hanning")
    if not whole:
        return
    shrunk = place.shrunk(whole / scale, whole / scale).anchored(anchor, place)
    edges = np.array(shrunk.min) + np.subtract(drawn.min, place.min) * whole / scale  # of the picture, left and bottom
    shrunk = shrunk.translated(*np.round(edges) - edges)
    box = shrunk.transformed(panel.transSubfigure.inverted())
    axes.set_axes_locator(lambda *_: box)


class BookFigure(Figure):
    """A matplotlib figure that notebooks show as it is, without pyplot and its global state.

    Its file says where in it which channels are; the book makes links of that.

    Parameters
    ----------
    height : float
        Inches.

    Attributes
    ----------
    shown : list of (callable, Place)
        What is shown of a channel: where it is in the figure once that is drawn, as a `Bbox` of output pixels.
    """

    def __init__(self, height: float):
        layout = _Layout(w_pad=0.02, h_pad=0.02, wspace=0.01, hspace=0.01)
        super().__init__(figsize=(WIDTH, height), dpi=DPI, facecolor="white", layout=layout)
        self.shown: list[tuple[Callable[[], Bbox], Place]] = []
        self.drawn = FigureCanvasAgg(self)

    def links(self) -> list[Link]:
        """Return the links of the figure as it was drawn last: one for each channel, around all that shows it."""
        boxes: dict[Place, list[Bbox]] = {}
        for where, there in self.shown:
            boxes.setdefault(there, []).append(where())
        found = []
        for there, each in boxes.items():
            box = Bbox.union(each).transformed(self.transFigure.inverted())
            left, top, width, height = (round(share, 5) for share in (box.x0, 1 - box.y1, box.width, box.height))
            found.append(Link(left, top, width, height, *there))
        return found

    def _repr_png_(self) -> bytes:
        self.drawn.draw()
        said, buffer = PngImagePlugin.PngInfo(), io.BytesIO()
        if self.shown:
            said.add_text(LINKS, json.dumps(self.links()), zip=True)
        Image.fromarray(np.asarray(self.drawn.buffer_rgba())).save(buffer, "PNG", dpi=(DPI, DPI), pnginfo=said)
        return buffer.getvalue()


def stretch(deviation: Tensor) -> tuple[Tensor, float]:
    """Make a nearly flat mean visible: as it differs from the mean patch, times one gain, plus middle grey.

    Not as it differs from its own mean colour: that would paint the complement of a spot around it.

    Parameters
    ----------
    deviation : Tensor, shape (3, H, W)
        Such as `rfviz.kernels.responses.LayerResponses.mean_deviation` has one for each channel.

    Returns
    -------
    stretched : Tensor, shape (3, H, W)
        RGB in [0, 1].
    gain : float
        1 means unchanged contrast; 0 where the image is flat.
    """
    largest = deviation.abs().max().item()
    gain = 0.5 / largest if largest > FLAT else 0.0
    return (0.5 + gain * deviation).clamp(0, 1), gain


def covered(image: Tensor, count: Tensor) -> Tensor:
    """Return an image `(3, H, W)` in which pixels that were never counted `(H, W)` are grey."""
    return torch.where(count > 0, image, torch.tensor(NO_IMAGE))


def min_max(image: Tensor) -> Tensor:
    """Scale an image `(3, H, W)` to [0, 1], all colours together; what has vanished is drawn flat, in middle grey."""
    low, high = image.min(), image.max()
    return (image - low) / (high - low) if high - low > FLAT else torch.full_like(image, 0.5)


def as_rgb(image: Tensor) -> Tensor:
    """Return an image as RGB for a screen: grey in three colours, and of four channels the first three."""
    return image.expand(3, -1, -1) if len(image) == 1 else image[:3]


def show(
    axes: Axes,
    image: Tensor | None,
    inside: Tensor | None = None,
    corner: tuple[int, int] | None = None,
    of: Place | None = None,
) -> None:
    """Draw an image `(C, H, W)` in [0, 1], as `as_rgb` has it, at the top of axes; without one they stay empty.

    Parameters
    ----------
    axes : Axes
        Of a `BookFigure`, which draws all pixels of the image equally large.
    image : Tensor or None
    inside : Tensor of bool, shape (H, W), optional
        Which pixels exist; the others are grey.
    corner : (left, top), optional
        Where in the axes the image goes, in its pixels; it fills them by default.
    of : Place, optional
        Of the channel that the image belongs to. Axes that stay empty lead there, too.
    """
    axes.set_anchor("N")
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(False)
    if image is None:
        link(axes, axes.get_window_extent, of)
        return
    image = as_rgb(image.detach().cpu())
    if inside is not None:
        image = torch.where(inside.cpu(), image, torch.tensor(NO_IMAGE))
    extent = None
    if corner is None:
        axes.spines[:].set(visible=True, **FRAME)
    else:
        (left, top), (height, width) = corner, image.shape[1:]
        extent = (left, left + width, top + height, top)
        axes.add_patch(Rectangle(corner, width, height, fill=False, **FRAME))
    drawn = axes.imshow(image.permute(1, 2, 0).clamp(0, 1).numpy(), extent=extent)
    link(axes, drawn.get_window_extent, of)


def link(axes: Axes, box: Callable[[], Bbox], to: Place | None) -> None:
    """Let a part of a figure, its `box` in output pixels, lead to the place of a channel, if it has one."""
    figure = axes.get_figure(root=True)
    if to is not None:
        assert isinstance(figure, BookFigure)
        figure.shown.append((box, to))


def link_points(
    axes: Axes,
    x: ArrayLike,
    y: ArrayLike,
    network: Network,
    layer: str,
    channels: Sequence[int],
    explored: str | None = "",
) -> None:
    """Let the points of a diagram lead to the places of their channels, one point each; see `place`."""
    link_to(axes, x, y, [place(network, layer, channel, explored) for channel in channels])


def link_to(axes: Axes, x: ArrayLike, y: ArrayLike, places: Sequence[Place | None]) -> None:
    """Let each point of a diagram lead to its place, if it has one."""
    for point, there in zip(np.column_stack([x, y]), places, strict=True):

        def box(point: np.ndarray = point) -> Bbox:
            return Bbox([axes.transData.transform(point)] * 2).padded(REACH)

        if np.isfinite(point).all():
            link(axes, box, there)


def bands(height: float, found: Mapping[str, bool], nothing: str) -> tuple[Figure, dict[str, SubFigure]]:
    """Return a figure with a band for each network, by its title, and the bands of those that have something to show.

    Of the others, one line says that they have ``nothing``.
    """
    heights = [height if there else 0.4 for there in found.values()]
    figure = BookFigure(sum(heights))
    drawn = figure.subfigures(len(heights), 1, squeeze=False, height_ratios=heights)[:, 0]
    for band, (title, there) in zip(drawn, found.items(), strict=True):
        band.suptitle(title if there else f"{title}: {nothing}", x=0.01, ha="left")
    return figure, {title: band for band, (title, there) in zip(drawn, found.items(), strict=True) if there}


class Measure(NamedTuple):
    """What says how much a disturbance matters, in words: the loss where the images have labels, else the output.

    Parameters
    ----------
    name, names : str
        One, for axes, and several.
    symbol, of_one, top1 : str
        For tables; `of_one` where one channel at a time is disturbed.
    changes : str
        A verb and what follows it.
    form : str
        Of its numbers: divergences may be small.
    """

    name: str
    names: str
    symbol: str
    of_one: str
    top1: str
    changes: str
    form: str = "+.3f"


LOSS = Measure("change of the loss", "changes of the loss", "ΔL", "ΔL_rnd", "Δ top-1 (points)", "changes the loss")
DIVERGENCE = Measure(
    "divergence of the output", "divergences of the output", "KL divergence", "KL divergence, one channel",
    "Δ same top-1 choice (points)", "moves the output", "+.2g",
)  # fmt: skip


def measure(labelled: bool) -> Measure:
    """Return what says how much a disturbance matters, given whether the images have labels that the networks know."""
    return LOSS if labelled else DIVERGENCE


def note_on_labels(labelled: bool) -> Markdown | None:
    """Say what stands in the place of the loss; nothing where the images have labels."""
    if labelled:
        return None
    return Markdown(
        "The networks of this run do not know the classes of its images, so there is no loss and no accuracy. In their "
        "place stand how far a change moves the output, which is the Kullback-Leibler divergence (KL, in nats) of the "
        "distribution over classes with the change from that without it, and the share of images that keep their top-1 "
        "choice. A divergence is never below 0, so it cannot tell harm from help, only more from less: the controls "
        "say how much noise in other channels moves the output."
    )


class Roles(NamedTuple):
    """The networks of a run, and which of them the pages are about and compare with; see `rfviz.lab.run.Run`."""

    networks: Sequence[Network]
    subject: Network
    contrast: Network | None
    accuracy_control: Network | None = None


def roles(networks: Sequence[Network]) -> Roles:
    """Return the roles of the networks of a run."""
    return Roles(networks, networks[0], contrast(networks), accuracy_control(networks))


def missing(reason: str) -> Figure:
    """Return a figure that only says in one line why there is nothing to draw, such as `no_contrast`."""
    figure = BookFigure(0.4)
    figure.text(0.5, 0.5, reason, ha="center", va="center", color=GREY)
    return figure


def no_contrast(run: Run | Roles) -> str:
    """Say in one line why a run shows nothing of a contrast: all of its networks have skips, or none has."""
    titles = " and ".join(each.title for each in run.networks)
    with_or_without = "without" if run.subject.skips else "with"
    are = "is" if len(run.networks) == 1 else "are"
    return f"This needs a network {with_or_without} skips to compare with; there {are} only {titles}."


def listed(names: Sequence[str]) -> str:
    """Return names for a sentence: ``"a, b and c"``."""
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def where(found: Mapping[str, Any], words: Mapping[Any, str]) -> list[str]:
    """Return what was found by where, in words, the other way round: ``["alike in a and b", "not alike in c"]``."""
    places = {key: [name for name, each in found.items() if each == key] for key in words}
    return [f"{said} in {listed(places[key])}" for key, said in words.items() if places[key]]


WALL = 500
"""Characters that are read, beyond which parts of a text stand as points."""


def points(parts: Sequence[str], begin: str = "") -> Markdown:
    """Return parts of a text, those that are empty aside, as points where they would be a wall of text."""
    said = [part for part in parts if part]
    text = f"{begin}{' '.join(said)}"
    if len(said) < 2 or len(re.sub(r"<[^>]*>", "", text)) <= WALL:
        return Markdown(text)
    return Markdown("\n".join([begin, "", *(f"- {part}" for part in said)]))


def answer(parts: Sequence[str]) -> Markdown:
    """Return parts of an answer as `points` does, marked as what it is."""
    return points(parts, "**Answer.** ")


def in_sentences(frame: pd.DataFrame) -> HTML:
    """Return a table of sentences as HTML in which lines break and nothing is cut off; without the index."""
    with pd.option_context("display.max_colwidth", None):
        return HTML(frame.to_html(index=False, classes="sentences", border=0))


def with_links(frame: pd.DataFrame) -> HTML:
    """Return a table whose cells are HTML, such as `channel_link` gives."""
    return HTML(frame.to_html(escape=False))


def glue_roles(run: Run, channel: Mapping[str, int] | None = None) -> None:
    """Give captions the words ``subject``, ``contrast``, ``subject_channel`` and ``contrast_channel``.

    Parameters
    ----------
    run : Run
    channel : dict from network to int, optional
        The channel that is shown; see `rfviz.lab.run.Run.channels`.
    """
    from myst_nb import glue

    for role, network in (("subject", run.subject), ("contrast", run.contrast)):
        glue(role, network.title if network else "a second network", display=False)
        if channel is not None:
            glue(f"{role}_channel", channel[network.name] if network else 0, display=False)


def check_parameters() -> None:
    """Refuse what papermill was given for a notebook that has no parameter of that name; papermill itself goes on.

    Called in the cell behind the parameters.

    Raises
    ------
    RfvizError
        With the nearest right name.
    """
    shell = get_ipython()
    cells: list[str] = shell.user_ns.get("In", []) if shell else []
    pairs = (
        pair for pair in itertools.pairwise(cells) if pair[1].startswith("# Parameters\n")
    )  # papermill's own words
    for before, cell in itertools.islice(pairs, 1):
        known = _assigned(before)
        for name in _assigned(cell):
            if name not in known:
                raise unknown("parameter of this notebook", name, known)


def _assigned(cell: str) -> list[str]:
    statements = (node for node in ast.parse(cell).body if isinstance(node, ast.Assign))
    return [target.id for node in statements for target in node.targets if isinstance(target, ast.Name)]


def page_digest(page: str) -> str:
    """Return the hash of the code that turns results into a page; what computes them has hashes of its own."""
    return source_digest(page, "rfviz.lab")


class HowMade:
    """A folded table "How this page was made", for the end of a notebook.

    Parameters
    ----------
    facts : dict
        Name and value of each row.
    title : str
        Of the table.
    code : dict, optional
        Hash of the code of each part that made the page (`rfviz.lab.code`): a page whose code has changed since is
        marked as stale when the book is built.
    """

    def __init__(
        self, facts: dict[str, Any], code: Mapping[str, str] | None = None, title: str = "How this page was made"
    ):
        self.facts, self.code, self.title = facts, dict(code or {}), title

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><th scope='row'>{html.escape(name)}</th><td>{html.escape(str(value))}</td></tr>"
            for name, value in self.facts.items()
        )
        code = html.escape(json.dumps(self.code))
        return (
            f'<details class="how-made" data-code="{code}">'
            f"<summary>{html.escape(self.title)}</summary><table>{rows}</table></details>"
        )

    def __repr__(self) -> str:
        return "\n".join(f"{name}: {value}" for name, value in self.facts.items())


def how_made(page: ModuleType, runs: Sequence[Run], also: Mapping[str, str] | None = None) -> HowMade:
    """Return the folded table "How this page was made" for the end of a notebook.

    It also holds the hash of the code of the page, of every result that the page has shown, and of what `also` names,
    such as `rfviz.pages.claims.code`: a page whose code has changed since is marked as stale when the book is built.
    """
    first = runs[0]
    last = first.seed + len(runs) - 1
    more = {"seed": f"{first.seed} to {last}; the hashes are of the first"} if len(runs) > 1 else {}
    seconds = time.monotonic() - provenance.STARTED
    facts = {
        **first.provenance(), **more, "duration": f"{seconds:.0f} s for this page; results that were there are read"
    }  # fmt: skip
    shown = {f"result {name}": RESULTS[name].code for run in runs for name, *_ in run.values}
    return HowMade(facts, {f"page {page.__name__}": page_digest(page.__name__), **shown, **(also or {})})
