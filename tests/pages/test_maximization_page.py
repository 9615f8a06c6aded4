"""The page on activation maximization: pictures, curves, and how like the mean stimuli the pictures are."""

import dataclasses
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from rfviz.images.data import Evaluation
from rfviz.images.whitening import NONE, Whitening
from rfviz.kernels import maximization
from rfviz.kernels.maximization import Maximization
from rfviz.kernels.pictures import own_rank
from rfviz.kernels.responses import LayerResponses, collect
from rfviz.lab import results
from rfviz.nets import models
from rfviz.nets.network import NETWORKS
from rfviz.nets.receptive_field import ReceptiveField
from rfviz.pages import maximization as page
from rfviz.pages.maximization import Pictures, Shown
from rfviz.stats import AGREES, CANNOT_TELL, DISAGREES, NOTHING, Interval


def some_responses(means: torch.Tensor, positive: torch.Tensor) -> LayerResponses:
    channels = len(means)
    zeros = torch.zeros(channels, dtype=torch.float64)
    count, patch = torch.ones(channels, *means.shape[2:]), torch.zeros(means.shape[1:])
    return LayerResponses(
        ReceptiveField(means.shape[-1], 1, 0), 1, 100, torch.zeros(channels, 1), torch.zeros(channels, 1),
        torch.zeros(channels, 1, 2), positive, zeros, zeros, torch.zeros(channels, 23), means, count, means, count,
        patch, patch,
    )  # fmt: skip


def shown(pictures: dict[str, Pictures], **resemblance: dict[str, dict[str, Interval]]) -> Shown:
    networks = [NETWORKS[name] for name in (pictures or resemblance)]
    run: Any = SimpleNamespace(networks=networks, subject=networks[0])
    return Shown(run, pictures, resemblance)


def driven(images: torch.Tensor) -> Maximization:
    return Maximization(images, torch.zeros(2, len(images)), torch.zeros(len(images), dtype=torch.bool))


def test_images_and_curves_are_those_of_the_channel(resnet: models.ResidualNet, tiles: Evaluation) -> None:
    network = NETWORKS["resnet34"]
    found = collect(resnet, tiles, network.figure_layers)
    of_paper = {layer: maximization.maximize(resnet, layer, steps=3) for layer in network.figure_layers}
    clear = {
        layer: maximization.maximize(resnet, layer, setting="clear", units=found[layer], steps=5)
        for layer in network.figure_layers
    }
    page_shown = shown({"resnet34": Pictures(found, of_paper, clear, {}, {}, NONE)})
    channel = next(c for c in range(6) if all(each.competes[c] for each in found.values()))
    figure = page.maximization(page_shown, network, {"resnet34": channel})
    table = page.drive_table(page_shown)
    for length, driven in ((4, of_paper), (6, clear)):
        curves = [line for axes in figure.axes for line in axes.lines if len(line.get_ydata()) == length]
        for curve, (layer, each) in zip(curves, driven.items(), strict=True):
            best = found[layer].top_values[:, 0]
            np.testing.assert_allclose(curve.get_ydata(), (each.activations[:, channel] / best[channel]).numpy())
            assert curve.get_color() == network.colour
            relative = (each.activations[-1] / best)[best > 0]
            said = table.loc[("ResNet34", network.layer_title(layer))].iloc[0 if length == 4 else 1]
            assert said.startswith(f"{relative.median():.2f} (") and said.endswith(
                f"; {sum(value > 1 for value in relative.tolist())} of {len(relative)} above 1"
            )
    shapes = [image.get_array().shape[0] for axes in figure.axes for image in axes.get_images()]
    assert shapes == [11, 27, 59, 11, 27, 59]
    addresses = [link.address for link in figure.links()]
    assert addresses == [f"explorer.html#resnet34/{layer}/{channel}" for layer in network.figure_layers]
    figure = page.maximization(page_shown, None, {"resnet34": 4})
    assert "needs a network without skips" in figure.texts[0].get_text()


@pytest.mark.parametrize(("rise", "spans"), [(0.001, 0.1), (0.5, 0.5)])
def test_a_curve_that_hardly_rises_does_not_fill_its_panel(rise: float, spans: float) -> None:
    found = some_responses(torch.rand(2, 3, 11, 11), torch.ones(2).long())
    found = dataclasses.replace(found, top_values=torch.ones(2, 1))
    curve = torch.linspace(1, 1 + rise, 4)[:, None].expand(4, 2)
    made = dataclasses.replace(driven(torch.rand(2, 3, 11, 11)), activations=curve)
    network = NETWORKS["resnet34"]
    responses, made = (dict.fromkeys(network.figure_layers, each) for each in (found, made))
    planted = shown({"resnet34": Pictures(responses, made, made, {}, {}, NONE)})
    figure = page.maximization(planted, network, {"resnet34": 0})
    (low, high), *_ = (ax.get_ylim() for ax in figure.axes if ax.lines)
    assert low < 1 < 1 + rise < high and spans <= high - low < 1.2 * spans


