"""Words about channels that keep their feature, and about sparsity, follow the numbers."""

import dataclasses

import pytest
import torch

from rfviz.images.data import Evaluation
from rfviz.kernels import responses
from rfviz.kernels.similarity import pairing
from rfviz.lab.presets import EXPLORER_LAYERS
from rfviz.nets import models
from rfviz.pages import sharing_tables


def test_neighbouring_layers_are_compared_over_channels_that_fire(resnet: models.Net34, tiles: Evaluation) -> None:
    found = responses.collect(resnet, tiles, EXPLORER_LAYERS, 1, strongest=8)
    silent = found["layer1.0"].positive_count.clone()
    silent[2] = 0
    found["layer1.0"] = dataclasses.replace(found["layer1.0"], positive_count=silent)
    compared = sharing_tables.pairings(resnet.conv1.weight, found)
    assert list(compared) == [
        ("conv1", "maxpool"), ("maxpool", "layer1.0"), ("layer1.0", "layer1.1"), ("layer1.1", "layer1.2"),
    ]  # fmt: skip
    assert [len(each.same) for each in compared.values()] == [6, 5, 5, 6]
    kept = [0, 1, 3, 4, 5]
    expected = pairing(found["maxpool"].strongest_stimulus[kept], found["layer1.0"].strongest_stimulus[kept])
    assert torch.equal(compared["maxpool", "layer1.0"].same, expected.same)
    first = pairing(resnet.conv1.weight.detach(), found["maxpool"].strongest_stimulus)
    assert torch.equal(compared["conv1", "maxpool"].same, first.same)


def planted(keeps: bool) -> dict:
    pictures = torch.rand(12, 3, 7, 7, generator=torch.Generator().manual_seed(0))
    other = pictures if keeps else pictures.roll(1, 0)
    pairs = list(zip(sharing_tables.SHARED, sharing_tables.SHARED[1:], strict=False))
    return {pair: pairing(pictures, other) for pair in pairs}


@pytest.mark.parametrize("resnet_keeps", [True, False])
def test_words_follow_the_numbers(resnet_keeps: bool) -> None:
    compared = {"resnet34": planted(resnet_keeps), "plainnet34": planted(not resnet_keeps)}
    said = sharing_tables.pairing_summary(compared)
    assert (
        f"In ResNet34, channels of the same number are more alike than random pairs in {4 * resnet_keeps} of 4" in said
    )
    assert (
        f"In PlainNet34, channels of the same number are more alike than random pairs in {4 - 4 * resnet_keeps} of 4"
        in said
    )
    assert f"{'more' if resnet_keeps else 'less'} in ResNet34, in this one pair of networks." in said
    table = sharing_tables.pairing_table(compared)
    assert len(table) == 8 and (table["channels"] == 12).all()
    assert table.loc["ResNet34" if resnet_keeps else "PlainNet34"]["same number: mean"].tolist() == ["+1.00"] * 4


def test_silent_layers_are_dashes() -> None:
    nothing = {("maxpool", "layer1.0"): pairing(torch.rand(0, 3, 7, 7), torch.rand(0, 3, 7, 7))}
    row = sharing_tables.pairing_table({"resnet34": nothing}).iloc[0]
    assert row["same number: mean"] == row["p"] == row["random pairings: mean"] == "–"
    assert "in 0 of 1 steps" in sharing_tables.pairing_summary({"resnet34": nothing, "plainnet34": nothing})


def test_the_zigzag_is_counted() -> None:
    up_and_down = {"conv1": 0.5, "layer1.0.relu1": 0.7, "layer1.0": 0.2, "layer1.1.relu1": 0.8, "layer1.1": 0.3}
    smooth = {"conv1": 0.5, "layer1.0.relu1": 0.55, "layer1.0": 0.6, "layer1.1.relu1": 0.65, "layer1.1": 0.7}
    assert sharing_tables.zigzag(up_and_down) == (2, 2)
    assert sharing_tables.zigzag(smooth) == (0, 2)
    said = sharing_tables.sparsity_summary({"resnet34": up_and_down, "plainnet34": smooth})
    assert "In ResNet34, more responses are 0 after the inner ReLU than at the output in 2 of 2 blocks" in said
    assert "changes its direction at 3 of 3 places" in said
    assert "in 0 of 2 blocks, and the profile changes its direction at 0 of 3 places" in said
