"""Which pictures are centre-surround opponent, and which hues channels prefer: numbers as tables, and as words."""

from collections.abc import Mapping, Sequence

import pandas as pd
import torch
from scipy import stats
from torch import Tensor

from rfviz import intervals
from rfviz.images.whitening import Whitening
from rfviz.kernels.maximization import Maximization
from rfviz.kernels.responses import LayerResponses
from rfviz.kernels.tuning import CHROMATIC, ColourTuning, centre_surround
from rfviz.kernels.tuning.centre_surround import Opponency
from rfviz.kernels.tuning.hue import HueTuning
from rfviz.nets.models import PAPER_ARCHITECTURES, PAPER_NAMES
from rfviz.pages.tuning_tables import LEVEL

PICTURES = {"mean of the strongest": "means over the strongest stimuli", "maximization": "maximization images"}
"""The kinds of pictures, and what a sentence calls several of them."""

Structure = Mapping[str, Mapping[str, Mapping[str, Opponency]]]
"""By architecture, layer and kind of picture."""

Hues = Mapping[str, Mapping[str, HueTuning]]
Colours = Mapping[str, Mapping[str, ColourTuning]]
"""By architecture and layer."""

RandomHues = Mapping[str, Mapping[str, Sequence[HueTuning]]]
RandomColours = Mapping[str, Mapping[str, Mapping[str, Sequence[ColourTuning]]]]
"""By architecture and layer, of several networks with random weights; colours also by kind of control."""

NEAR = 30.0
"""Degrees within which an axis is near L-M or near S: a third of all axes each, and a third are in between."""

HUES = ("reddish", "bluish", "greenish", "yellowish")
"""At 0, 90, 180 and 270 degrees; each stands for the quarter around it."""


def opponencies(
    found: Mapping[str, LayerResponses], maxima: Mapping[str, Maximization], white: Whitening
) -> dict[str, dict[str, Opponency]]:
    """Measure centre and surround of the two pictures of every channel, by layer and kind of picture.

    Channels that never fire count in neither: they have no mean stimulus.

    Parameters
    ----------
    found : dict from layer to LayerResponses
        With the mean over the strongest neurons.
    maxima : dict from layer to Maximization
        Of the same layers.
    white : Whitening
        Whose mean is the background.
    """
    background = white.to_rgb(torch.zeros(3, 1, 1))[:, 0, 0]
    measured = {}
    for layer, result in found.items():
        assert result.strongest_stimulus is not None
        pictures = (result.strongest_stimulus, white.to_rgb(maxima[layer].images))
        measured[layer] = {
            kind: centre_surround.measure(images, background, there=result.positive_count > 0)
            for kind, images in zip(PICTURES, pictures, strict=True)
        }
    return measured


def opponency_table(structure: Structure) -> pd.DataFrame:
    """Return how many pictures are centre-surround opponent, per network, layer and kind of picture, as text."""
    rows = []
    for model, layers in structure.items():
        for layer, kinds in layers.items():
            for kind, each in kinds.items():
                rows.append(
                    {
                        "network": PAPER_ARCHITECTURES[model],
                        "layer": PAPER_NAMES[layer],
                        "picture": kind,
                        "in colour (95 % interval)": _share(int(each.colour_opponent.sum()), _pictures(each)),
                        "in luminance (95 % interval)": _share(int(each.luminance_opponent.sum()), _pictures(each)),
                        "by chance": f"≤ {centre_surround.LEVEL:.0%}",
                        "chromatic": int(each.chromatic.sum()),
                        f"index ≥ {centre_surround.LEAST:g}": int((each.index >= centre_surround.LEAST).sum()),
                        "n": _pictures(each),
                    }
                )
    return pd.DataFrame(rows).set_index(["network", "layer", "picture"])


def _pictures(each: Opponency) -> int:
    return int(each.index.isfinite().sum())


def _share(count: int, of: int) -> str:
    found = intervals.share(count, of)
    return f"{count}: {found.value:.0%} ({found.low:.0%} to {found.high:.0%})" if of else "–"


def opponency_summary(structure: Structure) -> str:
    """Say in Markdown how many pictures are centre-surround opponent in colour, and where that is beyond chance."""
    sentences = []
    for model, layers in structure.items():
        counts, more = [], []
        for kind in next(iter(layers.values())):
            pairs = {
                layer: (int(each[kind].colour_opponent.sum()), _pictures(each[kind])) for layer, each in layers.items()
            }
            count, of = (sum(each) for each in zip(*pairs.values(), strict=True))
            counts.append(f"{count} of {of} {PICTURES[kind]}")
            more += [
                f"{PAPER_NAMES[layer]} ({kind})"
                for layer, (count, of) in pairs.items()
                if of and stats.binomtest(count, of, centre_surround.LEVEL, alternative="greater").pvalue < LEVEL
            ]
        sentences.append(
            f"In {PAPER_ARCHITECTURES[model]}, {' and '.join(counts)} are centre-surround opponent in colour. In "
            f"{' and '.join(more) if more else 'no layer'}, that is more than the {centre_surround.LEVEL:.0%} that "
            f"chance gives at most (one-sided binomial test, p < {LEVEL:g})."
        )
    return "**Answer.** " + " ".join(sentences)


