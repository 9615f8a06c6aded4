"""How many channels are tuned, beside how many chance would give; numbers as pandas frames, and as words."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from scipy import stats
from torch import Tensor

from rfviz import intervals
from rfviz.intervals import known
from rfviz.kernels.tuning import ColourTuning, Tuning
from rfviz.nets.models import PAPER_ARCHITECTURES, PAPER_NAMES

NULL = 95
"""Percentile of a control's channels that counts as the edge of chance."""

LEVEL = 0.05
"""Significance of "more than chance would give"."""

CLASSES = ("achromatic", "single-opponent", "double-opponent", "silent")


def median_and_interval(values: Tensor) -> tuple[float, float, float]:
    """Return the median over channels and its 95 % interval, by bootstrap over channels (seeded); NaN without any."""
    return intervals.median(values)[:3]


def against_chance(measured: Tensor, control: Sequence[Tensor]) -> dict[str, float]:
    """Count the channels above a control's 95th percentile.

    Parameters
    ----------
    measured : Tensor, shape (C,)
        An index of every channel; NaN where it is not defined.
    control : sequence of Tensor
        The same of control networks, taken together.

    Returns
    -------
    dict
        ``edge`` (the control's percentile), ``above`` and ``of`` (channels), ``low`` and ``high`` (exact 95 % interval
        of the share), ``p`` (of so many or more where each has a chance of 5 %).
    """
    chance = np.concatenate([known(each) for each in control]) if control else np.array([])
    numbers = known(measured)
    if not len(chance) or not len(numbers):
        return {"edge": math.nan, "above": 0, "of": len(numbers), "low": math.nan, "high": math.nan, "p": math.nan}
    edge = float(np.percentile(chance, NULL))
    above = int((numbers > edge).sum())
    test = stats.binomtest(above, len(numbers), 1 - NULL / 100, alternative="greater")
    interval = stats.binomtest(above, len(numbers)).proportion_ci()
    return {
        "edge": edge, "above": above, "of": len(numbers), "low": float(interval.low), "high": float(interval.high),
        "p": float(test.pvalue),
    }  # fmt: skip


Measured = Mapping[str, Mapping[str, Tuning]]
"""By architecture and layer."""

Controls = Mapping[str, Mapping[str, Mapping[str, Sequence[Tuning]]]]
"""By architecture, layer and kind of control."""


def orientation_table(measured: Measured, controls: Controls) -> pd.DataFrame:
    """Return how selective channels are, and how many are above chance, per network and layer, as numbers."""
    rows = []
    for model, layers in measured.items():
        for layer, tuning in layers.items():
            middle, low, high = median_and_interval(tuning.selectivity)
            row = {
                "network": PAPER_ARCHITECTURES[model],
                "layer": PAPER_NAMES[layer],
                "channels": len(tuning.blank),
                "respond": int(tuning.responds.sum()),
                "median": middle, "low": low, "high": high,
                "simple": int((tuning.modulation > 1).sum()),
            }  # fmt: skip
            for kind, networks in controls[model][layer].items():
                found = against_chance(tuning.selectivity, [each.selectivity for each in networks])
                row |= {f"{kind}: {key}": value for key, value in found.items()}
            rows.append(row)
    return pd.DataFrame(rows).set_index(["network", "layer"])


def shown_orientation(table: pd.DataFrame, kinds: Sequence[str]) -> pd.DataFrame:
    """Return `orientation_table` as text for people."""
    shown = pd.DataFrame(index=table.index)
    shown["respond"] = [
        f"{respond} of {channels}" for respond, channels in zip(table["respond"], table["channels"], strict=True)
    ]
    shown["median OSI (95 % interval)"] = [
        f"{middle:.2f} ({low:.2f} to {high:.2f})" if math.isfinite(middle) else "–"
        for middle, low, high in zip(table["median"], table["low"], table["high"], strict=True)
    ]
    shown["simple"] = table["simple"]
    for kind in kinds:
        shown[f"above {kind}"] = [
            f"{int(above)} of {int(of)} (> {edge:.2f})" if math.isfinite(edge) else "–"
            for above, of, edge in zip(
                table[f"{kind}: above"], table[f"{kind}: of"], table[f"{kind}: edge"], strict=True
            )
        ]
    return shown


