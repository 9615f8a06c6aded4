"""Which channels do not fire, and why: planted reasons, and the bound on what any picture can do."""

import pytest
import torch
from torch import nn

from rfviz.errors import RfvizError
from rfviz.images.data import Evaluation
from rfviz.images.whitening import IMAGENET, NONE, Whitening, fit
from rfviz.kernels import silent
from rfviz.kernels.responses import LayerResponses, collect
from rfviz.kernels.silent import (
    Silence,
    control_count,
    inactive_channels,
    least_active_channels,
    matched_active,
    reach,
    silence,
)
from rfviz.nets.models import ResidualNet, resnet34


def responses_with(maximum, positive_count, mean):
    """Responses of a layer of which only the activity matters."""
    count, empty = len(maximum), torch.empty(0)
    return LayerResponses(
        None, 1, 100, empty, empty, empty,
        torch.tensor(positive_count), torch.tensor(maximum), torch.tensor(mean), torch.zeros(count, 23),
    )  # fmt: skip


def test_inactive_means_exactly_zero_everywhere(resnet, some_tiles):
    resnet.bn1.bias.data[[1, 4]] = -1e3
    found = collect(resnet, some_tiles, ["maxpool"])["maxpool"]
    assert inactive_channels(found) == silent.tested_channels(found) == (1, 4)
    # One neuron at one position of one image is enough to be active, however weakly it fires.
    assert inactive_channels(responses_with([0.0, 1e-30, 3.0, 0.0], [0, 1, 9, 0], [0.0, 1e-32, 1.0, 0.0])) == (0, 3)


def test_least_active_channels_in_order():
    found = responses_with(
        maximum=[9.0, 0.0, 5.0, 5.0, 5.0, 1.0],
        positive_count=[50, 0, 7, 7, 7, 8],
        mean=[0.9, 0.0, 0.3, 0.1, 0.1, 0.01],
    )
    # 1 never fires; 2, 3 and 4 fire as often, 3 and 4 more weakly than 2 and alike; then 5, then 0.
    order = [1, 3, 4, 2, 5, 0]
    for count in range(1, 7):
        assert least_active_channels(found, count) == tuple(sorted(order[:count]))


@pytest.mark.parametrize(("channels", "count"), [(64, 13), (128, 26), (32, 6), (24, 5), (6, 1), (3, 1), (2, 1), (1, 1)])
def test_number_of_control_channels(channels, count):
    assert control_count(channels) == count


def test_matched_channels_are_the_nearest_each_once():
    strength = torch.tensor([1.0, 0.5, 1.02, 0.9, 0.52, 0.53])
    assert matched_active([0, 1], [0, 1], strength) == (2, 4)
    assert matched_active([1, 4], [1, 4], strength) == (5, 3)
    assert matched_active([0], [0, 2], strength) == (3,)
    assert matched_active([0, 1, 2, 3], [0, 1, 2, 3], strength) == (5, 4)  # two are left


@pytest.fixture
def planted(resnet: ResidualNet) -> ResidualNet:
    """Channel 0: shifted below what images can do; 1: its filter has vanished; 2: its batch norm ignores it."""
    resnet.bn1.bias.data[:] = 0.5
    resnet.bn1.bias.data[0] = -50.0
    resnet.conv1.weight.data[1] = 0
    resnet.bn1.running_mean[1] = 0
    resnet.bn1.bias.data[1] = -0.5
    resnet.bn1.weight.data[2] = 0
    resnet.bn1.bias.data[2] = -1e-3
    return resnet


def examined(net: ResidualNet, images: Evaluation, white=IMAGENET):
    pooled = collect(net, images, ["maxpool"], mean_stimulus=False, preprocess=white)["maxpool"]
    return silence(net, images, pooled, preprocess=white, batch_size=5)


def test_planted_reasons_are_found(planted: ResidualNet, tiles: Evaluation) -> None:
    found = examined(planted, tiles)
    assert found.kinds == ["shift", "filter", "filter", "active", "active", "active"]
    assert found.reachable.tolist() == [False, False, False, True, True, True]
    torch.testing.assert_close(found.reach[1:3], torch.tensor([-0.5, -1e-3], dtype=torch.float64))


