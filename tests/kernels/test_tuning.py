"""Tuning of planted neurons, whose answer is known."""

import cmath
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
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
    assert found.selectivity.min() > 0.6
    assert found.reliability.max() < 1.5
    assert (
        (found.f1 > found.f0).flatten(1)[range(len(found.blank)), found.strength.flatten(1).argmax(1)].all()
    )  # simple


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
    blob = torch.exp(-distance / 50) / 50
    found = tuning.measure(planted([each.expand(3, -1, -1) for each in (round_one, blob)]), "0")
    assert found.selectivity.max() < 0.03
    assert found.selectivities.gather(1, found.best[1][:, None]).max() < 0.03


def test_the_finer_the_tuning_the_higher_the_selectivity() -> None:
    """Of a wave of infinite length, only one orientation is left."""
    widths = [1.5, 2.0, 3.0, 5.0]
    found = tuning.measure(planted([gabor(30, 0.2, sigma=sigma) for sigma in widths]), "0").selectivity
    assert (found.diff() > 0.05).all() and found[-1] > 0.9


def test_halves_of_a_drift_that_prefer_different_orientations_are_not_reliable() -> None:
    gratings = for_field(11, orientations=6, frequencies=2, phases=8)
    responses = torch.zeros(3, 6, 2, 8, dtype=torch.float64)
    responses[0, 1, 1] = 1  # at 30 degrees, whatever the phase
    responses[1, 0, 1, ::2] = 1  # at 0 for one half and at 60 degrees for the other
    responses[1, 2, 1, 1::2] = 1
    responses[2, 0, 1, ::2] = 1  # at 0 and at 150
    responses[2, 5, 1, 1::2] = 1
    responses[..., 0, :] = 0.1 * torch.rand(3, 6, 8)  # another frequency does not count
    found = Tuning(gratings, responses, torch.zeros(3, dtype=torch.float64))
    assert found.reliability.tolist() == pytest.approx([0, 60, 30])
    assert found.selectivity.tolist() == pytest.approx([1, 0.5, math.cos(math.radians(30))])
    for which in (0, 1):
        half = found.half(which)
        assert half.gratings.phases == gratings.phases[which::2]
        assert torch.equal(half.responses, responses[..., which::2])


def test_a_complex_cell_does_not_follow_the_phase() -> None:
    """The sum of four rectified Gabors, a quarter of a cycle apart."""
    filters = [gabor(60, 0.15, i * math.pi / 2) for i in range(4)]
    net = nn.Sequential(*planted(filters), nn.Conv2d(4, 2, 1, bias=False), nn.ReLU())
    net[2].weight.data = torch.tensor([[1.0, 1, 1, 1], [1, 0, 0, 0]])[:, :, None, None]
    found = tuning.measure(net, "2")
    best = found.strength.flatten(1).argmax(1)
    complex_one, simple = (found.f1 / found.f0).flatten(1)[range(2), best].tolist()
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


def by_hand(responses: torch.Tensor, blank: float, gratings: Gratings) -> dict[str, float]:
    """The indices of one channel `(O, F, P)` as the papers define them."""
    phases, orientations = gratings.phases, gratings.orientations
    strength: dict[tuple[int, int], tuple[float, float, float]] = {}
    for o, rows in enumerate(responses.tolist()):
        for f, row in enumerate(rows):
            f0 = sum(row) / len(row) - blank
            real = sum(r * math.cos(p) for r, p in zip(row, phases, strict=True)) * 2 / len(row)
            imaginary = sum(r * math.sin(p) for r, p in zip(row, phases, strict=True)) * 2 / len(row)
            f1 = math.hypot(real, imaginary)
            strength[o, f] = max(f0, f1, 0), f0, f1
    best = max(strength, key=lambda each: strength[each][0])

    def vector(frequency: int) -> complex:
        curve = [strength[o, frequency][0] for o in range(len(orientations))]
        turned = sum(r * cmath.exp(2j * math.radians(o)) for r, o in zip(curve, orientations, strict=True))
        return turned / sum(curve)

    return {
        "selectivity": abs(vector(best[1])),
        "selectivities": [abs(vector(f)) for f in range(len(gratings.frequencies))],
        "preferred_orientation": math.degrees(cmath.phase(vector(best[1]))) / 2 % 180,
    }


