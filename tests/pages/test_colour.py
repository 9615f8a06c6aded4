"""Colour beside chance: figures draw what was measured, and words follow the numbers either way."""

import dataclasses
import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from rfviz.images.data import Evaluation
from rfviz.images.whitening import IMAGENET
from rfviz.kernels import controls, maximization, responses, tuning
from rfviz.kernels.tuning import ColourTuning, Tuning, centre_surround, hue
from rfviz.kernels.tuning.centre_surround import Opponency
from rfviz.kernels.tuning.gratings import Gratings
from rfviz.kernels.tuning.hue import HueTuning
from rfviz.kernels.tuning.opponent import AXES
from rfviz.lab import results
from rfviz.nets.models import ResidualNet
from rfviz.nets.network import NETWORKS, network
from rfviz.pages import colour
from rfviz.pages.colour import PICTURES, Shown

GRATINGS = Gratings(11, (0.0, 90.0), (0.0, 0.2), tuple(math.pi * i / 2 for i in range(4)))
ANGLES = tuple(15.0 * i for i in range(12))
NOTHING = Shown([], {}, {}, {}, {}, {})
RUN: Any = SimpleNamespace(network=network, whitening=lambda name: IMAGENET)


def classes(*names: str) -> ColourTuning:
    """Channels of the classes that are named."""
    axes = {axis: torch.zeros(len(names), *GRATINGS.shape, dtype=torch.float64) for axis in AXES}
    for channel, name in enumerate(names):
        if name != "silent":
            axes["luminance"][channel, 0] = 1.0
        if name == "single-opponent":
            axes["S"][channel, 0] = 1.0
        if name == "double-opponent":
            axes["L-M"][channel, 0, 1] = 2.0
    blank = torch.zeros(len(names), dtype=torch.float64)
    return ColourTuning({axis: Tuning(GRATINGS, each, blank) for axis, each in axes.items()})


def hues(axes: list[float], narrow: bool = True, silent: int = 0) -> HueTuning:
    """Channels that prefer an axis, and its positive end; tuned narrowly, or hardly."""
    along = torch.tensor(ANGLES, dtype=torch.float64)
    values = torch.zeros(len(axes) + silent, 12, *GRATINGS.shape, dtype=torch.float64)
    for channel, axis in enumerate(axes):
        away = torch.deg2rad(along - axis)
        size = away.cos().abs() ** (4 + channel / 10) if narrow else 1 + 0.1 * (2 * away).cos() + 0.01 * channel
        values[channel, :, :, 0, 1] = (size * (away.cos() > 0))[:, None]
        values[channel, :, :, 0, 3] = (size * (away.cos() <= 0))[:, None]
    return HueTuning(GRATINGS, ANGLES, values, torch.zeros(len(values), dtype=torch.float64))


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


def of_hues(found: HueTuning, own: ColourTuning, random: HueTuning, of_random: ColourTuning) -> Shown:
    return NOTHING._replace(
        networks=[network("plainnet34")],
        tuning={"plainnet34": {"layer1.0": own}},
        controls={"plainnet34": {"layer1.0": {"random weights": [of_random] * 2}}},
        hues={"plainnet34": {"layer1.0": found}},
        random_hues={"plainnet34": {"layer1.0": [random] * 2}},
    )


def of_classes(found: ColourTuning, *random: ColourTuning) -> Shown:
    return NOTHING._replace(
        networks=[network("resnet34")],
        tuning={"resnet34": {"maxpool": found}},
        controls={"resnet34": {"maxpool": {"random weights": list(random)}}},
    )


def of_pictures(*kinds: Opponency) -> Shown:
    return NOTHING._replace(
        networks=[network("resnet34")],
        pictures={"resnet34": {"maxpool": dict(zip(PICTURES, kinds, strict=True))}},
    )


# -- figures -----------------------------------------------------------------------------------------------------------


