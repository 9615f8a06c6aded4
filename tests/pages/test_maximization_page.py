"""The page on activation maximization: pictures, curves, and how like the mean stimuli the pictures are."""

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from rfviz.images.data import Evaluation
from rfviz.images.whitening import NONE, Whitening
from rfviz.kernels import maximization
from rfviz.kernels.maximization import Maximization
from rfviz.kernels.responses import LayerResponses, collect
from rfviz.lab import results
from rfviz.nets import models
from rfviz.nets.network import NETWORKS
from rfviz.nets.receptive_field import ReceptiveField
from rfviz.pages import maximization as page
from rfviz.pages.maximization import Pictures, Shown
from rfviz.stats import NOTHING, Interval


def some_responses(means: torch.Tensor, positive: torch.Tensor) -> LayerResponses:
    channels = len(means)
    zeros = torch.zeros(channels, dtype=torch.float64)
    count, patch = torch.ones(channels, *means.shape[2:]), torch.zeros(means.shape[1:])
    return LayerResponses(
        ReceptiveField(means.shape[-1], 1, 0), 1, 100, torch.zeros(channels, 1), torch.zeros(channels, 1),
        torch.zeros(channels, 1, 2), positive, zeros, zeros, torch.zeros(channels, 23), means, count, means, count,
        patch, patch,
    )  # fmt: skip


def shown(pictures: dict[str, list[Pictures]], **resemblance: Interval) -> Shown:
    networks = [NETWORKS[name] for name in pictures]
    run: Any = SimpleNamespace(networks=networks, subject=networks[0])
    return Shown(run, pictures, resemblance)


def test_images_and_curves_are_those_of_the_channel(resnet: models.ResidualNet, tiles: Evaluation) -> None:
    network = NETWORKS["resnet34"]
    found = collect(resnet, tiles, network.figure_layers)
    of_paper = {layer: maximization.maximize(resnet, layer, steps=3) for layer in network.figure_layers}
    clear = {layer: maximization.clear(resnet, layer, found[layer], NONE, steps=5) for layer in network.figure_layers}
    page_shown = shown({"resnet34": [Pictures(found, of_paper, clear, NONE)]})
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
    figure = page.maximization(page_shown, None, {"resnet34": 4})
    assert "needs a network without skips" in figure.texts[0].get_text()


def test_similarity_is_the_correlation_minus_the_mean_colour() -> None:
    generator = torch.Generator().manual_seed(0)
    means = torch.rand(4, 3, 5, 5, generator=generator)
    images = torch.rand(4, 3, 5, 5, generator=generator)
    images[1] = 2 * means[1] + torch.rand(3, 1, 1, generator=generator)  # alike but for contrast and mean colour
    positive = torch.tensor([5, 5, 0, 5])
    white = Whitening(torch.tensor([0.4, 0.5, 0.6]), torch.tensor([[2.0, 0.3, 0.0], [0.3, 5.0, 0.1], [0.0, 0.1, 9.0]]))
    maxima = Maximization(white(images), torch.zeros(2, 4), torch.zeros(4, dtype=torch.bool))
    pictures = Pictures({"layer1.1": some_responses(means, positive)}, {"layer1.1": maxima}, {}, white)
    table = page.similarity_table(shown({"resnet18": [pictures]}))

    def correlation(a: torch.Tensor, b: torch.Tensor) -> float:
        a, b = (x - x.mean(dim=(1, 2), keepdim=True) for x in (a, b))
        return ((a * b).sum() / (a.norm() * b.norm())).item()

    fired = [0, 1, 3]
    same = sum(correlation(means[c], images[c]) for c in fired) / 3
    other = sum(correlation(means[c], images[d]) for c in fired for d in fired if c != d) / 6
    row = table.loc[("ResNet18", "conv. layer 5")]
    assert row["same channel"] == pytest.approx(same, abs=6e-4)
    assert row["different channels"] == pytest.approx(other, abs=6e-4)
    assert row["channels"] == 3
    assert correlation(means[1], images[1]) == pytest.approx(1.0, abs=1e-5)


