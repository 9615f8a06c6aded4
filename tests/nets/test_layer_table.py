"""Tables of layers: what can be read of a network, and what is shown of it unless more is asked for."""

from collections.abc import Callable

import pytest
import torch
import torchvision
from torch import nn

from rfviz.errors import RfvizError
from rfviz.nets import layer_table
from rfviz.nets.cone import Cone
from rfviz.nets.receptive_field import BOUND, EXACT, MEASURED, WHOLE_IMAGE


class Mixed(nn.Module):
    """Layers of every sort."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.relu = nn.Conv2d(3, 4, 3, 2), nn.ReLU()
        self.tall = nn.Conv2d(4, 5, (3, 1))
        self.roll = Rolled()
        self.pool, self.flat, self.fc = nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.flat(self.pool(self.roll(self.tall(self.relu(self.conv(x)))))))


class Rolled(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.roll(x, 1, 2)


def test_the_table_of_layers() -> None:
    rows = {row.name: row for row in layer_table.layers(nn.DataParallel(Mixed()))}
    told = {
        name: (row.kind, row.channels, row.known.how, row.field, row.ends_in_relu, row.positions)
        for name, row in rows.items()
    }
    assert told == {
        "conv": ("Conv2d", 4, EXACT, "3 px every 2 px", True, 111),
        "relu": ("ReLU", 4, EXACT, "3 px every 2 px", True, 111),
        "tall": ("Conv2d", 5, BOUND, "7 px every 2 px at most", False, 109),
        "roll": ("Rolled", 5, MEASURED, "to be measured", False, 109),
        "pool": ("AdaptiveAvgPool2d", 5, MEASURED, "to be measured", False, 1),
        "flat": ("Flatten", 5, MEASURED, "to be measured", False, 1),
        "fc": ("Linear", 2, MEASURED, "to be measured", False, 1),
    } or told["pool"][2:4] == (WHOLE_IMAGE, "whole image")
    assert "canvas" in layer_table.layers(nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1)))[1].works


def test_an_overview_of_a_resnet() -> None:
    assert layer_table.shown(torchvision.models.resnet18()) == [
        "conv1",
        "maxpool",
        "layer1",
        "layer2",
        "layer3",
        "layer4",
    ]
    with torch.device("meta"):  # its classifier is large
        vgg = torchvision.models.vgg11(init_weights=False)
    vgg.features.to_empty(device="cpu")
    found = layer_table.shown(vgg)  # evenly among 13, from the first to the last
    assert (found[0], found[-1], len(set(found))) == ("features.0", "features.20", layer_table.SHOWN)


@pytest.mark.parametrize(("channels", "side"), [(1, 28), (3, 32)])
def test_networks_that_take_images_of_one_size_only(channels: int, side: int) -> None:
    net = nn.Sequential(
        nn.Conv2d(channels, 4, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(4 * ((side - 4) // 2) ** 2, 10)
    )
    assert layer_table.natural_side(net) == side
    rows = {row.name: row for row in layer_table.layers(net)}
    assert list(rows) == ["0", "1", "2", "3", "4"] and rows["4"].channels == 10
    assert layer_table.shown(net)[0] == "0"


def test_nothing_to_show() -> None:
    with pytest.raises(RfvizError, match="nothing to show"):
        layer_table.shown(nn.Sequential(nn.Flatten(), nn.Linear(12, 2)))


def test_maximization_is_promised_where_one_neuron_can_be_computed_alone() -> None:
    rows = layer_table.layers(Mixed())
    assert {row.works for row in rows if row.name in ("conv", "relu")} == {"stimuli, means, activity, maximization"}
    for row in rows:
        if row.name in ("tall", "roll", "pool"):
            assert row.works.endswith("maximization on a canvas")
            with pytest.raises(RfvizError):
                Cone(Mixed(), row.name)


@pytest.mark.parametrize("cut", [lambda x: x[:, :, 0, 0], lambda x: x[:, :, x.shape[2] // 4 :, x.shape[2] // 4 :]])
def test_indices_of_any_kind_keep_no_layer_out_of_the_table(cut: Callable) -> None:
    class Cutting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.relu = nn.Conv2d(3, 4, 3), nn.ReLU()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return cut(self.relu(self.conv(x)))

    assert [row.name for row in layer_table.layers(Cutting())] == ["conv", "relu"]


def test_parts_are_shown_by_their_own_names() -> None:
    net = nn.Sequential()
    for name in ("a", "b"):
        net.add_module(name, nn.Sequential(nn.Conv2d(3, 3, 3), nn.ReLU()))
    assert layer_table.shown(net) == ["a", "b"]


def test_layers_behind_strides_that_differ_are_left_out() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 5, 3, (2, 1)), nn.Conv2d(5, 6, 3))
    assert [(row.name, row.field) for row in layer_table.layers(net)] == [(each, "3 px every 1 px") for each in "01"]