def test_a_shift_that_some_picture_overcomes(resnet: ResidualNet, tiles: Evaluation) -> None:
    before = examined(resnet, tiles)
    shift = 0.5 * (before.highest[4] + before.reach[4])  # between what the images and what any picture can do
    resnet.bn1.bias.data[4] -= shift
    found = examined(resnet, tiles)
    assert found.kinds[4] == "shift"
    assert found.firing_rate[4] == 0
    assert found.reachable[4]


@pytest.mark.parametrize(("rise", "kind"), [(0.026, "shift"), (0.024, "filter")])
@pytest.mark.parametrize("size", [1.0, 1e-3])
def test_a_filter_has_vanished_below_a_hundredth_of_the_median(rise: float, kind: str, size: float) -> None:
    rises = size * torch.tensor([1.0, 2.5, 4.0, rise], dtype=torch.float64)
    rates, shift = torch.tensor([0.5, 0.5, 0.5, 0.0]), torch.tensor([0.1, -0.2, 0.0, -1.0], dtype=torch.float64)
    assert Silence(rates, shift + rises, shift, shift).kinds == ["active"] * 3 + [kind]


def test_where_nothing_fires_what_is_lifted_at_all_is_silent_by_its_shift() -> None:
    shift = torch.tensor([-1.0, -1.0])
    assert Silence(torch.zeros(2), torch.tensor([-0.9, -1.0]), shift, shift).kinds == ["shift", "filter"]


def test_rarely_active(resnet: ResidualNet, tiles: Evaluation) -> None:
    resnet.bn1.bias.data[5] -= examined(resnet, tiles).highest[5] - 1e-3
    found = examined(resnet, tiles)
    assert found.kinds[5] == "rarely active"
    assert 0 < found.firing_rate[5] < 0.01


def test_highest_is_the_highest_before_the_relu(resnet: ResidualNet, tiles: Evaluation) -> None:
    with torch.inference_mode():
        values = torch.stack([resnet.bn1(resnet.conv1(IMAGENET(tiles[i][0][None])))[0] for i in range(len(tiles))])
    torch.testing.assert_close(examined(resnet, tiles).highest, values.amax((0, 2, 3)).double())
    torch.testing.assert_close(examined(resnet, tiles).shift, resnet.bn1.bias.detach().double())


@pytest.mark.parametrize("kind", ["none", "channel", "zca"])
def test_the_best_picture_reaches_the_bound_and_no_other_does(
    resnet: ResidualNet, some_tiles: torch.Tensor, kind: str
) -> None:
    white = NONE if kind == "none" else fit(some_tiles, kind)
    bound = reach(resnet, white)

    def value(picture: torch.Tensor) -> torch.Tensor:
        return resnet.bn1(resnet.conv1(white(picture)))[:, :, 2, 2]  # the neuron whose field is rows 1 to 7

    for channel in range(6):
        image = torch.full((1, 3, 16, 16), 0.5, requires_grad=True)
        value(image)[0, channel].backward()
        best = (image.grad > 0).float()
        with torch.inference_mode():
            assert value(best)[0, channel].item() == pytest.approx(bound[channel].item(), rel=1e-5)
    with torch.inference_mode():
        others = value(torch.rand(200, 3, 16, 16, generator=torch.Generator().manual_seed(0)).round())
    assert (others.amax(0) <= bound + 1e-4).all()


def test_what_does_not_fit_is_refused(resnet: ResidualNet, tiles: Evaluation) -> None:
    pooled = collect(resnet, tiles, ["maxpool"], mean_stimulus=False)["maxpool"]
    with pytest.raises(RfvizError, match="no batch norm 'bn1'"):
        silence(nn.Sequential(nn.Conv2d(3, 6, 3)), tiles, pooled)
    with pytest.raises(RfvizError, match="6 channels, but 'bn1' has 8"):
        silence(resnet34(8, 4), tiles, pooled)
    assert isinstance(IMAGENET, Whitening)
