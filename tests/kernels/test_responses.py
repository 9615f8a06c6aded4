"""The pass over the images against slow, obvious loops over a plain forward pass."""

import copy
import dataclasses
from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image
from reference import assert_mean_is, bin_of, brute_mean, brute_top
from torch import nn
from torch.utils.data import TensorDataset

from rfviz.errors import RfvizError
from rfviz.images.batches import image_of
from rfviz.images.whitening import IMAGENET, NONE
from rfviz.kernels import responses as kernel
from rfviz.kernels.responses import preferred_stimuli
from rfviz.nets import models

# Composed by hand: size, stride, start. The field of layer3.0 is much larger than the tiles of 64 px.
FIELDS = {
    "conv1": (7, 2, -3),
    "maxpool": (11, 4, -5),
    "layer1.0.relu1": (19, 4, -9),
    "layer1.0": (27, 4, -13),
    "layer1.2": (59, 4, -29),
    "layer3.0": (227, 16, -113),
}
# Module to listen to and which of its calls, where that is not the last call of the module of the same name.
LISTEN = {"conv1": ("relu", 0), "layer1.0.relu1": ("layer1.0.relu", 0)}


collect = partial(kernel.collect, borders=True)
"""All neurons compete, as in the paper; but for the tests of whole fields."""

INTEGER_LAYERS = ("conv1", "maxpool", "layer1.0", "layer1.2")


# ------------------------------------------------------------------------------------------------- reference


def plain_responses(net, images, layer, batch_size=5, preprocess=NONE):
    """Responses of a layer in a plain forward pass whose ReLUs overwrite nothing: one (C, h, w) per image."""
    net = copy.deepcopy(net).eval()
    for module in net.modules():
        if isinstance(module, nn.ReLU):
            module.inplace = False
    name, call = LISTEN.get(layer, (layer, -1))
    outputs, found = [], []
    net.get_submodule(name).register_forward_hook(lambda module, args, output: outputs.append(output))
    with torch.no_grad():
        for batch in images.split(batch_size):
            outputs.clear()
            net(preprocess(batch))
            found.extend(response.clone() for response in outputs[call])
    return found


def assert_strongest_is(found, images, responses, n, field):
    """Assert that the mean over the `n` strongest neurons is that of plain code."""
    assert_mean_is(
        found.strongest_stimulus, found.strongest_count, images,
        lambda channel: [neuron for value, *neuron in brute_top(responses, channel, n, None) if value > 0], field,
    )  # fmt: skip


def positive_neurons(responses, channel):
    return [(i, *yx) for i, response in enumerate(responses) for yx in (response[channel] > 0).nonzero().tolist()]


def assert_top_is(found, responses, k, per_image=1):
    assert found.top_values.shape[1] == found.top_images.shape[1] == found.top_positions.shape[1] == k
    for channel in range(responses[0].shape[0]):
        expected = brute_top(responses, channel, k, per_image)
        missing = k - len(expected)
        assert found.top_values[channel].tolist() == [value for value, *_ in expected] + [-torch.inf] * missing
        assert found.top_images[channel].tolist() == [i for _, i, *_ in expected] + [-1] * missing
        assert found.top_positions[channel].tolist() == [[y, x] for *_, y, x in expected] + [[-1, -1]] * missing


def assert_same(one, other):
    """Two passes agree in every field, to the bit but for sums, whose order may differ."""
    for field in dataclasses.fields(one):
        a, b = getattr(one, field.name), getattr(other, field.name)
        if field.name in ("mean", "mean_stimulus", "strongest_stimulus") and a is not None:
            torch.testing.assert_close(a, b, rtol=0, atol=1e-12 if field.name == "mean" else 1e-5)
        elif isinstance(a, torch.Tensor):
            assert torch.equal(a, b), field.name
        else:
            assert a == b, field.name


