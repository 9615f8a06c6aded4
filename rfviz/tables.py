"""The tables of the book, as pandas frames: numbers for programs, and the same numbers as text for people."""

import dataclasses
import math
from collections.abc import Mapping

import pandas as pd
from torch import Tensor
from torch.nn import functional as F

from rfviz.inactivity import NoiseEffect, control_count, mean_and_error
from rfviz.maximization import Maximization
from rfviz.models import PAPER_ARCHITECTURES, PAPER_NAMES
from rfviz.presets import PRESETS, Preset
from rfviz.responses import LayerResponses
from rfviz.whitening import Whitening

PAPER_TABLE = {
    "resnet34": {"inactive": 13, "dL": 1.26962, "dL_rnd": 2.40560e-2},
    "plainnet34": {"inactive": 2, "dL": -1.66893e-6, "dL_rnd": -8.34465e-7},
}
"""Table 1 of the paper: number of inactive channels of 64, and the two loss differences in nats."""

_PAPER_ROWS = {"inactive": "dL", "random_inactive": "dL_rnd"}


def noise_table(effects: Mapping[str, NoiseEffect]) -> pd.DataFrame:
    """Return Table 1 with our two control rows, as numbers.

    Parameters
    ----------
    effects : dict from architecture to NoiseEffect

    Returns
    -------
    DataFrame
        One row per network and kind of noise (see `rfviz.inactivity.ROWS`), with columns ``model``, ``noise``,
        ``inactive`` and ``channels`` (of the layer), ``noisy`` (channels that get noise at a time), ``dL``,
        ``dL_error``, ``dtop1``, ``dtop1_error`` (mean and standard error over seeds; nats, shares) and ``paper_dL``;
        NaN where there is nothing to measure.
    """
    rows = []
    for architecture, found in effects.items():
        count = control_count(found.channels)
        noisy = {
            "inactive": len(found.inactive),
            "random_inactive": min(1, len(found.inactive)),
            "least_active": count,
            "random_active": min(count, found.channels - len(found.inactive)),
        }
        for row, number in noisy.items():
            effect = found.effects.get(row)
            loss, loss_error = mean_and_error(effect.loss) if effect else (float("nan"),) * 2
            top1, top1_error = mean_and_error(effect.top1) if effect else (float("nan"),) * 2
            rows.append(
                {
                    "model": architecture,
                    "noise": row,
                    "inactive": len(found.inactive),
                    "channels": found.channels,
                    "noisy": number,
                    "dL": loss,
                    "dL_error": loss_error,
                    "dtop1": top1,
                    "dtop1_error": top1_error,
                    "paper_dL": PAPER_TABLE[architecture].get(_PAPER_ROWS.get(row, ""), float("nan")),
                }
            )
    return pd.DataFrame(rows)


def table1(effects: Mapping[str, NoiseEffect]) -> pd.DataFrame:
    """Return Table 1 with our two control rows, as text for people; the paper's numbers stand beside ours."""
    names = {
        "inactive": "all inactive: ΔL",
        "random_inactive": "one inactive, drawn per 256 images: ΔL_rnd",
        "least_active": "the {} least active (control)",
        "random_active": "{} random active (control)",
    }
    rows = []
    for entry in noise_table(effects).to_dict("records"):
        paper = PAPER_TABLE[entry["model"]]
        rows.append(
            {
                "network": PAPER_ARCHITECTURES[entry["model"]],
                "inactive": f"{entry['inactive']} of {entry['channels']} (paper: {paper['inactive']} of 64)",
                "noise in": names[entry["noise"]].format(entry["noisy"]),
                "ΔL (nats)": _with_error(entry["dL"], entry["dL_error"]),
                "ΔL in the paper": "–" if pd.isna(entry["paper_dL"]) else f"{entry['paper_dL']:.6g}",
                "Δ top-1 (points)": _with_error(100 * entry["dtop1"], 100 * entry["dtop1_error"]),
            }
        )
    return pd.DataFrame(rows).set_index(["network", "inactive", "noise in"])


