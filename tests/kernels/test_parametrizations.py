"""What an ascent changes and where it begins: pictures that a screen can show, and no start that nothing moves from."""

import pytest
import torch
from torch import nn
from torchvision.transforms import v2

from rfviz.errors import RfvizError
from rfviz.images.whitening import IMAGENET, IMAGENET_MEAN, IMAGENET_STD, NONE
from rfviz.kernels.maximization import maximize
from rfviz.kernels.maximization.parametrizations import FAINT, Fourier, Pixels
from rfviz.kernels.maximization.regularizers import L2, Jitter, TotalVariation
from rfviz.kernels.responses import collect

LIKE = torch.zeros((), dtype=torch.float64)


def test_without_a_whitening_the_start_is_middle_grey():
    """The network may normalise images itself: from black, where the sigmoid is flat, nothing comes back."""
    fourier = Fourier(NONE)
    pictures = fourier.images(fourier.start(torch.arange(5), 16, LIKE), 16)
    assert 0 < (pictures - 0.5).abs().max() < 10 * FAINT


def test_pictures_are_clear_wherever_the_network_normalises(resnet, some_tiles):
    """The same function of RGB, written twice."""
    inside = nn.Sequential(v2.Normalize(list(IMAGENET_MEAN), list(IMAGENET_STD)), resnet).eval()
    driven = []
    for net, layer, white in ((resnet, "layer1.0", IMAGENET), (inside, "1.layer1.0", NONE)):
        found = collect(net, some_tiles, layer, 1, preprocess=white)[layer]
        images = maximize(net, layer, setting="clear", units=found, preprocess=white)
        rgb = white.to_rgb(images.images)
        assert 0.25 < rgb.mean() < 0.75 and (rgb < 0.05).float().mean() < 0.1
        driven.append(images.activations[-1])
    assert driven[1].sum() > 0.75 * driven[0].sum()


@pytest.mark.parametrize("side", [8, 11])
def test_the_start_is_faint_noise_around_the_mean_colour(side):
    fourier = Fourier(IMAGENET)
    pictures = IMAGENET.to_rgb(fourier.images(fourier.start(torch.arange(5), side, LIKE), side))
    assert pictures.shape == (5, 3, side, side)
    deviation = pictures - IMAGENET.mean[:, None, None]
    assert 0 < deviation.abs().max() < 10 * FAINT
    assert len({round(value.item(), 12) for value in deviation[0, 0].flatten()}) == side * side  # no two places alike


def test_a_start_depends_on_seed_and_channel_only():
    starts = Fourier(NONE).start(torch.tensor([7, 2, 7]), 9, LIKE)
    assert torch.equal(starts[0], starts[2]) and not torch.equal(starts[0], starts[1])
    assert torch.equal(starts[1:2], Fourier(NONE).start(torch.tensor([2]), 9, LIKE))
    assert not torch.equal(starts[1:2], Fourier(NONE, seed=1).start(torch.tensor([2]), 9, LIKE))


