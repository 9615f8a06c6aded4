"""Orientation tuning beside chance: figures draw what was measured, and words follow the numbers either way."""

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats

from rfviz.kernels import controls, tuning
from rfviz.kernels.controls import CONTROLS
from rfviz.kernels.tuning import Tuning
from rfviz.kernels.tuning.gabor import Gabor
from rfviz.kernels.tuning.gratings import for_field
from rfviz.lab import results
from rfviz.nets.models import ResidualNet
from rfviz.nets.network import NETWORKS, network
from rfviz.pages import orientation
from rfviz.pages.orientation import Shown
from rfviz.stats import AGREES, CANNOT_TELL, DISAGREES, judge

GRATINGS = for_field(11, orientations=4, frequencies=2, phases=4)
RUN: Any = SimpleNamespace(network=network)


def tuned(selectivities: list[float], silent: int = 0) -> Tuning:
    """Channels that respond with 1 to one orientation and so to the one across that the index is as given."""
    responses = torch.zeros(len(selectivities) + silent, *GRATINGS.shape, dtype=torch.float64)
    for channel, index in enumerate(selectivities):
        across = (1 - index) / (1 + index)
        responses[channel, 1] = 1.0
        responses[channel, (0, 2, 3), :] = across
    return Tuning(GRATINGS, responses, torch.zeros(len(responses), dtype=torch.float64))


def shown(names: list[str], layers: dict[str, Tuning], control: dict[str, Tuning] | Tuning) -> Shown:
    """The same layers and controls for every network."""
    kinds = {
        layer: {kind: [control if isinstance(control, Tuning) else control[layer]] for kind in CONTROLS}
        for layer in layers
    }
    return Shown([network(name) for name in names], dict.fromkeys(names, layers), dict.fromkeys(names, kinds), {})


def test_the_planted_indices_come_out() -> None:
    assert tuned([0.2, 0.9]).selectivity.tolist() == pytest.approx([0.2, 0.9])


def test_orientation_curves_close_the_circle_beside_their_control(resnet: ResidualNet) -> None:
    layers = {layer: tuning.measure(resnet, layer) for layer in ("maxpool", "layer1.0")}
    other = controls.control(resnet, "random weights")
    chance = {layer: tuning.measure(other, layer) for layer in layers}
    figure = orientation.orientation_curves(shown(["resnet34"], layers, chance), {"resnet34": 2})
    for ax, (layer, expected) in zip(figure.axes, layers.items(), strict=True):
        grey, own = ax.lines
        curve = expected.orientation_curve[2]
        assert own.get_xdata().tolist() == [15 * i for i in range(13)]
        np.testing.assert_allclose(own.get_ydata(), [*(curve / curve.max()), curve[0] / curve.max()])
        control = chance[layer].orientation_curve[2]
        np.testing.assert_allclose(grey.get_ydata()[:12], control / control.max())
        assert f"channel 2: OSI {expected.selectivity[2]:.2f}" in ax.get_title()


def test_distributions_count_every_channel_that_responds() -> None:
    found = tuned([0.3, 0.1, 0.2], silent=1)
    page = shown(["resnet34"], {"maxpool": found}, tuned([0.4, 0.5], silent=2))
    (ax,) = orientation.selectivity_distributions(page).axes
    trained, random, _ = ax.lines
    np.testing.assert_allclose(trained.get_xdata(), [0.1, 0.2, 0.3])
    np.testing.assert_allclose(trained.get_ydata(), [100 / 3, 200 / 3, 100])
    np.testing.assert_allclose(random.get_xdata(), [0.4, 0.5])


@pytest.mark.parametrize("names", [["plainnet34"], ["resnet34", "plainnet34"], ["resnet18", "plainnet18", "resnet50"]])
def test_every_network_has_a_row_with_its_own_titles(names: list[str]) -> None:
    layers = {name: dict.fromkeys(NETWORKS[name].figure_layers, tuned([0.5, 0.6])) for name in names}
    kinds = {name: {layer: {"random weights": [tuned([0.1])]} for layer in each} for name, each in layers.items()}
    page = Shown([network(name) for name in names], layers, kinds, {})
    axes = orientation.selectivity_distributions(page).axes
    assert [ax.get_title() for ax in axes] == [
        f"{NETWORKS[name].title}, {NETWORKS[name].layer_title(layer)}" for name in names for layer in layers[name]
    ]
    assert [ax.lines[0].get_color() for ax in axes[::3]] == [NETWORKS[name].colour for name in names]


