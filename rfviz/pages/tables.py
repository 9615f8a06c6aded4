"""The tables of the book, as pandas frames: numbers for programs, and the same numbers as text for people."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from statistics import fmean, stdev
from typing import Any

import pandas as pd
from IPython.display import HTML

from rfviz.images.whitening import Whitening
from rfviz.kernels.maximization import Maximization
from rfviz.kernels.responses import LayerResponses
from rfviz.kernels.similarity import centred, correlations
from rfviz.lab.presets import PRESETS, Preset
from rfviz.nets.models import PAPER_ARCHITECTURES, PAPER_NAMES


def in_sentences(frame: pd.DataFrame) -> HTML:
    """Return a table of sentences as HTML in which lines break and nothing is cut off; without the index."""
    with pd.option_context("display.max_colwidth", None):
        return HTML(frame.to_html(index=False, classes="sentences", border=0))


def recipes_table(preset: Preset) -> pd.DataFrame:
    """Return the training recipes of a preset beside the paper's, one row per value."""
    columns = {PAPER_ARCHITECTURES[name]: dataclasses.asdict(recipe) for name, recipe in preset.recipes.items()}
    for column, recipe in zip(columns.values(), preset.recipes.values(), strict=True):
        if recipe.schedule != "step":
            column["drop_every"] = None
    table = pd.DataFrame({"the paper": dataclasses.asdict(PRESETS["imagenet"].recipes["resnet34"]), **columns})
    return table.rename(index=lambda name: name.replace("_", " ")).map(_short)


def _short(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, tuple):
        return " to ".join(f"{each:g}" for each in value)
    if value is None or (isinstance(value, float) and pd.isna(value)):
        return "–"
    return f"{value:g}" if isinstance(value, (int, float)) else str(value)


def over_seeds(frames: Sequence[pd.DataFrame]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the mean of tables of numbers, one per seed, and what to show: mean ± standard deviation if several.

    Cells that are NaN in some of them are left out of mean and deviation there.
    """
    whole = pd.concat(frames)
    rows = whole.groupby(level=list(range(whole.index.nlevels)), sort=False)
    mean, spread = rows.mean(), rows.std()
    if len(frames) == 1:
        return mean, frames[0]
    shown = mean.map(lambda value: f"{value:.3g}") + spread.map(
        lambda value: "" if pd.isna(value) else f" ± {value:.2g}"
    )
    return mean, shown


def training_summary(histories: Mapping[str, Sequence[Sequence[Mapping[str, Any]]]], chance: float) -> str:
    """Say in Markdown how training ended; the histories are those of `rfviz.pages.figures.training_curves`."""
    sentences = []
    for model, replicas in histories.items():
        last = {key: [history[-1][key] for history in replicas] for key in replicas[0][-1]}
        count = f" ({len(replicas)} networks, mean ± standard deviation)" if len(replicas) > 1 else ""
        sentences.append(
            f"{PAPER_ARCHITECTURES[model]} ends with {_percent(last['evaluation_top1'])} top-1 accuracy on held-out "
            f"images ({_percent(last['train_top1'])} on augmented training images), at a held-out cross-entropy of "
            f"{fmean(last['evaluation_loss']):.2f} nats{count}."
        )
    sentences = sentences or ["Both networks came with their weights, so there is no history to show."]
    return " ".join([*sentences, f"Chance is {chance:.1%}."])


def accuracy_summary(accuracy: Mapping[str, Sequence[float]]) -> str:
    """Say in Markdown which of the two networks classifies better, from top-1 accuracies, one per seed."""
    gaps = [100 * (resnet - plain) for resnet, plain in zip(accuracy["resnet34"], accuracy["plainnet34"], strict=True)]
    gap = fmean(gaps)
    if not gap:
        return "**Answer.** Both networks classify equally well in this run."
    better = "better" if gap > 0 else "worse"
    if len(gaps) == 1:
        return (
            f"**Answer.** With skips, the network classifies {abs(gap):.1f} points {better} than without in this run."
        )
    agreeing = sum(each * gap > 0 for each in gaps)
    return (
        f"**Answer.** With skips, the networks classify {abs(gap):.1f} ± {stdev(gaps):.1f} points {better} than "
        f"without (mean ± standard deviation over {len(gaps)} seeds; {better} for {agreeing} of them)."
    )


def _percent(values: Sequence[float]) -> str:
    if len(values) == 1:
        return f"{values[0]:.1%}"
    return f"{100 * fmean(values):.1f} ± {100 * stdev(values):.1f} %"


def mean_stimulus_table(
    responses: Mapping[str, Mapping[str, LayerResponses]], channels: Mapping[str, int]
) -> pd.DataFrame:
    """Return, per network and layer, how many neurons of a channel fire and what contrast their mean stimulus has.

    The contrast is the largest deviation of a pixel from the mean colour, in RGB units (0 to 1).
    """
    rows = []
    for architecture, layers in responses.items():
        channel = channels[architecture]
        for layer, found in layers.items():
            assert found.mean_stimulus is not None and found.strongest_stimulus is not None
            rows.append(
                {
                    "network": PAPER_ARCHITECTURES[architecture],
                    "layer": PAPER_NAMES[layer],
                    "channel": channel,
                    "strongest response": f"{found.maximum[channel].item():.2f}",
                    "neurons that fire": f"{found.firing_rate[channel].item():.1%}",
                    "contrast of the mean": f"{centred(found.mean_stimulus)[channel].abs().max().item():.3f}",
                    "of the strongest": f"{centred(found.strongest_stimulus)[channel].abs().max().item():.3f}",
                }
            )
    return pd.DataFrame(rows).set_index(["network", "layer"])


def similarity_table(
    responses: Mapping[str, Mapping[str, LayerResponses]],
    maxima: Mapping[str, Mapping[str, Maximization]],
    whitenings: Mapping[str, Whitening],
) -> pd.DataFrame:
    """Return how alike mean preferred stimuli and maximization images are, as Pearson correlations.

    Both are taken in RGB (not clipped), less their mean colour. ``same channel`` is the mean over channels, ``different
    channels`` the mean over all pairs of different channels. Channels without a mean stimulus do not count; NaN where
    too few are left.
    """
    rows = []
    for architecture, layers in responses.items():
        for layer, found in layers.items():
            assert found.mean_stimulus is not None
            there = found.positive_count > 0
            driven = whitenings[architecture].to_rgb(maxima[architecture][layer].images[there].double(), clip=False)
            correlation = correlations(found.mean_stimulus[there], driven)
            count = len(correlation)
            same = correlation.diagonal().sum().item()
            rows.append(
                {
                    "network": PAPER_ARCHITECTURES[architecture],
                    "layer": PAPER_NAMES[layer],
                    "same channel": same / count if count else math.nan,
                    "different channels": (
                        (correlation.sum().item() - same) / (count * (count - 1)) if count > 1 else math.nan
                    ),
                    "channels": count,
                }
            )
    return pd.DataFrame(rows).set_index(["network", "layer"]).round(3)
