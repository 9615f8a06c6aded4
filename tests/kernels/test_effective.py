"""Effective fields give back a planted spot, and agree with finite differences."""

import copy
import math

import pytest
import torch
from torch import nn

from rfviz.errors import RfvizError
from rfviz.images.whitening import Whitening
from rfviz.kernels.effective import EffectiveFields, core, effective_fields, spread
from rfviz.kernels.responses import LayerResponses, collect
from rfviz.nets import models
from rfviz.nets.graph import ForwardPass
from rfviz.nets.receptive_field import IMAGE

MIXED = Whitening(torch.tensor([0.4, 0.5, 0.6]), torch.tensor([[2.0, 0.3, 0.0], [0.3, 3.0, -0.2], [0.0, -0.2, 4.0]]))


class Spot(nn.Module):
    """One layer of 11 x 11 kernels; channel 0 looks at a 3 x 3 spot off their centre, channel 1 at nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 2, 11, padding=5)
        self.relu = nn.ReLU()
        nn.init.zeros_(self.conv.weight)
        nn.init.ones_(self.conv.bias)
        self.conv.weight.data[0, :, 1:4, 6:9] = 1

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.relu(self.conv(x))


def fields_of(net: nn.Module, layer: str, images: object, **options: object) -> EffectiveFields:
    found = collect(net, images, [layer], 4, mean_stimulus=False, borders=True, preprocess=MIXED)[layer]
    return effective_fields(net, images, layer, found, spread(found, 3), preprocess=MIXED, **options)


def test_a_planted_spot_holds_all_the_weight() -> None:
    image = torch.zeros(1, 3, 21, 21)
    image[0, :, 6, 12] = 1  # seen by the middle of the spot of neuron (9, 10) only where all of it is inside
    net = Spot()
    found = collect(net, image, ["conv"], 1, mean_stimulus=False, borders=True)["conv"]
    y, x = found.top_positions[0, 0].tolist()
    fields = effective_fields(net, image, "conv", found, [0, 1], top=1)
    expected = torch.zeros(21, 21)
    expected[y - 4 : y - 1, x + 1 : x + 4] = 1 / 9
    torch.testing.assert_close(fields.maps[0], expected)
    assert not fields.maps[1].any()  # channel 1 fires, but depends on nothing
    assert fields.diameter[0].item() == pytest.approx(2 * math.sqrt(5 / math.pi))  # 5 of 9 equal pixels hold half
    assert fields.diameter[1].isnan()


def test_the_core_is_the_smallest_set_that_holds_half() -> None:
    weights = torch.rand(4, 5, 6, generator=torch.Generator().manual_seed(0))
    weights[3] = 0
    for each, held in zip(weights, core(weights), strict=True):
        power = sorted(each.double().square().flatten().tolist(), reverse=True)
        count = next((n for n in range(31) if sum(power[:n]) >= sum(power) / 2), 0)
        assert held.sum() == count
        assert not count or each[held].min() >= each[~held].max()


def test_where_the_neurons_centre_is() -> None:
    maps = torch.zeros(2, 9, 9)
    maps[0, 2, 7] = 1
    maps[1, 0, 0] = maps[1, 8, 8] = 0.5
    fields = EffectiveFields(
        IMAGE, torch.tensor([0, 1]), torch.tensor([0, 0]), torch.tensor([[5, 3], [4, 4]]), torch.full((2, 2), 9), maps
    )
    assert fields.centres.tolist() == [[5, 3], [4, 4]]


@pytest.mark.parametrize("layer", ["maxpool", "layer1.1"])
def test_weights_agree_with_finite_differences(
    resnet: models.ResidualNet, some_tiles: torch.Tensor, layer: str
) -> None:
    net, images = resnet.double(), some_tiles[:2, :, :40, :40].double()
    fields = fields_of(net, layer, images, top=1)
    weights = fields.maps[0].double()
    image, (y, x), channel = images[fields.images[0]], fields.positions[0].tolist(), fields.channels[0]
    values = {}
    forward = ForwardPass(net, [layer], before_relu=True)
    pixels = [divmod(i, 40) for i in weights.flatten().topk(4).indices.tolist()] + [(0, 0), (y * 4, x * 4 - 2)]
    step = 1e-6
    for row, column in pixels:
        slopes = []
        for colour in range(3):
            pair = image.repeat(2, 1, 1, 1)
            pair[0, colour, row, column] += step
            pair[1, colour, row, column] -= step
            with torch.no_grad():
                up, down = forward(MIXED(pair))[:, channel, y, x]
            slopes.append((up - down).item() / (2 * step))
        values[row, column] = math.hypot(*slopes)
    scale = values[pixels[0]] / weights[pixels[0]].item()
    for pixel, slope in values.items():
        assert slope / scale == pytest.approx(weights[pixel].item(), rel=1e-4, abs=1e-8)


@pytest.mark.parametrize("name", ["resnet", "plainnet"])
def test_nothing_outside_the_theoretical_field(
    name: str, request: pytest.FixtureRequest, some_tiles: torch.Tensor
) -> None:
    net = request.getfixturevalue(name)
    fields = fields_of(net, "layer1.0", some_tiles)
    assert len(fields.maps) == 12
    torch.testing.assert_close(fields.maps.sum((1, 2)), torch.ones(12))
    for weights, (y, x) in zip(fields.maps, fields.positions.tolist(), strict=True):
        top, left, bottom, right = (max(side, 0) for side in fields.receptive_field.box(y, x))
        outside = weights.clone()
        outside[top:bottom, left:right] = 0
        assert not outside.any()
        assert weights[top:bottom, left:right].any()


def test_batches_change_nothing_and_the_net_is_left_alone(resnet: models.ResidualNet, some_tiles: torch.Tensor) -> None:
    resnet.train()
    resnet.layer1.eval()
    frozen = resnet.conv1.weight.requires_grad_(False)
    modes = [module.training for module in resnet.modules()]
    before = copy.deepcopy(resnet.state_dict())
    one, many = (fields_of(resnet, "layer2.0", some_tiles, batch_size=size) for size in (1, 5))
    torch.testing.assert_close(one.maps, many.maps, rtol=1e-4, atol=1e-8)
    torch.testing.assert_close(one.diameter, many.diameter, rtol=0.02, atol=0)
    assert torch.equal(fields_of(resnet, "layer2.0", some_tiles, batch_size=5).maps, many.maps)
    assert [module.training for module in resnet.modules()] == modes
    assert all(parameter.grad is None for parameter in resnet.parameters())
    assert [p.requires_grad for p in resnet.parameters()] == [p is not frozen for p in resnet.parameters()]
    assert all(torch.equal(value, before[key]) for key, value in resnet.state_dict().items())
    with torch.inference_mode():
        torch.testing.assert_close(fields_of(resnet, "layer2.0", some_tiles, batch_size=5).maps, many.maps)


class Mixed:
    """Images of two sizes, with labels."""

    def __init__(self, images: torch.Tensor) -> None:
        self.images = [image[:, :48] if i % 2 else image for i, image in enumerate(images)]

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return self.images[index], 0


def test_images_may_differ_in_size(resnet: models.ResidualNet, some_tiles: torch.Tensor) -> None:
    images = Mixed(some_tiles)
    fields = fields_of(resnet, "layer1.2", images)
    assert {tuple(size) for size in fields.sizes.tolist()} == {(48, 64), (64, 64)}
    for i, (index, size) in enumerate(zip(fields.images.tolist(), fields.sizes.tolist(), strict=True)):
        assert size == list(images[index][0].shape[1:])
        assert not fields.maps[i, size[0] :].any()


def test_only_stimuli_that_drive_the_channel_count(resnet: models.ResidualNet, some_tiles: torch.Tensor) -> None:
    found = collect(resnet, some_tiles, ["layer1.0"], 4, mean_stimulus=False, borders=True)["layer1.0"]
    found.top_values[2, 1:] = 0
    found.top_values[4] = 0
    fields = effective_fields(resnet, some_tiles, "layer1.0", found, [4, 2, 0], top=3)
    assert fields.channels.tolist() == [2, 0, 0, 0]
    assert fields.images.tolist() == [found.top_images[2, 0].item(), *found.top_images[0, :3].tolist()]
    nothing = effective_fields(resnet, some_tiles, "layer1.0", found, [4])
    assert nothing.maps.shape == (0, 0, 0) and len(nothing.diameter) == 0


def test_channels_are_spread_over_those_that_fire(resnet: models.ResidualNet, some_tiles: torch.Tensor) -> None:
    found = collect(resnet, some_tiles, ["layer1.0"], 1, mean_stimulus=False, borders=True)["layer1.0"]
    found.top_values[:, 0] = torch.tensor([3, 0, 1, 1, 0, 9])
    assert spread(found, 2) == [0, 3]
    assert spread(found, 9) == [0, 2, 3, 5]


def one_line(error: pytest.ExceptionInfo) -> str:
    assert "\n" not in str(error.value)
    return str(error.value)


def test_errors_are_one_line(resnet: models.ResidualNet, some_tiles: torch.Tensor) -> None:
    found: LayerResponses = collect(resnet, some_tiles, ["layer1.0"], 2, mean_stimulus=False, borders=True)["layer1.0"]
    for arguments, options, said in [
        ((some_tiles, "layer1.0", found, [0]), {"top": 3}, "top (3) from 1 to 2"),
        ((some_tiles, "layer1.0", found, [6]), {"top": 1}, "there is no channel 6"),
        ((iter([some_tiles]), "layer1.0", found, [0]), {"top": 1}, "give a tensor or a data set"),
        ((some_tiles[1:], "layer1.0", found, [0]), {"top": 1}, "were given: give those that they were collected from"),
        ((some_tiles, "layer1.1", found, [0]), {"top": 1}, "give the responses of 'layer1.1'"),
        ((some_tiles, "layer1.0.bn2", found, [0]), {"top": 1}, "does not end in a ReLU"),
        ((some_tiles, "layer9", found, [0]), {"top": 1}, "unknown layer"),
    ]:
        with pytest.raises(RfvizError) as error:
            effective_fields(resnet, *arguments, **options)
        assert said in one_line(error)
