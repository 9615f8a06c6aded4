"""The first page: some channels of the subject, what drives them and what they would draw."""

from collections.abc import Sequence
from typing import NamedTuple

from rfviz.images.data import Evaluation
from rfviz.images.whitening import Whitening
from rfviz.kernels.maximization import Maximization
from rfviz.kernels.pictures import centred
from rfviz.kernels.responses import LayerResponses, preferred_stimuli
from rfviz.lab import results
from rfviz.lab.run import Run
from rfviz.pages.style import BookFigure, show, stretch


class Shown(NamedTuple):
    """What the page shows of the last layer in the paper's figures, of the subject.

    Parameters
    ----------
    title : str
        Of the layer.
    images : Evaluation
        In which stimuli were looked for.
    responses : LayerResponses
    maxima : Maximization
    whitening : Whitening
    """

    title: str
    images: Evaluation
    responses: LayerResponses
    maxima: Maximization
    whitening: Whitening


def gather(runs: Sequence[Run]) -> Shown:
    """Return what the page shows of the first run."""
    run, network = runs[0], runs[0].subject
    layer = network.figure_layers[-1]
    return Shown(
        network.layer_title(layer), run.stimuli, results.stimuli(run, network.name)[layer],
        results.clear_maxima(run, network.name, layer), run.whitening(network.name),
    )  # fmt: skip


def poster(shown: Shown, channels: int = 5) -> BookFigure:
    """Draw Fig. S6: some channels of a layer, each with its strongest stimulus, its mean and its maximization image.

    Shown are channels whose clear picture drives them as the best photograph does, or more; of these the `channels`
    whose mean over the strongest neurons differs most from its own mean colour, in their order: a mean that is only
    brighter than others has no shape to show. Where there are too few, others follow.
    """
    found = shown.responses
    means, counts = found.strongest_deviation, found.strongest_count
    assert counts is not None
    driven = found.competes & (shown.maxima.activations[-1] >= found.top_values[:, 0])
    merit = centred(means).abs().amax((1, 2, 3)) + 10 * driven  # a deviation is less than 10
    chosen = merit.topk(min(channels, found.channels)).indices.sort().values.tolist()
    figure = BookFigure(3.78)  # the proportions of a preview in social media
    grid = figure.subplots(3, len(chosen), squeeze=False)
    rows = ("what drives\nit most", "mean of\nits stimuli", "what it would\ndraw")
    for ax, name in zip(grid[:, 0], rows, strict=True):
        ax.set_ylabel(name, rotation=0, ha="right", va="center")
    for column, channel in zip(grid.T, chosen, strict=True):
        column[0].set_title(f"channel {channel}")
        fires = bool(found.competes[channel])
        patch, inside = (part[0] for part in preferred_stimuli(shown.images, found, channel))
        show(column[0], patch if fires else None, inside)
        show(column[1], stretch(means[channel])[0] if fires else None, counts[channel] > 0)
        show(column[2], shown.whitening.to_rgb(shown.maxima.images[channel]))
    return figure
