"""Receptive fields: the table of the design, and proof by gradients that each is neither too large nor too small."""

import copy
import itertools
from math import ceil

import numpy as np
import pytest
import torch
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from rfviz.errors import RfvizError
from rfviz.nets import models, receptive_field
from rfviz.nets.network import network
from rfviz.nets.receptive_field import ReceptiveField

LAYERS = ("conv1", *network("resnet34").layers)

# (size, stride, start) of every layer, written out. A block adds two kernels of 3: 4 strides, or 3 where it halves.
TABLE = {
    "conv1": (7, 2, -3),
    "maxpool": (11, 4, -5),
    "layer1.0": (27, 4, -13),
    "layer1.1": (43, 4, -21),
    "layer1.2": (59, 4, -29),
    "layer2.0": (83, 8, -41),
    "layer2.1": (115, 8, -57),
    "layer2.2": (147, 8, -73),
    "layer2.3": (179, 8, -89),
    "layer3.0": (227, 16, -113),
    "layer3.1": (291, 16, -145),
    "layer3.2": (355, 16, -177),
    "layer3.3": (419, 16, -209),
    "layer3.4": (483, 16, -241),
    "layer3.5": (547, 16, -273),
    "layer4.0": (643, 32, -321),
    "layer4.1": (771, 32, -385),
    "layer4.2": (899, 32, -449),
}