def test_the_indices_by_hand() -> None:
    gratings = for_field(11, orientations=6, frequencies=3, phases=4)
    generator = torch.Generator().manual_seed(1)
    responses = torch.rand(5, 6, 3, 4, generator=generator, dtype=torch.float64)
    blank = 0.2 * torch.rand(5, generator=generator, dtype=torch.float64)
    found = Tuning(gratings, responses, blank)
    assert len(set(found.best[1].tolist())) > 1
    for channel in range(5):
        for name, value in by_hand(responses[channel], blank[channel].item(), gratings).items():
            assert getattr(found, name)[channel].tolist() == pytest.approx(value, rel=1e-9), name


@given(scale=st.floats(1e-3, 1e3), turn=st.integers(0, 5), seed=st.integers(0, 9))
def test_selectivity_depends_on_the_shape_of_the_curve_alone(scale: float, turn: int, seed: int) -> None:
    gratings = for_field(11, orientations=6, frequencies=2, phases=4)
    responses = torch.rand(4, 6, 2, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    blank = torch.zeros(4, dtype=torch.float64)
    found, other = (Tuning(gratings, each, blank) for each in (responses, scale * responses.roll(turn, 1)))
    torch.testing.assert_close(other.selectivities, found.selectivities)
    assert (found.selectivities >= 0).all() and (found.selectivities <= 1).all()
    for before, after in zip(found.preferred_orientation, other.preferred_orientation, strict=True):
        assert angle_between(after.item(), before.item() + 30 * turn) < 1e-6
    torch.testing.assert_close(other.reliability, found.reliability, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("before_relu", [False, True])
def test_a_neuron_is_that_of_the_network(
    before_relu: bool, resnet: models.ResidualNet, some_tiles: torch.Tensor
) -> None:
    """Neuron (4, 4) of layer1.0 sees rows 3 to 29 of an image."""
    neuron = tuning.Neuron(resnet, "layer1.0", IMAGENET, before_relu=before_relu)
    found = neuron(some_tiles[:, :, 3:30, 3:30])
    with torch.no_grad():
        block, x = resnet.layer1[0], resnet.maxpool(resnet.relu(resnet.bn1(resnet.conv1(IMAGENET(some_tiles)))))
        total = x + block.bn2(block.conv2(block.bn1(block.conv1(x)).relu()))
    expected = (total if before_relu else total.relu())[:, :, 4, 4].double()
    assert found.shape == (12, 6) and found.dtype == torch.float64
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert (expected < 0).any() == before_relu


def test_a_silent_channel_has_no_tuning() -> None:
    found = tuning.measure(planted([gabor(0, 0.1), torch.zeros(3, SIZE, SIZE)]), "0")
    assert found.responds.tolist() == [True, False]
    for name in ("selectivity", "reliability", "preferred_orientation", "preferred_frequency"):
        assert math.isnan(getattr(found, name)[1].item()), name
        assert not math.isnan(getattr(found, name)[0].item()), name
    assert found.selectivities[1].isnan().all()


def test_what_fires_without_a_stimulus_does_not_count() -> None:
    """A constant response is no tuning; less than it neither."""
    net = nn.Sequential(nn.Conv2d(3, 2, SIZE), nn.ReLU())
    net[0].weight.data = torch.stack([torch.zeros(3, SIZE, SIZE), gabor(0, 0.1).float()])
    net[0].bias.data.fill_(0.05)
    assert tuning.measure(net, "0").responds.tolist() == [False, True]


def test_gratings_of_another_size() -> None:
    with pytest.raises(RfvizError, match="gratings of 11 px do not fit the receptive field of '0', which is 31 px"):
        tuning.measure(planted([gabor(0, 0.1)]), "0", for_field(11))
