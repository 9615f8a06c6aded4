"""Words about the residual stream follow the numbers."""

import dataclasses

import torch
from test_predictions import network

from rfviz.kernels.stream import READERS
from rfviz.lab.evidence import Evidence
from rfviz.nets.models import Net34
from rfviz.pages.stream_tables import ownership_summary, readers_table


def test_readers_by_hand(resnet: Net34, plainnet: Net34) -> None:
    tested = torch.tensor([True, True, True, False, False, False])
    evidence = dataclasses.replace(network(12), tested=tested)
    resnet.layer1[0].conv1.weight.data[:] = 1.0
    resnet.layer1[0].conv1.weight.data[:, :3] = 3.0
    table = readers_table({"resnet34": (resnet, evidence), "plainnet34": (plainnet, evidence)})
    assert list(table.loc["ResNet34"].index) == list(READERS)
    assert list(table.loc["PlainNet34"].index) == list(READERS[:-1])
    row = table.loc[("ResNet34", "layer1.0.conv1")]
    assert row["inactive"] == "1.50"
    assert row["less the others"].startswith("+1.00")


def with_losses(early: float, late: float, inactive: int = 12) -> Evidence:
    noise = torch.linspace(-0.01, 0.01, 50, dtype=torch.float64).repeat(40, 1)
    return dataclasses.replace(network(inactive), ablated={"maxpool": early + noise, "layer1.2": late - noise})


def test_the_words_follow_the_numbers() -> None:
    assert "more behind the stage" in ownership_summary({"resnet34": with_losses(0, 1)})
    assert "less behind the stage" in ownership_summary({"resnet34": with_losses(1, 0)})
    assert "may miss them more or less" in ownership_summary({"resnet34": with_losses(1, 1)})
    said = ownership_summary({"resnet34": with_losses(0, 1, inactive=0)})
    assert "8 least active channels" in said
    assert "12 inactive channels" in ownership_summary({"resnet34": with_losses(0, 1)})


def test_without_skips_nothing_is_written() -> None:
    plain = dataclasses.replace(with_losses(0, 1), written={}, by_chance={})
    assert "written" not in ownership_summary({"plainnet34": plain})