def test_layers_that_never_fire_have_dashes_for_how_strongly_they_are_driven() -> None:
    found = some_responses(torch.rand(3, 3, 5, 5), torch.zeros(3).long())
    table = page.drive_table(
        shown(
            {"resnet34": Pictures({"maxpool": found}, *[{"maxpool": driven(torch.rand(3, 3, 5, 5))}] * 2, {}, {}, NONE)}
        )
    )
    assert table.iloc[0].tolist() == ["–", "–"]


# -- likeness ----------------------------------------------------------------------------------------------------------

WHITE = Whitening(torch.tensor([0.4, 0.5, 0.6]), torch.tensor([[2.0, 0.3, 0.0], [0.3, 5.0, 0.1], [0.0, 0.1, 9.0]]))


def random_pictures(channels: int, seed: int) -> torch.Tensor:
    return torch.rand(channels, 3, 9, 9, generator=torch.Generator().manual_seed(seed))


def pictures(
    maxima: torch.Tensor, clear: torch.Tensor, random: torch.Tensor, means: torch.Tensor, by_chance: torch.Tensor,
    fires: torch.Tensor | None = None, layers: tuple[str, ...] = ("maxpool",),
) -> Pictures:  # fmt: skip
    """Pictures in RGB, of the same in all layers."""
    fires = torch.ones(len(means)).long() if fires is None else fires
    return Pictures(
        dict.fromkeys(layers, some_responses(means, fires)), dict.fromkeys(layers, driven(WHITE(maxima))),
        dict.fromkeys(layers, driven(WHITE(clear))),
        dict.fromkeys(layers, some_responses(by_chance, torch.ones(len(means)).long())),
        dict.fromkeys(layers, driven(WHITE(random))), WHITE,
    )  # fmt: skip


def test_a_rank_is_the_share_of_other_channels_that_are_less_alike() -> None:
    """In RGB, over channels that fire; contrast and mean colour of a picture do not matter."""
    means, others = random_pictures(7, 0), random_pictures(7, 1)
    fires = torch.tensor([5, 5, 0, 5, 1, 9, 5])
    own = 0.2 * means + 0.1 * torch.rand(7, 3, 1, 1, generator=torch.Generator().manual_seed(2))
    mixed = own + torch.linspace(0, 0.6, 7).view(7, 1, 1, 1) * means.roll(1, 0)  # more and more like another's
    found = pictures(mixed, own, others, means, means, fires)
    ranks = {kind: page.rank(found, kind, "maxpool") for kind in page.KINDS}
    there = fires > 0
    assert all((ranks[kind].isfinite() == there).all() for kind in ("maxima", "clear"))
    assert ranks["random"].isfinite().all()  # the control has its own channels that fire
    assert ranks["clear"][there].tolist() == pytest.approx([1] * 6)
    expected = own_rank(means[there], mixed[there])
    assert 0.5 < expected.mean() < 1
    torch.testing.assert_close(ranks["maxima"][there], expected, rtol=0, atol=1e-6)
    torch.testing.assert_close(ranks["random"], own_rank(means, others), rtol=0, atol=1e-6)


def test_the_papers_pictures_are_compared_as_they_are_and_clear_ones_as_they_are_shown() -> None:
    """Maximization leaves the range of RGB; what is cut off there is part of the one and not of the other."""
    means = random_pictures(8, 0)
    wild = random_pictures(8, 3)
    wild[:, :, 4, 4] = 1.2 + 3 * random_pictures(8, 4)[:, :, 0, 0]  # beyond white, which clips to white
    found = pictures(wild, wild, wild, means, means)
    whole, clipped = (own_rank(means, each) for each in (wild, wild.clamp(0, 1)))
    assert not torch.equal(whole, clipped)
    torch.testing.assert_close(page.rank(found, "maxima", "maxpool"), whole, rtol=0, atol=1e-6)
    torch.testing.assert_close(page.rank(found, "clear", "maxpool"), clipped, rtol=0, atol=1e-6)


@pytest.mark.parametrize("fired", [0, 1])
def test_a_nearly_silent_layer_has_no_rank(fired: int) -> None:
    means = random_pictures(3, 0)
    found = pictures(means, means, means, means, means, torch.tensor([fired, 0, 0]))
    assert page.rank(found, "maxima", "maxpool").isnan().all()


