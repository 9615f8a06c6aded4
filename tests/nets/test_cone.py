"""The forward pass of one neuron against the pass over a whole image that holds its receptive field."""

import copy
import re
from functools import partial
from math import ceil

import pytest
import torch
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import called_modules, settled
from torch import nn
from torch.nn import functional as F

from rfviz.errors import RfvizError
from rfviz.images import photographs
from rfviz.images.whitening import IMAGENET
from rfviz.nets import cone, models, receptive_field
from rfviz.nets.cone import Cone
from rfviz.nets.graph import ForwardPass
from rfviz.nets.network import network

LAYERS = network("resnet34").layers
SHALLOW = ("conv1", "maxpool", "layer1.0.relu1", *LAYERS[1:8])
DEEP = LAYERS[8:]  # fields of 227 to 899 px


# ------------------------------------------------------------------------------- the two ways to the same numbers


def tightest_image(field):
    """Return a neuron (y, x) and the size (h, w) of an image that its field just fits into; one px is left beside."""
    y = ceil(-field.start / field.stride)
    x = y + 1
    _, _, bottom, right = field.box(y, x)
    return y, x, bottom, right + 1


def photograph(height, width, number=0):
    """A piece of a real photograph, whitened, repeated where it is too small: (3, height, width)."""
    whole = photographs.photograph(("chelsea", "astronaut", "coffee", "immunohistochemistry")[number])
    repeated = whole.repeat(1, ceil((height + 40) / whole.shape[1]), ceil((width + 80) / whole.shape[2]))
    piece = repeated[:, 40 : 40 + height, 80 : 80 + width]
    return IMAGENET(piece[None].double() / 255)[0]


