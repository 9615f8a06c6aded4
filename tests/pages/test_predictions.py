"""The predictions of the hypothesis, on made-up networks that fulfil or break them."""

import dataclasses

import pytest
import torch

from rfviz.kernels.noise_dose import NoiseDose
from rfviz.kernels.stream import STREAM, Written
from rfviz.lab.evidence import Evidence
from rfviz.pages.predictions import NONE_INACTIVE, predictions, predictions_summary, predictions_table, unlike
from rfviz.verdicts import AGREES, CANNOT_TELL, DISAGREES

CHANNELS, IMAGES = 40, 50


def around(value: float, *shape: int, seed: int = 0) -> torch.Tensor:
    return value + 0.05 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def network(inactive: int, sign: float = 1.0, seed: int = 0) -> Evidence:
    """A network that fulfils the predictions, or with sign -1 shows the opposite."""
    rates = torch.linspace(0, 0.9, CHANNELS, dtype=torch.float64)
    tested = torch.arange(CHANNELS) < (inactive or 8)
    amount = (1 - sign * rates).exp() + 0.01 * around(0, CHANNELS, seed=seed)
    flat = around(0.5, CHANNELS)
    written = {layer: Written(flat, amount if layer == "layer1.0" else amount.flip(0), rates) for layer in STREAM[1:]}
    by_chance = {layer: Written(flat, flat, rates) for layer in STREAM[1:]}
    dose = NoiseDose(
        tuple(range(inactive or 8)), inactive > 0, tuple(range(20, 20 + (inactive or 8))), (0.5, 1.0),
        {"tested": around(sign, 2, IMAGES, seed=seed), "matched": around(0.1, 2, IMAGES, seed=seed)},
        around(0, CHANNELS, IMAGES), torch.arange(IMAGES),
    )  # fmt: skip
    ablated = {
        "maxpool": torch.zeros(CHANNELS, IMAGES, dtype=torch.float64),
        "layer1.2": around(-sign, CHANNELS, IMAGES, seed=seed),
    }
    ablated["layer1.2"][tested] += 2 * sign
    dose.loss["tested"][0] *= -1  # at another dose, the opposite
    likeness = around(0.5, CHANNELS, seed=seed) - 0.5 * sign * tested
    return Evidence(rates, tested, likeness, dose, ablated, written, by_chance)


def pair(inactive: int, plain: int, sign: float = 1.0, seed: int = 0) -> dict[str, list[Evidence]]:
    other = network(plain, 0.0, seed + 10)
    return {"resnet34": [network(inactive, sign, seed)], "plainnet34": [other]}


def test_networks_that_fulfil_them_all() -> None:
    found = predictions(pair(12, 1))
    assert [each.verdict for each in found] == [AGREES] * 5
    assert "inactive" in found[2].says
    assert "agrees with 5 and disagrees with 0; it cannot tell about 0" in predictions_summary(found, 1)
    assert "one network of each kind" in predictions_summary(found, 1)


def test_networks_that_break_them_all() -> None:
    networks = pair(4, 25, sign=-1.0)
    assert [each.verdict for each in predictions(networks)] == [DISAGREES] * 5


def test_without_inactive_channels_three_cannot_be_told() -> None:
    found = predictions(pair(0, 0))
    assert [each.verdict for each in found] == [CANNOT_TELL, AGREES, CANNOT_TELL, CANNOT_TELL, CANNOT_TELL]
    assert [each.why for each in found[2:]] == [NONE_INACTIVE] * 3
    assert "least active" in found[2].says
    assert "+1.00" in found[2].measured  # it is measured all the same


def test_over_seeds_the_seeds_are_what_counts() -> None:
    several = {name: [pair(12, 1, seed=seed)[name][0] for seed in range(3)] for name in ("resnet34", "plainnet34")}
    found = predictions(several)
    assert all("n = 3 seeds" in each.measured or "no interval" in each.measured for each in found)
    assert "one network" not in predictions_summary(found, 3)
    # one seed that says the opposite, and the interval holds 0
    several["resnet34"][2] = dataclasses.replace(network(12, -1.0), dose=several["resnet34"][2].dose)
    assert predictions(several)[2].verdict == CANNOT_TELL


def test_unlike_leaves_silent_channels_out() -> None:
    likeness = torch.tensor([0.1, torch.nan, 0.3, 0.9, 0.8, 0.7, 0.6])
    tested = torch.tensor([True, True, True, False, False, False, False])
    assert unlike(likeness, tested).value == pytest.approx(0.2 - 0.75)


def test_the_table_shows_every_word() -> None:
    found = predictions(pair(12, 1))
    html = predictions_table(found).data
    for each in found:
        for text in (each.says, each.measured, each.verdict):
            assert text in html
    assert "..." not in html
