"""Receptive fields of networks of all sorts: composed, bounded, measured or the whole image, each against gradients."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torchvision import transforms

from rfviz.errors import RfvizError
from rfviz.nets import families, layer_table, receptive_field, zoo
from rfviz.nets.cone import Cone
from rfviz.nets.graph import ForwardPass
from rfviz.nets.receptive_field import BOUND, EXACT, MEASURED, WHOLE_IMAGE, ReceptiveField, known


class Of(nn.Module):
    """A network whose pass is a function of it and of what it is given."""

    def __init__(self, forward, **parts):
        super().__init__()
        self.function = forward
        for name, part in parts.items():
            if isinstance(part, torch.Tensor):
                self.register_buffer(name, part)
            else:
                setattr(self, name, part)
        self.end = nn.Identity()

    def forward(self, x):
        return self.end(self.function(self, x))


def conv(kernel=3, **options):
    return nn.Conv2d(3, 3, kernel, **options)


def extent(net, y, x, side):
    """Return top, left, bottom, right of the pixels that have a gradient for a neuron, over some noise."""
    seen = torch.zeros(side, side, dtype=torch.bool)
    for _ in range(3):
        image = torch.rand(1, 3, side, side, dtype=torch.float64, requires_grad=True)
        net(image)[0, :, y, x].sum().backward()
        seen |= image.grad[0].abs().amax(0) > 0
    rows, columns = (seen.any(dim).nonzero().flatten() for dim in (1, 0))
    return int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1


def shuffled(x):
    n, c, h, w = x.size()
    return x.view(n, 3, c // 3, h, w).transpose(1, 2).contiguous().view(n, c, h, w)


COMPOSED = {
    "a pooling as a function": (lambda net, x: F.max_pool2d(net.a(x), 3, stride=2, padding=1), (7, 2, -3), EXACT),
    "a pooling with names": (lambda net, x: F.avg_pool2d(input=net.a(x), kernel_size=2), (6, 2, -2), EXACT),
    "a padding": (lambda net, x: net.b(F.pad(net.a(x), (3, 3, 3, 3))), (7, 1, -5), EXACT),
    "a reflection": (lambda net, x: net.b(F.pad(net.a(x), [1, 1, 1, 1], mode="reflect")), (7, 1, -3), EXACT),
    "a uneven padding": (lambda net, x: net.b(F.pad(net.a(x), (2, 0, 1, 0))), (8, 1, -4), BOUND),
    "a buffer": (lambda net, x: net.a((x - net.mean) / net.mean), (5, 1, -2), EXACT),
    "Normalize": (lambda net, x: net.a(net.normalize(x)), (5, 1, -2), EXACT),
    "an assertion": (lambda net, x: net.asserting(x), (5, 1, -2), EXACT),
    "a decision by shape": (lambda net, x: net.a(x) if x.shape[2] > 4 else x, (5, 1, -2), EXACT),
    "a shuffle": (lambda net, x: net.b(shuffled(net.a(x))), (7, 1, -2), EXACT),
    "halves": (lambda net, x: torch.cat([net.a(x).chunk(3, dim=1)[0], x], 1), (5, 1, -2), EXACT),
    "every second": (lambda net, x: net.a(x)[:, :, 1::2, 1::2], (5, 2, -1), EXACT),
    "one colour": (lambda net, x: net.a(torch.cat([x[:, 0].unsqueeze(1)] * 3, 1)), (5, 1, -2), EXACT),
    "a norm of channels": (
        lambda net, x: net.b(net.norm(net.a(x).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)), (7, 1, -2), EXACT,
    ),
    "a tall kernel": (lambda net, x: net.tall(x), (5, 1, -2), BOUND),
    "tall and wide": (lambda net, x: net.wide(net.tall(x)), (5, 1, -2), EXACT),
}  # fmt: skip


def asserting(net, x):
    assert x.shape[1] == 3
    assert x.dim() == 4
    return net.a(x)


def built(function):
    torch.manual_seed(0)
    net = Of(
        function, a=conv(5, padding=2), b=conv(), norm=nn.LayerNorm(3), mean=torch.full((1, 3, 1, 1), 0.4),
        normalize=transforms.Normalize([0.4] * 3, [0.2] * 3), tall=conv((5, 1), padding=(2, 0)),
        wide=conv((1, 5), padding=(0, 2)),
    )  # fmt: skip
    net.asserting = lambda x: asserting(net, x)
    return net.double().eval()


@pytest.mark.parametrize("case", COMPOSED)
def test_what_is_composed_holds_every_pixel_with_a_gradient(case):
    function, expected, how = COMPOSED[case]
    net = built(function)
    found = known(net, ["end"])["end"]
    assert found == (ReceptiveField(*expected), how)
    top, left, bottom, right = found.field.box(7, 6)
    seen = extent(net, 7, 6, 30)
    assert top <= seen[0] and left <= seen[1] and bottom >= seen[2] and right >= seen[3]
    if how == EXACT and case != "a pooling as a function":  # of a window, the maximum alone has a gradient
        assert (top, left, bottom, right) == seen


@pytest.mark.parametrize("case", [case for case in COMPOSED if COMPOSED[case][2] == EXACT])
@pytest.mark.parametrize("whole", ["tall and wide"])
def test_one_neuron_alone_gives_what_it_gives_among_all(case, whole):
    net = built(COMPOSED[case][0])
    if case == whole:
        with pytest.raises(RfvizError, match="is not square"):
            Cone(net, "end")
        return
    image = torch.rand(2, 3, 30, 30, dtype=torch.float64)
    patch, _ = receptive_field.of(net, "end").crop(image, 7, 6)
    torch.testing.assert_close(Cone(net, "end")(patch), net(image)[:, :, 7:8, 6:7], rtol=1e-12, atol=1e-12)


def last(function):
    """Return a pass that does something to maps whose channels come last."""
    return lambda net, x: net.b(function(net.a(x).permute(0, 2, 3, 1)).permute(0, 3, 1, 2))


SLICED_LAST = {
    "rows": (last(lambda x: x[:, 2:, :, :]), (9, 1, -2), BOUND),
    "columns": (last(lambda x: x[:, :, 2:]), (9, 1, -2), BOUND),
    "both": (last(lambda x: x[:, 2:, 2:]), (7, 1, 0), EXACT),
    "every second": (last(lambda x: x[:, ::2, ::2, :]), (9, 2, -2), EXACT),
    "parts": (last(lambda x: torch.cat([x.chunk(3, dim=3)[0]] * 3, 3)), (7, 1, -2), EXACT),
}


@pytest.mark.parametrize("case", SLICED_LAST)
def test_slices_of_maps_whose_channels_come_last(case):
    function, expected, how = SLICED_LAST[case]
    net = built(function)
    found = known(net, ["end"], side=64)["end"]
    assert found == (ReceptiveField(*expected), how)
    (top, left, bottom, right), seen = found.field.box(7, 6), extent(net, 7, 6, 30)
    assert top <= seen[0] and left <= seen[1] and bottom >= seen[2] and right >= seen[3]
    if how == EXACT:
        image = torch.rand(2, 3, 30, 30, dtype=torch.float64)
        patch, _ = found.field.crop(image, 7, 6)
        torch.testing.assert_close(Cone(net, "end")(patch), net(image)[:, :, 7:8, 6:7], rtol=1e-12, atol=1e-12)


def test_positions_of_maps_whose_channels_come_last_that_are_taken_apart():
    net = built(last(lambda x: torch.chunk(x, 2, dim=1)[1]))
    assert known(net, ["end"], side=64)["end"].how in (MEASURED, WHOLE_IMAGE)


@pytest.mark.parametrize(
    ("function", "how"),
    [
        (lambda net, x: net.a(x[:, :, 3:-3, 3:-3]), WHOLE_IMAGE),
        (lambda net, x: net.wide(net.tall(net.b(x)[:, :, :-3, :-3])), WHOLE_IMAGE),
        (lambda net, x: F.pad(net.relu(x[:, :, 2:, 2:]), (1, 1, 1, 1)), WHOLE_IMAGE),
        (lambda net, x: net.b(x[:, :, 3:-3, 3:-3]), EXACT),
        (lambda net, x: net.a(x[:, :, ::2, ::2]), EXACT),
        (lambda net, x: net.a(torch.cat([x[:, :2, 1::2, 1::2], x[:, 2:, ::2, ::2]], 1)), EXACT),
    ],
)
def test_what_is_cropped_and_padded_again_has_no_field(function, how):
    """A neuron at the border of it sees the padding, though its field would lie in the image."""
    net = built(function)
    net.relu = nn.ReLU()
    assert known(net, ["end"])["end"].how == how


EVERYWHERE = {
    "global pooling": lambda net, x: net.a(x) * net.a(x).mean((2, 3), keepdim=True).sigmoid(),
    "adaptive pooling": lambda net, x: F.adaptive_avg_pool2d(net.a(x), 2),
    "a vector": lambda net, x: torch.flatten(net.a(x), 1),
    "a norm over positions": lambda net, x: net.group(net.a(x)),
    "a batch norm without statistics": lambda net, x: net.batch(net.a(x).abs()),
    "a mean over rows": lambda net, x: net.a(x) * last_mean(net.a(x)),
}


def last_mean(x):
    return x.permute(0, 2, 3, 1).mean(1, keepdim=True).permute(0, 3, 1, 2)


@pytest.mark.parametrize("case", EVERYWHERE)
def test_what_takes_all_positions_together_sees_the_whole_image(case):
    batch = nn.BatchNorm2d(3, track_running_stats=False)
    net = Of(EVERYWHERE[case], a=conv(), group=nn.GroupNorm(1, 3), batch=batch).eval()
    found = known(net, ["end", "a"])
    assert found["end"].how == WHOLE_IMAGE and found["end"].field.is_whole_image
    assert found["a"] == (ReceptiveField(3, 1, 0), EXACT)
    with pytest.raises(RfvizError, match="every neuron of 'end' sees the whole image"):
        receptive_field.of(net, "end")


def test_a_mean_over_channels_is_local():
    net = Of(lambda net, x: net.a(x) * net.a(x).mean(1, keepdim=True), a=conv()).eval()
    assert known(net, ["end"])["end"] == (ReceptiveField(3, 1, 0), EXACT)


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (lambda net, x: net.b(F.interpolate(net.a(x), scale_factor=2, mode="nearest")), (7, 1, -4)),
        (lambda net, x: torch.roll(net.a(x), (1, 1), (2, 3)), (5, 1, -3)),
        (lambda net, x: torch.einsum("nchw,cd->ndhw", net.a(x), net.mean[0, :, :, 0].expand(3, 3)), (5, 1, -2)),
    ],
)
def test_what_is_not_known_is_measured(function, expected):
    torch.manual_seed(0)
    net = Of(function, a=conv(5, padding=2, stride=1), b=conv(padding=1), mean=torch.full((1, 3, 1, 1), 0.4)).eval()
    if expected == (7, 1, -4):
        net.a.stride = (2, 2)
    found = known(net, ["end"], side=64)["end"]
    assert found.how == MEASURED
    if expected == (7, 1, -4):  # a neuron sees 2 or 3 of the positions before, at even and odd places
        assert found.field.stride == 1
        seen = [extent(copy.deepcopy(net).double(), y, y, 64) for y in range(28, 34)]
        assert found.field.start == min(top - 28 - number for number, (top, *_) in enumerate(seen))
    else:
        assert found.field == ReceptiveField(*expected)
    assert known(net, ["end"], measure=False)["end"].how == MEASURED


@pytest.mark.parametrize("factor", [2, *(pytest.param(each, marks=pytest.mark.thorough) for each in (1.5, 0.4))])
def test_a_step_that_is_no_whole_number_of_px_is_no_field(factor):
    net = Of(lambda net, x: net.b(F.interpolate(net.a(x), scale_factor=factor)), a=conv(), b=conv(padding=1)).eval()
    assert known(net, ["end"])["end"].how == WHOLE_IMAGE
    with pytest.raises(RfvizError, match="has no receptive field"):
        receptive_field.of(net, "end")


def test_a_transposed_convolution_is_measured():
    net = nn.Sequential(nn.ConvTranspose2d(3, 4, 3))
    assert known(net, ["0"])["0"] == (ReceptiveField(3, 1, -2), MEASURED)


QUICK = ("shufflenet_v2_x0_5",)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in QUICK else pytest.mark.thorough) for name in families.smallest()]
)
def test_every_family_of_torchvision_at_an_early_a_middle_and_the_last_layer(name):
    net = zoo.load(f"torchvision:{name}", "random").net
    shown = layer_table.shown(net)
    chosen = list(dict.fromkeys([shown[0], shown[len(shown) // 2], shown[-1]]))
    found = known(net, chosen)
    for layer in chosen:
        measured = receptive_field.measured(net, layer)
        if found[layer].how in (EXACT, BOUND):
            field = found[layer].field
            if field.size + 16 * field.stride < 224:  # else it is hardly seen, or larger than the images
                assert measured.field.stride == field.stride
                assert measured.field.start >= field.start
                assert measured.field.start + measured.field.size <= field.start + field.size
        elif found[layer].how == MEASURED:
            assert found[layer] == measured
    last = [row.name for row in layer_table.layers(net)][-1]
    maps = []
    image = torch.rand(1, 3, 224, 224)
    ForwardPass(net, [*chosen, last])(image, lambda layer, response: maps.append((layer, response.shape)))
    channels = {row.name: row.channels for row in layer_table.layers(net)}
    assert all(len(shape) == 4 and shape[1] == channels[layer] for layer, shape in maps)
    with torch.no_grad():
        torch.testing.assert_close(dict(maps)[last], net(image)[:, :, None, None].shape, rtol=0, atol=0)


@pytest.mark.parametrize("wrap", [nn.DataParallel, torch.compile])
def test_wrappers_are_taken_off(wrap):
    net = nn.Sequential(conv(), nn.ReLU()).eval()
    assert receptive_field.of(wrap(net), "1") == ReceptiveField(3, 1, 0)
    image = torch.rand(1, 3, 8, 8)
    assert torch.equal(ForwardPass(wrap(net), ["1"])(image), net(image))


@pytest.mark.parametrize("inplace", [True, False])
def test_rectified_parts_that_are_put_together_end_in_a_relu(inplace):
    net = Of(
        lambda net, x: torch.cat([net.relu(net.a(x)), F.max_pool2d(net.relu(net.b(x)), 1)], 1),
        a=conv(), b=conv(), relu=nn.ReLU(inplace),
    ).eval()  # fmt: skip
    image = torch.rand(2, 3, 9, 9)
    before = ForwardPass(net, ["end"], before_relu=True)(image)
    with torch.no_grad():
        assert torch.equal(before, torch.cat([net.a(image), net.b(image)], 1))
        assert (before < 0).any() and torch.equal(before.relu(), net(image))