def orientation_summary(table: pd.DataFrame, kinds: Sequence[str]) -> str:
    """Say in Markdown in which layers more channels are selective than chance would give."""
    sentences = []
    for network, rows in table.groupby(level=0, sort=False):
        found = []
        for kind in kinds:
            tested = rows[rows[f"{kind}: p"].notna()]
            more = tested[tested[f"{kind}: p"] < LEVEL].index.get_level_values("layer").tolist()
            found.append(f"{kind} in {' and '.join(more) if more else 'no layer'}")
        sentences.append(f"In {network}, they do so compared with {', and with '.join(found)}.")
    return (
        f"**Answer.** Do more channels exceed the control's 95th percentile than the 5 % that chance gives (one-sided "
        f"binomial test, p < {LEVEL:g})? {' '.join(sentences)}"
    )


def colour_table(
    measured: Mapping[str, Mapping[str, ColourTuning]],
    controls: Mapping[str, Mapping[str, Mapping[str, Sequence[ColourTuning]]]],
) -> pd.DataFrame:
    """Return how many channels are of each colour class, and the share of each class in the controls, per layer."""
    rows = []
    for model, layers in measured.items():
        for layer, tuning in layers.items():
            name = {"network": PAPER_ARCHITECTURES[model], "layer": PAPER_NAMES[layer]}
            found = tuning.classes
            rows.append({**name, "weights": "trained", **_shares([found])})
            rows += [
                {**name, "weights": kind, **_shares([each.classes for each in networks])}
                for kind, networks in controls[model][layer].items()
            ]
    return pd.DataFrame(rows).set_index(["network", "layer", "weights"])


def _shares(networks: Sequence[list[str]]) -> dict[str, str]:
    """Return per class the number of channels, or for several networks their mean, and the exact 95 % interval."""
    together = [each for network in networks for each in network]
    shown = {}
    for name in CLASSES:
        count = together.count(name)
        interval = stats.binomtest(count, len(together)).proportion_ci()
        shown[name] = f"{count / len(together):.0%} ({interval.low:.0%} to {interval.high:.0%})"
    return shown | {"n": str(len(together))}


def colour_summary(measured: Mapping[str, Mapping[str, ColourTuning]], controls: Mapping) -> str:
    """Say in Markdown where double-opponent channels are more frequent than in random weights."""
    sentences = []
    for model, layers in measured.items():
        more = []
        for layer, tuning in layers.items():
            found = tuning.classes
            chance = [each for network in controls[model][layer]["random weights"] for each in network.classes]
            table = [
                [found.count("double-opponent"), len(found) - found.count("double-opponent")],
                [chance.count("double-opponent"), len(chance) - chance.count("double-opponent")],
            ]
            if stats.fisher_exact(table, alternative="greater").pvalue < LEVEL:
                more.append(PAPER_NAMES[layer])
        total = sum(tuning.classes.count("double-opponent") for tuning in layers.values())
        where = " and ".join(more) if more else "no layer"
        sentences.append(
            f"{PAPER_ARCHITECTURES[model]} has {total} double-opponent channels over its {len(layers)} layers here; "
            f"they are more frequent than with random weights in {where} (Fisher's exact test, p < {LEVEL:g})."
        )
    return "**Answer.** " + " ".join(sentences)


def gabor_table(fits: Mapping[str, Mapping[str, Sequence]]) -> pd.DataFrame:
    """Return how well Gabors fit the first filters, per network and kind of weights, as text."""
    rows = []
    for model, kinds in fits.items():
        for kind, found in kinds.items():
            there = [each for each in found if each is not None]
            goodness = [each.goodness for each in there]
            profiles = intervals.median([each.profile for each in there])
            rows.append(
                {
                    "network": PAPER_ARCHITECTURES[model],
                    "weights": kind,
                    "filters": len(found),
                    "R² of the fit: median": intervals.median(goodness).shown(".2f"),
                    "with R² > 0.8": f"{sum(each > 0.8 for each in goodness)}",
                    "energy in one colour axis: median": profiles.shown(".0%"),
                }
            )
    return pd.DataFrame(rows).set_index(["network", "weights"])
