"""Activation maximization against a plain gradient ascent on the full image, one channel at a time."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from rfviz.errors import RfvizError
from rfviz.maximization import aligned_input, maximize
from rfviz.receptive_field import ReceptiveField

# Composed by hand: size, stride, start.
FIELDS = {"maxpool": (11, 4, -5), "layer1.0": (27, 4, -13), "layer1.2": (59, 4, -29)}


@pytest.fixture(params=["resnet", "plainnet"])
def net(request):
    return request.getfixturevalue(request.param)


def activation_of(net, layer, objective="before_relu"):
    """Return a function from images to what is maximised in a layer, (N, C, h, w), by a plain pass up to it."""
    net = copy.deepcopy(net).eval()
    for module in net.modules():
        if isinstance(module, nn.ReLU):
            module.inplace = False
    blocks = [*net.layer1, *net.layer2]
    names = [f"layer1.{i}" for i in range(3)] + [f"layer2.{i}" for i in range(4)]

    def pass_up_to_the_layer(x):
        x = net.bn1(net.conv1(x))
        if layer == "maxpool":
            return F.max_pool2d(x if objective == "before_relu" else torch.relu(x), 3, 2, 1)
        x = net.maxpool(torch.relu(x))
        last = blocks[names.index(layer)]
        sums = []
        hook = last.relu.register_forward_pre_hook(lambda module, args: sums.append(args[0]))
        for block in blocks[: names.index(layer) + 1]:
            x = block(x)
        hook.remove()
        assert len(sums) == 2  # the inner ReLU and the one after the skip addition
        return sums[1] if objective == "before_relu" else x

    return pass_up_to_the_layer


def full_image_run(net, layer, channel, side, steps=31, objective="before_relu"):
    """Maximise the centre neuron of one channel on a whole image: the image (3, side, side) and the curve."""
    activation_at = activation_of(net, layer, objective)
    image = torch.zeros(1, 3, side, side, dtype=net.conv1.weight.dtype, requires_grad=True)
    adam = torch.optim.Adam([image], lr=0.1, weight_decay=1e-6)
    curve = []
    for _ in range(steps):
        adam.zero_grad()
        activations = activation_at(image)
        activation = activations[0, channel, activations.shape[2] // 2, activations.shape[3] // 2]
        curve.append(activation.item())
        (-activation).backward()
        adam.step()
    activations = activation_at(image)
    curve.append(activations[0, channel, activations.shape[2] // 2, activations.shape[3] // 2].item())
    return image.detach()[0], torch.tensor(curve, dtype=image.dtype)


def cut_centre(image, layer):
    """Cut the receptive field of the centre neuron out of a full image, and return the rest with a hole of zeros."""
    size, stride, start = FIELDS[layer]
    top = stride * (image.shape[1] // stride // 2) + start
    rest = image.clone()
    rest[:, top : top + size, top : top + size] = 0
    return image[:, top : top + size, top : top + size], rest


# ------------------------------------------------------------------------------------------- the full image


@pytest.mark.parametrize(("layer", "side"), [("maxpool", 224), ("layer1.0", 96), ("layer1.2", 72)])
def test_the_small_input_gives_the_full_image_run(net, layer, side):
    net = net.double()
    found = maximize(net, layer, [0, 3])
    assert found.images.shape == (2, 3, FIELDS[layer][0], FIELDS[layer][0])
    for i, channel in enumerate([0, 3]):
        image, curve = full_image_run(net, layer, channel, side)
        centre, rest = cut_centre(image, layer)
        assert not rest.any()  # nothing but the receptive field moves
        torch.testing.assert_close(found.images[i], centre, rtol=0, atol=1e-9)
        torch.testing.assert_close(found.activations[:, i], curve, rtol=0, atol=1e-9)
        assert curve[-1] > curve[0] + 0.5 and centre.abs().amax() > 0.5  # it went somewhere


def test_the_papers_canvas_of_224_px(resnet):
    net = resnet.double()
    image, curve = full_image_run(net, "layer1.2", 1, 224)
    centre, _ = cut_centre(image, "layer1.2")
    small = maximize(net, "layer1.2", [1])
    torch.testing.assert_close(small.images[0], centre, rtol=0, atol=1e-9)
    torch.testing.assert_close(small.activations[:, 0], curve, rtol=0, atol=1e-9)
    whole = maximize(net, "layer1.2", [1], canvas=224)
    torch.testing.assert_close(whole.images[0], image, rtol=0, atol=1e-9)


@pytest.mark.parametrize("layer", FIELDS)
def test_float32_follows_the_same_curve(net, layer):
    found = maximize(net, layer, [0, 3]).activations
    assert found.dtype == torch.float32
    for i, channel in enumerate([0, 3]):
        _, curve = full_image_run(net, layer, channel, 72)
        _, exact = full_image_run(copy.deepcopy(net).double(), layer, channel, 72)
        print(layer, channel, ((found[:, i] - curve).abs() / curve.abs()).max(), ((found[:, i] - exact).abs() / exact.abs()).max(), curve[:3], curve[-1])
        torch.testing.assert_close(found[:, i], curve, rtol=1e-4, atol=0)
