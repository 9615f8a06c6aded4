"""What activation maximization drives, against plain loops; an objective of one's own; names."""

from dataclasses import dataclass

import pytest
import torch
from torch import nn

from rfviz.errors import RfvizError
from rfviz.kernels.maximization import maximize
from rfviz.kernels.maximization.objectives import OBJECTIVES, ChannelMean, Neuron
from rfviz.nets import receptive_field
from rfviz.nets.graph import ForwardPass


def ascent(value_of, side, steps=31):
    """Maximise `value_of(image)` from zeros, as the paper does: the image (3, side, side) and the curve."""
    image = torch.zeros(1, 3, side, side, dtype=torch.float64, requires_grad=True)
    adam = torch.optim.Adam([image], lr=0.1, weight_decay=1e-6)
    curve = []
    for _ in range(steps):
        value = value_of(image)
        curve.append(value.item())
        (image.grad,) = torch.autograd.grad(-value, image)
        adam.step()
    return image.detach()[0], torch.tensor([*curve, value_of(image).item()], dtype=torch.float64)


def assert_is(found, i, image, curve):
    torch.testing.assert_close(found.images[i], image, rtol=0, atol=1e-9)
    torch.testing.assert_close(found.activations[:, i], curve, rtol=0, atol=1e-9)


# --------------------------------------------------------------------------------------------- the built-in ones


@pytest.mark.parametrize("size", [(1, 1), (4, 4), (5, 5), (6, 3), (2, 7)])
def test_neuron_and_channel_mean_equal_loops(size):
    height, width = size
    maps = torch.randn(5, 4, height, width, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    channels = torch.tensor([3, 0, 0, 2, 1])
    neuron, mean = Neuron()(maps, channels), ChannelMean()(maps, channels)
    assert neuron.shape == mean.shape == (5,)
    for i, channel in enumerate([3, 0, 0, 2, 1]):
        assert neuron[i] == maps[i, channel, height // 2, width // 2]
        total = sum(maps[i, channel, y, x].item() for y in range(height) for x in range(width))
        assert mean[i].item() == pytest.approx(total / (height * width), abs=1e-14)


def test_what_the_names_stand_for():
    assert {
        "before_relu": Neuron(before_relu=True),
        "response": Neuron(before_relu=False),
        "channel_mean": ChannelMean(before_relu=True),
    } == OBJECTIVES
    assert Neuron() == Neuron(before_relu=True)
    assert [OBJECTIVES[name].one_neuron for name in OBJECTIVES] == [True, True, False]


@pytest.mark.parametrize(
    ("name", "objective"),
    [
        ("before_relu", Neuron()),
        ("response", Neuron(before_relu=False)),
        ("channel_mean", ChannelMean()),
    ],
)
def test_a_name_and_its_objective_are_the_same(resnet, name, objective):
    canvas = None if objective.one_neuron else 40
    one, other = (maximize(resnet, "layer1.0", [1, 5], objective=o, canvas=canvas, steps=4) for o in (name, objective))
    assert torch.equal(one.images, other.images)
    assert torch.equal(one.activations, other.activations)
    assert one.images.any()


@pytest.mark.parametrize("before_relu", [True, False])
def test_neuron_on_a_network_of_two_lines(before_relu):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 5, stride=2, padding=2), nn.ReLU()).double()
    with torch.no_grad():
        net[0].bias += 0.5  # all fire on the zero image
    found = maximize(net, "0", objective=Neuron(before_relu))
    assert found.images.shape == (4, 3, 5, 5)
    for channel in range(4):
        weight, bias = net[0].weight[channel].detach(), net[0].bias[channel].detach()
        assert_is(found, channel, *ascent(lambda image, w=weight, b=bias: (image[0] * w).sum() + b, 5))


@pytest.mark.parametrize("before_relu", [True, False])
@pytest.mark.parametrize("canvas", [40, 33])
def test_channel_mean_on_a_canvas(resnet, before_relu, canvas):
    net = resnet.double()
    found = maximize(net, "layer1.0", [5, 1], objective=ChannelMean(before_relu), canvas=canvas)
    assert found.images.shape == (2, 3, canvas, canvas)
    forward = ForwardPass(net, ["layer1.0"], before_relu=before_relu)
    for i, channel in enumerate([5, 1]):

        def value_of(image, channel=channel):
            the_map = forward(image)[0, channel]
            return sum(the_map[y, x] for y in range(len(the_map)) for x in range(len(the_map))) / len(the_map) ** 2

        assert_is(found, i, *ascent(value_of, canvas))
        assert found.activations[-1, i] > found.activations[0, i] + 0.5
        assert found.images[i].abs().amin((0, 1, 2)) > 0  # every pixel moves


