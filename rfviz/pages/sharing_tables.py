"""Channels from layer to layer: how alike those of the same number are, and how sparse the layers are."""

import math
from collections.abc import Mapping
from itertools import pairwise

import pandas as pd
import torch
from torch import Tensor

from rfviz.kernels.responses import LayerResponses
from rfviz.kernels.similarity import Pairing, central, correlations, pairing
from rfviz.nets.models import PAPER_ARCHITECTURES, PAPER_NAMES
from rfviz.pages.tuning_tables import LEVEL, median_and_interval

SHARED = ("conv1", "maxpool", "layer1.0", "layer1.1", "layer1.2")
"""The filter and the layers that share the channels of the stem, in order."""

Pair = tuple[str, str]


def pairings(filters: Tensor, found: Mapping[str, LayerResponses]) -> dict[Pair, Pairing]:
    """Compare the channels of neighbouring layers, number by number.

    Parameters
    ----------
    filters : Tensor, shape (C, 3, F, F)
        Of the first convolution.
    found : dict from layer to LayerResponses
        With the mean over the strongest neurons, which is what is compared. Only channels that fire in both layers
        count.
    """
    pictures, fires = {"conv1": filters.detach().cpu()}, {"conv1": torch.ones(len(filters), dtype=torch.bool)}
    for layer, each in found.items():
        assert each.strongest_stimulus is not None
        pictures[layer], fires[layer] = each.strongest_stimulus, each.positive_count > 0
    compared = {}
    for first, second in pairwise(SHARED):
        both = fires[first] & fires[second]
        compared[first, second] = pairing(pictures[first][both], pictures[second][both])
    return compared


def kept(found: Mapping[str, LayerResponses]) -> Tensor:
    """Return how much more like itself than like others a channel is from layer to layer, on average, `(C,)`.

    Correlation of the means over the strongest neurons in neighbouring layers (the filter aside), less the mean over
    all pairs of channels. NaN where a channel does not fire in two neighbouring layers.
    """
    gains = []
    for first, second in pairwise(SHARED[1:]):
        pictures = [each for layer in (first, second) if (each := found[layer].strongest_stimulus) is not None]
        fires = (found[first].positive_count > 0) & (found[second].positive_count > 0)
        side = min(each.shape[-1] for each in pictures)
        alike = correlations(*(central(each, side) for each in pictures))
        chance = alike[fires][:, fires].mean()
        gains.append(torch.where(fires, alike.diagonal() - chance, torch.nan))
    return torch.stack(gains).nanmean(0)


def pairing_table(compared: Mapping[str, Mapping[Pair, Pairing]]) -> pd.DataFrame:
    """Return mean correlations of channels of the same number, of random pairings, and the p of the first, as text."""
    rows = []
    for model, pairs in compared.items():
        for (first, second), each in pairs.items():
            middle, low, high = median_and_interval(each.same)
            rows.append(
                {
                    "network": PAPER_ARCHITECTURES[model],
                    "layers": f"{PAPER_NAMES[first]}, {PAPER_NAMES[second]}",
                    "same number: mean": _number(each.same.mean().item() if len(each.same) else math.nan),
                    "median (95 % interval)": f"{_number(middle)} ({_number(low)} to {_number(high)})",
                    "random pairings: mean": _number(each.by_chance.mean().item() if len(each.by_chance) else math.nan),
                    "p": "–" if math.isnan(each.p) else f"{each.p:.2g}",
                    "channels": len(each.same),
                }
            )
    return pd.DataFrame(rows).set_index(["network", "layers"])


def _number(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:+.2f}"


def pairing_summary(compared: Mapping[str, Mapping[Pair, Pairing]]) -> str:
    """Say in Markdown whether channels keep their feature, and in which network more."""
    sentences, means = [], {}
    for model, pairs in compared.items():
        kept = [pair for pair, each in pairs.items() if each.p < LEVEL]
        sentences.append(
            f"In {PAPER_ARCHITECTURES[model]}, channels of the same number are more alike than random pairs in "
            f"{len(kept)} of {len(pairs)} steps from a layer to the next (permutation test, p < {LEVEL:g})."
        )
        beyond = [each for pair, each in pairs.items() if "conv1" not in pair and len(each.same)]
        means[model] = (
            sum((each.same.mean() - each.by_chance.mean()).item() for each in beyond) / len(beyond)
            if beyond
            else math.nan
        )
    if len(means) == 2 and not any(math.isnan(mean) for mean in means.values()):
        (first, a), (second, b) = means.items()
        order = "more" if a > b else "less"
        sentences.append(
            f"Between layers (the filter aside), the correlation above that of random pairs averages {a:+.2f} in "
            f"{PAPER_ARCHITECTURES[first]} and {b:+.2f} in {PAPER_ARCHITECTURES[second]}: "
            f"{order} in {PAPER_ARCHITECTURES[first]}, in this one pair of networks."
        )
    return "**Answer.** " + " ".join(sentences)


def zigzag(profile: Mapping[str, float]) -> tuple[int, int]:
    """Return in how many blocks more responses are 0 after the inner ReLU than at the output, and the blocks."""
    blocks = [name.removesuffix(".relu1") for name in profile if name.endswith(".relu1")]
    return sum(profile[f"{block}.relu1"] > profile[block] for block in blocks), len(blocks)


def sparsity_summary(shares: Mapping[str, Mapping[str, float]]) -> str:
    """Say in Markdown whether the profile goes up and down."""
    sentences = []
    for model, profile in shares.items():
        higher, blocks = zigzag(profile)
        values = list(profile.values())
        turns = sum((b - a) * (c - b) < 0 for a, b, c in zip(values, values[1:], values[2:], strict=False))
        sentences.append(
            f"In {PAPER_ARCHITECTURES[model]}, more responses are 0 after the inner ReLU than at the output in "
            f"{higher} of {blocks} blocks, and the profile changes its direction at {turns} of {len(values) - 2} "
            "places."
        )
    return "**Answer.** " + " ".join(sentences)