def hue_table(hues: Hues, random: RandomHues, colours: Colours, random_colours: RandomColours) -> pd.DataFrame:
    """Return which hues the chromatic channels prefer and how sharply, per network, layer and weights, as text.

    Parameters
    ----------
    hues, random
        Of trained networks, and of several with random weights.
    colours, random_colours
        Of the same networks, which say what channels are chromatic: an achromatic channel has a preferred hue as well,
        the one that differs most in what it takes for luminance.
    """
    rows = []
    for model, layers in hues.items():
        for layer, found in layers.items():
            groups = {
                "trained": ([found], [colours[model][layer]]),
                "random weights": (random[model][layer], random_colours[model][layer]["random weights"]),
            }
            for weights, (tunings, classes) in groups.items():
                selectivity, axis, hue = _of_chromatic(tunings, classes)
                near = _near(axis)
                rows.append(
                    {
                        "network": PAPER_ARCHITECTURES[model],
                        "layer": PAPER_NAMES[layer],
                        "weights": weights,
                        "chromatic": f"{len(axis)} of {sum(len(each.blank) for each in tunings)}",
                        "axis selectivity: median (95 % interval)": intervals.median(selectivity).shown(".2f"),
                        **{name: str(count) for name, count in near.items()},
                        f"uniform fields: {' / '.join(HUES)}": " / ".join(map(str, _hues(hue))),
                    }
                )
    return pd.DataFrame(rows).set_index(["network", "layer", "weights"])


def _of_chromatic(tunings: Sequence[HueTuning], classes: Sequence[ColourTuning]) -> tuple[Tensor, Tensor, Tensor]:
    """Return axis selectivity, preferred axis and preferred hue of chromatic channels that respond, all networks."""
    kept = [
        (each.axis_selectivity[chosen], each.preferred_axis[chosen], each.preferred_hue[chosen])
        for each, colour in zip(tunings, classes, strict=True)
        for chosen in [(colour.sensitivity >= CHROMATIC) & each.responds]
    ]
    selectivity, axis, hue = (torch.cat(each) for each in zip(*kept, strict=True))
    return selectivity, axis, hue


def _near(axis: Tensor) -> dict[str, int]:
    """Count the axes, degrees `(n,)`, near L-M, near S and in between."""
    from_l_m = 90 - (axis - 90).abs()  # 0 for L-M, which is at 0 and 180, and 90 for S
    first, second = int((from_l_m <= NEAR).sum()), int((from_l_m >= 90 - NEAR).sum())
    return {"near L-M": first, "near S": second, "in between": len(axis) - first - second}


def _hues(hue: Tensor) -> list[int]:
    known = hue[hue.isfinite()]
    quarter = ((known + 45) // 90).long() % len(HUES)
    return torch.bincount(quarter, minlength=len(HUES)).tolist()


def hue_summary(hues: Hues, random: RandomHues, colours: Colours, random_colours: RandomColours) -> str:
    """Say in Markdown which axes chromatic channels prefer, and where they are more selective than random weights."""
    sentences = []
    for model, layers in hues.items():
        total = dict.fromkeys(_near(torch.zeros(0)), 0)
        sharper = []
        for layer, found in layers.items():
            selectivity, axis, _ = _of_chromatic([found], [colours[model][layer]])
            chance, _, _ = _of_chromatic(random[model][layer], random_colours[model][layer]["random weights"])
            total = {name: total[name] + count for name, count in _near(axis).items()}
            if (
                len(selectivity)
                and len(chance)
                and stats.mannwhitneyu(selectivity.numpy(), chance.numpy(), alternative="greater").pvalue < LEVEL
            ):
                sharper.append(PAPER_NAMES[layer])
        number = sum(total.values())
        if not number:
            sentences.append(f"{PAPER_ARCHITECTURES[model]} has no chromatic channel in these layers.")
            continue
        sentences.append(
            f"Of {number} chromatic channels of {PAPER_ARCHITECTURES[model]} in {len(layers)} "
            f"layer{'s' * (len(layers) != 1)}, "
            f"{total['near L-M']} prefer an axis near L-M, {total['near S']} one near S, and {total['in between']} one "
            f"in between; they are more selective than channels with random weights in "
            f"{' and '.join(sharper) if sharper else 'no layer'} (Mann-Whitney test, p < {LEVEL:g})."
        )
    return "**Answer.** " + " ".join(sentences)