def _with_error(mean: float, error: float) -> str:
    if pd.isna(mean):
        return "–"
    if pd.isna(error) or error == 0:
        return f"{mean:+.3g}"
    digits = max(0, -math.floor(math.log10(error)))  # to the first digit of the error
    return f"{mean:+.{digits}f} ± {error:.{digits}f}"


def recipes_table(preset: Preset) -> pd.DataFrame:
    """Return the training recipes of a preset beside the paper's, one row per value."""
    columns = {PAPER_ARCHITECTURES[name]: dataclasses.asdict(recipe) for name, recipe in preset.recipes.items()}
    for column, recipe in zip(columns.values(), preset.recipes.values(), strict=True):
        if recipe.schedule != "step":
            column["drop_every"] = None
    table = pd.DataFrame({"the paper": dataclasses.asdict(PRESETS["imagenet"].recipes["resnet34"]), **columns})
    return table.rename(index=lambda name: name.replace("_", " ")).map(_short)


def _short(value: object) -> str:
    if isinstance(value, tuple):
        return " to ".join(f"{each:g}" for each in value)
    if value is None or (isinstance(value, float) and pd.isna(value)):
        return "–"
    return f"{value:g}" if isinstance(value, (int, float)) else str(value)


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
                    "contrast of the mean": f"{_centred(found.mean_stimulus)[channel].abs().max().item():.3f}",
                    "of the strongest": f"{_centred(found.strongest_stimulus)[channel].abs().max().item():.3f}",
                }
            )
    return pd.DataFrame(rows).set_index(["network", "layer"])


def _centred(images: Tensor) -> Tensor:
    """Take the mean colour off images `(C, 3, R, R)`."""
    return images - images.mean(dim=(2, 3), keepdim=True)


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
            means = F.normalize(_centred(found.mean_stimulus[there].double()).flatten(1), dim=1)
            driven = whitenings[architecture].to_rgb(maxima[architecture][layer].images[there].double(), clip=False)
            images = F.normalize(_centred(driven).flatten(1), dim=1)
            correlation = means @ images.T
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


def noise_summary(effects: Mapping[str, NoiseEffect]) -> str:
    """Say in Markdown what the noise experiment of this run shows: a change counts beyond two standard errors."""
    sentences = []
    if not any(found.inactive for found in effects.values()):
        return (
            "**Answer.** Neither network has an inactive channel in this run, so there is nothing for the paper's two "
            "experiments to disturb; only the controls can be measured. The paper finds 13 of 64 and 2 of 64."
        )
    for architecture, found in effects.items():
        name = PAPER_ARCHITECTURES[architecture]
        if not found.inactive:
            sentences.append(
                f"{name} has no inactive channel in this run, so the paper's two experiments have nothing to disturb."
            )
            continue
        loss, error = mean_and_error(found.effects["inactive"].loss)
        if math.isnan(error):
            verdict = f"changes the loss by {loss:+.3g} nats (one noise seed: how sure that is cannot be said)"
        elif abs(loss) <= 2 * error:
            verdict = "does not change the loss measurably"
        else:
            verdict = f"{'raises' if loss > 0 else 'lowers'} the loss by {abs(loss):.3g} nats"
        which = "one inactive channel" if len(found.inactive) == 1 else f"{len(found.inactive)} inactive channels"
        sentences.append(f"In {name}, noise in the {which} {verdict}.")
    counts = {architecture: len(found.inactive) for architecture, found in effects.items()}
    if counts["resnet34"] > counts["plainnet34"]:
        agreement = "As in the paper, ResNet34 has more inactive channels than PlainNet34."
    else:
        agreement = "Unlike in the paper, ResNet34 does not have more inactive channels than PlainNet34."
    return f"**Answer.** {agreement} {' '.join(sentences)}"