def test_colour_curves_show_three_axes_and_the_class(resnet: ResidualNet) -> None:
    found = tuning.measure_colour(resnet, "maxpool")
    (ax,) = colour.colour_curves(of_classes(found), {"resnet34": 1}).axes
    for line, each in zip(ax.lines, found.along.values(), strict=True):
        np.testing.assert_allclose(line.get_ydata(), each.frequency_curve[1])
    assert found.classes[1] in ax.get_title()
    assert [label.get_text() for label in ax.get_xticklabels()][:2] == ["0", "1"]


def test_hue_curves_close_the_circle_beside_their_control(resnet: ResidualNet) -> None:
    found = hue.measure(resnet, "layer1.0", angles=6)
    chance = hue.measure(controls.control(resnet, "random weights"), "layer1.0", angles=6)
    none = classes()
    figure = colour.hue_curves(of_hues(found, none, chance, none), {"plainnet34": 2})
    (ax,) = figure.axes
    grey, own = ax.lines
    curve, control = found.axis_curve[2], chance.axis_curve[2]
    assert own.get_xdata().tolist() == [0, 30, 60, 90, 120, 150, 180]
    np.testing.assert_allclose(own.get_ydata(), [*(curve / curve.max()), curve[0] / curve.max()])
    np.testing.assert_allclose(grey.get_ydata()[:6], control / control.max())
    assert f"channel 2: axis {found.preferred_axis[2]:.0f}°" in ax.get_title()
    assert [label.get_text() for label in ax.get_xticklabels()] == ["0\nL-M", "45", "90\nS", "135", "180\nL-M"]
    assert len(figure._repr_png_()) > 5000


def test_a_silent_channel_has_a_flat_curve() -> None:
    nothing, none = hues([], silent=1), classes()
    (ax,) = colour.hue_curves(of_hues(nothing, none, nothing, none), {"plainnet34": 0}).axes
    assert ax.get_title().endswith("channel 0: no response")
    assert not np.any(ax.lines[1].get_ydata())


@pytest.mark.parametrize("names", [["resnet34"], ["resnet34", "plainnet34"], ["resnet34", "plainnet34", "resnet18"]])
def test_profiles_of_both_pictures_of_each_layer(names: list[str]) -> None:
    generator = torch.Generator().manual_seed(0)
    fires, background = torch.tensor([True, True, False]), torch.tensor([0.5, 0.4, 0.4])
    pictures = {
        name: {
            layer: {
                kind: centre_surround.measure(torch.rand(3, 3, side, side, generator=generator), background, fires)
                for kind in ("mean", *PICTURES)
            }
            for layer, side in zip(NETWORKS[name].figure_layers[1:], (11, 27), strict=True)
        }
        for name in names
    }
    page = NOTHING._replace(networks=[network(name) for name in names], pictures=pictures)
    figure = colour.radial_profiles(page, dict.fromkeys(names, 2) | {"resnet34": 1})
    panels = np.array(figure.axes).reshape(2 * len(names), 2)
    for row, kind in enumerate(PICTURES):
        for column, layer in enumerate(("layer1.0", "layer1.2")):
            ax, found = panels[row, column], pictures["resnet34"][layer][kind]
            luminance, *colours = (line.get_ydata() for line in ax.lines[:3])
            profile = found.profiles[1].numpy()
            np.testing.assert_allclose(luminance, profile[0] / np.abs(profile[0]).max())
            np.testing.assert_allclose(colours, profile[1:] / np.abs(profile[1:]).max())
            np.testing.assert_allclose(ax.lines[0].get_xdata(), found.distances)
            assert [line.get_color() for line in ax.lines[:3]] == [colour.AXIS_COLOURS[axis] for axis in AXES]
            assert f"index {found.index[1]:.2f}, p = {found.p[1]:.2g}" in ax.get_title()
    for row, name in enumerate(names):
        of_layers = [NETWORKS[name].layer_title(layer) for layer in pictures[name]]
        assert [ax.get_title().split("\n")[0] for ax in panels[2 * row]] == of_layers
        assert panels[2 * row, 0].get_ylabel().startswith(f"{NETWORKS[name].title}, channel ")
        if name != "resnet34":
            assert [ax.get_title() for ax in panels[2 * row + 1]] == ["never fires"] * 2
    assert len(figure._repr_png_()) > 5000


