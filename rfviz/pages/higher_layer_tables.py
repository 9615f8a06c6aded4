"""Numbers and words about higher layers: how large effective fields are, and which pictures work as stimuli."""

import math
from collections.abc import Mapping

import numpy as np
import pandas as pd
from torch import Tensor

from rfviz.kernels.effective_field import EffectiveFields
from rfviz.kernels.identification import CHANCE, KINDS
from rfviz.nets.models import PAPER_ARCHITECTURES, PAPER_NAMES
from rfviz.pages.tuning_tables import known

RESAMPLES = 2000
"""Of a bootstrap."""

Fields = Mapping[str, Mapping[str, EffectiveFields]]
"""By architecture and layer."""

Scores = Mapping[str, Mapping[str, Mapping[str, Tensor]]]
"""What `rfviz.kernels.identification.identify` returns, by architecture and layer."""

Estimate = tuple[float, float, float]
"""A number, and the lower and upper end of its 95 % interval; NaN where it cannot be told."""


def mean_and_interval(values: Tensor) -> Estimate:
    """Return the mean over channels and its 95 % interval, by bootstrap over channels (seeded, percentiles)."""
    numbers = known(values)
    if not len(numbers):
        return math.nan, math.nan, math.nan
    return _estimate(numbers[:, None], np.mean)


def clustered_median(values: Tensor, clusters: Tensor) -> Estimate:
    """Return the median over stimuli and its 95 % interval, by bootstrap over channels.

    Parameters
    ----------
    values : Tensor, shape (n,)
        NaN where unknown.
    clusters : Tensor of int64, shape (n,)
        Channel of each: stimuli of one channel are no independent samples, so whole channels are drawn.
    """
    numbers, where = values.double().numpy(), values.isfinite().numpy()
    channels = clusters.numpy()
    groups = [numbers[where & (channels == channel)] for channel in np.unique(channels[where])]
    if not groups:
        return math.nan, math.nan, math.nan
    padded = np.full((len(groups), max(map(len, groups))), np.nan)
    for row, group in zip(padded, groups, strict=True):
        row[: len(group)] = group
    return _estimate(padded, _median)


