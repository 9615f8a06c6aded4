"""Counts against chance: exact statistics, and words that follow the numbers whichever way they come out."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from rfviz.kernels.controls import CONTROLS
from rfviz.kernels.tuning import ColourTuning, Tuning
from rfviz.kernels.tuning.gabor import Gabor
from rfviz.kernels.tuning.gratings import for_field
from rfviz.pages import tuning_tables

GRATINGS = for_field(11, orientations=4, frequencies=2, phases=4)


def tuned(selectivities: list[float], silent: int = 0) -> Tuning:
    """Channels that respond with 1 to one orientation and so to the one across that the index is as given."""
    responses = torch.zeros(len(selectivities) + silent, *GRATINGS.shape, dtype=torch.float64)
    for channel, index in enumerate(selectivities):
        across = (1 - index) / (1 + index)
        responses[channel, 1] = 1.0
        responses[channel, 3] = across
        responses[channel, (0, 2)] = across
    return Tuning(GRATINGS, responses, torch.zeros(len(responses), dtype=torch.float64))


def test_the_planted_indices_come_out() -> None:
    assert tuned([0.2, 0.9]).selectivity.tolist() == pytest.approx([0.2, 0.9])


def test_counts_against_chance_by_hand() -> None:
    control = [tuned([i / 100 for i in range(50)]), tuned([i / 100 for i in range(50, 100)], silent=1)]
    found = tuning_tables.against_chance(
        tuned([0.1, 0.96, 0.97, 0.98], silent=2).selectivity, [each.selectivity for each in control]
    )
    assert found["edge"] == pytest.approx(np.percentile([i / 100 for i in range(100)], 95))
    assert (found["above"], found["of"]) == (3, 4)
    assert found["p"] == pytest.approx(sum(math.comb(4, k) * 0.05**k * 0.95 ** (4 - k) for k in (3, 4)))
    assert (found["low"], found["high"]) == pytest.approx(tuple(stats.binomtest(3, 4).proportion_ci()))


def test_without_anything_to_compare_there_is_no_number() -> None:
    nothing = tuned([], silent=3).selectivity
    for found in (
        tuning_tables.against_chance(nothing, [tuned([0.5]).selectivity]),
        tuning_tables.against_chance(tuned([0.5]).selectivity, [nothing]),
        tuning_tables.against_chance(tuned([0.5]).selectivity, []),
    ):
        assert math.isnan(found["p"]) and found["above"] == 0


def test_the_median_and_its_interval() -> None:
    values = torch.rand(40, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    middle, low, high = tuning_tables.median_and_interval(torch.cat([values, torch.tensor([torch.nan])]))
    assert middle == pytest.approx(np.median(values.numpy()))
    assert low < middle < high
    assert tuning_tables.median_and_interval(values)[1:] == (low, high)  # the same each time
    assert math.isnan(tuning_tables.median_and_interval(torch.tensor([torch.nan]))[0])
    assert tuning_tables.median_and_interval(torch.tensor([0.5, 0.5, 0.5]))[0] == 0.5


@pytest.mark.parametrize(
    ("trained", "said"),
    [
        ([0.99] * 10, "with random weights in first pooling layer, and with shuffled filters in first pooling layer."),
        ([0.01] * 10, "with random weights in no layer, and with shuffled filters in no layer."),
    ],
)
def test_words_follow_the_numbers(trained: list[float], said: str) -> None:
    control = tuned([i / 100 for i in range(90)])
    measured = {"resnet34": {"maxpool": tuned(trained, silent=1)}}
    chance = {"resnet34": {"maxpool": {kind: [control] for kind in CONTROLS}}}
    table = tuning_tables.orientation_table(measured, chance)
    shown = tuning_tables.shown_orientation(table, CONTROLS)
    assert shown.iloc[0]["respond"] == "10 of 11"
    assert shown.iloc[0]["above random weights"].startswith("10 of 10" if trained[0] > 0.9 else "0 of 10")
    assert f"In ResNet34, they do so compared {said}" in tuning_tables.orientation_summary(table, CONTROLS)


def colours(*names: str) -> ColourTuning:
    """Channels of the classes that are named."""
    axes = {axis: torch.zeros(len(names), *GRATINGS.shape, dtype=torch.float64) for axis in ("luminance", "L-M", "S")}
    for channel, name in enumerate(names):
        if name != "silent":
            axes["luminance"][channel, 1] = 1.0
        if name == "single-opponent":
            axes["S"][channel, 1] = 1.0
        if name == "double-opponent":
            axes["L-M"][channel, 1, 1] = 2.0
    blank = torch.zeros(len(names), dtype=torch.float64)
    return ColourTuning({axis: Tuning(GRATINGS, each, blank) for axis, each in axes.items()})


def test_classes_are_counted_with_their_intervals() -> None:
    names = ["achromatic", "single-opponent", "double-opponent", "double-opponent", "silent"]
    assert colours(*names).classes == names
    measured = {"plainnet34": {"maxpool": colours(*names)}}
    control = [colours(*["achromatic"] * 3), colours("double-opponent")]
    table = tuning_tables.colour_table(measured, {"plainnet34": {"maxpool": {"random weights": control}}})
    trained = table.loc[("PlainNet34", "first pooling layer", "trained")]
    low, high = stats.binomtest(2, 5).proportion_ci()
    assert trained["double-opponent"] == f"40% ({low:.0%} to {high:.0%})"
    assert trained["n"] == "5"
    assert table.loc[("PlainNet34", "first pooling layer", "random weights")]["double-opponent"].startswith("25%")


@pytest.mark.parametrize(("count", "where"), [(12, "first pooling layer"), (0, "no layer")])
def test_double_opponency_is_compared_with_random_weights(count: int, where: str) -> None:
    measured = {"resnet34": {"maxpool": colours(*["double-opponent"] * count, *["achromatic"] * (12 - count))}}
    control = {"resnet34": {"maxpool": {"random weights": [colours(*["double-opponent"] * 2, *["achromatic"] * 10)]}}}
    said = tuning_tables.colour_summary(measured, control)
    assert f"ResNet34 has {count} double-opponent channels" in said
    assert f"more frequent than with random weights in {where} (" in said


def test_gabor_fits_as_a_table() -> None:
    good = Gabor(0.0, 0.2, 0.0, (0.0, 0.0), (1.0, 1.0), 0.9, 0.7)
    bad = Gabor(0.0, 0.2, 0.0, (0.0, 0.0), (1.0, 1.0), 0.3, 0.5)
    row = tuning_tables.gabor_table({"resnet34": {"trained": [good, bad, None]}}).loc[("ResNet34", "trained")]
    assert row["filters"] == 3
    assert row["R² of the fit: median"] == "0.60 (no interval, n = 2 channels)"
    assert row["with R² > 0.8"] == "1"
    nothing = tuning_tables.gabor_table({"resnet34": {"trained": [None]}}).loc[("ResNet34", "trained")]
    assert nothing["R² of the fit: median"] == "–"