# -- classes -----------------------------------------------------------------------------------------------------------


def test_classes_are_counted_with_their_intervals() -> None:
    names = ["achromatic", "single-opponent", "double-opponent", "double-opponent", "silent"]
    assert classes(*names).classes == names
    table = colour.class_table(of_classes(classes(*names), classes(*["achromatic"] * 3), classes("double-opponent")))
    trained = table.loc[("ResNet34", "first pooling layer", "trained")]
    low, high = stats.binomtest(2, 5).proportion_ci()
    assert trained["double-opponent"] == f"40% ({low:.0%} to {high:.0%})"
    assert trained["n"] == "5"
    assert table.loc[("ResNet34", "first pooling layer", "random weights")]["double-opponent"].startswith("25%")


@pytest.mark.parametrize(("count", "verdict"), [(12, "more"), (2, "undecided"), (0, "fewer")])
def test_double_opponency_is_compared_with_random_weights(count: int, verdict: str) -> None:
    found, chance = (
        classes(*["double-opponent"] * number, *["achromatic"] * (12 - number))
        for number in (count, {12: 2, 2: 2, 0: 8}[count])
    )
    said = colour.class_answer(of_classes(found, chance)).data
    assert f"- ResNet34, {count} double-opponent channels in 1 layers: first pooling layer " in said
    assert said.endswith(f", n = 24 channels), {verdict}.")


def test_double_opponent_shares_count_the_layers_in_which_a_channel_responds(monkeypatch: pytest.MonkeyPatch) -> None:
    def planted(run: object, name: str, layer: str, control: str | None = None, draw: int = 0) -> ColourTuning:
        if control:
            return classes("achromatic", "double-opponent" if draw else "achromatic", "silent")
        return classes("double-opponent", "silent" if layer == "maxpool" else "double-opponent", "silent")

    monkeypatch.setattr(results, "colour", planted)
    found = colour.double_opponent_shares(RUN, "resnet34")
    assert found[:2].tolist() == [1, 1] and found[2].isnan()
    chance = colour.double_opponent_shares(RUN, "resnet34", "random weights")
    assert chance.nan_to_num(-1).tolist() == [0, 0, -1, 0, 1, -1]


# -- hues --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("axis", "near"),
    [(0, "near L-M"), (29, "near L-M"), (151, "near L-M"), (179, "near L-M"), (45, "in between"), (31, "in between"),
     (149, "in between"), (61, "near S"), (90, "near S"), (119, "near S")],
)  # fmt: skip
def test_what_an_axis_is_near(axis: float, near: str) -> None:
    counts = colour._near(torch.tensor([axis], dtype=torch.float64))
    assert counts == {"near L-M": 0, "near S": 0, "in between": 0} | {near: 1}


CHROMATIC = "single-opponent"


def test_only_chromatic_channels_that_respond_count() -> None:
    found = hues([0, 15, 90, 135, 45], silent=1)
    own = classes(*[CHROMATIC] * 3, "achromatic", CHROMATIC, CHROMATIC)
    page = of_hues(found, own, hues([0, 90], narrow=False), classes(CHROMATIC, "achromatic"))
    table = colour.hue_table(page)
    row = table.loc[("PlainNet34", "conv. layer 3", "trained")]
    assert row["chromatic"] == "4 of 6"
    assert [row[name] for name in ("near L-M", "near S", "in between")] == ["2", "1", "1"]
    assert row["uniform fields: reddish / bluish / greenish / yellowish"] in ("2 / 2 / 0 / 0", "3 / 1 / 0 / 0")
    middle = found.axis_selectivity[[0, 1, 2, 4]].median().item()
    assert row["axis selectivity: median (95 % interval)"].startswith(f"{middle:.2f}")
    other = table.loc[("PlainNet34", "conv. layer 3", "random weights")]
    assert other["chromatic"] == "2 of 4" and other["near L-M"] == "2"


