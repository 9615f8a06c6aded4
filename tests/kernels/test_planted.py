"""Networks into which something known was planted: the analyses must give it back."""

import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from rfviz.images.whitening import Whitening
from rfviz.kernels.maximization import maximize
from rfviz.kernels.noise import noise, noise_effect
from rfviz.kernels.responses import collect, preferred_stimuli
from rfviz.kernels.silent import inactive_channels, least_active_channels
from rfviz.nets import models

ANGLES = (0, 30, 75, 120)
"""Channels 0 to 3 of the stem are Gabor filters whose wave runs in this direction, degrees from the x axis."""
DEAD, MATCHED = 4, 5
PERIOD = 4.5
"""Of the Gabor filters, px."""

# With grey at 0, the padding around an image is grey too and its border is no edge.
GREY_IS_ZERO = Whitening(torch.full((3,), 0.5), torch.eye(3))


def wave(angle, side, phase=0.0, period=PERIOD):
    """A grating (side, side) around 0 whose wave runs in the direction `angle`."""
    y, x = np.mgrid[:side, :side] - (side - 1) / 2
    along = x * math.cos(math.radians(angle)) + y * math.sin(math.radians(angle))
    return torch.tensor(np.cos(2 * np.pi * along / period + phase), dtype=torch.float32)


def gabor(angle):
    """A grey Gabor filter (3, 7, 7) without response to uniform grey."""
    y, x = np.mgrid[:7, :7] - 3
    filter_ = wave(angle, 7) * torch.tensor(np.exp(-(x**2 + y**2) / (2 * 2.0**2)), dtype=torch.float32)
    return (filter_ - filter_.mean()).expand(3, 7, 7)


def orientation(image):
    """Direction of the strongest wave in an image (3, H, W), degrees in [0, 180)."""
    grey = image.mean(0).double().numpy()
    power = np.abs(np.fft.fft2(grey - grey.mean(), (256, 256))) ** 2
    row, column = np.unravel_index(power[:, :129].argmax(), (256, 129))
    return math.degrees(math.atan2(np.fft.fftfreq(256)[row], column / 256)) % 180


def angle_between(one, other):
    return abs((one - other + 90) % 180 - 90)


@pytest.fixture(scope="module")
def photographs(tiles):
    return torch.stack([tiles[i][0] for i in range(0, len(tiles), 3)])


@pytest.fixture(scope="module")
def place(photographs):
    """Where the photographs have the 7 x 7 patch of highest contrast: image, and neuron (y, x) of the convolution.

    Only even positions, which a single neuron of the pooling layer sees, and no border.
    """
    found = (0.0, None)
    for i, image in enumerate(photographs):
        for y in range(4, 28, 2):
            for x in range(4, 28, 2):
                found = max(found, (patch_at(image, y, x).std().item(), (i, y, x)))
    return found[1]


def patch_at(image, y, x):
    """What neuron (y, x) of the first convolution sees."""
    return image[:, 2 * y - 3 : 2 * y + 4, 2 * x - 3 : 2 * x + 4]


@pytest.fixture(params=["resnet34", "plainnet34"])
def planted(request, photographs, place):
    """A network with four Gabor filters, a channel that never fires and one that fires at one place only."""
    torch.manual_seed(0)
    net = models.build(request.param, 6, 4).eval()
    with torch.no_grad():
        for channel, angle in enumerate(ANGLES):
            net.conv1.weight[channel] = gabor(angle)
        net.bn1.bias[DEAD] = -100
        i, y, x = place
        patch = patch_at(photographs[i], y, x)
        net.conv1.weight[MATCHED] = patch - patch.mean()
        # Where the filter matches, it answers most strongly; the threshold lies between that and all other places.
        answers = F.conv2d(GREY_IS_ZERO(photographs), net.conv1.weight[[MATCHED]], stride=2, padding=3)[:, 0]
        first, second = answers.flatten().topk(2).values
        assert answers[i, y, x] == first
        net.bn1.bias[MATCHED] = -(first + second) / 2
    return net


# -------------------------------------------------------------------------------------------- a dead channel


