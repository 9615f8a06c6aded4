"""Activation maximization against a plain gradient ascent on the full image, one channel at a time."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from rfviz.errors import RfvizError
from rfviz.maximization import maximize
from rfviz.regularizers import L2

# Composed by hand: size, stride, start.
FIELDS = {"maxpool": (11, 4, -5), "layer1.0": (27, 4, -13), "layer1.2": (59, 4, -29)}
# A multiple of the stride that holds the field, and the neuron whose field lies inside.
SMALL_INPUTS = {"maxpool": (16, 2), "layer1.0": (32, 4), "layer1.2": (64, 8)}


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
    found = maximize(net, layer, [1, 5])
    assert found.images.shape == (2, 3, FIELDS[layer][0], FIELDS[layer][0])
    for i, channel in enumerate([1, 5]):
        image, curve = full_image_run(net, layer, channel, side)
        centre, rest = cut_centre(image, layer)
        assert not rest.any()  # nothing but the receptive field moves
        torch.testing.assert_close(found.images[i], centre, rtol=0, atol=1e-9)
        torch.testing.assert_close(found.activations[:, i], curve, rtol=0, atol=1e-9)
        assert curve[-1] > curve[0] + 1 and centre.abs().amax() > 1  # it went somewhere


def test_the_papers_canvas_of_224_px(resnet):
    net = resnet.double()
    image, curve = full_image_run(net, "layer1.2", 1, 224)
    centre, _ = cut_centre(image, "layer1.2")
    small = maximize(net, "layer1.2", [1])
    torch.testing.assert_close(small.images[0], centre, rtol=0, atol=1e-9)
    torch.testing.assert_close(small.activations[:, 0], curve, rtol=0, atol=1e-9)
    whole = maximize(net, "layer1.2", [1], canvas=224)
    torch.testing.assert_close(whole.images[0], image, rtol=0, atol=1e-9)
    torch.testing.assert_close(whole.activations[:, 0], curve, rtol=0, atol=1e-9)


@pytest.mark.parametrize("layer", FIELDS)
def test_float32_follows_the_same_curve(net, layer):
    found = maximize(net, layer, [1, 5]).activations
    assert found.dtype == torch.float32
    for i, channel in enumerate([1, 5]):
        _, curve = full_image_run(net, layer, channel, 72)
        torch.testing.assert_close(found[:, i], curve, rtol=1e-4, atol=0)


def test_a_canvas_smaller_than_the_field_is_the_literal_run_with_its_padding(net):
    net, layer = net.double(), "layer2.1"  # its field is 115 px
    literal = maximize(net, layer, [2], canvas=64)
    image, curve = full_image_run(net, layer, 2, 64)
    assert literal.images.shape == (1, 3, 64, 64)
    torch.testing.assert_close(literal.images[0], image, rtol=0, atol=1e-9)
    torch.testing.assert_close(literal.activations[:, 0], curve, rtol=0, atol=1e-9)
    whole_field = maximize(net, layer, [2])
    assert whole_field.images.shape == (1, 3, 115, 115)
    assert (whole_field.activations - literal.activations).abs().max() > 1e-3


def test_a_canvas_comes_back_whole(resnet):
    net = resnet.double()
    small = maximize(net, "layer1.0", steps=3)
    whole = maximize(net, "layer1.0", steps=3, canvas=44)  # neuron (5, 5) of 11 x 11 sees rows 7 to 33
    assert whole.images.shape == (6, 3, 44, 44)
    torch.testing.assert_close(whole.images[:, :, 7:34, 7:34], small.images, rtol=0, atol=1e-9)
    whole.images[:, :, 7:34, 7:34] = 0
    assert not whole.images.any()


# -------------------------------------------------------------------------------------------- the objective


@pytest.mark.parametrize(("layer", "channel"), [("maxpool", 0), ("layer1.0", 3)])
def test_a_channel_that_is_silent_on_the_zero_image_moves(resnet, layer, channel):
    moving = maximize(resnet, layer, [channel])
    assert moving.activations[0, 0] < 0 < moving.activations[-1, 0]
    assert moving.images.abs().amax() > 1
    stuck = maximize(resnet, layer, [channel], objective="response")
    assert not stuck.activations.any() and not stuck.images.any()


@pytest.mark.parametrize(("layer", "channel"), [("maxpool", 1), ("layer1.0", 5)])
def test_the_response_as_objective(resnet, layer, channel):
    net = resnet.double()
    found = maximize(net, layer, [channel], objective="response")
    image, curve = full_image_run(net, layer, channel, 48, objective="response")
    torch.testing.assert_close(found.images[0], cut_centre(image, layer)[0], rtol=0, atol=1e-9)
    torch.testing.assert_close(found.activations[:, 0], curve, rtol=0, atol=1e-9)
    assert curve[-1] > curve[0] > 0


@pytest.mark.parametrize("steps", [1, 2, 7])
def test_the_curve_has_a_row_before_every_step_and_one_after_the_last(net, steps):
    net = net.double()
    for layer in FIELDS:
        found = maximize(net, layer, steps=steps)
        assert found.activations.shape == (steps + 1, 6)
        activation_at = activation_of(net, layer)
        with torch.no_grad():
            side, neuron = SMALL_INPUTS[layer]
            at_zero = activation_at(torch.zeros(1, 3, side, side).double())[0, :, neuron, neuron]
            torch.testing.assert_close(found.activations[0], at_zero, rtol=0, atol=1e-12)
            # The field put back where it was cut out, black around it, gives the last row.
            size, stride, start = FIELDS[layer]
            top = stride * neuron + start
            final = torch.zeros(6, 3, side, side).double()
            final[:, :, top : top + size, top : top + size] = found.images
            at_end = activation_at(final)[:, :, neuron, neuron].diagonal()
        torch.testing.assert_close(found.activations[-1], at_end, rtol=0, atol=1e-12)


def test_steps_learning_rate_and_weight_decay_are_adams(resnet):
    # The first step of Adam moves every pixel by the learning rate, uphill, whatever the size of its gradient.
    net = resnet.double()
    found = maximize(net, "maxpool", steps=1, learning_rate=0.25)
    image = torch.zeros(1, 3, 16, 16, requires_grad=True, dtype=torch.float64)
    (gradient,) = torch.autograd.grad(activation_of(net, "maxpool")(image)[0, 4, 2, 2], image)
    gradient = gradient[0, :, 3:14, 3:14]
    torch.testing.assert_close(found.images[4], 0.25 * gradient / (gradient.abs() + 1e-8), rtol=0, atol=1e-12)
    # The decay is part of the gradient (coupled): with a huge one, the second step goes back towards zero.
    without = maximize(net, "maxpool", steps=40, regularizers=())
    with_decay = maximize(net, "maxpool", steps=40, regularizers=[L2(10.0)])
    assert with_decay.images.norm() < 0.5 * without.images.norm()


# -------------------------------------------------------------------------------- channels, batches, the net


@pytest.mark.parametrize("layer", ["maxpool", "layer1.2"])
def test_a_channel_does_not_depend_on_its_batch(net, layer):
    net = net.double()
    together = maximize(net, layer, steps=12)
    for channels, batch_size in [(range(6), 1), (range(6), 4), ([5, 0, 3, 3], 3), ([2], 64)]:
        found = maximize(net, layer, channels, steps=12, batch_size=batch_size)
        torch.testing.assert_close(found.images, together.images[list(channels)], rtol=0, atol=1e-12)
        torch.testing.assert_close(found.activations, together.activations[:, list(channels)], rtol=0, atol=1e-12)


def test_the_network_is_left_as_it_was(resnet, monkeypatch):
    expected = maximize(resnet, "layer1.0", steps=4)
    resnet.train()
    resnet.layer2.eval()
    for name, parameter in resnet.named_parameters():
        parameter.requires_grad_("conv2" not in name)
    modes = {name: module.training for name, module in resnet.named_modules()}
    flags = {name: parameter.requires_grad for name, parameter in resnet.named_parameters()}
    state = copy.deepcopy(resnet.state_dict())

    def assert_as_before():
        assert {name: module.training for name, module in resnet.named_modules()} == modes
        assert {name: parameter.requires_grad for name, parameter in resnet.named_parameters()} == flags
        assert all(parameter.grad is None for parameter in resnet.parameters())
        assert all(torch.equal(value, state[name]) for name, value in resnet.state_dict().items())

    found = maximize(resnet, "layer1.0", steps=4)
    assert torch.equal(found.images, expected.images)
    assert not found.images.requires_grad and not found.activations.requires_grad
    assert_as_before()

    def interrupted(*args):
        assert not any(parameter.requires_grad for parameter in resnet.parameters())  # frozen during the ascent
        raise KeyboardInterrupt

    monkeypatch.setattr(torch.optim.Adam, "step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        maximize(resnet, "layer1.0", steps=4)
    assert_as_before()


@pytest.mark.parametrize(
    ("layer", "options", "message"),
    [
        ("layer1.O", {}, r"unknown layer 'layer1\.O'\. Did you mean 'layer1\.[012]"),
        ("fc", {}, "receptive field .* is not known"),
        ("bn1", {}, "'bn1' does not end in a ReLU: use objective='response'"),
        ("layer1.0", {"objective": "respons"}, "unknown objective 'respons'. Did you mean 'response'"),
        ("layer1.0", {"channels": [6]}, "no channel 6: this layer has 6, numbered 0 to 5"),
        ("layer1.0", {"channels": [0, -1]}, "no channel -1"),
        ("layer1.0", {"channels": []}, "no channels"),
        ("layer1.0", {"steps": 0}, r"steps \(0\)"),
        ("layer1.0", {"batch_size": 0}, r"batch_size \(0\)"),
        ("layer1.0", {"canvas": 0}, r"canvas \(0\)"),
    ],
)
def test_impossible_requests_are_refused(resnet, layer, options, message):
    with pytest.raises(RfvizError, match=message) as error:
        maximize(resnet, layer, **options)
    assert len(str(error.value).splitlines()) == 1
    assert all(parameter.requires_grad for parameter in resnet.parameters())
