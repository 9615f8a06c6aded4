"""Words and numbers about higher layers follow what was measured, whichever way it comes out."""

import math

import numpy as np
import pytest
import torch

from rfviz.kernels.effective_field import EffectiveFields
from rfviz.kernels.identification import KINDS
from rfviz.nets.receptive_field import ReceptiveField
from rfviz.pages import higher_layer_tables

FIELD = ReceptiveField(31, 1, -15)


def squares(side: int, channels: int = 5, top: int = 2) -> EffectiveFields:
    """Fields of equal weights in a square around the centre of images of 31 px, slightly different per channel."""
    count = channels * top
    maps = torch.zeros(count, 31, 31)
    for i in range(count):
        half = side // 2
        maps[i, 15 - half : 16 + half, 15 - half : 16 + half + i // top] = 1
    return EffectiveFields(
        FIELD, torch.arange(channels).repeat_interleave(top), torch.arange(count), torch.full((count, 2), 15),
        torch.full((count, 2), 31), maps / maps.sum((1, 2), keepdim=True),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("side", "control", "said"),
    [(3, 9, "less than with"), (9, 3, "more than with"), (5, 5, "not told apart from that")],
)
def test_effective_fields_are_compared_with_random_weights(side: int, control: int, said: str) -> None:
    fields, chance = squares(side), squares(control)
    if side == control:  # half of the channels one way, half the other
        fields.maps[:4], chance.maps[6:] = squares(9).maps[:4], squares(9).maps[6:]
    measured, other = ({"resnet34": {"layer2.3": each, "layer3.5": each}} for each in (fields, chance))
    table = higher_layer_tables.effective_table(measured, other)
    row = table.loc["ResNet34", "conv. layer 15"]
    assert (row["field"], row["stimuli"], row["channels"]) == (31, 10, 5)
    assert row["diameter"] == pytest.approx(np.median(fields.diameter))
    assert row["random"] == pytest.approx(np.median(chance.diameter))
    assert row["share"] == pytest.approx(np.median(fields.share))
    assert row["ratio: low"] <= row["ratio"] <= row["ratio: high"]
    text = higher_layer_tables.effective_summary(table)
    assert text.startswith("**Answer.** In ResNet34, the median effective diameter is ")
    assert f"this is {said}" in text and "conv. layer 15 and conv. layer 27." in text
    shown = higher_layer_tables.shown_effective(table)
    assert shown.loc["ResNet34", "conv. layer 15"]["n"] == "10 stimuli, 5 channels"
    assert f"{row['diameter']:.0f} (" in shown.iloc[0]["effective diameter (px)"]


def test_a_layer_without_stimuli_is_a_dash() -> None:
    none = {"plainnet34": {"layer4.2": squares(3, 0)}}
    table = higher_layer_tables.effective_table(none, none)
    assert higher_layer_tables.shown_effective(table).iloc[0]["effective diameter (px)"] == "–"
    assert "In PlainNet34, no channel depends on the image" in higher_layer_tables.effective_summary(table)


def test_whole_channels_are_drawn() -> None:
    values, channels = torch.tensor([1.0, 1, 1, 2, 2, 2, 3, 3, 3, math.nan]), torch.tensor([0] * 3 + [1] * 3 + [2] * 4)
    middle, low, high = higher_layer_tables.clustered_median(values, channels)
    assert (middle, low, high) == (2, 1, 3)
    one_by_one = higher_layer_tables.clustered_median(values, torch.arange(10))
    assert one_by_one[2] - one_by_one[1] <= high - low
    assert higher_layer_tables.clustered_median(values, channels) == (middle, low, high)  # seeded
    middle, low, high = higher_layer_tables.clustered_median(values[:6], channels[:6])
    assert middle == 1.5 and math.isnan(low) and math.isnan(high)  # two channels are too few
    assert all(map(math.isnan, higher_layer_tables.clustered_median(values[9:], channels[9:])))


def test_the_mean_and_its_interval_are_those_of_the_sample() -> None:
    values = torch.rand(400, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    middle, low, high = higher_layer_tables.mean_and_interval(torch.cat([values, torch.tensor([math.nan])]))
    error = values.std().item() / 20
    assert middle == pytest.approx(values.mean().item())
    assert low == pytest.approx(middle - 1.96 * error, abs=0.15 * error)
    assert high == pytest.approx(middle + 1.96 * error, abs=0.15 * error)
    assert all(map(math.isnan, higher_layer_tables.mean_and_interval(torch.tensor([math.nan]))))


def scores(*means: float) -> dict[str, torch.Tensor]:
    around = torch.linspace(-0.05, 0.05, 12, dtype=torch.float64)
    return {kind: mean + around for kind, mean in zip(KINDS, means, strict=True)}


@pytest.mark.parametrize(
    ("means", "words", "verdict"),
    [
        (
            (0.5, 0.7, 0.95),
            ("0.50, not told apart from chance", "0.70, better than chance", "maximization 0.95, better than chance"),
            "maximization is better than the mean over all firing neurons and the mean over the strongest.",
        ),
        (
            (0.9, 0.6, 0.3),
            ("0.90, better than chance", "0.60, better than chance", "maximization 0.30, worse than chance"),
            "maximization is worse than the mean over all firing neurons and the mean over the strongest.",
        ),
        (
            (0.8, 0.6, 0.8),
            ("0.80, better than chance", "0.60, better than chance", "maximization 0.80, better than chance"),
            "better than the mean over the strongest and not told apart from the mean over all firing neurons.",
        ),
    ],
)
def test_words_about_pictures_follow_the_numbers(means: tuple, words: tuple, verdict: str) -> None:
    found = {"resnet34": {"maxpool": scores(1, 1, 1), "layer2.3": scores(*means)}}
    table = higher_layer_tables.identification_table(found)
    row = table.loc["ResNet34", "conv. layer 15"]
    assert row["channels"] == 12 and [row[kind] for kind in KINDS] == pytest.approx(means)
    assert row["lead: mean over the strongest"] == pytest.approx(means[2] - means[1])
    text = higher_layer_tables.identification_summary(table)
    assert "In the highest layer tested of ResNet34, conv. layer 15," in text and verdict in text
    assert all(each in text for each in words)
    assert higher_layer_tables.shown_identification(table).loc["ResNet34", "first pooling layer"]["channels"] == 12


def test_silent_channels_leave_dashes() -> None:
    nothing = {kind: torch.full((5,), math.nan) for kind in KINDS}
    table = higher_layer_tables.identification_table({"plainnet34": {"layer2.3": nothing}})
    assert higher_layer_tables.shown_identification(table).iloc[0].tolist() == ["–", "–", "–", 0]
    assert "In PlainNet34, too few channels fire to tell." in higher_layer_tables.identification_summary(table)
