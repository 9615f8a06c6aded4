"""Activation maximization against a plain gradient ascent on the full image, one channel at a time."""

import copy

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from rfviz.errors import RfvizError
from rfviz.kernels import maximization
from rfviz.kernels.maximization import maximize
from rfviz.kernels.maximization.objectives import Neuron
from rfviz.kernels.maximization.regularizers import L2, Jitter
from rfviz.nets.cone import Cone
from rfviz.nets.graph import ForwardPass

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


@pytest.mark.parametrize(
    ("layer", "side"), [("maxpool", 96), ("layer1.0", 96), pytest.param("layer1.2", 72, marks=pytest.mark.thorough)]
)
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


@pytest.mark.thorough
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


# Channels whose image moves, and in which no pooling window flips between two values that rounding tells apart.
@pytest.mark.parametrize(
    ("architecture", "layer", "channels"),
    [
        ("resnet", "maxpool", range(6)),
        ("plainnet", "layer1.2", [0, 1, 4, 5]),
        *(
            pytest.param(*each, marks=pytest.mark.thorough)
            for each in (
                ("resnet", "conv1", range(6)),
                ("resnet", "layer1.0", range(6)),
                ("resnet", "layer1.2", [5]),
                ("plainnet", "maxpool", range(6)),
                ("plainnet", "layer1.0", [0, 2, 3, 4, 5]),
            )
        ),
    ],
)
def test_float32_stays_close_to_float64(architecture, layer, channels, request):
    net = request.getfixturevalue(architecture)
    found = maximize(net, layer, channels)
    exact = maximize(net.double(), layer, channels)
    assert found.images.dtype == torch.float32 and exact.images.dtype == torch.float64
    assert (exact.images.abs().amax((1, 2, 3)) > 1).all()
    torch.testing.assert_close(found.images.double(), exact.images, rtol=0, atol=2e-4)
    torch.testing.assert_close(found.activations.double(), exact.activations, rtol=1e-4, atol=0)


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
    # neither zeros nor the noise that is tried instead drive it
    assert not stuck.activations.any() and stuck.from_noise.all() and stuck.images.abs().max() < 0.1


@pytest.mark.parametrize(("layer", "channel"), [("maxpool", 1), ("layer1.0", 5)])
def test_the_response_as_objective(resnet, layer, channel):
    net = resnet.double()
    found = maximize(net, layer, [channel], objective="response")
    image, curve = full_image_run(net, layer, channel, 48, objective="response")
    torch.testing.assert_close(found.images[0], cut_centre(image, layer)[0], rtol=0, atol=1e-9)
    torch.testing.assert_close(found.activations[:, 0], curve, rtol=0, atol=1e-9)
    assert curve[-1] > curve[0] > 0


@pytest.mark.parametrize("steps", [1, 2, pytest.param(7, marks=pytest.mark.thorough)])
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


@pytest.mark.parametrize(
    "layer",
    ["maxpool", *(pytest.param(each, marks=pytest.mark.thorough) for each in ("conv1", "layer1.0", "layer1.2"))],
)
def test_in_float32_the_batch_changes_no_more_than_the_rounding(resnet, layer):
    together = maximize(resnet, layer, steps=12)
    again = maximize(resnet, layer, steps=12)
    assert torch.equal(again.images, together.images) and torch.equal(again.activations, together.activations)
    for channels, batch_size in [(range(6), 1), (range(6), 4), (range(5, -1, -1), None), ([5, 0, 3, 3], 3), ([2], 64)]:
        found = maximize(resnet, layer, channels, steps=12, batch_size=batch_size)
        torch.testing.assert_close(found.images, together.images[list(channels)], rtol=0, atol=1e-5)
        torch.testing.assert_close(found.activations, together.activations[:, list(channels)], rtol=1e-5, atol=1e-5)


class Counting:
    """The usual objective, which notes how many images go through the network together."""

    before_relu, one_neuron = True, True

    def __init__(self, at_most=None):
        self.together, self.at_most = [], at_most

    def __call__(self, maps, channels):
        self.together.append(len(maps))
        if len(self.together) == self.at_most:
            raise KeyboardInterrupt
        return Neuron()(maps, channels)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("fitting", [1, 4, 5])
def test_as_many_images_go_together_as_the_memory_holds(resnet, monkeypatch, fitting, dtype):
    net = resnet.to(dtype)
    # layer1.0 keeps of every image itself; conv1 with its batch norm, and the ReLU; maxpool; conv1 and ReLU; conv2; the
    # sum; the output. Each has a gradient, and one more is on its way.
    elements = 3 * 27**2 + 6 * (2 * 11**2 + 5**2 + 2 * 3**2 + 1 + 1 + 1)
    need = 3 * elements * dtype.itemsize
    for memory, at_once in [
        (fitting * need, fitting),
        ((fitting + 1) * need - 1, fitting),
        (fitting * need - 1, fitting - 1),
    ]:
        monkeypatch.setattr(maximization, "_MEMORY", memory)
        counting = Counting()
        maximize(net, "layer1.0", objective=counting, steps=2)
        at_once = max(1, at_once)
        chunks = [min(at_once, 6 - begin) for begin in range(0, 6, at_once)]
        assert counting.together == [chunk for chunk in chunks for _ in range(3)]  # two steps and the final value
        counting.together.clear()
        maximize(net, "layer1.0", objective=counting, steps=2, batch_size=5)
        assert counting.together == [5] * 3 + [1] * 3  # what is asked for goes first