@pytest.mark.parametrize("kind", ["large negative shift", "no weights", "no weights and no gain"])
def test_the_dead_channel_is_the_only_inactive_one(planted, photographs, kind):
    if kind != "large negative shift":
        planted.conv1.weight.data[DEAD] = 0
        planted.bn1.bias.data[DEAD] = -1e-6
    if kind == "no weights and no gain":
        planted.bn1.weight.data[DEAD] = 0
        planted.bn1.bias.data[DEAD] = 0
    found = collect(planted, photographs, ["maxpool"], preprocess=GREY_IS_ZERO)["maxpool"]
    assert inactive_channels(found) == (DEAD,)
    assert found.maximum[DEAD] == found.mean[DEAD] == found.positive_count[DEAD] == 0
    assert not found.mean_stimulus[DEAD].any() and not found.mean_count[DEAD].any()
    assert least_active_channels(found, 2) == (DEAD, MATCHED)  # the latter fires once
    planted.bn1.bias.data[DEAD] = 1e-30  # no longer dead
    found = collect(planted, photographs, ["maxpool"], preprocess=GREY_IS_ZERO)["maxpool"]
    assert inactive_channels(found) == ()


class Labelled64:
    def __init__(self, images):
        self.images, self.labels = images.double(), [i % 4 for i in range(len(images))]

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        return self.images[index], self.labels[index]


def cut_off(net, channel):
    """Let nothing that follows the pooling layer listen to one of its channels, nor to what the skips carry of it."""
    readers = [net.layer1[0].conv1]
    if net.name == "resnet34":
        readers += [net.layer1[1].conv1, net.layer1[2].conv1, net.layer2[0].conv1, net.layer2[0].downsample[0]]
    for convolution in readers:
        convolution.weight.data[:, channel] = 0


def test_noise_that_nothing_listens_to_changes_nothing(planted, photographs):
    images = Labelled64(photographs[:9])
    planted.double()
    cut_off(planted, DEAD)
    responses = collect(planted, images, ["maxpool"], preprocess=GREY_IS_ZERO)["maxpool"]
    found = noise_effect(planted, images, responses, seeds=range(3), preprocess=GREY_IS_ZERO, batch_size=4)
    assert found.inactive == (DEAD,)
    for row in ("inactive", "random_inactive", "least_active"):
        assert found.effects[row].channels == (DEAD,)
        assert found.effects[row].loss.tolist() == found.effects[row].top1.tolist() == [0, 0, 0]
    assert found.effects["random_active"].loss.abs().amin() > 1e-6  # there, something does listen


def test_noise_in_the_dead_channel_does_what_a_direct_computation_says(planted, photographs):
    images = Labelled64(photographs[:9])
    labels = torch.tensor(images.labels)
    net = planted.double()
    responses = collect(net, images, ["maxpool"], preprocess=GREY_IS_ZERO)["maxpool"]
    found = noise_effect(net, images, responses, seeds=range(3), preprocess=GREY_IS_ZERO, batch_size=4)
    with torch.no_grad():
        pooled = net.maxpool(torch.relu(net.bn1(net.conv1(GREY_IS_ZERO(images.images)))))

        def loss_of(pooled):
            deep = net.layer4(net.layer3(net.layer2(net.layer1(pooled.clone()))))
            logits = deep.mean((2, 3)) @ net.fc.weight.T + net.fc.bias
            return F.cross_entropy(logits, labels).item()

        assert not pooled[:, DEAD].any()
        for seed in range(3):
            noisy = pooled.clone()
            noisy[:, DEAD] = torch.stack([noise(seed, i, DEAD, (16, 16)) for i in range(9)])
            change = loss_of(noisy) - loss_of(pooled)
            assert abs(change) > 1e-6
            assert found.effects["inactive"].loss[seed].item() == pytest.approx(change, abs=1e-12)
            assert found.effects["random_inactive"].loss[seed].item() == pytest.approx(change, abs=1e-12)


# ---------------------------------------------------------------------------- a channel that knows one patch


