"""Words about silent channels follow the numbers."""

import pytest
import torch

from rfviz.kernels.noise_dose import NoiseDose
from rfviz.kernels.responses import LayerResponses
from rfviz.kernels.silence import Silence
from rfviz.nets.receptive_field import ReceptiveField
from rfviz.pages.silence_tables import (
    dose_summary,
    falling_silent,
    falling_summary,
    kinds_summary,
    kinds_table,
    single_summary,
)


def silence(*rates: float, shift: float = -1.0) -> Silence:
    found = torch.tensor(rates, dtype=torch.float64)
    highest = torch.where(found > 0, 1.0, -0.5).double()
    return Silence(found, highest, torch.full_like(found, shift), torch.tensor([3.0, -0.1] * 9)[: len(found)].double())


def test_kinds_are_counted() -> None:
    found = {
        "resnet34": [silence(0.5, 0.0, 0.001, 0.0)],
        "plainnet34": [silence(0.5, 0.2), silence(0.0, 0.2, shift=0.5)],
    }
    driven = {"resnet34": [torch.tensor([True, True, False, False])], "plainnet34": [torch.tensor([True, False])] * 2}
    table = kinds_table(found, driven)
    assert table.index.tolist() == ["ResNet34", "PlainNet34, network 1", "PlainNet34, network 2"]
    row = table.loc["ResNet34"]
    assert row.tolist() == [4, 1, 1, 2, 0, 0, 1, "0.00%"]  # neither of the two silent ones is reachable
    assert table.loc["PlainNet34, network 2"].tolist() == [2, 1, 0, 0, 1, 1, 1, "0.00%"]
    said = kinds_summary(table)
    assert "Of the 2 silent channels of ResNet34, 2 would fire without the shift" in said
    assert "PlainNet34, network 1 has no silent channel to explain: its least active one fires at 20.00%" in said


def dose(tested: float, matched: float, inactive: bool = True, left: tuple[int, ...] = (4, 5)) -> NoiseDose:
    wobble = torch.linspace(-0.01, 0.01, 20, dtype=torch.float64)
    loss = {"tested": (tested + wobble)[None], "matched": (matched - wobble)[None]}
    single = torch.arange(6.0).double()[:, None] + wobble
    loss = {group: torch.cat([-each, each]) for group, each in loss.items()}  # at another dose, the opposite
    return NoiseDose((0, 1), inactive, left, (0.5, 1.0), loss, single, torch.arange(20))


@pytest.mark.parametrize(
    ("tested", "matched", "words"),
    [(2.0, 1.0, " more than noise"), (1.0, 1.0, "it cannot be told whether noise"), (1.0, 2.0, " less than noise")],
)
def test_doses_are_compared(tested: float, matched: float, words: str) -> None:
    said = dose_summary({"resnet34": dose(tested, matched)})
    assert words in said
    assert "2 inactive channels" in said
    assert "2 least active channels" in dose_summary({"resnet34": dose(tested, matched, inactive=False)})
    assert "too few active channels are left" in dose_summary({"plainnet34": dose(tested, matched, left=(4,))})


def responses(rates: torch.Tensor) -> LayerResponses:
    zeros = torch.zeros(6, 1)
    return LayerResponses(
        ReceptiveField(11, 4, -5), 1, 1000, zeros, zeros.long(), torch.zeros(6, 1, 2).long(), (1000 * rates).long(),
        zeros[:, 0], zeros[:, 0], torch.zeros(6, 23).long(),
    )  # fmt: skip


def test_single_channels_are_ranked() -> None:
    rising = torch.linspace(0, 0.9, 6)
    said = single_summary({"resnet34": dose(1, 1)}, {"resnet34": responses(rising)})
    assert "fire more are the more sensitive" in said
    assert "Inactive less active channels, one by one, in nats: -3.000" in said  # 0 and 1 against 2 to 5
    falling = single_summary({"resnet34": dose(1, 1, inactive=False)}, {"resnet34": responses(rising.flip(0))})
    assert "fire less are the more sensitive" in falling
    assert "Inactive" not in falling


HISTORY = [
    {"epoch": 1, "firing_rate": [0.5, 0.0, 0.2, 0.0]},
    {"epoch": 2, "firing_rate": [0.5, 0.1, 0.0, 0.0]},
    {"epoch": 3, "firing_rate": [0.5, 0.2, 0.0, 0.0]},
]


def test_when_channels_fell_silent() -> None:
    assert falling_silent(HISTORY) == {2: 2, 3: 1}
    assert falling_silent([{"epoch": 1}]) == {}
    assert falling_silent([{"epoch": 1}, *HISTORY[1:]]) == {2: 2, 3: 2}
    falling_summary({"resnet34": [{"epoch": 1}, *HISTORY[1:]]})
    said = falling_summary({"resnet34": HISTORY, "plainnet34": []})
    assert (
        "2 channels fell silent for good, in epochs 1 to 2 of 3. Silent at the end of some epoch, but firing again: 1"
        in said
    )
    assert "Of the training of PlainNet34, it is not known" in said
    awake = {"resnet34": [{"epoch": 1, "firing_rate": [0.5, 0.4]}]}
    assert "no channel is silent at the end of training, and none was" in falling_summary(awake)