@pytest.mark.parametrize("canvas", [None, 36])
def test_what_is_kept_for_the_gradient_is_within_the_estimate(resnet, monkeypatch, canvas):
    # Every element of every value may be kept once; half of that again is left for gradients.
    kept = {}

    def keep(tensor):
        if not isinstance(tensor, nn.Parameter):
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage()
        return tensor

    side = canvas or 27
    forward = (
        ForwardPass(resnet, ["layer1.0"], before_relu=True) if canvas else Cone(resnet, "layer1.0", before_relu=True)
    )
    with torch.inference_mode():
        forward(torch.zeros(1, 3, side, side))
    monkeypatch.setattr(maximization, "_MEMORY", 3 * 4 * forward.elements * 4)
    counting = Counting()
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        maximize(resnet, "layer1.0", objective=counting, steps=1, canvas=canvas, channels=range(4))
    assert counting.together == [4, 4]
    weights = {weight.untyped_storage().data_ptr() for weight in [*resnet.parameters(), *resnet.buffers()]}
    total = sum(storage.nbytes() for pointer, storage in kept.items() if pointer not in weights)
    assert 0.3 * maximization._MEMORY / 3 < total <= maximization._MEMORY / 3


def test_a_deep_layer_is_done_in_parts(resnet):
    # Of 899 px and 48 channels, all at once would not fit into the memory.
    with torch.inference_mode():
        cone = Cone(resnet, "layer4.2", before_relu=True)
        cone(torch.zeros(1, 3, 899, 899))
    counting = Counting(at_most=1)
    with pytest.raises(KeyboardInterrupt):
        maximize(resnet, "layer4.2", objective=counting)
    (together,) = counting.together
    assert 1 < together < 48
    assert together * 3 * cone.elements * 4 <= 2**30 < (together + 1) * 3 * cone.elements * 4


@pytest.mark.parametrize("options", [{}, {"canvas": 36}, {"regularizers": [L2(1e-3), Jitter(2)]}])
def test_little_memory_changes_no_result(resnet, monkeypatch, options):
    net = resnet.double()
    expected = maximize(net, "layer1.0", steps=9, **options)
    monkeypatch.setattr(maximization, "_MEMORY", 1)
    counting = Counting()
    found = maximize(net, "layer1.0", steps=9, objective=counting, **options)
    assert counting.together == [1] * 6 * 10
    torch.testing.assert_close(found.images, expected.images, rtol=0, atol=1e-12)
    torch.testing.assert_close(found.activations, expected.activations, rtol=0, atol=1e-12)


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
        ("fc", {}, "'fc' sees the whole image"),
        ("bn1", {"objective": "before_relu"}, "'bn1' does not end in a ReLU: use objective='response'"),
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


def test_a_canvas_must_hold_a_kernel():
    net = nn.Sequential(nn.Conv2d(3, 2, 7), nn.ReLU()).eval()
    with pytest.raises(
        RfvizError, match=r"^a canvas of 5 px does not go through the network \(.*\): give one of another size"
    ) as error:
        maximize(net, "0", canvas=5)
    assert "\n" not in str(error.value)


def test_a_channel_may_be_a_number(resnet):
    assert torch.equal(maximize(resnet, "maxpool", 3, steps=2).images, maximize(resnet, "maxpool", [3], steps=2).images)
    with pytest.raises(RfvizError, match="no channel 6"):
        maximize(resnet, "maxpool", 6)


def test_channels_may_be_numbers_of_any_library(resnet):
    expected = maximize(resnet, "maxpool", [3, 1], steps=1).images
    for channels in (np.array([3, 1]), torch.tensor([3, 1]), [np.int64(3), torch.tensor(1)], range(3, 0, -2)):
        assert torch.equal(maximize(resnet, "maxpool", channels, steps=1).images, expected)
    for channel in (np.int64(3), torch.tensor(3)):
        assert torch.equal(maximize(resnet, "maxpool", channel, steps=1).images, expected[:1])
    said = r"there is no channel (True|1\.0|'1'|1\.5): this layer has 6, numbered 0 to 5"
    for wrong in (torch.tensor([True, False]), [1.0], [True], ["1"], 1.5):
        with pytest.raises(RfvizError, match=said):
            maximize(resnet, "maxpool", wrong)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_gradients_are_computed_wherever_it_is_called(resnet, mode):
    expected = maximize(resnet, "maxpool", [1], steps=3)
    with mode():
        found = maximize(resnet, "maxpool", [1], steps=3)
    assert torch.equal(found.images, expected.images)