@pytest.mark.parametrize("batch_size", [1, 7, 64])
def test_the_matched_channel_gives_back_its_patch(planted, photographs, place, batch_size):
    i, y, x = place
    found = collect(
        planted, photographs, ["conv1", "maxpool"], 3, preprocess=GREY_IS_ZERO, strongest=10, batch_size=batch_size
    )
    pooled = photographs[i, :, 2 * y - 5 : 2 * y + 6, 2 * x - 5 : 2 * x + 6]
    for layer, neuron, patch in [
        ("conv1", [y, x], patch_at(photographs[i], y, x)),
        ("maxpool", [y // 2, x // 2], pooled),
    ]:
        result = found[layer]
        assert result.positive_count[MATCHED] == 1
        assert result.top_images[MATCHED, 0] == i
        assert result.top_positions[MATCHED, 0].tolist() == neuron
        assert result.top_values[MATCHED, 0] > 0 and not result.top_values[MATCHED, 1:].any()
        for stimulus, count in [
            (result.mean_stimulus, result.mean_count),
            (result.strongest_stimulus, result.strongest_count),
        ]:
            assert (count[MATCHED] == 1).all()
            torch.testing.assert_close(stimulus[MATCHED], patch, rtol=0, atol=1e-5)
        stimuli, inside = preferred_stimuli(photographs, result, MATCHED)
        assert torch.equal(stimuli[0], patch) and inside[0].all()


def test_a_deep_layer_that_hands_the_stem_on_gives_a_larger_cut_of_the_same_place(planted, photographs, place):
    # A block of zeros hands on what its skip carries; without a skip, an identity does.
    for block in planted.layer1:
        for convolution in (block.conv1, block.conv2):
            if planted.name == "resnet34":
                nn.init.zeros_(convolution.weight)
            else:
                nn.init.dirac_(convolution.weight)
    i, y, x = place
    found = collect(planted, photographs, ["layer1.2"], 1, borders=True, preprocess=GREY_IS_ZERO)["layer1.2"]
    assert found.positive_count[[DEAD, MATCHED]].tolist() == [0, 1]
    assert found.top_images[MATCHED].tolist() == [i]
    assert found.top_positions[MATCHED].tolist() == [[y // 2, x // 2]]
    around = F.pad(photographs[i], [59] * 4)
    top, left = 2 * y - 29 + 59, 2 * x - 29 + 59
    patch = around[:, top : top + 59, left : left + 59]
    torch.testing.assert_close(found.mean_stimulus[MATCHED], patch, rtol=0, atol=1e-5)
    exists = F.pad(torch.ones(64, 64, dtype=torch.int64), [59] * 4)[top : top + 59, left : left + 59]
    assert torch.equal(found.mean_count[MATCHED], exists)


# --------------------------------------------------------------------------------------------- Gabor filters


@pytest.mark.parametrize("angle", [0, 17, 45, 90, 101, 163])
def test_the_measure_of_orientation(angle):
    assert angle_between(orientation(wave(angle, 33).expand(3, -1, -1)), angle) < 1.5
    assert angle_between(orientation(gabor(angle)), angle) < 3


@pytest.mark.parametrize("layer", ["conv1", "maxpool"])
def test_maximization_finds_the_orientation_of_the_filter(planted, layer):
    found = maximize(planted, layer, range(4))
    for channel, angle in enumerate(ANGLES):
        assert angle_between(orientation(found.images[channel]), angle) < 5
        if layer == "conv1":  # a linear neuron: light where the filter is positive, dark where it is negative
            assert torch.equal(found.images[channel].sign(), gabor(angle).sign())
    # What is best for one filter is not so for another.
    assert found.images.flatten(1).corrcoef().fill_diagonal_(0).abs().amax() < 0.5


def test_the_mean_stimulus_in_noise_is_the_filter(planted):
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(12, 3, 64, 64, generator=generator)
    found = collect(planted, images, ["conv1"], preprocess=GREY_IS_ZERO, strongest=400)["conv1"]
    for stimulus in (found.mean_stimulus, found.strongest_stimulus):
        for channel, angle in enumerate(ANGLES):
            assert angle_between(orientation(stimulus[channel]), angle) < 5
            both = torch.stack([stimulus[channel].flatten(), gabor(angle).flatten()])
            assert both.corrcoef()[0, 1] > 0.95


@pytest.mark.parametrize("layer", ["conv1", "maxpool"])
def test_of_many_gratings_the_filters_own_is_preferred(planted, layer):
    angles = [angle for angle in range(0, 180, 15) for _ in range(3)]
    phases = [phase for _ in range(0, 180, 15) for phase in (0.0, 1.0, 2.0)]
    gratings = [0.5 + 0.5 * wave(angle, 64, phase) for angle, phase in zip(angles, phases, strict=True)]
    images = torch.stack(gratings)[:, None].expand(-1, 3, -1, -1)
    found = collect(planted, images, [layer], 3, preprocess=GREY_IS_ZERO, strongest=20)[layer]
    for channel, angle in enumerate(ANGLES):
        assert {angles[i] for i in found.top_images[channel].tolist()} == {angle}
        assert angle_between(orientation(found.strongest_stimulus[channel]), angle) < 5