def noise(height, width, seed=0):
    return torch.randn(3, height, width, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def by_the_whole_image(net, layer, before_relu, images, y, x):
    """Values (N, C) of one neuron on whole images, and the gradient of their weighted sum."""
    images = images.clone().requires_grad_(True)
    values = ForwardPass(net, [layer], before_relu=before_relu)(images)[:, :, y, x]
    (gradient,) = torch.autograd.grad((values * weights_like(values)).sum(), images)
    return values.detach(), gradient


def by_the_cone(net, layer, before_relu, patches):
    """The same of patches of exactly the field."""
    patches = patches.clone().requires_grad_(True)
    before = patches.detach().clone()
    values = Cone(net, layer, before_relu=before_relu)(patches)
    assert values.shape[2:] == (1, 1)
    values = values[:, :, 0, 0]
    (gradient,) = torch.autograd.grad((values * weights_like(values)).sum(), patches)
    assert torch.equal(patches, before)  # nothing works in place on what was given
    return values.detach(), gradient


def weights_like(values):
    return torch.linspace(-1, 2, values.numel(), dtype=values.dtype).reshape(values.shape)


def assert_equal_to_the_whole(net, layer, before_relu=False, images=(photograph, noise)):
    """Value and gradient of the cone against those of an image that the field just fits into; return the values."""
    field = receptive_field.of(net, layer)
    y, x, height, width = tightest_image(field)
    images = torch.stack([make(height, width) for make in images])
    values, gradient = by_the_whole_image(net, layer, before_relu, images, y, x)
    patches, inside = field.crop(images, y, x)
    assert inside.all()
    found, found_gradient = by_the_cone(net, layer, before_relu, patches)
    torch.testing.assert_close(found, values, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(found_gradient, field.crop(gradient, y, x)[0], rtol=1e-10, atol=1e-10)
    top, left, bottom, right = field.box(y, x)
    gradient[:, :, top:bottom, left:right] = 0
    assert not gradient.any()
    return found, found_gradient


def settle_all(net):
    """As `settled`, with batch norms that lack something."""
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            for values, low, high in [
                (module.running_mean, -0.5, 0.5),
                (module.running_var, 0.2, 2),
                (module.weight, -2, 2),
                (module.bias, -0.5, 0.5),
            ]:
                if values is not None:
                    nn.init.uniform_(values, low, high)
    return net.double().eval()


# ------------------------------------------------------------------------------------------ ResNet34 and PlainNet34


@pytest.mark.parametrize(
    "layer",
    [pytest.param(each, marks=() if number % 3 == 0 else pytest.mark.thorough) for number, each in enumerate(SHALLOW)],
)
@pytest.mark.parametrize("architecture", ["resnet", pytest.param("plainnet", marks=pytest.mark.thorough)])
def test_value_and_gradient_are_those_of_the_whole_image(architecture, layer, request):
    net = request.getfixturevalue(architecture).double()
    several = [photograph, partial(photograph, number=2), *(partial(noise, seed=seed) for seed in range(4))]
    for before_relu in (False, True):
        values, gradient = assert_equal_to_the_whole(net, layer, before_relu, several)
        assert gradient.flatten(1).any(1).all()
    assert (values < 0).any()  # before the ReLU
    assert len(values.unique()) == values.numel()


@pytest.mark.parametrize(
    "layer", [pytest.param(each, marks=() if each == DEEP[-1] else pytest.mark.thorough) for each in DEEP]
)
@pytest.mark.parametrize("skips", [True, False])
def test_deep_layers_too(skips, layer):
    torch.manual_seed(2)
    net = settled((models.resnet34 if skips else models.plainnet34)(3, 2)).double()
    # A whole image takes its time: each network shows one of the two, and the other follows from it.
    images = [photograph if skips else noise]
    values, gradient = assert_equal_to_the_whole(net, layer, before_relu=skips, images=images)
    assert gradient.any()
    field = receptive_field.of(net, layer)
    y, x, height, width = tightest_image(field)
    patch = field.crop(images[0](height, width)[None], y, x)[0]
    other, _ = by_the_cone(net, layer, not skips, patch)
    torch.testing.assert_close(other.relu(), values.relu(), rtol=1e-10, atol=1e-10)
    assert (other < 0).any() != skips


def test_photographs_of_every_kind(resnet):
    net = resnet.double()
    for layer in ("maxpool", "layer1.2"):
        field = receptive_field.of(net, layer)
        pieces = torch.stack([photograph(64 + field.stride, 64, number) for number in range(4)])
        whole = ForwardPass(net, [layer])(pieces)
        for y, x in [(64 // field.stride // 2, 64 // field.stride // 2), (64 // field.stride // 2 + 1, 8)]:
            patches, inside = field.crop(pieces, y, x)
            assert inside.all()
            torch.testing.assert_close(Cone(net, layer)(patches)[:, :, 0, 0], whole[:, :, y, x], rtol=0, atol=1e-10)


@pytest.mark.parametrize("layer", ["conv1", "maxpool", "layer1.0.relu1", "layer1.1", "layer2.0", "layer3.0"])
@pytest.mark.parametrize("architecture", ["resnet", "plainnet"])
def test_float32_differs_by_rounding_only(architecture, layer, request):
    net = request.getfixturevalue(architecture)
    size = receptive_field.of(net, layer).size
    patches = torch.stack([photograph(size, size, number) for number in range(3)])
    exact = Cone(copy.deepcopy(net).double(), layer, before_relu=True)(patches)
    found = Cone(net, layer, before_relu=True)(patches.float())
    assert found.dtype == torch.float32
    assert (found - exact).norm() < 2e-6 * exact.norm()


def test_channels_last_weights_change_nothing(resnet):
    net = resnet.double()
    patches = torch.stack([noise(27, 27, seed) for seed in range(3)])
    expected = Cone(net, "layer1.0")(patches)
    found = Cone(net.to(memory_format=torch.channels_last), "layer1.0")(patches)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


# ------------------------------------------------------------------------------------------- which positions it takes


def test_the_drawing_of_the_documentation(resnet, plainnet):
    (drawn,) = [line for line in cone.__doc__.splitlines() if re.match(r"^ *\d+ +-> ", line)]
    numbers = [int(number) for number in re.findall(r"\d+", drawn)]
    assert numbers == [59, 27, 13, 11, 9, 7, 5, 3, 1]
    convolutions = [f"layer1.{block}.conv{i}" for block in range(3) for i in (1, 2)]
    for net in (resnet, plainnet):
        spans = {str(node.target): span for node, span in Cone(net, "layer1.2").spans.items()}
        sides = [spans[name][1] - spans[name][0] for name in ("x", "conv1", "maxpool", *convolutions)]
        assert sides == numbers


@pytest.mark.parametrize("architecture", ["resnet", pytest.param("plainnet", marks=pytest.mark.thorough)])
def test_of_the_image_it_takes_the_receptive_field(architecture, request):
    net = request.getfixturevalue(architecture)
    for layer in ("conv1", "layer1.0.relu1", *LAYERS):
        field = receptive_field.of(net, layer)
        for before_relu in (False, True):
            forward = Cone(net, layer, before_relu=before_relu)
            assert forward.spans[forward.nodes[layer]] == (0, 1)
            (image,) = forward.traced.graph.find_nodes(op="placeholder")
            assert forward.spans[image] == (field.start, field.start + field.size)


def test_how_much_is_computed(resnet):
    forward = Cone(resnet, "layer1.0", before_relu=True)
    for images in (1, 4):
        forward(torch.zeros(images, 3, 27, 27))
        # The image; conv1 with its batch norm, and the ReLU; maxpool; conv1 and ReLU; conv2; the sum; the output.
        each = 3 * 27**2 + 6 * (2 * 11**2 + 5**2 + 2 * 3**2 + 1 + 1 + 1)
        assert forward.elements == images * each


# ---------------------------------------------------------------------------------------------- other networks


def test_alexnet():
    torch.manual_seed(0)
    net = torchvision.models.alexnet(num_classes=2).double().eval()
    net.features[0].stride = (3, 3)  # the original's 4 would make the image larger, not harder
    for layer in ("features.0", "features.2", "features.3", "features.5", "features.6"):
        for before_relu in (False, True):
            _, gradient = assert_equal_to_the_whole(net, layer, before_relu)
            assert gradient.any()


@pytest.mark.parametrize(("build", "layers"), [("vgg11", (0, 2, 6, 10)), ("vgg11_bn", (0, 3, 8, 14))])
def test_vgg(build, layers):
    torch.manual_seed(0)
    with torch.device("meta"):  # its classifier, which no pass here reaches, is large
        net = getattr(torchvision.models, build)()
    net.features = net.features.to_empty(device="cpu")
    for module in net.features.modules():
        if isinstance(module, (nn.Conv2d, nn.BatchNorm2d)):
            module.reset_parameters()
    settled(net).double()
    for layer in layers:
        assert_equal_to_the_whole(net, f"features.{layer}")
    assert_equal_to_the_whole(net, f"features.{layers[-1]}", before_relu=True)


@pytest.mark.parametrize(
    ("build", "layers"),
    [
        (lambda: torchvision.models.squeezenet1_1(num_classes=2), ("features.3", "features.4", "features.6")),
        (
            lambda: torchvision.models.DenseNet(2, (3, 2), num_init_features=4, bn_size=2, num_classes=2),
            ("features.denseblock1", "features.transition1", "features.denseblock2"),
        ),
        (
            lambda: torchvision.models.googlenet(init_weights=False, aux_logits=False, num_classes=2),
            ("conv3", "inception3a", "inception3b"),
        ),
        (lambda: torchvision.models.resnet50(num_classes=2), ("layer1.0", "layer1.1.conv2", "layer1.1")),
    ],
    ids=["squeezenet", "densenet", "googlenet", "resnet50"],
)
def test_torchvisions_branches(build, layers):
    torch.manual_seed(0)
    net = settled(build()).double()
    for layer in layers:
        _, gradient = assert_equal_to_the_whole(net, layer, images=[photograph])
        assert gradient.any()


class Uneven(nn.Module):
    """Branches of different size with the same centre, dilation, groups, "same", bias and poolings of every kind."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 5, stride=2, padding=1)
        self.wide = nn.Sequential(
            nn.Conv2d(4, 6, 3, padding=3, dilation=3, groups=2), nn.SiLU(), nn.Conv2d(6, 6, 7, 2, 3, groups=3)
        )
        self.narrow = nn.Sequential(nn.AvgPool2d(1, stride=2), nn.Conv2d(4, 6, 1, bias=False))
        self.pooled = nn.MaxPool2d(3, stride=2, padding=1)
        self.mix = nn.Conv2d(10, 5, 4, stride=3, padding=1, padding_mode="reflect")
        self.same = nn.Conv2d(5, 5, 4, padding="same", dilation=3)  # one more on the right
        self.mean = nn.AvgPool2d(3, 1, padding=1, count_include_pad=False)
        self.total = nn.AvgPool2d(2, 1, divisor_override=3)
        self.highest = nn.MaxPool2d(2, 1, dilation=3)
        self.valid = nn.Conv2d(5, 3, 2, padding="valid")

    def forward(self, x):
        x = F.relu(self.stem(x))
        joined = torch.cat([self.wide(x) + self.narrow(x), F.gelu(self.pooled(x))], dim=1)
        return self.valid(self.highest(self.total(self.mean(self.same(self.mix(joined))))) * 3 - 1)


@pytest.mark.filterwarnings("ignore:Using padding='same'")
@pytest.mark.parametrize(
    "layer", ["stem", "wide.0", "wide", "narrow", "pooled", "mix", "same", "mean", "total", "highest", "valid"]
)
def test_uneven_branches(layer):
    torch.manual_seed(0)
    _, gradient = assert_equal_to_the_whole(Uneven().double().eval(), layer)
    assert gradient.flatten(1).any(1).all()


class Pyramid(nn.Module):
    """The same map, cropped differently for three users; a module that is called twice; numbers in the arithmetic."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4))
        self.small, self.large = nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 5, padding=2)
        self.shared = nn.Conv2d(4, 4, 3, padding=1)
        self.end = nn.Identity()

    def forward(self, x):
        x = self.stem(x)
        total = 0.5 * x + self.small(x) * torch.sigmoid(self.large(x))
        total = torch.cat(tensors=[self.shared(self.shared(total)), 2 - x], dim=1) / 3
        return self.end(total)


@pytest.mark.parametrize("layer", ["stem", "small", "large", "shared1", "shared2", "end"])
def test_one_map_with_several_users(layer):
    torch.manual_seed(0)
    assert_equal_to_the_whole(settle_all(Pyramid()), layer)


@st.composite
def modules(draw, channels):
    """Draw something that keeps the number of channels."""
    kernel, stride, padding, dilation = (draw(st.integers(*limits)) for limits in [(1, 4), (1, 3), (0, 3), (1, 3)])
    match draw(st.sampled_from(["convolution", "same", "normalized", "skip", "mean", "max", "relu"])):
        case "convolution":
            groups = draw(st.sampled_from([1, channels]))
            return nn.Conv2d(channels, channels, kernel, stride, padding, dilation, groups, draw(st.booleans()))
        case "same":
            return nn.Conv2d(channels, channels, kernel, padding="same", dilation=dilation)
        case "normalized":
            convolution = nn.Conv2d(channels, channels, kernel, stride, padding, bias=draw(st.booleans()))
            return nn.Sequential(convolution, nn.BatchNorm2d(channels, affine=draw(st.booleans())), nn.ReLU(True))
        case "skip":
            branches = [nn.Conv2d(channels, channels, odd, padding=odd // 2) for odd in (1, 2 * kernel - 1)]
            return Sum(*branches)
        case "mean":
            return nn.AvgPool2d(
                kernel, stride, min(padding, kernel // 2), draw(st.booleans()), draw(st.booleans())
            )  # torch allows no more
        case "max":
            return nn.MaxPool2d(kernel, stride, min(padding, kernel // 2), dilation, ceil_mode=draw(st.booleans()))
        case _:
            return nn.ReLU()


class Sum(nn.Module):
    def __init__(self, left, right):
        super().__init__()
        self.left, self.right = left, right

    def forward(self, x):
        return self.left(x) + self.right(x) - x


@pytest.mark.filterwarnings("ignore:Using padding='same'")
@settings(max_examples=150, deadline=None, database=None)
@given(st.lists(modules(2), min_size=1, max_size=4), st.integers(0, 2**31))
def test_any_chain(chain, seed):
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Conv2d(3, 2, 1), *chain)
    for parameter in net.parameters():
        nn.init.normal_(parameter)
    settle_all(net)
    assert_equal_to_the_whole(net, str(len(chain)), images=[noise])


# ------------------------------------------------------------------------------------ convolution and normalization


class Normalized(nn.Module):
    """A convolution, and a user of it besides the batch norm."""

    def __init__(self, *, affine=True, tracked=True, bias=True, second_user=False, twice=False):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, stride=2, padding=1, bias=bias)
        self.norm = nn.BatchNorm2d(4, eps=0.1, affine=affine, track_running_stats=tracked)
        self.again = nn.BatchNorm2d(4) if twice else nn.Identity()
        self.relu = nn.ReLU(inplace=True)
        self.second_user = second_user
        self.end = nn.Conv2d(4, 4, 3, padding=1, bias=False)
        self.last = nn.BatchNorm2d(4, affine=False)

    def forward(self, x):
        x = self.conv(x)
        y = self.relu(self.again(self.norm(x)))
        return self.last(self.end(y + x if self.second_user else y))


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("second_user", [True, False])
@pytest.mark.parametrize("twice", [True, False])
def test_batch_norm_becomes_part_of_a_convolution_that_nothing_else_reads(bias, affine, second_user, twice):
    torch.manual_seed(0)
    net = settle_all(Normalized(bias=bias, affine=affine, second_user=second_user, twice=twice))
    for layer in ("norm", "relu", "end"):
        assert_equal_to_the_whole(net, layer)
    field = receptive_field.of(net, "end")
    called = called_modules(net, lambda: Cone(net, "end")(noise(field.size, field.size)[None]))
    assert called == ["norm"] * second_user + ["again", "relu"]


def test_a_convolution_that_is_normalized_in_two_ways():
    class Twins(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.one, self.other = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.BatchNorm2d(4)
            self.end = nn.Identity()

        def forward(self, x):
            once = self.conv(x)
            return self.end(self.one(once) * self.other(once) + self.other(self.conv(x)))

    torch.manual_seed(0)
    assert_equal_to_the_whole(settle_all(Twins()), "end")


def test_what_another_branch_reads_does_not_matter_if_no_path_leads_from_it_to_the_layer():
    class Branches(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.norm, self.relu = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU()
            self.aside = nn.AdaptiveAvgPool2d(1)

        def forward(self, x):
            x = self.conv(x)
            return self.aside(x) + self.relu(self.norm(x))

    torch.manual_seed(0)
    net = settle_all(Branches())
    assert_equal_to_the_whole(net, "relu")
    assert called_modules(net, lambda: Cone(net, "relu")(noise(3, 3)[None])) == ["relu"]


def test_a_batch_norm_without_running_statistics_has_no_cone():
    """It normalizes with the statistics of all positions of all images."""
    net = settle_all(Normalized(tracked=False))
    assert receptive_field.known(net, ["end"])["end"].how == receptive_field.WHOLE_IMAGE
    with pytest.raises(RfvizError, match="sees the whole image"):
        Cone(net, "end")


def test_the_gradient_does_not_reach_the_weights_of_a_folded_convolution(resnet):
    value = Cone(resnet, "maxpool")(torch.zeros(1, 3, 11, 11))
    assert not value.requires_grad


# ---------------------------------------------------------------------------------------------- working in place


class InPlace(nn.Module):
    """Overwrites a map of which another branch then reads more positions than the overwriting one needs."""

    def __init__(self, how):
        super().__init__()
        self.stem, self.relu, self.how = nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(inplace=True), how
        self.narrow, self.wide, self.end = nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 5, padding=2), nn.Identity()

    def forward(self, x):
        x = self.stem(x)
        y = self.how(self, x)  # the result, or nothing
        return self.end(self.wide(x) if y is None else self.narrow(y) * self.wide(x))


def in_passing(operation):
    def run(net, x):
        operation(net, x)

    return run


IN_PLACE = {
    "module": lambda net, x: net.relu(x),
    "function": lambda net, x: F.relu(x, inplace=True),
    "function, by position": lambda net, x: F.leaky_relu(x, 0.2, True),
    "method": lambda net, x: x.relu_(),
    "method of two": lambda net, x: x.mul_(x.sigmoid()),
    "twice": lambda net, x: net.relu(F.leaky_relu(x.add_(1), 0.2, inplace=True)),
    "not at all": lambda net, x: F.relu(x),
}


@pytest.mark.parametrize("used", [True, False])
@pytest.mark.parametrize("name", IN_PLACE)
def test_what_works_in_place_does_so_for_all_who_read_it_later(name, used):
    torch.manual_seed(0)
    net = InPlace(IN_PLACE[name] if used else in_passing(IN_PLACE[name])).double().eval()
    image = noise(9, 9)[None]
    with torch.no_grad():
        expected = net(image.clone())
        whole = ForwardPass(net, ["end"])(image)
        centre = Cone(net, "end")(image[:, :, 1:8, 1:8])
    torch.testing.assert_close(whole, expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(centre[:, :, 0, 0], expected[:, :, 4, 4], rtol=0, atol=1e-12)


def test_a_function_that_says_in_its_name_that_it_works_in_place():
    net = InPlace(in_passing(lambda net, x: torch.relu_(x))).double().eval()
    image = noise(9, 9)[None]
    torch.testing.assert_close(ForwardPass(net, ["end"])(image), net(image), rtol=0, atol=0)


def test_other_names_that_end_in_an_underscore_mean_nothing_in_place():
    class Named(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.end_ = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 1)

        def forward(self, input_):
            x = self.conv(2 * input_)
            positive = x > 0
            small = positive & (x < 0.5)  # operator.and_
            return self.end_(x) * small + input_.mean() + positive

    net = Named().double()
    image = noise(5, 5)[None]
    torch.testing.assert_close(Cone(net, "end_")(image[:, :, :3, :3]), net.end_(net.conv(2 * image))[:, :, :1, :1])
    assert torch.equal(ForwardPass(net, [], to_output=True)(image), net(image))


# ------------------------------------------------------------------------------------- what it leaves, what it refuses


def test_the_network_is_left_as_it_was(resnet):
    resnet.train()
    resnet.layer2.eval()
    resnet.layer1[0].conv2.weight.requires_grad_(False)
    state = copy.deepcopy(resnet.state_dict())
    modes = {name: module.training for name, module in resnet.named_modules()}
    flags = {name: parameter.requires_grad for name, parameter in resnet.named_parameters()}
    modules = list(resnet.named_modules())
    images = torch.randn(2, 3, 64, 64)
    whole = ForwardPass(resnet, ["layer1.2"])(images)
    for layer in ("conv1", "layer1.0", "layer2.1"):
        for before_relu in (False, True):
            forward, size = Cone(resnet, layer, before_relu=before_relu), receptive_field.of(resnet, layer).size
            patches = torch.randn(2, 3, size, size, requires_grad=True)
            torch.autograd.grad(forward(patches).sum(), patches)
    assert all(torch.equal(value, state[name]) for name, value in resnet.state_dict().items())
    assert list(resnet.state_dict()) == list(state)
    assert list(resnet.named_modules()) == modules
    assert {name: module.training for name, module in resnet.named_modules()} == modes
    assert {name: parameter.requires_grad for name, parameter in resnet.named_parameters()} == flags
    assert all(parameter.grad is None for parameter in resnet.parameters())
    assert torch.equal(ForwardPass(resnet, ["layer1.2"])(images), whole)


def test_a_network_in_training_mode_is_run_in_evaluation_mode(resnet):
    patches = torch.stack([noise(27, 27, seed) for seed in range(2)])
    expected = Cone(resnet.double(), "layer1.0")(patches)
    torch.testing.assert_close(Cone(resnet.train(), "layer1.0")(patches), expected, rtol=0, atol=0)


def test_nothing_behind_the_layer_is_run(resnet):
    # Convolutions, poolings and batch norms do without their modules, so the ReLUs tell how far it went.
    called = called_modules(resnet, lambda: Cone(resnet, "layer1.1")(torch.zeros(1, 3, 43, 43)))
    assert called == ["relu", *["layer1.0.relu"] * 2, *["layer1.1.relu"] * 2]
    called = called_modules(resnet, lambda: Cone(resnet, "layer1.1", before_relu=True)(torch.zeros(1, 3, 43, 43)))
    assert called == ["relu", *["layer1.0.relu"] * 2, "layer1.1.relu"]


@pytest.mark.parametrize(
    ("layer", "before_relu", "message"),
    [
        ("layer1.O", False, r"unknown layer 'layer1\.O'\. Did you mean 'layer1\.[012]"),
        ("bn1", True, "'bn1' does not end in a ReLU"),
        ("avgpool", False, "every neuron of 'avgpool' sees the whole image"),
        ("fc", False, "every neuron of 'fc' sees the whole image"),
    ],
)
def test_impossible_requests_are_refused(resnet, layer, before_relu, message):
    with pytest.raises(RfvizError, match=message) as error:
        Cone(resnet, layer, before_relu=before_relu)
    assert len(str(error.value).splitlines()) == 1


def test_branches_without_a_common_stride_are_refused():
    with pytest.raises(RfvizError, match="disagree"):
        Cone(nn.Sequential(Sum(nn.Conv2d(3, 3, 3, padding=1), nn.Conv2d(3, 3, 3, 2)), nn.ReLU()), "1")
