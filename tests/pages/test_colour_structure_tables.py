"""Tables and words about centre-surround pictures and hues follow the numbers, whichever way they come out."""

import dataclasses
import math

import pytest
import torch
from scipy import stats

from rfviz.images.data import Evaluation
from rfviz.images.whitening import IMAGENET
from rfviz.kernels import maximization, responses
from rfviz.kernels.tuning import ColourTuning, Tuning
from rfviz.kernels.tuning.centre_surround import Opponency, measure
from rfviz.kernels.tuning.gratings import Gratings
from rfviz.kernels.tuning.hue import HueTuning
from rfviz.nets import models
from rfviz.pages import colour_structure_tables as tables

GRATINGS = Gratings(11, (0.0, 90.0), (0.0, 0.2), tuple(math.pi * i / 2 for i in range(4)))
ANGLES = tuple(15.0 * i for i in range(12))


def opponency(opponent: int, other: int, missing: int = 0, luminance: int = 0) -> Opponency:
    """Pictures of which so many are opponent in colour, or none, or not there."""
    count = opponent + other + missing
    centre = torch.zeros(count, 3, dtype=torch.float64)
    centre[:, 1] = 1.0
    centre[:luminance, 0] = 1.0
    surround = 0.5 * centre
    surround[:opponent, 1] *= -1
    surround[:luminance, 0] *= -1
    p = torch.where(torch.arange(count) < opponent, 0.01, 1.0).double()
    luminance_p = torch.where(torch.arange(count) < luminance, 0.01, 1.0).double()
    for each in (centre, surround, p, luminance_p):
        each[opponent + other :] = torch.nan
    return Opponency(centre, surround, p, luminance_p, torch.arange(6).double(), torch.zeros(count, 3, 6))


def structure(first: Opponency, second: Opponency) -> tables.Structure:
    return {"resnet34": {"maxpool": dict(zip(tables.PICTURES, (first, second), strict=True))}}


def test_both_pictures_of_channels_that_fire_are_measured(resnet: models.Net34, tiles: Evaluation) -> None:
    found = responses.collect(resnet, tiles, ["maxpool", "layer1.0"], 1, strongest=8, preprocess=IMAGENET)
    silent = found["maxpool"].positive_count.clone()
    silent[2] = 0
    found["maxpool"] = dataclasses.replace(found["maxpool"], positive_count=silent)
    maxima = {layer: maximization.maximize(resnet, layer, steps=3) for layer in found}
    measured = tables.opponencies(found, maxima, IMAGENET)
    assert list(measured) == ["maxpool", "layer1.0"]
    background = torch.tensor([0.485, 0.456, 0.406], dtype=torch.float64)
    for layer, fires in (("maxpool", [0, 1, 3, 4, 5]), ("layer1.0", list(range(6)))):
        mean, drawn = measured[layer].values()
        assert mean.index.isfinite().nonzero().flatten().tolist() == fires
        assert drawn.index.isfinite().nonzero().flatten().tolist() == fires
        expected = measure(found[layer].strongest_stimulus[fires], background)
        assert torch.equal(mean.p[fires], expected.p)
        expected = measure(IMAGENET.to_rgb(maxima[layer].images)[fires], background)
        torch.testing.assert_close(drawn.centre[fires], expected.centre, rtol=1e-5, atol=1e-6)


def test_pictures_are_counted_with_exact_intervals() -> None:
    table = tables.opponency_table(structure(opponency(3, 7, missing=2, luminance=1), opponency(0, 10)))
    row = table.loc[("ResNet34", "first pooling layer", "mean of the strongest")]
    low, high = stats.binomtest(3, 10).proportion_ci()
    assert row["in colour (95 % interval)"] == f"3: 30% ({low:.0%} to {high:.0%})"
    assert row["in luminance (95 % interval)"].startswith("1: 10% (")
    assert (row["n"], row["index ≥ 0.1"], row["chromatic"], row["by chance"]) == (10, 3, 10, "≤ 5%")
    assert table.iloc[1]["in colour (95 % interval)"].startswith("0: 0% (0% to ")


def test_faint_or_achromatic_opposition_does_not_count() -> None:
    some = opponency(4, 0)
    faint = dataclasses.replace(some, surround=0.1 * some.surround)
    grey = dataclasses.replace(some, centre=some.centre + torch.tensor([10.0, 0, 0], dtype=torch.float64))
    chance = dataclasses.replace(some, p=torch.full((4,), 0.06, dtype=torch.float64))
    assert [int(each.colour_opponent.sum()) for each in (some, faint, grey, chance)] == [4, 0, 0, 0]


@pytest.mark.parametrize(
    ("first", "second", "said"),
    [
        ((6, 4), (0, 10), "In first pooling layer (mean of the strongest), that is more than"),
        ((0, 10), (7, 3), "In first pooling layer (maximization), that is more than"),
        ((1, 9), (0, 10), "In no layer, that is more than"),
        ((0, 0, 4), (0, 0, 4), "In no layer, that is more than"),
    ],
)
def test_words_about_pictures_follow_the_numbers(first: tuple, second: tuple, said: str) -> None:
    found = structure(opponency(*first), opponency(*second))
    words = tables.opponency_summary(found)
    assert words.startswith(
        f"**Answer.** In ResNet34, {first[0]} of {sum(first[:2])} means over the strongest stimuli and {second[0]} of "
        f"{sum(second[:2])} maximization images are centre-surround opponent in colour"
    )
    assert said in words
    if len(first) == 3:
        assert tables.opponency_table(found).iloc[0]["in colour (95 % interval)"] == "–"


