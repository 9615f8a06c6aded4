"""Tables: numbers from the experiment, dashes where there is none, words that follow the numbers."""

import math

import pandas as pd
import pytest
import torch

from rfviz.images.whitening import NONE, Whitening
from rfviz.kernels.maximization import Maximization
from rfviz.kernels.responses import LayerResponses
from rfviz.lab.presets import PRESETS
from rfviz.nets.receptive_field import ReceptiveField
from rfviz.pages import tables


def some_responses(means: torch.Tensor, positive: torch.Tensor) -> LayerResponses:
    channels = len(means)
    zeros = torch.zeros(channels, dtype=torch.float64)
    return LayerResponses(
        ReceptiveField(means.shape[-1], 1, 0), 1, 100, torch.zeros(channels, 1), torch.zeros(channels, 1),
        torch.zeros(channels, 1, 2), positive, zeros, zeros, torch.zeros(channels, 23), means, None, means, None,
    )  # fmt: skip


def test_similarity_is_the_correlation_less_the_mean_colour() -> None:
    generator = torch.Generator().manual_seed(0)
    means = torch.rand(4, 3, 5, 5, generator=generator)
    images = torch.rand(4, 3, 5, 5, generator=generator)
    images[1] = 2 * means[1] + torch.rand(3, 1, 1, generator=generator)  # alike but for contrast and mean colour
    positive = torch.tensor([5, 5, 0, 5])
    white = Whitening(torch.tensor([0.4, 0.5, 0.6]), torch.tensor([[2.0, 0.3, 0.0], [0.3, 5.0, 0.1], [0.0, 0.1, 9.0]]))
    table = tables.similarity_table(
        {"resnet34": {"maxpool": some_responses(means, positive)}},
        {"resnet34": {"maxpool": Maximization(white(images), torch.zeros(2, 4))}},
        {"resnet34": white},
    )

    def correlation(a: torch.Tensor, b: torch.Tensor) -> float:
        a, b = (x - x.mean(dim=(1, 2), keepdim=True) for x in (a, b))
        return ((a * b).sum() / (a.norm() * b.norm())).item()

    fired = [0, 1, 3]
    same = sum(correlation(means[c], images[c]) for c in fired) / 3
    other = sum(correlation(means[c], images[d]) for c in fired for d in fired if c != d) / 6
    row = table.loc[("ResNet34", "first pooling layer")]
    assert row["same channel"] == pytest.approx(same, abs=6e-4)
    assert row["different channels"] == pytest.approx(other, abs=6e-4)
    assert row["channels"] == 3
    assert correlation(means[1], images[1]) == pytest.approx(1.0, abs=1e-5)


@pytest.mark.parametrize("fired", [0, 1])
def test_similarity_of_a_nearly_silent_layer_is_not_a_number(fired: int) -> None:
    images = torch.rand(3, 3, 5, 5)
    table = tables.similarity_table(
        {"plainnet34": {"maxpool": some_responses(images, torch.tensor([fired, 0, 0]))}},
        {"plainnet34": {"maxpool": Maximization(images, torch.zeros(2, 3))}},
        {"plainnet34": NONE},
    )
    row = table.iloc[0]
    assert row["channels"] == fired
    assert math.isnan(row["different channels"])
    assert math.isnan(row["same channel"]) == (fired == 0)


def test_mean_stimulus_table_gives_contrast_in_rgb() -> None:
    means = torch.full((2, 3, 3, 3), 0.5)
    means[1, 0, 0, 0] = 0.8
    table = tables.mean_stimulus_table(
        {"resnet34": {"maxpool": some_responses(means, torch.tensor([1, 50]))}}, {"resnet34": 1}
    )
    row = table.iloc[0]
    assert row["contrast of the mean"] == f"{0.3 - 0.3 / 9:.3f}"
    assert row["neurons that fire"] == "50.0%"


def test_recipes_stand_beside_the_papers() -> None:
    table = tables.recipes_table(PRESETS["imagenet"])
    assert (table["the paper"] == table["ResNet34"]).all()
    assert table.loc["learning rate", "the paper"] == "0.01"
    assert table.loc["area", "the paper"] == "0.08 to 1"


# -- several seeds ----------------------------------------------------------------------------------------------------


def test_tables_of_several_seeds_give_mean_and_standard_deviation() -> None:
    index = pd.MultiIndex.from_tuples([("ResNet34", "b"), ("PlainNet34", "a")], names=["network", "layer"])
    frames = [
        pd.DataFrame({"x": [1.0, math.nan], "n": [4, 2]}, index),
        pd.DataFrame({"x": [2.0, 0.5], "n": [4, 4]}, index),
    ]
    mean, shown = tables.over_seeds(frames)
    assert list(mean.index) == list(index)  # in their order
    assert mean["x"].tolist() == [1.5, 0.5]
    assert shown["x"].tolist() == ["1.5 ± 0.71", "0.5"]
    assert shown["n"].tolist() == ["4 ± 0", "3 ± 1.4"]
    mean, shown = tables.over_seeds(frames[:1])
    assert shown is frames[0]
    assert mean["n"].tolist() == [4, 2]


def ended(*top1: float) -> list[list[dict]]:
    return [[{"loss": 1.0, "train_top1": t / 2, "evaluation_loss": 2 * t, "evaluation_top1": t}] for t in top1]


def test_training_summary_follows_the_numbers() -> None:
    one = tables.training_summary({"resnet34": ended(0.5)}, chance=0.1)
    assert "ResNet34 ends with 50.0% top-1 accuracy on held-out images (25.0% on augmented training images)" in one
    assert "cross-entropy of 1.00 nats." in one
    assert one.endswith("Chance is 10.0%.")
    several = tables.training_summary({"plainnet34": ended(0.4, 0.6)}, chance=0.1)
    assert "PlainNet34 ends with 50.0 ± 14.1 % top-1" in several
    assert "(2 networks, mean ± standard deviation)" in several
    assert "no history" in tables.training_summary({}, chance=0.1)


def test_accuracy_summary_follows_the_numbers() -> None:
    def said(resnet: list[float], plain: list[float]) -> str:
        return tables.accuracy_summary({"resnet34": resnet, "plainnet34": plain})

    assert "classifies 20.0 points better than without" in said([0.6], [0.4])
    assert "classifies 20.0 points worse than without" in said([0.4], [0.6])
    assert "equally well" in said([0.5], [0.5])
    text = said([0.6, 0.5, 0.3], [0.4, 0.4, 0.4])
    assert "classify 6.7 ± 15.3 points better than without" in text
    assert "over 3 seeds; better for 2 of them" in text