@pytest.fixture(scope="module")
def integers():
    """A network of integers and images of quarters: exact in floating point whatever the order of sums, full of ties.

    Channel 2 of the stem never fires.
    """
    torch.manual_seed(3)
    net = models.resnet34(5, 4).double().eval()
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            module.weight.data = torch.randint(-1, 2, module.weight.shape).double()
        if isinstance(module, nn.BatchNorm2d):
            module.eps = 0.0
            module.bias.data = torch.randint(-2, 3, module.bias.shape).double()
    net.conv1.weight.data *= 4  # images of quarters then give integers
    net.bn1.bias.data[2] = -1e6
    images = torch.randint(0, 3, (11, 3, 48, 40)).double() / 4
    images[3] = 0.25
    images[4] = 0.25
    images[6] = images[1]
    images[9] = images[1]
    return net, images


@pytest.fixture(scope="module")
def integer_responses(integers):
    responses = {layer: plain_responses(*integers, layer) for layer in INTEGER_LAYERS}
    assert all(torch.equal(one, one.round()) for of_layer in responses.values() for one in of_layer)
    return responses


# -------------------------------------------------------------------------------------- against a plain pass


@pytest.mark.parametrize("per_image", [1, None])
@pytest.mark.parametrize("layer", FIELDS)
def test_top_stimuli_equal_those_of_a_plain_pass(resnet, some_tiles, layer, per_image):
    k = 9  # of twelve images
    found = collect(resnet, some_tiles, [layer], k, per_image=per_image, mean_stimulus=False, batch_size=5)[layer]
    responses = plain_responses(resnet, some_tiles, layer)
    assert dataclasses.astuple(found.receptive_field) == FIELDS[layer]
    assert found.image_count == 12
    assert found.neuron_count == 12 * responses[0][0].numel()
    assert_top_is(found, responses, k, per_image)
    repeated = any(len(set(images)) < k for images in found.top_images.tolist())
    assert repeated == (per_image is None)  # the two cases must not prove the same


def test_all_layers_in_one_pass_equal_one_layer_at_a_time(plainnet, some_tiles):
    layers = ["layer1.2", "maxpool", "layer1.0.relu1", "conv1", "layer1.0"]
    together = collect(plainnet, some_tiles, layers, 9, batch_size=5, strongest=9)
    assert list(together) == layers
    for layer in layers:
        assert_top_is(together[layer], plain_responses(plainnet, some_tiles, layer), 9)
        assert_same(together[layer], collect(plainnet, some_tiles, [layer], 9, batch_size=5, strongest=9)[layer])


def test_a_block_may_be_addressed_by_its_last_relu(resnet, some_tiles):
    names = ["layer1.0.relu", "layer1.0", "layer1.0.relu2"]
    found = collect(resnet, some_tiles, names, 9, strongest=3, batch_size=5)
    assert_top_is(found["layer1.0.relu"], plain_responses(resnet, some_tiles, "layer1.0"), 9)
    assert_same(found["layer1.0.relu"], found["layer1.0"])
    assert_same(found["layer1.0.relu2"], found["layer1.0"])


def test_a_layer_that_is_named_twice_is_counted_once(resnet, some_tiles):
    once = collect(resnet, some_tiles, ["maxpool"], 9, strongest=3)
    twice = collect(resnet, some_tiles, ["maxpool", "maxpool"], 9, strongest=3)
    assert_same(twice["maxpool"], once["maxpool"])


@pytest.mark.parametrize("layer", FIELDS)
def test_mean_stimulus_equals_a_loop_over_patches(resnet, some_tiles, layer):
    images = some_tiles[::3] if layer == "layer3.0" else some_tiles
    found = collect(resnet, images, [layer], 1, batch_size=5)[layer]
    responses = plain_responses(resnet, images, layer)
    assert_mean_is(found.mean_stimulus, found.mean_count, images, partial(positive_neurons, responses), FIELDS[layer])
    assert found.mean_count.amax() > found.mean_count.amin()  # borders were met
    assert found.strongest_stimulus is None and found.strongest_count is None


def test_preprocessing_changes_the_responses_but_not_the_colours_of_the_stimuli(resnet, some_tiles):
    found = collect(resnet, some_tiles, ["maxpool"], 5, preprocess=IMAGENET, batch_size=5, strongest=20)["maxpool"]
    responses = plain_responses(resnet, some_tiles, "maxpool", preprocess=IMAGENET)
    field = FIELDS["maxpool"]
    assert_top_is(found, responses, 5)
    assert_mean_is(found.mean_stimulus, found.mean_count, some_tiles, partial(positive_neurons, responses), field)
    assert_strongest_is(found, some_tiles, responses, 20, field)
    assert not torch.equal(found.top_values, collect(resnet, some_tiles, ["maxpool"], 5)["maxpool"].top_values)