def pictures_of(fired: list[int], seed: int = 0) -> Pictures:
    images = torch.rand(3, 3, 5, 5, generator=torch.Generator().manual_seed(seed))
    found = some_responses(images, torch.tensor(fired))
    driven = {"maxpool": Maximization(images, torch.zeros(2, 3), torch.zeros(3, dtype=torch.bool))}
    return Pictures({"maxpool": found}, driven, driven, NONE)


@pytest.mark.parametrize("fired", [0, 1])
def test_similarity_of_a_nearly_silent_layer_is_not_a_number(fired: int) -> None:
    row = page.similarity_table(shown({"plainnet34": [pictures_of([fired, 0, 0])]})).iloc[0]
    assert row["channels"] == fired
    assert math.isnan(row["different channels"])
    assert math.isnan(row["same channel"]) == (fired == 0)


def test_several_seeds_give_mean_and_standard_deviation_in_the_order_of_the_networks() -> None:
    replicas = {
        "resnet34": [pictures_of([1, 1, 1], seed) for seed in (0, 1)],
        "plainnet34": [pictures_of([0, 0, 0]), pictures_of([1, 1, 0])],
    }
    table = page.similarity_table(shown(replicas))
    singly = [page.similarity_table(shown({"resnet34": [each]})).iloc[0] for each in replicas["resnet34"]]
    others = [each["different channels"] for each in singly]
    row = table.loc[("ResNet34", "first pooling layer")]
    assert row.tolist() == [
        "1 ± 0", f"{sum(others) / 2:.3g} ± {abs(others[0] - others[1]) / 2**0.5:.2g}", "3 ± 0"
    ]  # fmt: skip
    assert table.index.get_level_values("network").tolist() == ["ResNet34", "PlainNet34"]
    assert table.loc[("PlainNet34", "first pooling layer")].tolist()[::2] == ["1", "1 ± 1.4"]  # NaN is left out


def test_resemblance_is_own_minus_others_over_channels_or_seeds(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(0)
    layers = NETWORKS["plainnet18"].figure_layers
    means = torch.rand(12, 3, 5, 5, generator=generator)
    unlike = torch.rand(12, 3, 5, 5, generator=generator)
    monkeypatch.setattr(
        results, "stimuli", lambda run, name: {each: some_responses(means, torch.ones(12).long()) for each in layers}
    )
    monkeypatch.setattr(
        results,
        "maxima",
        lambda run, name, layer: Maximization(
            run.driven.clone(), torch.zeros(2, 12), torch.zeros(12, dtype=torch.bool)
        ),
    )
    runs: Any = [SimpleNamespace(driven=means, whitening=lambda name: NONE)]
    own = page.resemblance(runs, "plainnet18")
    assert own.low > 0.9 and (own.n, own.of) == (12, "channels")
    runs = [SimpleNamespace(driven=unlike, whitening=lambda name: NONE)]
    assert page.resemblance(runs, "plainnet18").sign == 0
    runs = [SimpleNamespace(driven=each, whitening=lambda name: NONE) for each in (means, means + unlike, means)]
    several = page.resemblance(runs, "plainnet18")
    assert (several.n, several.of) == (3, "seeds")
    assert page.resemblance(runs, "resnet50") == NOTHING


def test_the_answer_follows_the_interval() -> None:
    found = {
        "resnet34": Interval(0.2, 0.1, 0.3, 20),
        "plainnet34": Interval(0.1, -0.1, 0.3, 20),
        "resnet18": Interval(-0.2, -0.3, -0.1, 20),
        "resnet50": NOTHING,
    }
    text = page.maximization_answer(shown({name: [] for name in found}, **found)).data
    assert "In ResNet34 they resemble them more than those of other channels: +0.20 (+0.10 to +0.30, n = 20" in text
    assert "In PlainNet34 they resemble them not measurably more than those of other channels: +0.10" in text
    assert "In ResNet18 they resemble them less than those of other channels: -0.20" in text
    assert "In ResNet50, whose layers do not have the same channels, only the table" in text