def test_resemblance_is_over_channels_or_seeds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures that are alike in one setting and opposite in the other; random weights have pictures of their own."""
    means, others = random_pictures(12, 0), random_pictures(12, 1)
    asked = []

    def planted(run: Any, name: str, control: str | None = None) -> dict[str, LayerResponses]:
        found = some_responses(others if control else means, torch.ones(12).long())
        return dict.fromkeys(NETWORKS[name].figure_layers, found)

    def maxima(run: Any, name: str, layer: str, control: str | None = None) -> Maximization:
        asked.append(control)
        return driven(others if control else run.driven)

    monkeypatch.setattr(results, "stimuli", planted)
    monkeypatch.setattr(results, "maxima", maxima)
    monkeypatch.setattr(results, "clear_maxima", lambda run, name, layer: driven(1 - means))
    runs: list[Any] = [
        SimpleNamespace(driven=each, whitening=lambda name: NONE) for each in (means, means + 0.6 * others, 1 - means)
    ]
    for name in ("plainnet18", "resnet50"):
        (one, again) = (page.resemblance([run], name) for run in runs[::2])
        assert list(one) == list(page.KINDS)
        for layer in NETWORKS[name].figure_layers:
            assert one["maxima"][layer][:3] == one["random"][layer][:3] == (1, 1, 1)
            assert one["clear"][layer].value == again["maxima"][layer].value < 0.1
            assert one["maxima"][layer][3:] == (12, "channels")
    assert {*asked} == {None, "random weights"}
    several = page.resemblance(runs, "plainnet18")["maxima"]["maxpool"]
    by_seed = [page.resemblance([run], "plainnet18")["maxima"]["maxpool"].value for run in runs]
    assert several.value == pytest.approx(np.mean(by_seed)) and several[3:] == (3, "seeds")
    assert by_seed[2] < by_seed[1] <= by_seed[0] and several.low < 0.5 < several.high


def at(value: float, reach: float = 0.05) -> Interval:
    return Interval(value, value - reach, value + reach, 20)


@pytest.mark.parametrize(
    ("paper", "clear", "expected"),
    [
        (at(0.9), at(0.8), AGREES),
        (at(0.9), at(0.6), DISAGREES),
        (at(0.6), at(0.9), DISAGREES),
        (at(0.6), at(0.72), DISAGREES),
        (at(0.9), at(0.72), CANNOT_TELL),
        (at(0.72), at(0.9), CANNOT_TELL),
        (at(0.9), NOTHING, CANNOT_TELL),
    ],
)
def test_alike_is_what_is_so_in_both_settings(paper: Interval, clear: Interval, expected: str) -> None:
    assert page.verdict({"maxima": {"maxpool": paper}, "clear": {"maxpool": clear}}, "maxpool") == expected


def of_layers(network: str, *intervals: Interval) -> dict[str, dict[str, Interval]]:
    """The same in both settings, and random weights at chance."""
    layers = dict(zip(NETWORKS[network].figure_layers, intervals, strict=True))
    return {"maxima": layers, "clear": layers, "random": dict.fromkeys(layers, at(0.5))}


def test_the_answer_follows_the_intervals() -> None:
    found = {
        "resnet34": of_layers("resnet34", at(0.9), at(0.8), at(0.5)),
        "plainnet34": of_layers("plainnet34", at(0.7), at(0.7), NOTHING),
        "resnet50": of_layers("resnet50", at(0.6), at(0.9), at(0.7)),
    }
    text = page.maximization_answer(shown({}, **found)).data
    pooling = "the first pooling layer"
    assert f"In ResNet34 they are alike in {pooling} and conv. layer 3; not alike in conv. layer 7 (with" in text
    assert f"In PlainNet34 they are undecided in {pooling}, conv. layer 3 and conv. layer 7 (with" in text
    assert (
        f"In ResNet50 they are alike in conv. layer 4; not alike in {pooling}; undecided in conv. layer 10 (with"
        in text
    )
    assert text.count("(with random weights, in the paper's setting: 0.50, 0.50 and 0.50)") == 3
    assert "the interval lies above 0.7" in text


def test_every_cell_of_likeness() -> None:
    found = {name: of_layers(name, at(0.9), at(0.8, 0.1), NOTHING) for name in ("resnet34", "plainnet18")}
    found["resnet34"]["clear"] = {**found["resnet34"]["clear"], "maxpool": at(0.4)}
    found["plainnet18"]["maxima"] = {**found["plainnet18"]["maxima"], "maxpool": at(0.9)._replace(n=3, of="seeds")}
    table = page.similarity_table(shown({}, **found))
    assert list(table.columns) == [*page.KINDS.values()]
    assert table.index.tolist() == [
        (NETWORKS[name].title, NETWORKS[name].layer_title(layer))
        for name in found for layer in NETWORKS[name].figure_layers
    ]  # fmt: skip
    high, chance = "0.80 (0.70 to 0.90, n = 20 channels)", "0.50 (0.45 to 0.55, n = 20 channels)"
    assert table.iloc[0].tolist() == [
        "0.90 (0.85 to 0.95, n = 20 channels)",
        "0.40 (0.35 to 0.45, n = 20 channels)",
        chance,
    ]
    assert table.iloc[1].tolist() == [high, high, chance]
    assert table.iloc[2].tolist() == ["–", "–", chance]
    assert table.iloc[3, 0] == "0.90 (0.85 to 0.95, n = 3 seeds)"