@pytest.mark.parametrize("layer", ["maxpool", "layer1.2"])
@pytest.mark.parametrize("size", [(45, 58), (17, 64), (9, 5), (1, 1)])
def test_any_image_size_even_smaller_than_the_receptive_field(plainnet, some_tiles, layer, size):
    height, width = size
    images = some_tiles[:, :, 3 : 3 + height, 2 : 2 + width]
    found = collect(plainnet, images, [layer], 14, batch_size=5, strongest=6)[layer]
    responses = plain_responses(plainnet, images, layer)
    assert_top_is(found, responses, 14)
    assert_mean_is(found.mean_stimulus, found.mean_count, images, partial(positive_neurons, responses), FIELDS[layer])
    assert_strongest_is(found, images, responses, 6, FIELDS[layer])


def test_a_data_set_may_mix_image_sizes(resnet, some_tiles):
    resnet.double()  # the reference takes one image at a time, not batches: the last bits may differ
    sizes = [(64, 64), (64, 64), (40, 64), (64, 40), (64, 40), (64, 64), (20, 24), (64, 64)]
    images = [some_tiles[i, :, :height, :width].double() for i, (height, width) in enumerate(sizes)]
    layer = "layer1.0"
    found = collect(resnet, images, [layer], 5, per_image=None, batch_size=4, strongest=30)[layer]
    responses = [plain_responses(resnet, image[None], layer)[0] for image in images]
    for channel in range(6):
        expected = brute_top(responses, channel, 5, None)
        np.testing.assert_allclose(found.top_values[channel], [value for value, *_ in expected], rtol=1e-12)
        assert found.top_images[channel].tolist() == [i for _, i, *_ in expected]
        assert found.top_positions[channel].tolist() == [[y, x] for *_, y, x in expected]
    assert found.neuron_count == sum(response[0].numel() for response in responses)
    assert_mean_is(found.mean_stimulus, found.mean_count, images, partial(positive_neurons, responses), FIELDS[layer])
    assert_strongest_is(found, images, responses, 30, FIELDS[layer])


# ---------------------------------------------------------------------------------------------- whole fields


def sees(field, image, y, x):
    """Rows and columns of an image that a neuron sees."""
    size, stride, start = field
    begins = (stride * y + start, stride * x + start)
    return [min(begin + size, side) - max(begin, 0) for begin, side in zip(begins, image.shape[1:], strict=True)]


@pytest.mark.parametrize("layer", FIELDS)
def test_neurons_compete_that_see_as_much_of_the_image_as_any(resnet, some_tiles, layer):
    resnet.double()
    images = [some_tiles[i, :, :height, :].double() for i, height in enumerate((64, 64, 40, 64, 20, 64))]
    responses = [plain_responses(resnet, image[None], layer)[0] for image in images]
    most = []
    for image, response in zip(images, responses, strict=True):
        seen = [sees(FIELDS[layer], image, y, x) for y, x in np.ndindex(*response.shape[1:])]
        most.append([max(rows for rows, _ in seen), max(columns for _, columns in seen)])

    def competes(i, y, x):
        return sees(FIELDS[layer], images[i], y, x) == most[i]

    for per_image in (1, None):
        found = kernel.collect(resnet, images, [layer], 5, per_image=per_image, batch_size=4, strongest=30)[layer]
        for channel in range(len(responses[0])):
            expected = brute_top(responses, channel, 5, per_image, competes)
            np.testing.assert_allclose(found.top_values[channel], [value for value, *_ in expected], rtol=1e-12)
            assert found.top_images[channel].tolist() == [i for _, i, *_ in expected]
            assert found.top_positions[channel].tolist() == [[y, x] for *_, y, x in expected]
    assert_mean_is(
        found.strongest_stimulus, found.strongest_count, images,
        lambda channel: [each for value, *each in brute_top(responses, channel, 30, None, competes) if value > 0],
        FIELDS[layer],
    )  # fmt: skip
    literal = collect(resnet, images, [layer], 5, per_image=None, batch_size=4)[layer]
    assert (literal.top_values >= found.top_values).all()
    # in layer3.0, all neurons see all of the image
    assert torch.equal(literal.top_values, found.top_values) == (layer == "layer3.0")
    for name in ("maximum", "histogram", "mean_stimulus"):  # these are of all neurons
        assert torch.equal(getattr(literal, name), getattr(found, name)), name


