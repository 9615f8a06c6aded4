"""Tables: numbers from the experiment, dashes where there is none, words that follow the numbers."""

import math

import pytest
import torch

from rfviz import tables
from rfviz.inactivity import Effect, NoiseEffect
from rfviz.maximization import Maximization
from rfviz.presets import PRESETS
from rfviz.receptive_field import ReceptiveField
from rfviz.responses import LayerResponses
from rfviz.whitening import NONE, Whitening


def effect(*losses: float) -> Effect:
    values = torch.tensor(losses, dtype=torch.float64)
    return Effect((1,), values, -values / 10)


def experiment(inactive: tuple[int, ...] = (), /, **effects: Effect) -> NoiseEffect:
    return NoiseEffect(inactive, 64, 100, 1.0, 0.5, effects)


CONTROLS = {"least_active": effect(0.1, 0.2), "random_active": effect(0.3, 0.5)}


def test_noise_table_holds_means_errors_and_the_papers_numbers() -> None:
    found = {
        "resnet34": experiment((3, 9), inactive=effect(1.0, 2.0, 3.0), random_inactive=effect(0.1, 0.1), **CONTROLS),
        "plainnet34": experiment(**CONTROLS),
    }
    table = tables.noise_table(found).set_index(["model", "noise"])
    row = table.loc["resnet34", "inactive"]
    assert (row["inactive"], row["channels"], row["noisy"]) == (2, 64, 2)
    assert row["dL"] == pytest.approx(2.0)
    assert row["dL_error"] == pytest.approx(1 / math.sqrt(3))
    assert row["dtop1"] == pytest.approx(-0.2)
    assert row["paper_dL"] == 1.26962
    assert table.loc[("resnet34", "least_active"), "noisy"] == 13
    assert table.loc["plainnet34", "inactive"][["dL", "dtop1"]].isna().all()
    assert table.loc[("plainnet34", "random_inactive"), "paper_dL"] == -8.34465e-7


def test_table_1_has_dashes_where_nothing_is_inactive() -> None:
    shown = tables.table1({"resnet34": experiment(**CONTROLS)}).reset_index()
    assert shown["inactive"].tolist() == ["0 of 64 (paper: 13 of 64)"] * 4
    assert shown["ΔL (nats)"].tolist() == ["–", "–", "+0.15 ± 0.05", "+0.4 ± 0.1"]


def test_summary_follows_the_numbers() -> None:
    none = experiment(**CONTROLS)
    some = experiment((1, 2), inactive=effect(1.0, 1.1), random_inactive=effect(0.1, 0.1), **CONTROLS)
    unsure = experiment((1,), inactive=effect(-1.0, 1.1), random_inactive=effect(0.1, 0.1), **CONTROLS)
    lower = experiment((1,), inactive=effect(-1.0, -1.1), random_inactive=effect(0.1, 0.1), **CONTROLS)
    text = tables.noise_summary({"resnet34": none, "plainnet34": none})
    assert "Neither network has an inactive channel" in text
    text = tables.noise_summary({"resnet34": some, "plainnet34": none})
    assert "As in the paper" in text
    assert "In ResNet34, noise in the 2 inactive channels raises the loss by 1.05 nats." in text
    assert "PlainNet34 has no inactive channel" in text
    text = tables.noise_summary({"resnet34": unsure, "plainnet34": lower})
    assert "Unlike in the paper" in text
    assert "In ResNet34, noise in the one inactive channel does not change the loss measurably." in text
    assert "In PlainNet34, noise in the one inactive channel lowers the loss by 1.05 nats." in text


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


def test_one_noise_seed_gives_no_error_and_no_verdict() -> None:
    found = {
        "resnet34": experiment((1,), inactive=effect(1.0), random_inactive=effect(0.1)),
        "plainnet34": experiment(),
    }
    assert tables.table1(found)["ΔL (nats)"].iloc[0] == "+1"
    assert "cannot be said" in tables.noise_summary(found)


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
