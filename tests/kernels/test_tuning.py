"""Tuning of planted neurons, whose answer is known."""

import math

import pytest
import torch
from torch import nn

from rfviz.errors import RfvizError
from rfviz.images.whitening import IMAGENET
from rfviz.kernels import tuning
from rfviz.kernels.tuning import Tuning, opponent
from rfviz.kernels.tuning.gratings import Gratings, for_field
from rfviz.nets import models

SIZE = 31


def gabor(degrees: float, frequency: float, phase: float = 0.0, size: int = SIZE, sigma: float = 5.0) -> torch.Tensor:
    """Return an achromatic Gabor `(3, size, size)` without a response to uniform light."""
    y, x = torch.meshgrid(*[torch.arange(size, dtype=torch.float64) - (size - 1) / 2] * 2, indexing="ij")
    angle = math.radians(degrees)
    along = x * math.sin(angle) + y * math.cos(angle)
    envelope = torch.exp(-(x**2 + y**2) / (2 * sigma**2))
    wave = envelope * torch.cos(2 * math.pi * frequency * along + phase)
    wave -= envelope * wave.sum() / envelope.sum()
    return (wave / wave.abs().sum()).expand(3, -1, -1)


def planted(filters: list[torch.Tensor]) -> nn.Sequential:
    convolution = nn.Conv2d(3, len(filters), filters[0].shape[-1], bias=False)
    convolution.weight.data.copy_(torch.stack(filters))
    return nn.Sequential(convolution, nn.ReLU())


def angle_between(first: float, second: float) -> float:
    return abs((first - second + 90) % 180 - 90)


@pytest.mark.parametrize("frequency", [0.08, 0.15, 0.25])
@pytest.mark.parametrize("offset", [0.0, 7.5])
def test_gabors_of_twelve_orientations(frequency: float, offset: float) -> None:
    orientations = [(15 * i + offset) % 180 for i in range(12)]
    found = tuning.measure(planted([gabor(degrees, frequency, i) for i, degrees in enumerate(orientations)]), "0")
    for channel, degrees in enumerate(orientations):
        assert angle_between(found.preferred_orientation[channel].item(), degrees) < 5
        assert found.preferred_frequency[channel].item() == pytest.approx(frequency, rel=0.15)
    assert found.selectivity.min() > 0.9
    assert found.circular_variance.max() < 0.5
    assert found.modulation.min() > 1  # simple: the response follows the phase


def test_a_rotated_filter_rotates_the_answer() -> None:
    one = gabor(20, 0.15)
    turned = torch.rot90(one, 1, (1, 2))  # counterclockwise by 90 degrees
    found = tuning.measure(planted([one, turned]), "0")
    first, second = found.preferred_orientation.tolist()
    assert angle_between(first, 20) < 5
    assert angle_between(second, first + 90) < 0.5
    curve = found.orientation_curve
    torch.testing.assert_close(curve[1], curve[0].roll(6), rtol=1e-3, atol=1e-6)


def test_a_round_filter_has_no_orientation() -> None:
    y, x = torch.meshgrid(*[torch.arange(SIZE, dtype=torch.float64) - 15] * 2, indexing="ij")
    distance = x**2 + y**2
    round_one = torch.exp(-distance / 18) / 18 - torch.exp(-distance / 50) / 50
    found = tuning.measure(planted([round_one.expand(3, -1, -1)]), "0")
    assert found.circular_variance.item() > 0.97
    assert found.selectivity.item() < 0.05


def test_a_complex_cell_does_not_follow_the_phase() -> None:
    """The sum of four rectified Gabors, a quarter of a cycle apart."""
    filters = [gabor(60, 0.15, i * math.pi / 2) for i in range(4)]
    net = nn.Sequential(*planted(filters), nn.Conv2d(4, 2, 1, bias=False), nn.ReLU())
    net[2].weight.data = torch.tensor([[1.0, 1, 1, 1], [1, 0, 0, 0]])[:, :, None, None]
    found = tuning.measure(net, "2")
    complex_one, simple = found.modulation.tolist()
    assert complex_one < 0.3 and simple > 1
    assert all(angle_between(each, 60) < 5 for each in found.preferred_orientation.tolist())