@pytest.mark.parametrize("layer", ["maxpool", "layer1.2", "layer3.0"])
def test_means_deviate_from_the_mean_over_all_neurons(resnet, some_tiles, layer):
    resnet.double()
    images = [some_tiles[i, :, :height, :].double() for i, height in enumerate((64, 40, 64))]
    found = kernel.collect(resnet, images, [layer], 2, batch_size=2, strongest=9)[layer]
    responses = [plain_responses(resnet, image[None], layer)[0] for image in images]
    neurons = [(i, y, x) for i, each in enumerate(responses) for y, x in np.ndindex(*each.shape[1:])]
    seen = {neuron: sees(FIELDS[layer], images[neuron[0]], *neuron[1:]) for neuron in neurons}
    most = [np.max([seen[neuron] for neuron in neurons if neuron[0] == i], 0).tolist() for i in range(3)]
    for patch, which in (
        (found.mean_patch, neurons),
        (found.competing_patch, [neuron for neuron in neurons if seen[neuron] == most[neuron[0]]]),
    ):
        np.testing.assert_allclose(patch, brute_mean(images, which, FIELDS[layer])[0], atol=1e-6)
    for deviation, mean, count, patch in (
        (found.mean_deviation, found.mean_stimulus, found.mean_count, found.mean_patch),
        (found.strongest_deviation, found.strongest_stimulus, found.strongest_count, found.competing_patch),
    ):
        for channel in range(found.channels):
            there = count[channel] > 0
            apart = (mean[channel] - patch)[:, there]
            if apart.numel() and apart.abs().max() <= 1e-6:  # rounding, of a channel that fires everywhere
                apart = torch.zeros_like(apart)
            assert torch.equal(deviation[channel][:, there], apart)
            assert not deviation[channel][:, ~there].any()
    assert not (found.mean_count > 0).all() or layer != "layer3.0"  # there are pixels that no patch has
    bare = kernel.collect(resnet, images, ["maxpool"], 2, mean_stimulus=False)["maxpool"]
    with pytest.raises(RfvizError, match="hold no such mean"):
        _ = bare.mean_deviation


def test_what_fires_everywhere_deviates_from_nothing(resnet, some_tiles):
    """However large what sums are rounded by."""
    found = kernel.collect(resnet, some_tiles, ["maxpool"], 2)["maxpool"]
    always = torch.where(torch.arange(6) == 2, found.neuron_count, 1)
    found = dataclasses.replace(
        found, positive_count=always, mean_stimulus=found.mean_patch + torch.full((6, 1, 1, 1), 1e-5)
    )
    assert found.mean_deviation.flatten(1).any(1).tolist() == [channel != 2 for channel in range(6)]


def test_no_stimulus_sticks_out_of_its_photograph(resnet, some_tiles):
    found = kernel.collect(resnet, some_tiles, ["layer1.2"], 5)["layer1.2"]
    for channel in range(found.channels):
        assert preferred_stimuli(some_tiles, found, channel)[1].all()
    literal = collect(resnet, some_tiles, ["layer1.2"], 5)["layer1.2"]
    assert not all(preferred_stimuli(some_tiles, literal, channel)[1].all() for channel in range(found.channels))


# ------------------------------------------------------------------------------------------------------ ties


@pytest.mark.parametrize("batch_size", [1, 2, 5, 64])
@pytest.mark.parametrize("per_image", [1, None])
def test_ties_go_to_the_lower_image_then_to_raster_order(integers, integer_responses, per_image, batch_size):
    net, images = integers
    found = collect(net, images, INTEGER_LAYERS, 8, per_image=per_image, mean_stimulus=False, batch_size=batch_size)
    for layer in INTEGER_LAYERS:
        assert_top_is(found[layer], integer_responses[layer], 8, per_image)
        assert any(len(set(values)) < 8 for values in found[layer].top_values.tolist())  # there were ties