def test_counts_against_chance_by_hand() -> None:
    control = [tuned([i / 100 for i in range(50)]), tuned([i / 100 for i in range(50, 100)], silent=1)]
    edge, above, excess = orientation.beyond_chance(
        tuned([0.1, 0.96, 0.97, 0.98], silent=2).selectivity, [each.selectivity for each in control]
    )
    assert edge == pytest.approx(np.percentile([i / 100 for i in range(100)], 95))
    assert (above, excess.n) == (3, 4)
    low, high = stats.binomtest(3, 4).proportion_ci()
    assert excess[:3] == pytest.approx((0.7, low - 0.05, high - 0.05))


def test_without_anything_to_compare_there_is_no_number() -> None:
    nothing = tuned([], silent=3)
    for found, control in ((nothing, tuned([0.5])), (tuned([0.5]), nothing)):
        _, above, excess = orientation.beyond_chance(found.selectivity, [control.selectivity])
        assert above == 0 and excess.n == 0 and math.isnan(excess.value)
        page = shown(["resnet34"], {"maxpool": found}, control)
        assert orientation.selectivity_table(page).iloc[0]["above random weights"] == "–"
        assert "first pooling layer –, undecided." in orientation.selectivity_answer(page).data


@pytest.mark.parametrize(
    ("trained", "count", "said"),
    [
        ([0.99] * 10, "10 of 10", "+95% (+64% to +95%, n = 10 channels), more than chance."),
        ([0.01] * 10, "0 of 10", "-5% (-5% to +26%, n = 10 channels), undecided."),
        ([0.01] * 100, "0 of 100", "-5% (-5% to -1%, n = 100 channels), fewer than chance."),
    ],
)
def test_words_follow_the_numbers(trained: list[float], count: str, said: str) -> None:
    page = shown(["resnet34"], {"maxpool": tuned(trained, silent=1)}, tuned([i / 100 for i in range(90)]))
    row = orientation.selectivity_table(page).loc[("ResNet34", "first pooling layer")]
    assert row["respond"] == f"{len(trained)} of {len(trained) + 1}"
    assert row["above random weights"] == f"{count} (> 0.85)"
    lines = orientation.selectivity_answer(page).data.splitlines()
    assert lines[2:] == [f"- ResNet34, {kind}: first pooling layer {said}" for kind in CONTROLS]


def plant(monkeypatch: pytest.MonkeyPatch, found: int, held_out: int, pooled: int = 12) -> None:
    """Plant layers of which so many channels are selective, and two draws of random weights, the first with none."""

    def planted(run: object, name: str, layer: str, control: str | None = None, draw: int = 0) -> Tuning:
        selective = found if control is None else (0, held_out)[draw]
        channels = pooled if layer == "maxpool" else 12
        return tuned(([0.9] * selective + [0.5] * (12 - selective))[:channels], silent=1)

    monkeypatch.setattr(results, "orientation", planted)


@pytest.mark.parametrize(("found", "held_out", "verdict"), [(10, 1, AGREES), (1, 10, DISAGREES), (6, 6, CANNOT_TELL)])
def test_selective_share_is_against_another_draw(
    found: int, held_out: int, verdict: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(monkeypatch, found, held_out)
    share = orientation.selective_share(RUN, "resnet34")
    assert share.value == pytest.approx((found - held_out) / 12) and share.n == 24
    assert judge(share) == verdict


def test_selective_share_of_a_network_whose_layers_differ_in_channels(monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch, 8, 0, pooled=6)
    assert orientation.selective_share(RUN, "resnet50").value == pytest.approx(8 / 12)


def test_a_channel_counts_in_the_layers_that_have_it() -> None:
    values = [torch.tensor([1.0, torch.nan]), torch.tensor([0.0, 0.5, 0.25, torch.nan])]
    found = orientation.mean_over_layers(values)
    assert found[:3].tolist() == [0.5, 0.5, 0.25] and found[3].isnan()


def test_gabor_fits_as_a_table() -> None:
    good = Gabor(0.0, 0.2, 0.0, (0.0, 0.0), (1.0, 1.0), 0.9, 0.7)
    bad = Gabor(0.0, 0.2, 0.0, (0.0, 0.0), (1.0, 1.0), 0.3, 0.5)
    page = Shown([network("resnet34")], {}, {}, {"resnet34": {"trained": [good, bad, None], "random weights": [None]}})
    table = orientation.gabor_table(page)
    row = table.loc[("ResNet34", "trained")]
    assert row["filters"] == 3
    assert row["R² of the fit: median"] == "0.60 (no interval, n = 2 channels)"
    assert row["with R² > 0.8"] == "1"
    assert table.loc[("ResNet34", "random weights")]["R² of the fit: median"] == "–"