def _median(values: np.ndarray, axis: int | None = None) -> np.ndarray:
    """Return what `numpy.nanmedian` does, of which no row is all NaN, in a fraction of its time."""
    ordered = np.sort(values, axis=axis)  # NaN last
    count = (~np.isnan(values)).sum(axis=axis, keepdims=axis is not None)
    middle = [np.take_along_axis(ordered, np.atleast_1d(each), axis=axis) for each in ((count - 1) // 2, count // 2)]
    return (middle[0] + middle[1]).squeeze() / 2


def _estimate(channels: np.ndarray, statistic: object) -> Estimate:
    """Return a statistic of the rows `(C, values)` taken together, and its interval over draws of rows."""
    assert callable(statistic)
    middle = float(statistic(channels))
    if len(channels) < 3:
        return middle, math.nan, math.nan
    draws = np.random.default_rng(0).integers(len(channels), size=(RESAMPLES, len(channels)))
    low, high = np.percentile(statistic(channels[draws].reshape(RESAMPLES, -1), axis=1), [2.5, 97.5])
    return middle, float(low), float(high)


def _as_row(name: str, found: Estimate) -> dict[str, float]:
    return dict(zip((name, f"{name}: low", f"{name}: high"), found, strict=True))


def effective_table(measured: Fields, controls: Fields) -> pd.DataFrame:
    """Return the size of effective fields beside that with random weights, per network and layer, as numbers.

    ``diameter`` and ``radius`` are medians over stimuli in px, ``share`` that of the area; see
    `rfviz.kernels.effective_field.EffectiveFields`. ``ratio`` is the median over stimuli of the diameter over that with random
    weights at the same place on the same image. Intervals are of 95 %, over channels.
    """
    rows = []
    for model, layers in measured.items():
        for layer, found in layers.items():
            control, channels = controls[model][layer], found.channels
            rows.append(
                {
                    "network": PAPER_ARCHITECTURES[model],
                    "layer": PAPER_NAMES[layer],
                    "field": found.receptive_field.size,
                    "stimuli": len(channels),
                    "channels": len(channels.unique()),
                    **_as_row("diameter", clustered_median(found.diameter, channels)),
                    **_as_row("random", clustered_median(control.diameter, channels)),
                    **_as_row("ratio", clustered_median(found.diameter / control.diameter, channels)),
                    **_as_row("radius", clustered_median(found.radius, channels)),
                    **_as_row("radius, random", clustered_median(control.radius, channels)),
                    **_as_row("share", clustered_median(found.share, channels)),
                }
            )
    return pd.DataFrame(rows).set_index(["network", "layer"])


def shown_effective(table: pd.DataFrame) -> pd.DataFrame:
    """Return `effective_table` as text for people."""
    shown = pd.DataFrame(index=table.index)
    shown["field"] = [f"{size} px" for size in table["field"]]
    for title, name in (
        ("effective diameter (px)", "diameter"),
        ("with random weights", "random"),
        ("rms radius (px)", "radius"),
        ("rms radius, random weights", "radius, random"),
    ):
        shown[title] = [_range(row, name, "{:.0f}") for _, row in table.iterrows()]
    shown["over that with random weights"] = [_range(row, "ratio", "{:.2f}") for _, row in table.iterrows()]
    shown["share of the field in the image"] = [_range(row, "share", "{:.1%}") for _, row in table.iterrows()]
    shown["n"] = [f"{n} stimuli, {c} channels" for n, c in zip(table["stimuli"], table["channels"], strict=True)]
    return shown


def _range(row: pd.Series, name: str, form: str) -> str:
    middle, low, high = (row[name + end] for end in ("", ": low", ": high"))
    if not math.isfinite(middle):
        return "–"
    if not math.isfinite(low):
        return form.format(middle)
    return f"{form.format(middle)} ({form.format(low)} to {form.format(high)})"


def _against(row: pd.Series, name: str, null: float) -> int:
    """Return 1 or -1 where the whole interval is above or below `null`, 0 where it is not or there is none."""
    return int(row[f"{name}: low"] > null) - int(row[f"{name}: high"] < null)


def _list(names: list[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def effective_summary(table: pd.DataFrame) -> str:
    """Say in Markdown how large effective fields are, and where they differ from those with random weights."""
    sentences = []
    for network, rows in table.groupby(level=0, sort=False):
        there = rows[rows["diameter"].notna()].droplevel(0)
        if not len(there):
            sentences.append(f"In {network}, no channel depends on the image in these layers.")
            continue
        sizes = [f"{row['diameter']:.0f} px in {layer}" for layer, row in there.iterrows()]
        verdicts = []
        for sign, words in ((-1, "less than"), (1, "more than"), (0, "not told apart from that")):
            layers = [str(layer) for layer, row in there.iterrows() if _against(row, "ratio", 1) == sign]
            if layers:
                verdicts.append(f"{words} with random weights in {_list(layers)}")
        sentences.append(f"In {network}, the median effective diameter is {_list(sizes)}; this is {_list(verdicts)}.")
    return "**Answer.** " + " ".join(sentences)


def identification_table(scores: Scores) -> pd.DataFrame:
    """Return the mean score of each kind of picture, its 95 % interval over channels, and n, as numbers.

    ``lead: KIND`` is the mean over channels of the score of maximization less that of the kind, which compares the two
    on the same channels.
    """
    rows = []
    for model, layers in scores.items():
        for layer, kinds in layers.items():
            row: dict[str, object] = {"network": PAPER_ARCHITECTURES[model], "layer": PAPER_NAMES[layer]}
            for kind, values in kinds.items():
                row |= _as_row(kind, mean_and_interval(values))
            for kind in KINDS[:-1]:
                row |= _as_row(f"lead: {kind}", mean_and_interval(kinds[KINDS[-1]] - kinds[kind]))
            rows.append({**row, "channels": int(kinds[KINDS[-1]].isfinite().sum())})
    return pd.DataFrame(rows).set_index(["network", "layer"])


def shown_identification(table: pd.DataFrame) -> pd.DataFrame:
    """Return `identification_table` as text for people."""
    shown = pd.DataFrame(index=table.index)
    for kind in KINDS:
        shown[kind] = [_range(row, kind, "{:.2f}") for _, row in table.iterrows()]
    shown["channels"] = table["channels"]
    return shown


_VERDICTS = {1: "better than", -1: "worse than", 0: "not told apart from"}


def identification_summary(table: pd.DataFrame) -> str:
    """Say in Markdown whether the pictures work in the highest layer, and whether maximization leads."""
    sentences = []
    for network, rows in table.groupby(level=0, sort=False):
        known_rows = rows[rows["channels"] > 1].droplevel(0)
        if not len(known_rows):
            sentences.append(f"In {network}, too few channels fire to tell.")
            continue
        layer, row = known_rows.index[-1], known_rows.iloc[-1]
        said = []
        for kind in KINDS:
            score = f"{row[kind]:.2f}, {_VERDICTS[_against(row, kind, CHANCE)]} chance"
            said.append(f"the {kind} scores {score}" if kind != KINDS[-1] else f"{kind} {score}")
        leads = {kind: _against(row, f"lead: {kind}", 0) for kind in KINDS[:-1]}
        verdicts = []
        for sign, words in _VERDICTS.items():
            named = [f"the {kind}" for kind, each in leads.items() if each == sign]
            if named:
                verdicts.append(f"{words} {_list(named)}")
        sentences.append(
            f"In the highest layer tested of {network}, {layer}, {'; '.join(said)}. "
            f"On the same channels, maximization is {_list(verdicts)}."
        )
    return f"**Answer.** Scores are 1 at best and {CHANCE:g} by chance. " + " ".join(sentences)