def test_a_silent_channel_lists_the_first_neurons(integers):
    net, images = integers
    one = collect(net, images, ["maxpool"], 4, batch_size=3)["maxpool"]
    assert one.top_values[2].tolist() == [0.0] * 4
    assert one.top_images[2].tolist() == [0, 1, 2, 3]
    assert one.top_positions[2].tolist() == [[0, 0]] * 4
    every = collect(net, images, ["maxpool"], 12, per_image=None, batch_size=3)["maxpool"]
    assert every.top_images[2].tolist() == [0] * 12
    assert every.top_positions[2].tolist() == [[0, x] for x in range(10)] + [[1, 0], [1, 1]]


# --------------------------------------------------------------------------------------------- mean stimulus


def test_one_neuron_gives_equation_3_to_the_letter(resnet, some_tiles):
    responses = plain_responses(resnet, some_tiles, "layer1.0")
    for y, x in [(0, 0), (7, 9), (15, 3)]:
        found = collect(resnet, some_tiles, ["layer1.0"], neuron=(y, x), batch_size=5)["layer1.0"]
        firing = [[i for i in range(12) if responses[i][channel, y, x] > 0] for channel in range(6)]
        assert_mean_is(
            found.mean_stimulus,
            found.mean_count,
            some_tiles,
            lambda channel, firing=firing, y=y, x=x: [(i, y, x) for i in firing[channel]],
            FIELDS["layer1.0"],
        )
        assert found.mean_count.amax((1, 2)).tolist() == [len(images) for images in firing]
    assert len({len(images) for images in firing}) > 1


@pytest.mark.parametrize("layer", ["maxpool", "layer1.0", "layer1.2"])
@pytest.mark.parametrize("n", [1, 7, 100])
def test_the_mean_of_the_strongest_breaks_ties_as_the_top_list_does(integers, integer_responses, layer, n):
    net, images = integers
    responses = integer_responses[layer]
    for batch_size in (2, 64):
        found = collect(net, images, [layer], 1, strongest=n, batch_size=batch_size)[layer]
        assert_strongest_is(found, images, responses, n, FIELDS[layer])


@pytest.mark.parametrize("batch_size", [2, 64])
def test_the_mean_of_the_strongest_may_take_a_few_of_each_image(integers, integer_responses, batch_size):
    net, images = integers
    found = collect(net, images, ["layer1.0"], strongest=20, strongest_per_image=3, batch_size=batch_size)["layer1.0"]
    assert_mean_is(
        found.strongest_stimulus, found.strongest_count, images,
        lambda channel: [n for value, *n in brute_top(integer_responses["layer1.0"], channel, 20, 3) if value > 0],
        FIELDS["layer1.0"],
    )  # fmt: skip
    assert not torch.equal(
        found.strongest_stimulus, collect(net, images, ["layer1.0"], strongest=20)["layer1.0"].strongest_stimulus
    )


@pytest.mark.parametrize("batch_size", [1, 2, 64])
def test_the_mean_of_the_strongest_where_padding_makes_maps_larger_than_images(batch_size):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 3, padding=4), nn.ReLU())
    images = torch.rand(5, 3, 6, 7)
    found = collect(net, images, ["1"], strongest=30, batch_size=batch_size)["1"]
    with torch.no_grad():
        responses = list(net(images))
    assert responses[0].shape == (4, 12, 13)
    assert_strongest_is(found, images, responses, 30, (3, 1, -4))


def test_fewer_positive_neurons_than_asked_for(integers):
    net, images = integers
    net = copy.deepcopy(net)
    maxima = collect(net, images, ["maxpool"])["maxpool"].maximum
    net.bn1.bias.data[0] -= maxima[0] - 1  # only the strongest neurons of channel 0 are left, at 1
    found = collect(net, images, ["maxpool"], strongest=500)["maxpool"]
    positive = found.positive_count.tolist()
    assert 0 < positive[0] < 500 and positive[2] == 0 and max(positive) > 500
    torch.testing.assert_close(found.strongest_stimulus[0], found.mean_stimulus[0], rtol=0, atol=1e-5)
    assert torch.equal(found.strongest_count[0], found.mean_count[0])
    # Pixel (5, 5), the centre of the box, lies at 4 y and 4 x: inside for every neuron.
    assert found.strongest_count[:, 5, 5].tolist() == [min(count, 500) for count in positive]
    assert found.mean_count[:, 5, 5].tolist() == positive