@pytest.mark.parametrize(("narrow", "verdict"), [(True, "more selective"), (False, "less selective")])
def test_words_about_hues_follow_the_numbers(narrow: bool, verdict: str) -> None:
    found, random = hues([0, 10, 20, 80, 90, 45], narrow), hues([5 * i for i in range(12)], narrow=not narrow)
    said = colour.hue_answer(of_hues(found, classes(*[CHROMATIC] * 6), random, classes(*[CHROMATIC] * 12))).data
    assert "- PlainNet34, 6 channels in 1 layers: 3 near L-M, 2 near S, 1 in between; conv. layer 3 " in said
    assert said.endswith(f", n = 30 channels), {verdict}.")


def test_without_chromatic_channels_there_are_no_numbers() -> None:
    found, own = hues([0, 90], silent=1), classes("achromatic", "achromatic", CHROMATIC)
    page = of_hues(found, own, found, own)
    row = colour.hue_table(page).iloc[0]
    assert (row["chromatic"], row["axis selectivity: median (95 % interval)"]) == ("0 of 3", "–")
    assert colour.hue_answer(page).data.endswith("- PlainNet34 has no chromatic channel in these layers.")


def test_random_weights_without_chromatic_channels() -> None:
    page = of_hues(hues([0, 90, 45]), classes(*[CHROMATIC] * 3), hues([0]), classes("achromatic"))
    assert colour.hue_answer(page).data.endswith("conv. layer 3 –, undecided.")


# -- pictures ----------------------------------------------------------------------------------------------------------


def test_pictures_of_channels_that_fire_are_measured(
    resnet: ResidualNet, tiles: Evaluation, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = responses.collect(resnet, tiles, ["maxpool"], 1, strongest=8, preprocess=IMAGENET)["maxpool"]
    silent = found.positive_count.clone()
    silent[2] = 0
    found = dataclasses.replace(found, positive_count=silent)
    maxima = maximization.maximize(resnet, "maxpool", steps=3)
    monkeypatch.setattr(results, "stimuli", lambda run, name: {"maxpool": found})
    monkeypatch.setattr(results, "maxima", lambda run, name, layer: maxima)
    measured = colour.opponency(RUN, "resnet34", "maxpool")
    background = torch.tensor([0.485, 0.456, 0.406], dtype=torch.float64)
    fires = [0, 1, 3, 4, 5]
    images: dict[str, Tensor | None] = {
        "mean": found.mean_stimulus, "mean of the strongest": found.strongest_stimulus,
        "maximization": IMAGENET.to_rgb(maxima.images),
    }  # fmt: skip
    assert list(measured) == list(images)
    for kind, each in measured.items():
        assert each.index.isfinite().nonzero().flatten().tolist() == fires
        expected = centre_surround.measure(images[kind][fires], background)
        torch.testing.assert_close(each.centre[fires], expected.centre, rtol=1e-5, atol=1e-6)


def test_pictures_are_counted_with_exact_intervals() -> None:
    table = colour.opponency_table(of_pictures(opponency(3, 7, missing=2, luminance=1), opponency(0, 10)))
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
    assert [colour.opponent_share(each).value for each in (some, faint, grey, chance)] == [1, 0, 0, 0]


@pytest.mark.parametrize(
    ("pictures", "verdict"),
    [
        ((6, 4), "+55% (+21% to +83%, n = 10 channels), more than chance"),
        ((1, 9), "+5% (-5% to +40%, n = 10 channels), undecided"),
        ((0, 100), "-5% (-5% to -1%, n = 100 channels), fewer than chance"),
        ((0, 0, 4), "–, undecided"),
    ],
)
def test_words_about_pictures_follow_the_numbers(pictures: tuple, verdict: str) -> None:
    count, of = pictures[0], sum(pictures[:2])
    page = of_pictures(opponency(*pictures), opponency(2, 2))
    first, second = colour.opponency_answer(page).data.splitlines()[2:]
    assert first == f"- ResNet34, {count} of {of} means over the strongest stimuli: first pooling layer {verdict}."
    assert second.startswith("- ResNet34, 2 of 4 maximization images: ") and second.endswith("more than chance.")
    if not of:
        assert colour.opponency_table(page).iloc[0]["in colour (95 % interval)"] == "–"
