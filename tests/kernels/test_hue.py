"""Hue tuning of planted neurons, whose answer is known."""

import math

import pytest
import torch
from torch import nn

from rfviz.errors import RfvizError
from rfviz.images.whitening import IMAGENET
from rfviz.kernels import tuning
from rfviz.kernels.tuning import hue, opponent
from rfviz.kernels.tuning.gratings import Gratings
from rfviz.kernels.tuning.hue import HueTuning
from rfviz.nets import models

SIZE = 15
GREY = opponent.to_linear(torch.tensor(opponent.GREY, dtype=torch.float64))
PLANTED = [0.0, 20.0, 45.0, 75.0, 90.0, 130.0, 165.0, 200.0, 270.0, 310.0]


def weights(angle: float) -> torch.Tensor:
    """Colour weights `(3,)` that follow one direction in the plane of equal luminance, and no grey."""
    axes = torch.stack([torch.ones(3, dtype=torch.float64), opponent.direction("L-M"), opponent.direction("S")])
    wanted = [0.0, math.cos(math.radians(angle)), math.sin(math.radians(angle))]
    found = torch.linalg.solve(axes, torch.tensor(wanted, dtype=torch.float64))
    return found / found.abs().max()


def spot(angle: float, surround: bool = False) -> torch.Tensor:
    y, x = torch.meshgrid(*[torch.arange(SIZE, dtype=torch.float64) - SIZE // 2] * 2, indexing="ij")
    shape = torch.exp(-(x**2 + y**2) / 8)
    shape = shape / shape.sum()
    if surround:
        wide = torch.exp(-(x**2 + y**2) / 32)
        shape = shape - wide / wide.sum()
    return weights(angle)[:, None, None] * shape


def planted(filters: list[torch.Tensor]) -> nn.Sequential:
    convolution = nn.Conv2d(3, len(filters), SIZE, bias=False)
    convolution.weight.data.copy_(torch.stack(filters))
    return nn.Sequential(convolution, nn.ReLU())


def between(first: float, second: float, around: float) -> float:
    return abs((first - second + around / 2) % around - around / 2)


@pytest.mark.parametrize("surround", [False, True])
def test_a_planted_hue_is_found(surround: bool) -> None:
    found = hue.measure(planted([spot(angle, surround) for angle in PLANTED]), "0")
    for channel, angle in enumerate(PLANTED):
        assert between(found.preferred_axis[channel].item(), angle, 180) < 8
        if surround:
            assert found.uniform_curve[channel].max() < 1e-3 * found.axis_curve[channel].max()
        else:
            assert between(found.preferred_hue[channel].item(), angle, 360) < 8
    assert (found.axis_selectivity - hue.LINEAR).abs().max() < 0.05


def test_what_is_linear_in_light_is_found_exactly() -> None:
    """The rest of the error above is the curvature of sRGB."""
    found = hue.measure(
        planted([spot(angle) for angle in PLANTED]),
        "0",
        preprocess=lambda images: (opponent.to_linear(images) - GREY).float(),
    )
    for channel, angle in enumerate(PLANTED):
        assert between(found.preferred_axis[channel].item(), angle, 180) < 0.1
        assert between(found.preferred_hue[channel].item(), angle, 360) < 0.1
    assert (found.axis_selectivity - hue.LINEAR).abs().max() < 0.01


def test_every_response_is_that_of_the_network_to_that_image() -> None:
    torch.manual_seed(0)
    net = models.resnet34(6, 2).eval()
    found = hue.measure(net, "maxpool", preprocess=IMAGENET, angles=3)
    assert found.responses.shape == (6, 3, *found.gratings.shape)
    assert found.angles == (0, 60, 120)
    field = found.gratings.size
    angle = math.radians(120)
    longest = max(
        (math.cos(a) * opponent.direction("L-M") + math.sin(a) * opponent.direction("S")).abs().max().item()
        for a in torch.linspace(0, math.pi, 1000).tolist()
    )
    room = opponent.direction("S").abs().max().item()
    direction = math.cos(angle) * opponent.direction("L-M") + math.sin(angle) * opponent.direction("S")
    maps = []
    net.maxpool.register_forward_hook(lambda *arguments: maps.append(arguments[-1]))
    for o, patterns in enumerate(found.gratings.patterns()):
        for i, pattern in enumerate(patterns[::5]):
            whole = torch.full((1, 3, 64, 64), opponent.GREY)
            light = GREY + direction[:, None, None] * (hue.CONTRAST * room / longest) * pattern.double()
            whole[0, :, 11 : 11 + field, 11 : 11 + field] = opponent.to_srgb(light.clamp(0, 1)).float()
            with torch.no_grad():
                net(IMAGENET(whole))
            frequency, phase = divmod(5 * i, hue.PHASES)
            # Neuron (4, 4) of maxpool sees rows 11 to 21 of an image.
            expected = maps[-1][0, :, 4, 4].double()
            torch.testing.assert_close(found.responses[:, 2, o, frequency, phase], expected, rtol=1e-3, atol=1e-5)


def test_the_indices_by_hand() -> None:
    gratings = Gratings(11, (0.0, 90.0), (0.0, 0.2), tuple(math.pi * i / 2 for i in range(4)))
    angles = (0.0, 45.0, 90.0, 135.0)
    responses = torch.rand(3, 4, 2, 2, 4, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    blank = torch.tensor([0.0, 0.3, 0.1], dtype=torch.float64)
    found = HueTuning(gratings, angles, responses, blank)
    for c in range(3):
        curve = []
        for a in range(4):
            values = []
            for row in responses[c, a].reshape(4, 4).tolist():
                f1 = abs(sum(r * complex(0, -1) ** k for k, r in enumerate(row))) / 2
                values.append(max(sum(row) / 4 - blank[c].item(), f1, 0))
            curve.append(max(values))
        vector = sum(r * complex(0, 1) ** a for a, r in enumerate(curve))
        assert found.axis_curve[c].tolist() == pytest.approx(curve)
        assert found.axis_selectivity[c].item() == pytest.approx(abs(vector) / sum(curve))
        expected = math.degrees(math.atan2(vector.imag, vector.real)) / 2 % 180
        assert found.preferred_axis[c].item() == pytest.approx(expected)
        ends = [responses[c, a, 0, 0, phase].item() - blank[c].item() for phase in (1, 3) for a in range(4)]
        ends = [max(0, end) for end in ends]
        assert found.uniform_curve[c].tolist() == pytest.approx(ends)
        x, y = (sum(r * f(math.pi * k / 4) for k, r in enumerate(ends)) for f in (math.cos, math.sin))
        assert found.preferred_hue[c].item() == pytest.approx(math.degrees(math.atan2(y, x)) % 360)


def test_one_axis_is_the_colour_tuning_of_that_direction() -> None:
    net = planted([spot(30), spot(100)])
    found = hue.measure(net, "0", angles=6)
    direct = tuning.measure(net, "0", found.gratings, axis=opponent.hue(90), contrast=hue.CONTRAST)
    torch.testing.assert_close(found.along[3].strength, direct.strength)


def test_a_silent_channel_has_no_hue() -> None:
    net = nn.Sequential(nn.Conv2d(3, 3, SIZE), nn.ReLU())
    net[0].weight.data = torch.stack([torch.zeros(3, SIZE, SIZE), spot(90).float(), torch.zeros(3, SIZE, SIZE)])
    net[0].bias.data = torch.tensor([0.2, 0.0, -1.0])
    found = hue.measure(net, "0", angles=4)
    assert found.responds.tolist() == [False, True, False]
    for name in ("preferred_axis", "axis_selectivity", "preferred_hue"):
        assert [math.isnan(value) for value in getattr(found, name).tolist()] == [True, False, True], name


def test_all_hues_stay_on_the_screen_at_equal_luminance_and_equal_distance() -> None:
    hues = torch.stack([opponent.hue(angle) for angle in range(360)])
    assert (GREY + hues).min() > -1e-12 and (GREY + hues).max() <= 1
    assert (GREY + hues).min() < 1e-3  # and no less than the screen can show
    seen = opponent.opponent(opponent.to_srgb((GREY + hues).clamp(min=0)).T[:, :, None])[:, :, 0]
    assert seen[0].abs().max() < 1e-6
    radius = torch.hypot(seen[1], seen[2])
    torch.testing.assert_close(radius, radius[:1].expand(360), rtol=1e-4, atol=0)
    assert seen[1, 0] > 0.9 and seen[2, 90] > 0.9
    torch.testing.assert_close(hues[180], -hues[0])


def test_bad_input_is_refused_in_one_line() -> None:
    with pytest.raises(RfvizError, match=r"^angles is 2: to find a preferred axis takes 3 or more\.$"):
        hue.measure(planted([spot(0)]), "0", angles=2)
    with pytest.raises(RfvizError, match="unknown layer"):
        hue.measure(planted([spot(0)]), "nowhere")
    gratings = Gratings(11, (0.0,), (0.1,), (0.0, 1.0))
    with pytest.raises(RfvizError, match="no frequency 0"):
        HueTuning(gratings, (0.0, 60.0, 120.0), torch.zeros(1, 3, 1, 1, 2), torch.zeros(1))
    gratings = Gratings(11, (0.0,), (0.0,), (0.0, 1.0))
    with pytest.raises(RfvizError, match=r"shape \(1, 2, 1, 1, 2\): it must be \(1, 3, 1, 1, 2\)"):
        HueTuning(gratings, (0.0, 60.0, 120.0), torch.zeros(1, 2, 1, 1, 2), torch.zeros(1))