def test_nothing_counted_gives_zero_and_no_nan(integers):
    net, images = integers
    found = collect(net, images, ["maxpool"], strongest=5)["maxpool"]
    for stimulus, count in [
        (found.mean_stimulus, found.mean_count),
        (found.strongest_stimulus, found.strongest_count),
    ]:
        assert not count[2].any() and not stimulus[2].any()
        assert stimulus.isfinite().all()
    # A corner neuron never sees the rows and columns before the image.
    corner = collect(net, images, ["maxpool"], neuron=(0, 0))["maxpool"]
    firing = corner.mean_count[:, 5, 5] > 0
    assert firing.any()
    assert not corner.mean_count[:, :5].any() and not corner.mean_stimulus[:, :, :5].any()
    assert not corner.mean_count[:, :, :5].any() and not corner.mean_stimulus[:, :, :, :5].any()
    assert (corner.mean_count[firing, 5:, 5:] > 0).all()


def test_pixels_outside_the_image_do_not_darken_the_mean(resnet):
    white = torch.ones(3, 3, 40, 40)
    found = collect(resnet, white, ["layer1.2"])["layer1.2"]
    counted = (found.mean_count > 0)[:, None].expand_as(found.mean_stimulus)
    assert counted.any() and not counted.all()
    assert (found.mean_stimulus[counted] - 1).abs().amax() < 1e-5
    assert (found.mean_stimulus[~counted] == 0).all()


def test_a_string_is_one_layer(resnet, some_tiles):
    found = collect(resnet, some_tiles, "maxpool", mean_stimulus=False)
    assert list(found) == ["maxpool"]
    assert torch.equal(found["maxpool"].maximum, collect(resnet, some_tiles, ["maxpool"])["maxpool"].maximum)


def test_the_mean_stimulus_may_be_left_out(resnet, some_tiles):
    found = collect(resnet, some_tiles, ["maxpool"], mean_stimulus=False)["maxpool"]
    assert found.mean_stimulus is None and found.mean_count is None


# -------------------------------------------------------------------------------------------------- activity


@pytest.mark.parametrize("layer", ["maxpool", "layer1.2"])
def test_activity_equals_numpy(resnet, some_tiles, layer):
    found = collect(resnet, some_tiles, [layer], mean_stimulus=False, batch_size=5)[layer]
    values = torch.stack(plain_responses(resnet, some_tiles, layer)).transpose(0, 1).flatten(1).numpy()
    np.testing.assert_array_equal(found.maximum, values.max(1).astype(np.float64))
    np.testing.assert_allclose(found.mean, values.mean(1, dtype=np.float64), rtol=1e-12)
    np.testing.assert_array_equal(found.positive_count, (values > 0).sum(1))
    np.testing.assert_allclose(found.firing_rate, (values > 0).mean(1), rtol=1e-12)
    expected = [np.bincount([bin_of(value) for value in channel], minlength=23) for channel in values.tolist()]
    np.testing.assert_array_equal(found.histogram, expected)
    assert found.maximum.dtype == found.mean.dtype == found.firing_rate.dtype == torch.float64
    assert found.channels == len(values)


# ------------------------------------------------------------------------------ batch size and kinds of images


@pytest.mark.parametrize("per_image", [1, None])
def test_batch_size_and_the_way_images_are_given_change_nothing(integers, per_image):
    net, images = integers
    layers = ["maxpool", "layer1.2"]
    options = {"top_k": 6, "per_image": per_image}
    whole = collect(net, images, layers, strongest=40, batch_size=64, **options)
    pairs = [(image, 7) for image in images]
    data_set = TensorDataset(images, torch.arange(11))
    again = {
        "batch 1": collect(net, images, layers, strongest=40, batch_size=1, **options),
        "batch 5": collect(net, images, layers, strongest=40, batch_size=5, **options),
        "list of images": collect(net, list(images), layers, strongest=40, batch_size=5, **options),
        "pairs": collect(net, pairs, layers, strongest=40, batch_size=4, **options),
        "data set": collect(net, data_set, layers, strongest=40, batch_size=4, **options),
        "workers": collect(net, data_set, layers, strongest=40, batch_size=4, workers=2, **options),
    }
    for found in again.values():
        for layer in layers:
            assert_same(found[layer], whole[layer])
    streamed = {
        "batches": collect(net, iter(images.split([3, 1, 7])), layers, **options),
        "labelled batches": collect(net, ((part, "label") for part in images.split(4)), layers, **options),
    }
    for found in streamed.values():
        for layer in layers:
            assert_same(found[layer], dataclasses.replace(whole[layer], strongest_stimulus=None, strongest_count=None))