@pytest.mark.parametrize("objective", ["channel_mean", ChannelMean(), ChannelMean(before_relu=False)])
def test_channel_mean_needs_a_canvas(resnet, objective):
    with pytest.raises(RfvizError, match="give the side of a canvas, such as canvas=224") as error:
        maximize(resnet, "layer1.0", objective=objective)
    assert len(str(error.value).splitlines()) == 1


# --------------------------------------------------------------------------------------------- one of one's own


@dataclass
class Contrast:
    """How much more a channel responds than a rival, at the centre: needs nothing from rfviz."""

    rival: int
    before_relu: bool = True
    one_neuron: bool = True

    def __call__(self, maps, channels):
        centre = maps[:, :, maps.shape[2] // 2, maps.shape[3] // 2]
        return torch.stack([each[channel] - each[self.rival] for each, channel in zip(centre, channels, strict=True)])


@pytest.mark.parametrize("before_relu", [True, False])
def test_the_difference_of_two_channels(resnet, before_relu):
    net = resnet.double()
    field = receptive_field.of(net, "layer1.0")
    found = maximize(net, "layer1.0", [0, 4, 2], objective=Contrast(2, before_relu))
    assert found.images.shape == (3, 3, field.size, field.size)
    forward = ForwardPass(net, ["layer1.0"], before_relu=before_relu)
    # In an image of 36 px, neuron (4, 4) of 9 x 9 sees rows 3 to 29.
    assert field.box(4, 4) == (3, 3, 30, 30)
    for i, channel in enumerate([0, 4]):
        image, curve = ascent(lambda x, c=channel: forward(x)[0, c, 4, 4] - forward(x)[0, 2, 4, 4], 36)
        assert_is(found, i, image[:, 3:30, 3:30], curve)
        assert curve[-1] > curve[0] + 1
    # A channel that is its own rival: nothing moves it, neither zeros nor the noise that is tried instead.
    assert found.from_noise.tolist() == [False, False, True] and found.images[2].abs().max() < 0.1


def test_one_of_several_neurons_on_a_canvas(resnet):
    class Corner:
        before_relu, one_neuron = False, False

        def __call__(self, maps, channels):
            return torch.stack([maps[i, channel, 0, 0] for i, channel in enumerate(channels)])

    net = resnet.double()
    found = maximize(net, "layer1.0", [1], objective=Corner(), canvas=36)
    forward = ForwardPass(net, ["layer1.0"])
    assert_is(found, 0, *ascent(lambda x: forward(x)[0, 1, 0, 0], 36))
    size, start = 27, -13
    assert found.images[0, :, : size + start, : size + start].any()
    assert not found.images[0, :, size + start :].any() and not found.images[0, :, :, size + start :].any()
    with pytest.raises(RfvizError, match="give the side of a canvas"):
        maximize(net, "layer1.0", [1], objective=Corner())


def test_a_canvas_computes_whole_maps_for_every_objective(resnet):
    seen = []

    class Neuron9x9(Neuron):
        def __call__(self, maps, channels):
            seen.append(tuple(maps.shape))
            return super().__call__(maps, channels)

    maximize(resnet, "layer1.0", [1, 2], objective=Neuron9x9(), canvas=36, steps=1)
    assert seen == [(2, 6, 9, 9)] * 2
    seen.clear()
    maximize(resnet, "layer1.0", [1, 2], objective=Neuron9x9(), steps=1)
    assert seen == [(2, 6, 1, 1)] * 2


# ------------------------------------------------------------------------------------------------------- names


@pytest.mark.parametrize(
    ("wrong", "nearest"),
    [
        ("before relu", "before_relu"),
        ("Response", "response"),
        ("responses", "response"),
        ("channel-mean", "channel_mean"),
        ("mean", "channel_mean"),
    ],
)
def test_an_unknown_name_is_refused_with_the_nearest(resnet, wrong, nearest):
    with pytest.raises(RfvizError) as error:
        maximize(resnet, "layer1.0", objective=wrong)
    message = str(error.value)
    assert message.startswith(f"unknown objective {wrong!r}. Did you mean {nearest!r}?")
    assert "Choose from: before_relu, response, channel_mean." in message
    assert "\n" not in message