def hues(axes: list[float], narrow: bool = True, silent: int = 0) -> HueTuning:
    """Channels that prefer an axis, and its positive end; tuned narrowly, or hardly."""
    along = torch.tensor(ANGLES, dtype=torch.float64)
    values = torch.zeros(len(axes) + silent, 12, *GRATINGS.shape, dtype=torch.float64)
    for channel, axis in enumerate(axes):
        away = torch.deg2rad(along - axis)
        size = away.cos().abs() ** 4 if narrow else 1 + 0.1 * (2 * away).cos() + 0.01 * channel
        values[channel, :, :, 0, 1] = (size * (away.cos() > 0))[:, None]
        values[channel, :, :, 0, 3] = (size * (away.cos() <= 0))[:, None]
    return HueTuning(GRATINGS, ANGLES, values, torch.zeros(len(values), dtype=torch.float64))


def colours(chromatic: list[bool]) -> ColourTuning:
    axes = {
        axis: torch.zeros(len(chromatic), *GRATINGS.shape, dtype=torch.float64) for axis in ("luminance", "L-M", "S")
    }
    axes["luminance"][:, 0, 0, 1] = 1.0
    axes["L-M"][torch.tensor(chromatic, dtype=torch.bool), 0, 0, 1] = 1.0
    blank = torch.zeros(len(chromatic), dtype=torch.float64)
    return ColourTuning({axis: Tuning(GRATINGS, each, blank) for axis, each in axes.items()})


def of_one(each: object) -> dict:
    return {"plainnet34": {"layer1.0": each}}


@pytest.mark.parametrize(
    ("axis", "near"),
    [(0, "near L-M"), (29, "near L-M"), (151, "near L-M"), (179, "near L-M"), (45, "in between"), (31, "in between"),
     (149, "in between"), (61, "near S"), (90, "near S"), (119, "near S")],
)  # fmt: skip
def test_what_an_axis_is_near(axis: float, near: str) -> None:
    counts = tables._near(torch.tensor([axis], dtype=torch.float64))
    assert counts == {"near L-M": 0, "near S": 0, "in between": 0} | {near: 1}


def test_only_chromatic_channels_that_respond_count() -> None:
    found, classes = hues([0, 15, 90, 135, 45], silent=1), colours([True, True, True, False, True, True])
    random, random_classes = [hues([0, 90], narrow=False)] * 2, [colours([True, False])] * 2
    table = tables.hue_table(of_one(found), of_one(random), of_one(classes), of_one({"random weights": random_classes}))
    row = table.loc[("PlainNet34", "conv. layer 3", "trained")]
    assert row["chromatic"] == "4 of 6"
    assert [row[name] for name in ("near L-M", "near S", "in between")] == ["2", "1", "1"]
    assert row["uniform fields: reddish / bluish / greenish / yellowish"] in ("2 / 2 / 0 / 0", "3 / 1 / 0 / 0")
    middle = found.axis_selectivity[[0, 1, 2, 4]].median().item()
    assert row["axis selectivity: median (95 % interval)"].startswith(f"{middle:.2f}")
    other = table.loc[("PlainNet34", "conv. layer 3", "random weights")]
    assert other["chromatic"] == "2 of 4" and other["near L-M"] == "2"


@pytest.mark.parametrize(("narrow", "where"), [(True, "conv. layer 3"), (False, "no layer")])
def test_words_about_hues_follow_the_numbers(narrow: bool, where: str) -> None:
    found, classes = hues([0, 10, 20, 80, 90, 45], narrow), colours([True] * 6)
    random = of_one([hues([5 * i for i in range(12)], narrow=not narrow)])
    random_classes = of_one({"random weights": [colours([True] * 12)]})
    said = tables.hue_summary(of_one(found), random, of_one(classes), random_classes)
    assert said.startswith(
        "**Answer.** Of 6 chromatic channels of PlainNet34 in 1 layer, 3 prefer an axis near L-M, 2 one near S, and "
        "1 one in between; they are "
    )
    assert f"more selective than channels with random weights in {where} (Mann-Whitney" in said


def test_without_chromatic_channels_there_are_no_numbers() -> None:
    found, classes = hues([0, 90], silent=1), colours([False, False, True])
    none = of_one([found]), of_one({"random weights": [classes]})
    table = tables.hue_table(of_one(found), none[0], of_one(classes), none[1])
    assert table.iloc[0]["chromatic"] == "0 of 3"
    assert table.iloc[0]["axis selectivity: median (95 % interval)"] == "–"
    said = tables.hue_summary(of_one(found), none[0], of_one(classes), none[1])
    assert said == "**Answer.** PlainNet34 has no chromatic channel in these layers."


def test_random_weights_without_chromatic_channels() -> None:
    said = tables.hue_summary(
        of_one(hues([0, 90, 45])), of_one([hues([0])]), of_one(colours([True] * 3)),
        of_one({"random weights": [colours([False])]}),
    )  # fmt: skip
    assert "random weights in no layer (Mann-Whitney" in said