def test_photographs_give_the_same_top_stimuli_for_every_batch_size(resnet, tiles):
    net = resnet.double()
    images = torch.stack([tiles[i][0] for i in range(0, len(tiles), 3)]).double()
    layers = ["maxpool", "layer1.0", "layer1.2"]
    whole = collect(net, images, layers, batch_size=64)
    passes = [
        collect(net, images, layers, batch_size=1),
        collect(net, TensorDataset(images, images[:, 0, 0, 0]), layers, batch_size=5, workers=2),
    ]
    for found in passes:
        for layer in layers:
            assert torch.equal(found[layer].top_images, whole[layer].top_images)
            assert torch.equal(found[layer].top_positions, whole[layer].top_positions)
            torch.testing.assert_close(found[layer].top_values, whole[layer].top_values, rtol=1e-12, atol=0)


def test_fewer_images_than_stimuli_asked_for(resnet, some_tiles):
    found = collect(resnet, some_tiles[:3], ["maxpool"], 5)["maxpool"]
    assert found.top_values[:, 3:].tolist() == [[-torch.inf] * 2] * 6
    assert found.top_images[:, 3:].tolist() == [[-1, -1]] * 6
    assert found.top_positions[:, 3:].tolist() == [[[-1, -1]] * 2] * 6
    assert_top_is(found, plain_responses(resnet, some_tiles[:3], "maxpool"), 5)
    patches, inside = preferred_stimuli(some_tiles[:3], found, 0)
    assert len(patches) == len(inside) == 3


# -------------------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize("batch_size", [1, 4, 64])
@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_an_image_that_is_not_finite_is_named(resnet, some_tiles, bad, batch_size):
    images = some_tiles.clone()
    images[7, 1, 30, 20] = bad
    images[9, 0, 3, 3] = bad
    with pytest.raises(RfvizError, match=r"^image 7: [^\n]*NaN[^\n]*$") as error:
        collect(resnet, images, ["layer1.0"], batch_size=batch_size)
    assert len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [(lambda x: (x * 255).to(torch.uint8), "image 0: expected floating-point RGB.*uint8"), (list, "no images")],
)
def test_what_batches_refuses_is_refused(resnet, some_tiles, change, message):
    with pytest.raises(RfvizError, match=message):
        collect(resnet, change(some_tiles if message != "no images" else []), ["maxpool"], batch_size=5)


@pytest.mark.parametrize(
    ("layers", "options", "message"),
    [
        (["maxpol"], {}, r"unknown layer 'maxpol'\. Did you mean 'maxpool'"),
        (["maxpool", "layer5.0"], {}, "unknown layer 'layer5.0'"),
        (["layer1.0.relu3"], {}, "unknown layer 'layer1.0.relu3'"),
        ([], {}, "no layers"),
        (["maxpool"], {"per_image": 2}, "per_image is 2"),
        (["maxpool"], {"per_image": 0}, "per_image is 0"),
        (["maxpool"], {"top_k": 0}, r"top_k \(0\)"),
        (["maxpool"], {"strongest": 0}, r"strongest \(0\)"),
        (["maxpool"], {"batch_size": 0}, r"batch_size \(0\)"),
        (["maxpool"], {"neuron": (16, 0)}, r"neuron \(16, 0\) is outside the 16 x 16"),
        (["maxpool"], {"neuron": (0, -1)}, r"neuron \(0, -1\) is outside the 16 x 16"),
    ],
)
def test_impossible_requests_are_refused(resnet, some_tiles, layers, options, message):
    with pytest.raises(RfvizError, match=message) as error:
        collect(resnet, some_tiles, layers, **options)
    assert len(str(error.value).splitlines()) == 1


