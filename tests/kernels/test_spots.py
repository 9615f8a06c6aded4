"""Cone weights and double-opponency of planted neurons and filters, whose answer is known."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from rfviz.errors import RfvizError
from rfviz.images.whitening import IMAGENET, NONE, Whitening
from rfviz.kernels.tuning import opponent, spots
from rfviz.kernels.tuning.spots import CONTRAST, TOLD, ColourTuning, cone_contrasts, measure, of_filters, pixel_drives
from rfviz.nets import models

ZCA = Whitening(torch.tensor([0.4, 0.5, 0.6]), torch.tensor([[6.0, -3, -1], [-3, 7, -3], [-1, -3, 5]]))
GREY = torch.tensor([1.0, 1.0, 1.0], dtype=torch.float64)


def weighing(*cones: float) -> torch.Tensor:
    """Return the weights of R, G and B `(3,)` with which contrasts of L, M and S weigh so much, to first order."""
    rgb = torch.from_numpy(opponent.LMS_FROM_RGB).T @ torch.tensor(cones, dtype=torch.float64)
    return rgb / rgb.abs().max()


def grid(size: int) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.meshgrid(*[torch.arange(size, dtype=torch.float64) - (size - 1) / 2] * 2, indexing="ij")


def blob(size: int, part: float) -> torch.Tensor:
    y, x = grid(size)
    return torch.exp(-(x**2 + y**2) / (2 * (size / part) ** 2))


def spot_in_ring(size: int) -> torch.Tensor:
    """A difference of Gaussians without a mean."""
    narrow, wide = blob(size, 8), blob(size, 4)
    return narrow / narrow.sum() - wide / wide.sum()


def gabor(size: int, phase: float = 0.0) -> torch.Tensor:
    return blob(size, 5) * torch.cos(4 * math.pi * grid(size)[1] / size + phase)


def edge(size: int) -> torch.Tensor:
    return blob(size, 4) * grid(size)[1].sign()


LM, S, YELLOW_BLUE = weighing(1, -1, 0), weighing(-0.5, -0.5, 1), torch.tensor([-0.5, -0.5, 1.0]).double()
PLANTED = {
    "red spot in a green ring": (LM, spot_in_ring, "double-opponent"),
    "green spot in a red ring": (-LM, spot_in_ring, "double-opponent"),
    "S in a ring of L and M": (S, spot_in_ring, "double-opponent"),
    "blue spot in a yellow ring": (YELLOW_BLUE, spot_in_ring, "double-opponent"),
    "stripes of red and green": (LM, gabor, "double-opponent"),
    "red blob": (LM, lambda size: blob(size, 6), "single-opponent"),
    "S blob": (S, lambda size: blob(size, 6), "single-opponent"),
    "red everywhere": (LM, lambda size: torch.ones(size, size).double(), "single-opponent"),
    "yellow blob": (-YELLOW_BLUE, lambda size: blob(size, 6), "single-opponent"),
    "L against M, and grey": (weighing(0.6, -0.4, 0), lambda size: blob(size, 6), "single-opponent"),
    "grey blob": (GREY, lambda size: blob(size, 6), "achromatic"),
    "grey spot in a ring": (GREY, spot_in_ring, "achromatic"),
    "grey stripes": (GREY, gabor, "achromatic"),
    "all cones": (weighing(0.4, 0.4, 0.2), spot_in_ring, "achromatic"),
    "one cone": (weighing(1, 0, 0), spot_in_ring, "achromatic"),
    "S cones against none": (weighing(0, 0, 1), spot_in_ring, "achromatic"),
    "nothing": (GREY, lambda size: torch.zeros(size, size).double(), "silent"),
}


def planted(size: int, names: list[str] | None = None, preprocess: Whitening = NONE) -> torch.Tensor:
    """Return the filters `(C, 3, size, size)`, for images that went through a whitening."""
    chosen = [PLANTED[name] for name in names or PLANTED]
    filters = torch.stack([colour[:, None, None] * shape(size) for colour, shape, _ in chosen])
    filters = filters / filters.flatten(1).norm(dim=1).clamp(min=1e-12)[:, None, None, None]
    return torch.einsum("ij,cjyx->ciyx", torch.linalg.inv(preprocess.matrix.double()).T, filters)


def network(filters: torch.Tensor, bias: float | None = None) -> nn.Sequential:
    convolution = nn.Conv2d(3, len(filters), filters.shape[-1], bias=bias is not None)
    convolution.weight.data.copy_(filters)
    if bias is not None:
        convolution.bias.data.fill_(bias)
    return nn.Sequential(convolution, nn.ReLU())


EXPECTED = [each[2] for each in PLANTED.values()]


@pytest.mark.parametrize("preprocess", [NONE, IMAGENET, ZCA], ids=["RGB", "ImageNet", "ZCA"])
@pytest.mark.parametrize("size", [7, 11, 15, 31])
def test_planted_neurons_and_filters_are_of_their_class(size: int, preprocess: Whitening) -> None:
    filters = planted(size, preprocess=preprocess)
    of_weights = of_filters(filters, preprocess=preprocess)
    assert dict(zip(PLANTED, of_weights.classes, strict=True)) == dict(zip(PLANTED, EXPECTED, strict=True))
    shown = measure(network(filters), "0", preprocess=preprocess)
    assert dict(zip(PLANTED, shown.classes, strict=True)) == dict(zip(PLANTED, EXPECTED, strict=True))
    some = [i for i, each in enumerate(EXPECTED) if each != "silent"]
    weights, other = of_weights.cone_weights[some], shown.cone_weights[some]
    torch.testing.assert_close(weights.abs(), other.abs(), rtol=0, atol=0.03)


def test_without_the_whitening_filters_in_its_units_seem_to_be_others() -> None:
    filters = planted(11, preprocess=ZCA)
    right = of_filters(filters, preprocess=ZCA).cone_weights
    for found in (of_filters(filters), measure(network(filters), "0")):
        assert found.classes != EXPECTED
        assert (found.cone_weights.abs() - right.abs()).abs().max() > 0.1


@pytest.mark.parametrize("size", [7, 11, 31])
def test_halves_side_by_side_are_double_opponent_as_weights_only(size: int) -> None:
    """A spot and the ring around it, in the middle, drive the two halves of an edge alike."""
    filters = torch.cat([LM[:, None, None] * edge(size)[None], GREY[:, None, None] * edge(size)[None]])
    found = of_filters(filters.view(2, 3, size, size))
    assert found.classes == ["double-opponent", "achromatic"]
    assert found.index[0].item() == pytest.approx(1)
    assert measure(network(filters.view(2, 3, size, size)), "0").classes[0] != "double-opponent"


@pytest.mark.parametrize("bias", [-5.0, 0.3])
def test_what_counts_is_the_value_before_the_relu(bias: float) -> None:
    filters = planted(15)
    plain, shifted = measure(network(filters), "0"), measure(network(filters, bias), "0")
    assert plain.drives.abs().amax((1, 2, 3, 4))[:-1].min() > 0.05
    torch.testing.assert_close(shifted.drives, plain.drives, rtol=0, atol=2e-4)


def test_noise_is_not_double_opponent() -> None:
    noise = torch.randn(1000, 3, 7, 7, generator=torch.Generator().manual_seed(0))
    found = of_filters(noise)
    assert (found.told >= TOLD).double().mean() < 0.01 and abs(found.told.mean()) < 0.05
    assert found.classes.count("double-opponent") < 10
    assert found.index.median() > spots.LEAST  # the index alone would not do
    smooth = nn.functional.avg_pool2d(noise, 3, stride=1, padding=1)
    assert (of_filters(smooth).told >= TOLD).double().mean() > 0.9
    chequered = LM[:, None, None] * (-1.0) ** torch.arange(7)[:, None] * (-1.0) ** torch.arange(7)
    assert of_filters(chequered[None]).classes == ["single-opponent"]


def test_a_filter_that_has_vanished_is_silent() -> None:
    filters = planted(7, ["red spot in a green ring", "red blob", "grey blob"])
    for size, silent in ((1.0, False), (0.05, False), (1e-3, True), (0.0, True)):
        found = of_filters(torch.cat([size * filters[:1], filters[1:]]))
        assert (found.classes[0] == "silent") == silent
        assert found.sensitivity[0].isnan() == silent
        assert found.classes[1:] == ["single-opponent", "achromatic"]
    net = network(torch.zeros(2, 3, 7, 7), bias=1.0)  # fires, whatever is shown
    assert measure(net, "0").classes == ["silent", "silent"]


WEIGHTS = [[0.6, -0.4, 0.0], [-0.45, 0.3, 0.25], [0.1, 0.2, 0.7], [0.2, 0.3, -0.5]]


@pytest.mark.parametrize("preprocess", [NONE, ZCA], ids=["RGB", "ZCA"])
def test_cone_weights_are_given_back(preprocess: Whitening) -> None:
    to_units = torch.linalg.inv(preprocess.matrix.double()).T
    filters = torch.stack([(to_units @ weighing(*each))[:, None, None] * blob(11, 6) for each in WEIGHTS])
    expected = torch.tensor(WEIGHTS, dtype=torch.float64)
    found = of_filters(filters, preprocess=preprocess)
    torch.testing.assert_close(found.cone_weights, expected, rtol=0, atol=1e-5)
    assert found.opposed.tolist() == pytest.approx([0.4, 0.45, 0, 0.5], abs=1e-5)
    shown = measure(network(filters), "0", preprocess=preprocess)
    torch.testing.assert_close(shown.cone_weights, expected, rtol=0, atol=0.02)


@given(cones=st.lists(st.floats(-1, 1), min_size=3, max_size=3).filter(lambda each: sum(map(abs, each)) > 0.1))
def test_any_cone_weights_are_given_back(cones: list[float]) -> None:
    expected = torch.tensor(cones, dtype=torch.float64)
    expected = expected / expected.abs().sum()
    found = of_filters(weighing(*cones)[None, :, None, None] * blob(7, 5))
    torch.testing.assert_close(found.cone_weights[0], expected, rtol=0, atol=1e-5)
    positive = expected.clamp(min=0).sum().item()
    assert found.opposed.item() == pytest.approx(min(positive, 1 - positive), abs=1e-5)


def test_cone_contrasts_are_those_of_the_colours() -> None:
    light = opponent.to_linear(torch.tensor(opponent.GREY, dtype=torch.float64))
    for axis, found in zip(opponent.AXES, cone_contrasts(), strict=True):
        shown = opponent.to_linear(opponent.coloured(torch.ones(1, 1, 1), opponent.direction(axis), CONTRAST).double())
        cones = opponent.LMS_FROM_RGB @ shown[0, :, 0, 0].numpy()
        assert found.tolist() == pytest.approx((cones / light.item() - 1).tolist(), abs=1e-5)


@pytest.mark.parametrize("preprocess", [NONE, ZCA], ids=["RGB", "ZCA"])
def test_pixel_drives_by_hand(preprocess: Whitening) -> None:
    """A change of one pixel so small that everything is linear."""
    filters = torch.randn(2, 3, 5, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = pixel_drives(filters, preprocess)
    light = opponent.to_linear(torch.tensor(opponent.GREY, dtype=torch.float64))
    grey = torch.full((3, 5, 5), opponent.GREY, dtype=torch.float64)
    for a, axis in enumerate(opponent.AXES):
        for y, x in ((0, 0), (2, 3)):
            picture = grey.clone()
            picture[:, y, x] = opponent.to_srgb(light + 1e-5 * CONTRAST * opponent.direction(axis))
            change = (filters * (preprocess(picture) - preprocess(grey))).sum((1, 2, 3)) / 1e-5
            assert found[:, a, y, x].tolist() == pytest.approx(change.tolist(), rel=1e-3, abs=1e-6)


def disc(size: int, inner: float, outer: float, down: int, right: int) -> np.ndarray:
    middle = (size - 1) / 2
    shape = np.zeros((size, size))
    for y in range(size):
        for x in range(size):
            away = math.hypot(y - middle - down, x - middle - right)
            shape[y, x] = away <= outer and (away > inner or not inner)
    return shape


def test_every_drive_is_that_of_the_network_to_that_image() -> None:
    """One image at a time, through the whole network, where the Cone takes a shortcut."""
    torch.manual_seed(0)
    net = models.resnet34(6, 2).eval()
    found = measure(net, "layer1.0", preprocess=IMAGENET)
    assert found.drives.shape == (6, 3, 2, 2, 3) and found.told.isinf().all()
    assert (found.strongest >= found.drives.abs().amax((1, 2, 3))).all()
    before: list[torch.Tensor] = []
    net.layer1[0].register_forward_hook(lambda block, given, _: before.append(given[0]))

    def respond(small: torch.Tensor) -> torch.Tensor:
        whole = torch.full((1, 3, 64, 64), opponent.GREY)
        whole[:, :, 3:30, 3:30] = small  # what neuron (4, 4) sees
        block = net.layer1[0]
        with torch.no_grad():
            net(IMAGENET(whole))
            x = before.pop()
            return (x + block.bn2(block.conv2(block.bn1(block.conv1(x)).relu())))[0, :, 4, 4].double()

    blank = respond(torch.full((3, 27, 27), opponent.GREY))
    sideways, upright = ((0, -1), (0, 1)), ((-1, 0), (1, 0))
    for s, radius in enumerate((27 / 8, 27 / 6, 27 / 4)):
        for place, (inner, outer) in enumerate(((0.0, radius), (radius, 2 * radius))):
            for half, (sign, shifts) in enumerate(((1, sideways), (-1, upright))):
                shapes = [torch.from_numpy(sign * disc(27, inner, outer, *shift)) for shift in shifts]
                for a, axis in enumerate(opponent.AXES):
                    pictures = [opponent.coloured(each[None], opponent.direction(axis), 0.4) for each in shapes]
                    expected = sum(sign * (respond(picture) - blank) for picture in pictures) / 2
                    torch.testing.assert_close(found.drives[:, s, place, half, a], expected, rtol=1e-3, atol=1e-5)


def tuned(centre: list[float], around: list[float], other_half: list[float] | None = None) -> ColourTuning:
    """One neuron, one size: what drives its centre, and its surround in the one half and in the other."""
    drives = torch.tensor([[centre, centre], [around, other_half or around]], dtype=torch.float64)
    return of_drives(drives[None, None])


def of_drives(drives: torch.Tensor) -> ColourTuning:
    """Neurons that nothing drives more than spots and rings."""
    count = len(drives)
    strongest = drives.mean(3).abs().amax((1, 2))
    return ColourTuning(drives, strongest, torch.full((count,), torch.inf).double(), torch.ones(count).bool())


@pytest.mark.parametrize(
    ("centre", "around", "other_half", "index", "expected"),
    [
        ([0, 1, 0], [0, -1, 0], None, 1, "double-opponent"),
        ([0, 1, 0], [0, -0.2, 0], None, 0.2, "double-opponent"),
        ([0, 1, 0], [0, -0.05, 0], None, 0.05, "single-opponent"),  # too little
        ([0, 1, 0], [0, 1, 0], None, 0, "single-opponent"),
        ([0, 0, 1], [0, -1, 0], None, 0, "single-opponent"),  # at a right angle
        ([0, 0.6, 0.8], [0, -0.6, 0.8], None, 0, "single-opponent"),
        ([0, 0.8, 0.6], [0, -0.8, 0.6], None, 0.28, "double-opponent"),
        ([0, 1, 0], [0, -1, 0], [0, 1, 0], 0, "single-opponent"),  # of one half only
        ([0, 1, 0], [0, -1, 0], [0, -0.5, 0], 0.5, "double-opponent"),
        ([5, 1, 0], [0, -1, 0], None, 1, "achromatic"),
        ([1, 1, 0], [-5, -1, 0], None, 1, "achromatic"),  # greys anywhere
        ([0, 0, 0], [0, 0, 0], None, 0, "achromatic"),
    ],
)
def test_classes_by_hand(
    centre: list[float], around: list[float], other_half: list[float] | None, index: float, expected: str
) -> None:
    found = tuned(centre, around, other_half)
    assert found.index.item() == pytest.approx(index)
    assert found.classes == [expected]


def test_sensitivity_is_colour_over_grey_each_where_it_is_strongest() -> None:
    assert tuned([0.5, 1, 0], [-0.2, -2, 0.3]).sensitivity.item() == pytest.approx(4)
    assert tuned([4, 1, 0], [0, 0, -1]).sensitivity.item() == pytest.approx(0.25)
    assert tuned([0, 1, 0], [0, 0, 0]).sensitivity.item() == math.inf


@pytest.mark.parametrize(("drive", "best", "index"), [(1, 1, 0.8), (0.99, 2, 0.1)])
def test_the_size_at_which_places_are_most_opposite_counts_if_it_drives_the_neuron(
    drive: float, best: int, index: float
) -> None:
    sizes = [
        tuned([0, 2, 0], [0, 2, 0]), tuned([0, drive, 0], [0, -0.8 * drive, 0]), tuned([0, 1.5, 0], [0, -0.15, 0])
    ]  # fmt: skip
    found = of_drives(torch.cat([each.drives for each in sizes], dim=1))
    assert (found.best.item(), found.index.item()) == (best, pytest.approx(index))
    none_is = of_drives(found.drives.abs())
    assert (none_is.best.item(), none_is.index.item()) == (0, 0)


@pytest.mark.parametrize("size", [11, 27])
def test_an_edge_cell_with_a_faint_coloured_spot_is_achromatic(size: int) -> None:
    """Spots and rings, of grey as of any colour, do not drive an edge; gratings do."""
    place = torch.arange(size, dtype=torch.float64) - (size - 1) / 2
    distance = torch.hypot(place[:, None], place[None, :]) / size
    edge = place.sign().expand(size, size) * (distance < 0.5)
    spot = torch.where(distance < 1 / 6, 1.0, torch.where(distance < 1 / 3, -0.3, 0.0))
    grey, red = torch.ones(3, dtype=torch.float64), torch.tensor([1.0, -0.5, -0.5], dtype=torch.float64)
    filters = torch.stack([grey[:, None, None] * edge + 0.05 * red[:, None, None] * spot, red[:, None, None] * spot])
    assert measure(network(filters), "0").classes == ["achromatic", "double-opponent"]


@given(scale=st.floats(1e-3, 1e3), turn=st.booleans(), seed=st.integers(0, 20))
def test_neither_size_nor_sign_nor_the_order_of_places_matters(scale: float, turn: bool, seed: int) -> None:
    drives = torch.randn(5, 3, 2, 2, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    one, other = (of_drives(each) for each in (drives, -scale * (drives.flip(2) if turn else drives)))
    torch.testing.assert_close(other.index, one.index)
    torch.testing.assert_close(other.cone_weights, -one.cone_weights)
    assert other.classes == one.classes
    assert ((one.index >= 0) & (one.index <= 1)).all() and (one.opposed <= 0.5 + 1e-9).all()
    assert one.cone_weights.abs().sum(1).tolist() == pytest.approx([1] * 5)


def test_a_layer_that_is_not_there() -> None:
    with pytest.raises(RfvizError, match="unknown layer"):
        measure(network(planted(7)), "9")