class Uneven(nn.Module):
    """Branches of different size that agree in stride and centre, with dilation, groups, pooling and even kernels."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 2, 5, stride=2, padding=1)  # padding that does not keep the size
        self.wide = nn.Sequential(
            nn.Conv2d(2, 2, 3, padding=3, dilation=3), nn.SiLU(), nn.Conv2d(2, 2, 7, stride=2, padding=3, groups=2)
        )
        self.narrow = nn.AvgPool2d(1, stride=2)
        self.pooled = nn.MaxPool2d(3, stride=2, padding=1)
        self.mix = nn.Conv2d(4, 2, 4, stride=3)
        self.same = nn.Conv2d(2, 2, 4, padding="same", dilation=3)  # an odd total: one more on the right
        self.valid = nn.Conv2d(2, 2, 2, padding="valid")

    def forward(self, x):
        x = F.relu(self.stem(x))
        joined = torch.cat([self.wide(x) + self.narrow(x), self.pooled(x)], dim=1)
        return self.valid(self.same(self.mix(joined)))


def all_paths_open(net: nn.Module) -> nn.Module:
    """Copy a network so that every pixel that can reach a neuron does: nothing cancels, nothing is switched off.

    All weights become positive, batch norm the identity, and average pooling takes the place of max pooling.
    """
    net = copy.deepcopy(net).double().eval()
    for name, module in list(net.named_modules()):
        if isinstance(module, nn.MaxPool2d):
            mean = nn.AvgPool2d(module.kernel_size, module.stride, module.padding, module.ceil_mode)
            net.get_submodule(name.rpartition(".")[0]).add_module(name.rpartition(".")[2], mean)
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.ones_(module.weight)
            nn.init.zeros_(module.bias)
            module.running_mean.zero_()
            module.running_var.fill_(1)
        elif isinstance(module, nn.Conv2d):
            # The mean: 34 layers of it neither overflow nor fall below the smallest number.
            nn.init.constant_(module.weight, 1 / module.weight[0].numel())
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    return net


class _Reached(Exception):  # noqa: N818  # not an error: it ends a pass early
    pass


def feature_map(net: nn.Module, layer: str, images: torch.Tensor) -> torch.Tensor:
    """Return the output of a module by a plain hook, and stop there."""
    kept = {}

    def keep(module, args, output):
        kept["value"] = output.clone()
        raise _Reached

    hook = net.get_submodule(layer).register_forward_hook(keep)
    try:
        net(images)
    except _Reached:
        pass
    finally:
        hook.remove()
    return kept["value"]


def support(net: nn.Module, layer: str, y: int, x: int, height: int, width: int) -> torch.Tensor:
    """Return which pixels of a `height` x `width` image the neuron (y, x) of any channel depends on, by gradients."""
    images = torch.rand(1, 3, height, width, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    images.requires_grad_(True)
    response = feature_map(net, layer, images)[0, :, y, x].sum()
    (gradient,) = torch.autograd.grad(response, images)
    return (gradient[0] != 0).any(0)


def extent(support: torch.Tensor) -> tuple[int, int, int, int]:
    """Return the smallest box ``(top, left, bottom, right)`` around what is true."""
    rows, columns = support.any(1).nonzero().flatten(), support.any(0).nonzero().flatten()
    return int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1


def roomy(field: ReceptiveField) -> tuple[int, int, int]:
    """Return a neuron (y, x) whose box lies inside, not at the border, of an image, and that image's side."""
    y = max(0, -field.start // field.stride + 1)
    x = y + 1
    return y, x, field.box(y, x)[3] + 2


def box_of(field: ReceptiveField, y: int, x: int, side: int) -> torch.Tensor:
    top, left, bottom, right = field.box(y, x)
    assert 0 < top < bottom < side and 0 < left < right < side
    filled = torch.zeros(side, side, dtype=torch.bool)
    filled[top:bottom, left:right] = True
    return filled


@pytest.mark.parametrize("build", [models.resnet34, pytest.param(models.plainnet34, marks=pytest.mark.thorough)])
def test_of_equals_the_table(build):
    net = build(2, 2)
    assert {layer: receptive_field.of(net, layer) for layer in LAYERS} == {
        layer: ReceptiveField(*row) for layer, row in TABLE.items()
    }
    assert receptive_field.of(net, "layer1.0.relu1") == ReceptiveField(19, 4, -9)
    if build is models.resnet34:
        assert receptive_field.of(net, "layer2.0.downsample") == ReceptiveField(59, 8, -29)


def test_of_knows_torchvisions_own_resnets():
    assert receptive_field.of(torchvision.models.resnet18(), "layer4.1") == ReceptiveField(435, 32, -217)
    assert receptive_field.of(torchvision.models.resnet50(), "layer1.2") == ReceptiveField(35, 4, -17)


SOME = [pytest.param(each, marks=() if number % 4 == 2 else pytest.mark.thorough) for number, each in enumerate(LAYERS)]
"""A block of each stage; the others are a larger sample."""


@pytest.mark.parametrize("layer", SOME)
@pytest.mark.parametrize("build", [models.resnet34, pytest.param(models.plainnet34, marks=pytest.mark.thorough)])
def test_the_gradient_fills_the_box_and_nothing_else(build, layer):
    net = build(1, 2)
    field = receptive_field.of(net, layer)
    y, x, side = roomy(field)
    assert torch.equal(support(all_paths_open(net), layer, y, x, side, side), box_of(field, y, x, side))


@pytest.mark.parametrize("layer", SOME)
@pytest.mark.parametrize("build", [models.resnet34, pytest.param(models.plainnet34, marks=pytest.mark.thorough)])
def test_the_gradient_of_the_real_network_lies_in_the_box(build, layer):
    """Random weights of both signs, max pooling and ReLUs, some of them off."""
    torch.manual_seed(4)
    net = build(3, 2).double().eval()
    field = receptive_field.of(net, layer)
    y, x, side = roomy(field)
    # The stem's response lies behind bn1 and the ReLU; no module but the ReLU ends there.
    seen = support(net, "relu" if layer == "conv1" else layer, y, x, side, side)
    assert seen.any()
    assert not (seen & ~box_of(field, y, x, side)).any()


@pytest.mark.filterwarnings("ignore:Using padding='same'")
@pytest.mark.parametrize("layer", ["stem", "wide.0", "wide", "narrow", "pooled", "mix", "same", "valid"])
def test_the_gradient_fills_the_box_of_uneven_branches(layer):
    net = Uneven()
    field = receptive_field.of(net, layer)
    y, x, side = roomy(field)
    seen = support(all_paths_open(net), layer, y, x, side, side)
    box = box_of(field, y, x, side)
    assert extent(seen) == field.box(y, x)
    assert not (seen & ~box).any()
    if layer not in ("wide.0", "same", "valid"):  # a dilated kernel leaves holes
        assert torch.equal(seen, box)


def test_an_even_kernel_with_padding_same_looks_further_to_the_right():
    net = nn.Sequential(nn.Conv2d(3, 1, 4, padding="same"))
    assert receptive_field.of(net, "0") == ReceptiveField(4, 1, -1)


@st.composite
def windows(draw) -> nn.Module:
    """Draw a convolution or a pooling of one channel."""
    kernel, stride, padding = draw(st.integers(1, 4)), draw(st.integers(1, 3)), draw(st.integers(0, 3))
    match draw(st.sampled_from(["convolution", "same", "mean", "max"])):
        case "convolution":
            return nn.Conv2d(1, 1, kernel, stride, padding, draw(st.integers(1, 3)))
        case "same":
            return nn.Conv2d(1, 1, kernel, padding="same", dilation=draw(st.integers(1, 3)))
        case "mean":
            return nn.AvgPool2d(kernel, stride, min(padding, kernel // 2))  # torch allows no more
        case _:
            return nn.MaxPool2d(kernel, stride, min(padding, kernel // 2))


@pytest.mark.filterwarnings("ignore:Using padding='same'")
@settings(max_examples=60, deadline=None)
@given(st.lists(windows(), min_size=1, max_size=4))
def test_any_chain_of_windows_has_the_extent_that_its_gradient_has(chain):
    net, last = nn.Sequential(nn.Conv2d(3, 1, 1), *chain), str(len(chain))
    field = receptive_field.of(net, last)
    y = max(0, ceil(-field.start / field.stride)) + 1
    x = y + 1
    side = field.box(y, x)[3] + 2 * field.size + 2 * field.stride  # room for kernels and strides that begin later
    assert extent(support(all_paths_open(net), last, y, x, side, side)) == field.box(y, x)


fields = st.builds(ReceptiveField, st.integers(1, 900), st.integers(1, 64), st.integers(-500, 50))
places = st.integers(-2000, 2000)


@given(fields, places)
def test_box_and_centre_step_by_the_stride(field, y):
    here, there = field.box(y, 0), field.box(y + 1, 1)
    assert [b - a for a, b in zip(here, there, strict=True)] == [field.stride] * 4
    assert field.centre == sum(range(field.start, field.start + field.size)) / field.size


def crop_pixel_by_pixel(image: np.ndarray, field: ReceptiveField, y: int, x: int) -> tuple[np.ndarray, np.ndarray]:
    patch = np.zeros((image.shape[0], field.size, field.size), image.dtype)
    inside = np.zeros((field.size, field.size), bool)
    for i, j in itertools.product(range(field.size), range(field.size)):
        row, column = field.stride * y + field.start + i, field.stride * x + field.start + j
        if 0 <= row < image.shape[1] and 0 <= column < image.shape[2]:
            patch[:, i, j] = image[:, row, column]
            inside[i, j] = True
    return patch, inside


@settings(max_examples=200, deadline=None)
@given(
    st.builds(ReceptiveField, st.integers(1, 12), st.integers(1, 5), st.integers(-9, 3)),
    st.integers(-6, 12),
    st.integers(-6, 12),
    st.integers(1, 10),
    st.integers(1, 10),
    st.sampled_from([torch.uint8, torch.float32]),
)
def test_crop_equals_a_crop_pixel_by_pixel(field, y, x, height, width, dtype):
    image = torch.arange(1, 3 * height * width + 1).remainder(251).add(1).reshape(3, height, width).to(dtype)
    patch, inside = field.crop(image, y, x)
    expected_patch, expected_inside = crop_pixel_by_pixel(image.numpy(), field, y, x)
    assert patch.dtype == dtype
    np.testing.assert_array_equal(patch.numpy(), expected_patch)
    np.testing.assert_array_equal(inside.numpy(), expected_inside)


@pytest.mark.parametrize(
    ("y", "x", "rows", "columns"),
    [
        (0, 2, slice(3, 7), slice(0, 7)),  # top
        (2, 0, slice(0, 7), slice(3, 7)),  # left
        (6, 2, slice(0, 3), slice(0, 7)),  # bottom
        (2, 6, slice(0, 7), slice(0, 3)),  # right
        (6, 0, slice(0, 3), slice(3, 7)),  # corner
        (2, 2, slice(0, 7), slice(0, 7)),  # whole
        (-3, 2, slice(0, 0), slice(0, 7)),  # entirely above
        (8, 2, slice(0, 0), slice(0, 7)),  # entirely below
        (2, -3, slice(0, 7), slice(0, 0)),  # entirely to the left
        (9, 9, slice(0, 0), slice(0, 0)),  # entirely beyond the corner
    ],
)
def test_crop_tells_which_pixels_exist(y, x, rows, columns):
    field = ReceptiveField(7, 2, -3)
    image = torch.ones(2, 3, 12, 12)
    patch, inside = field.crop(image, y, x)
    expected = torch.zeros(7, 7, dtype=torch.bool)
    expected[rows, columns] = True
    assert torch.equal(inside, expected)
    assert patch.shape == (2, 3, 7, 7)
    assert torch.equal(patch, expected.float().expand(2, 3, 7, 7))
    assert image.min() == 1  # the image is not written to


def test_crop_is_what_the_neuron_sees(resnet, some_tiles):
    """A neuron does not change when everything but its crop does."""
    field = receptive_field.of(resnet, "layer1.0")
    y, x = 7, 5
    top, left, bottom, right = field.box(y, x)
    painted = torch.rand_like(some_tiles)
    painted[:, :, top:bottom, left:right] = field.crop(some_tiles, y, x)[0]
    with torch.inference_mode():
        before, after = (feature_map(resnet, "layer1.0", images) for images in (some_tiles, painted))
    torch.testing.assert_close(after[:, :, y, x], before[:, :, y, x], rtol=1e-5, atol=1e-6)
    assert not torch.allclose(after, before)


class Joined(nn.Module):
    """Two branches that meet in a sum."""

    def __init__(self, left: nn.Module, right: nn.Module):
        super().__init__()
        self.left, self.right, self.end = left, right, nn.Identity()

    def forward(self, x):
        return self.end(self.left(x) + self.right(x))


def test_branches_that_disagree_in_stride_are_refused():
    net = Joined(nn.Conv2d(3, 1, 3, stride=2, padding=1), nn.Conv2d(3, 1, 3, padding=1))
    with pytest.raises(RfvizError, match=r"branches that meet at 'add' disagree in stride \(1 px against 2 px\)"):
        receptive_field.of(net, "end")


@pytest.mark.filterwarnings("ignore:Using padding='same'")
def test_branches_that_disagree_in_centre_see_both_fields():
    net = Joined(nn.Conv2d(3, 1, 3, padding="same"), nn.Conv2d(3, 1, 4, padding="same", dilation=3))
    field = receptive_field.of(net, "end")
    assert field == ReceptiveField(10, 1, -4)
    assert extent(support(all_paths_open(net), "end", 12, 12, 30, 30)) == field.box(12, 12)


def test_what_comes_after_the_layer_does_not_matter():
    net = nn.Sequential(nn.Conv2d(3, 4, 3, stride=2), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    assert receptive_field.of(net, "0") == ReceptiveField(3, 2, 0)


def test_strides_that_differ_down_and_across_are_refused():
    with pytest.raises(RfvizError, match="steps by 2 px down and by 1 px across"):
        receptive_field.of(nn.Sequential(nn.Conv2d(3, 4, 3, stride=(2, 1))), "0")


@pytest.mark.parametrize("dim", [2, 3, -1, -2])
@pytest.mark.parametrize("by_name", [True, False])
def test_maps_put_side_by_side_are_refused(dim, by_name):
    class SideBySide(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.end = nn.Conv2d(3, 4, 3), nn.ReLU()

        def forward(self, x):
            x = self.conv(x)
            return self.end(torch.cat([x, x], dim=dim) if by_name else torch.cat([x, x], dim))

    with pytest.raises(RfvizError, match="side by side"):
        receptive_field.of(SideBySide(), "end")


def test_an_unknown_layer_is_refused():
    with pytest.raises(RfvizError, match=r"unknown layer 'layer1\.3'"):
        receptive_field.of(models.resnet34(1, 2), "layer1.3")


@pytest.mark.parametrize(
    ("layer", "expected"),
    [
        ("maxpool2", ReceptiveField(27, 8, -7)),
        ("inception3a", ReceptiveField(43, 8, -15)),
        ("inception4a", ReceptiveField(107, 16, -39)),
    ],
)
def test_googlenet(layer, expected):
    net = torchvision.models.googlenet(weights=None, init_weights=False, aux_logits=False, num_classes=2)
    field = receptive_field.of(net, layer)
    assert field == expected
    y, x, side = roomy(field)
    assert torch.equal(support(all_paths_open(net), layer, y, x, side, side), box_of(field, y, x, side))


@pytest.mark.parametrize("layer", ["features.denseblock1", "features.transition1", "features.denseblock2"])
def test_densenet(layer):
    net = torchvision.models.DenseNet(2, (3, 2), num_init_features=4, bn_size=2, num_classes=2)
    field = receptive_field.of(net, layer)
    y, x, side = roomy(field)
    assert torch.equal(support(all_paths_open(net), layer, y, x, side, side), box_of(field, y, x, side))