def test_a_stream_cannot_be_looked_at_twice(resnet, some_tiles):
    with pytest.raises(RfvizError, match="strongest needs a second look"):
        collect(resnet, iter([some_tiles]), ["maxpool"], strongest=5)


# ---------------------------------------------------------------------------------------- the net, the stimuli


@pytest.mark.parametrize("training", [True, False])
def test_the_network_is_left_as_it_was(resnet, some_tiles, training):
    expected = collect(resnet, some_tiles, ["layer1.2"])["layer1.2"]
    resnet.train(training)
    resnet.layer2.train(not training)
    modes = {name: module.training for name, module in resnet.named_modules()}
    state = copy.deepcopy(resnet.state_dict())
    assert_same(collect(resnet, some_tiles, ["layer1.2"])["layer1.2"], expected)
    with pytest.raises(RfvizError, match="NaN"):
        collect(resnet, some_tiles * torch.nan, ["layer1.2"])
    assert {name: module.training for name, module in resnet.named_modules()} == modes
    assert all(torch.equal(value, state[name]) for name, value in resnet.state_dict().items())
    assert all(parameter.requires_grad and parameter.grad is None for parameter in resnet.parameters())
    assert all(not module._forward_hooks for module in resnet.modules())


@pytest.mark.parametrize("layer", ["maxpool", "layer1.2"])
def test_preferred_stimuli_are_crops_of_the_images(resnet, tiles, layer):
    found = collect(resnet, tiles, [layer], 16)[layer]
    size, stride, start = FIELDS[layer]
    images = torch.stack([tiles[i][0] for i in range(len(tiles))])
    around = torch.nn.functional.pad(images, [size] * 4)  # black, as wide as a field
    exists = torch.nn.functional.pad(torch.ones(64, 64, dtype=torch.bool), [size] * 4)
    for channel in range(6):
        patches, inside = preferred_stimuli(tiles, found, channel)
        assert patches.shape == (16, 3, size, size) and inside.shape == (16, size, size)
        for n in range(16):
            y, x = (found.top_positions[channel, n] * stride + start + size).tolist()
            i = found.top_images[channel, n]
            assert torch.equal(patches[n], around[i, :, y : y + size, x : x + size])
            assert torch.equal(inside[n], exists[y : y + size, x : x + size])
        of_tensor, inside_of_tensor = preferred_stimuli(images, found, channel)
        assert torch.equal(of_tensor, patches) and torch.equal(inside_of_tensor, inside)


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA"])
@pytest.mark.parametrize("colours", [3, 1])
def test_stimuli_are_cut_out_of_pictures_as_well(mode, colours):
    """A network gets as many colours as it takes, whatever the pictures have."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(colours, 4, 3, padding=1), nn.ReLU()).eval()
    pixels = np.random.default_rng(0).integers(0, 256, (5, 12, 12, 4), dtype=np.uint8)
    pictures = [Image.fromarray(each).convert(mode) for each in pixels]
    found = kernel.collect(net, pictures, "0", 3, strongest=5)["0"]
    assert found.mean_stimulus.shape[1] == colours
    tensors = torch.stack([image_of(each) for each in pictures])
    for stimuli, expected in zip(
        preferred_stimuli(pictures, found, 1), preferred_stimuli(tensors, found, 1), strict=True
    ):
        assert len(stimuli) == 3 and torch.equal(stimuli, expected)


def test_preferred_stimuli_of_other_images(resnet, some_tiles):
    found = kernel.collect(resnet, some_tiles, ["maxpool"], 1)["maxpool"]
    with pytest.raises(RfvizError, match=r"^the responses are of 12 images, but 5 were given: give those .*\.$"):
        preferred_stimuli(some_tiles[:5], found, 0)


def test_preferred_stimuli_of_no_such_channel(resnet, some_tiles):
    found = collect(resnet, some_tiles, ["maxpool"])["maxpool"]
    for channel in (-1, 6):
        with pytest.raises(RfvizError, match=f"no channel {channel}: this layer has 6, numbered 0 to 5"):
            preferred_stimuli(some_tiles, found, channel)