def test_every_response_is_that_of_the_network_to_that_image() -> None:
    """One image at a time, through the whole network, where the Cone takes a shortcut."""
    torch.manual_seed(0)
    net = models.resnet34(6, 2).eval()
    gratings = Gratings(27, (0.0, 40.0), (0.05, 0.2), (0.0, 2.0))
    found = tuning.measure(net, "layer1.0", gratings, axis="S", contrast=0.7, preprocess=IMAGENET)
    assert found.responses.shape == (6, 2, 2, 2)
    maps = []
    net.layer1[0].register_forward_hook(lambda *arguments: maps.append(arguments[-1]))
    for o, patterns in enumerate(gratings.patterns()):
        for i, pattern in enumerate(patterns):
            # Neuron (4, 4) of layer1.0 sees rows 3 to 29 of an image.
            whole = torch.full((1, 3, 64, 64), opponent.GREY)
            whole[:, :, 3:30, 3:30] = opponent.coloured(pattern[None], opponent.direction("S"), 0.7)
            with torch.no_grad():
                net(IMAGENET(whole))
            torch.testing.assert_close(
                found.responses[:, o, i // 2, i % 2], maps[-1][0, :, 4, 4].double(), rtol=1e-3, atol=1e-5
            )


def by_hand(responses: torch.Tensor, orientations: list[float], phases: list[float]) -> dict[str, float]:
    """The indices of one channel at one frequency, `(O, P)`, as the papers define them."""
    strength = []
    for row in responses.tolist():
        f0 = sum(row) / len(row)
        real = sum(r * math.cos(p) for r, p in zip(row, phases, strict=True)) * 2 / len(row)
        imaginary = sum(r * math.sin(p) for r, p in zip(row, phases, strict=True)) * 2 / len(row)
        strength.append((max(f0, math.hypot(real, imaginary)), f0, math.hypot(real, imaginary)))
    curve = [each[0] for each in strength]
    real = sum(r * math.cos(2 * math.radians(o)) for r, o in zip(curve, orientations, strict=True))
    imaginary = sum(r * math.sin(2 * math.radians(o)) for r, o in zip(curve, orientations, strict=True))
    best = curve.index(max(curve))
    across = curve[(best + len(curve) // 2) % len(curve)]
    return {
        "circular_variance": 1 - math.hypot(real, imaginary) / sum(curve),
        "preferred_orientation": math.degrees(math.atan2(imaginary, real)) / 2 % 180,
        "selectivity": (curve[best] - across) / (curve[best] + across),
        "modulation": strength[best][2] / strength[best][1],
    }


def test_the_indices_by_hand() -> None:
    gratings = for_field(11, orientations=6, frequencies=1, phases=4)
    responses = torch.rand(5, 6, 1, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    found = Tuning(gratings, responses, torch.zeros(5, dtype=torch.float64))
    for channel in range(5):
        expected = by_hand(responses[channel, :, 0], list(gratings.orientations), list(gratings.phases))
        for name, value in expected.items():
            assert getattr(found, name)[channel].item() == pytest.approx(value, rel=1e-9), name


def test_a_silent_channel_has_no_tuning() -> None:
    found = tuning.measure(planted([gabor(0, 0.1), torch.zeros(3, SIZE, SIZE)]), "0")
    assert found.responds.tolist() == [True, False]
    for name in ("selectivity", "circular_variance", "preferred_orientation", "preferred_frequency", "modulation"):
        assert math.isnan(getattr(found, name)[1].item()), name
        assert not math.isnan(getattr(found, name)[0].item()), name


def test_what_fires_without_a_stimulus_does_not_count() -> None:
    """A constant response is no tuning; less than it neither."""
    net = nn.Sequential(nn.Conv2d(3, 2, SIZE), nn.ReLU())
    net[0].weight.data = torch.stack([torch.zeros(3, SIZE, SIZE), gabor(0, 0.1).float()])
    net[0].bias.data.fill_(0.05)
    assert tuning.measure(net, "0").responds.tolist() == [False, True]


# ---------------------------------------------------------------- colour


def colour_filter(weights: list[float], centre_surround: bool, size: int = 15) -> torch.Tensor:
    """Return a Gaussian, or a Gaussian less a wider one of the same sum, times a colour."""
    y, x = torch.meshgrid(*[torch.arange(size, dtype=torch.float64) - size // 2] * 2, indexing="ij")
    distance = x**2 + y**2
    centre = torch.exp(-distance / 8)
    shape = centre / centre.sum()
    if centre_surround:
        surround = torch.exp(-distance / 32)
        shape = shape - surround / surround.sum()
    return torch.tensor(weights, dtype=torch.float64)[:, None, None] * shape


COLOURS = {"red and green": [1.0, -1.0, 0.0], "blue and yellow": [-0.5, -0.5, 1.0]}


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("colour", COLOURS)
def test_hand_made_colour_neurons(colour: str, sign: int) -> None:
    weights = [sign * w for w in COLOURS[colour]]
    net = planted(
        [
            colour_filter(weights, centre_surround=False),
            colour_filter(weights, centre_surround=True),
            colour_filter([1.0, 1.0, 1.0], centre_surround=True),
            colour_filter([1.0, 1.0, 1.0], centre_surround=False),
            torch.zeros(3, 15, 15),
        ]
    )
    found = tuning.measure_colour(net, "0")
    assert found.classes == ["single-opponent", "double-opponent", "achromatic", "achromatic", "silent"]


def test_an_oriented_double_opponent_neuron() -> None:
    filters = torch.tensor([1.0, -1.0, 0.0])[:, None, None] * gabor(45, 0.1, math.pi / 2)
    assert tuning.measure_colour(planted([filters]), "0").classes == ["double-opponent"]


def test_gratings_of_another_size() -> None:
    with pytest.raises(RfvizError, match="gratings of 11 px do not fit the receptive field of '0', which is 31 px"):
        tuning.measure(planted([gabor(0, 0.1)]), "0", for_field(11))