@pytest.mark.parametrize("side", [6, 7])
def test_pictures_are_sums_of_waves_weighted_by_their_wavelength(side):
    """Against a sum over all frequencies, one wave of luminance at a time."""
    fourier = Fourier(NONE)
    coefficients = torch.zeros(1, 3, side, side // 2 + 1, 2, dtype=torch.float64)
    for y, x in [(1, 0), (0, 1), (2, 1), (side - 1, 1)]:
        coefficients.zero_()
        coefficients[0, 0, y, x, 0] = 0.3
        picture = torch.logit(fourier.images(coefficients, side)[0])
        rows, columns = torch.arange(side)[:, None], torch.arange(side)[None]
        cycles = torch.tensor([y if y <= side // 2 else y - side, x], dtype=torch.float64)
        wave = torch.cos(2 * torch.pi * (cycles[0] * rows + cycles[1] * columns) / side)
        twice = 1 if x == 0 else 2  # the wave's partner is not among the coefficients
        amplitude = 0.3 * twice * side**-0.5 * (side / cycles.norm()) / side
        shape = picture[0] / picture[0].abs().max()
        torch.testing.assert_close(shape, wave / wave.abs().max())
        luminance = torch.tensor([0.26, 0.27, 0.27], dtype=torch.float64)
        expected = amplitude * luminance / luminance.norm()
        torch.testing.assert_close(picture.flatten(1).abs().amax(1), expected * wave.abs().max())


def clear(net, layer, found, channels=None, **options):
    return maximize(net, layer, channels, setting="clear", units=found, preprocess=IMAGENET, **options)


def test_a_setting_is_its_parts(resnet, some_tiles):
    """By name and part by part, the same to the bit."""
    found = collect(resnet, some_tiles, ["layer1.0"], 1, preprocess=IMAGENET)["layer1.0"]
    best = found.top_values[:, 0]
    parts = {"parametrization": Fourier(IMAGENET), "regularizers": [Jitter(2), TotalVariation(0.001)]}
    by_parts = maximize(
        resnet, "layer1.0", steps=128, learning_rate=0.05, units=torch.where(best > 0, best, 1.0), **parts
    )
    assert torch.equal(clear(resnet, "layer1.0", found).images, by_parts.images)
    of_paper = {"steps": 31, "learning_rate": 0.1, "regularizers": [L2(1e-6)], "parametrization": Pixels()}
    by_name = maximize(resnet, "layer1.0", setting="paper")
    assert torch.equal(by_name.images, maximize(resnet, "layer1.0", **of_paper).images)
    assert torch.equal(by_name.images, maximize(resnet, "layer1.0").images)


def test_settings_that_cannot_be_are_refused(resnet, some_tiles):
    with pytest.raises(RfvizError, match=r"'cleer'.*clear"):
        maximize(resnet, "layer1.0", setting="cleer")
    with pytest.raises(RfvizError, match="give what collect found in the layer as units") as caught:
        maximize(resnet, "layer1.0", setting="clear")
    assert "\n" not in str(caught.value)
    other = collect(resnet, some_tiles, ["layer1.0"], 1)["layer1.0"]
    with pytest.raises(RfvizError, match="no channel 99"):
        maximize(resnet, "layer1.0", [99], setting="clear", units=other)
    wider = collect(resnet, some_tiles, ["layer2.0"], 1)["layer2.0"]
    with pytest.raises(
        RfvizError, match=r"^units are responses of 12 channels, but layer 'layer1.0' has 6: .*this layer"
    ):
        maximize(resnet, "layer1.0", setting="clear", units=wider)
    grey = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU()).eval()
    with pytest.raises(RfvizError, match=r"^the clear setting paints in RGB, .* 1 channel.*: use setting='paper'\.$"):
        maximize(grey, "0", setting="clear", units=torch.ones(2))
    assert maximize(grey, "0", steps=1).images.shape[1] == 1


def test_clear_pictures_can_be_shown_and_drive(resnet, some_tiles):
    found = collect(resnet, some_tiles, ["layer1.0"], 1, preprocess=IMAGENET)["layer1.0"]
    driven = clear(resnet, "layer1.0", found, steps=60)
    rgb = IMAGENET.to_rgb(driven.images, clip=False)
    assert rgb.min() >= -1e-5 and rgb.max() <= 1 + 1e-5
    assert (driven.activations[-1] > driven.activations[0]).all()
    some = clear(resnet, "layer1.0", found, [4, 1], steps=60)
    torch.testing.assert_close(some.images, driven.images[[4, 1]], rtol=0, atol=1e-3)
    rough = maximize(resnet, "layer1.0", steps=60, parametrization=Fourier(IMAGENET), learning_rate=0.05)
    smooth, free = (sum(images.diff(dim=dim).abs().sum() for dim in (2, 3)) for images in (driven.images, rough.images))
    assert smooth < 0.5 * free


def test_the_clear_picture_of_a_pooling_neuron_is_no_corner(resnet, some_tiles):
    """From the flat start of the paper, all that is ever changed is the field of one of nine positions."""
    of_paper = maximize(resnet, "maxpool", regularizers=[L2(0)])
    still = (of_paper.images == 0).all(1)
    assert still[:, 7:].all() and still[:, :, 7:].all()
    found = collect(resnet, some_tiles, ["maxpool"], 1, preprocess=IMAGENET)["maxpool"]
    driven = clear(resnet, "maxpool", found)
    change = (driven.images - driven.images.mean((2, 3), keepdim=True)).square().sum(1)
    middle = change[:, 2:9, 2:9].sum((1, 2)) / change.sum((1, 2))
    assert middle.median() > 0.5  # 49 of 121 pixels


def test_units_scale_a_channel_against_penalties(resnet):
    resnet.double()
    halved = maximize(resnet, "layer1.0", [3, 1], steps=9, regularizers=[L2(0.1)], units=torch.tensor([0.5, 1.0]))
    expected = [maximize(resnet, "layer1.0", [c], steps=9, regularizers=[L2(w)]) for c, w in ((3, 0.05), (1, 0.1))]
    for i, each in enumerate(expected):
        torch.testing.assert_close(halved.images[i], each.images[0], rtol=1e-3, atol=1e-3)
        torch.testing.assert_close(
            halved.activations[:, i], each.activations[:, 0], rtol=1e-3, atol=1e-3
        )  # as they are
    for units in (torch.ones(2), torch.zeros(6), torch.tensor([1.0, 1, 1, 1, 1, -1])):
        with pytest.raises(RfvizError, match=r"units has \d values for 6 channels: give one above 0 for each"):
            maximize(resnet, "layer1.0", steps=1, units=units)


class NoBiases(nn.Module):
    """Nothing but convolutions and ReLUs: on the zero image everything is 0, and so is every gradient."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 4, 3, bias=False), nn.ReLU(), nn.Conv2d(4, 5, 3, bias=False), nn.ReLU()
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.features(x)


def test_without_biases_the_start_is_noise_and_the_image_not_blank():
    torch.manual_seed(0)
    net = NoBiases().eval()
    found = maximize(net, "features.3")
    assert found.from_noise.all()
    assert (found.images.flatten(1).abs().amax(1) > 0.1).all()
    assert (found.activations[0].abs() < 1).all() and (found.activations[-1] > found.activations[0]).all()
    again = maximize(net, "features.3", [3])
    torch.testing.assert_close(again.images[0], found.images[3])


def test_a_channel_that_moves_begins_with_zeros(resnet):
    found = maximize(resnet, "layer1.0", steps=2)
    assert not found.from_noise.any()
