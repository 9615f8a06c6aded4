"""Changing the responses of a layer, against the network itself with that change built in."""

import copy
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from rfviz.errors import RfvizError
from rfviz.images.data import NO_CLASS, Evaluation
from rfviz.images.whitening import IMAGENET
from rfviz.kernels.intervene import (
    adding,
    cutting,
    deviation,
    into_convolutions,
    into_skip,
    loss_changes,
    silencing,
    spread,
)
from rfviz.kernels.noise import adding_noise
from rfviz.nets.models import ResidualNet

LAYERS = ("maxpool", "layer1.0", "layer1.2")


class Labelled64:
    """Labelled images in float64, in which the order of sums does not show: every fifth tile, 48 px."""

    def __init__(self, tiles: Evaluation):
        self.images = [tiles[i][0][:, :48, :48].double() for i in range(0, len(tiles), 5)]
        self.labels = [tiles[i][1] for i in range(0, len(tiles), 5)]

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return self.images[index], self.labels[index]


def losses(net: ResidualNet, images: Labelled64, change=None, layer: str = "maxpool") -> torch.Tensor:
    """The loss of every image, one at a time; `change` works on the layer's output through a hook."""
    number = [0]
    handle = net.get_submodule(layer).register_forward_hook(
        lambda _module, _inputs, output: output if change is None else change(output.clone(), [number[0]])
    )
    found = []
    with torch.inference_mode():
        for number[0] in range(len(images)):
            image, label = images[number[0]]
            found.append(F.cross_entropy(net(IMAGENET(image[None])), torch.tensor([label])).double())
    handle.remove()
    return torch.stack(found)


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("batch_size", [3, pytest.param(64, marks=pytest.mark.thorough)])
def test_losses_are_those_of_a_hook(
    resnet: ResidualNet, plainnet: ResidualNet, tiles: Evaluation, layer: str, batch_size: int
) -> None:
    few = Labelled64(tiles)
    changes = {"gone": silencing(2), "noise": adding_noise([0, 3], 5, 0.5)}
    for net in (resnet.double(), plainnet.double()):
        found = loss_changes(net, few, layer, changes, preprocess=IMAGENET, batch_size=batch_size)
        unchanged = losses(net, few)
        for key, change in changes.items():
            expected = losses(net, few, change, layer) - unchanged
            torch.testing.assert_close(found[key], expected, atol=1e-9, rtol=1e-9)
            assert found[key].abs().max() > 1e-5


class Plain(Labelled64):
    """The same images without labels."""

    def __init__(self, tiles: Evaluation):
        super().__init__(tiles)
        del self.labels

    def __getitem__(self, index: int) -> torch.Tensor:  # type: ignore[override]
        return self.images[index]


def distributions(net: ResidualNet, images: Plain, change=None) -> torch.Tensor:
    """The distribution over classes of every image, one at a time, `(N, classes)`."""
    number = [0]
    handle = net.maxpool.register_forward_hook(
        lambda _module, _inputs, output: output if change is None else change(output.clone(), [number[0]])
    )
    found = []
    with torch.inference_mode():
        for number[0] in range(len(images)):
            found.append(net(IMAGENET(images[number[0]][None])).softmax(1)[0])
    handle.remove()
    return torch.stack(found)


@pytest.mark.parametrize("batch_size", [3, 64])
def test_without_labels_it_is_the_divergence_from_the_unchanged_output(
    resnet: ResidualNet, tiles: Evaluation, batch_size: int
) -> None:
    few, net, change = Plain(tiles), resnet.double(), adding_noise([0, 3], 5)
    net.fc.weight.data *= 0.01  # or one class has everything
    found = loss_changes(
        net, few, "maxpool", {"noise": change, "nothing": adding([], 1.0)}, preprocess=IMAGENET, batch_size=batch_size
    )
    before, after = distributions(net, few), distributions(net, few, change)
    expected = [
        sum(p * math.log(p / q) for p, q in zip(*pair, strict=True)) for pair in zip(before, after, strict=True)
    ]
    torch.testing.assert_close(found["noise"], torch.tensor(expected).double(), atol=1e-12, rtol=1e-9)
    assert found["noise"].min() > 1e-7 and found["nothing"].abs().max() < 1e-12


def test_a_set_of_which_some_images_have_no_class_has_no_labels(resnet: ResidualNet, tiles: Evaluation) -> None:
    few, change = Labelled64(tiles), {"noise": adding_noise([0], 5)}
    resnet.fc.weight.data *= 0.01
    divergence = loss_changes(resnet.double(), Plain(tiles), "maxpool", change)["noise"]
    assert not torch.equal(loss_changes(resnet, few, "maxpool", change)["noise"], divergence)
    few.labels[-1] = NO_CLASS
    assert torch.equal(loss_changes(resnet, few, "maxpool", change)["noise"], divergence)


def test_labels_that_the_network_does_not_know_are_refused(resnet: ResidualNet, tiles: Evaluation) -> None:
    few = Labelled64(tiles)
    few.labels[0] = resnet.fc.out_features
    with pytest.raises(
        RfvizError, match=r"an image has the label (\d+), but the network tells \1 classes apart"
    ) as caught:
        loss_changes(resnet.double(), few, "maxpool", {})
    assert "\n" not in str(caught.value)


def test_some_images_only(resnet: ResidualNet, tiles: Evaluation) -> None:
    changes = {1: silencing(1)}
    whole = loss_changes(resnet, tiles, "maxpool", changes)[1]
    some = loss_changes(resnet, tiles, "maxpool", changes, indices=[7, 2, 5], batch_size=2)[1]
    torch.testing.assert_close(some, whole[[7, 2, 5]], atol=1e-5, rtol=1e-4)


def test_a_channel_that_is_silent_is_not_missed(resnet: ResidualNet, tiles: Evaluation) -> None:
    resnet.bn1.bias.data[3] = -1e3
    found = loss_changes(resnet, tiles, "maxpool", {3: silencing(3), 4: silencing(4)})
    assert found[3].abs().max() == 0
    assert found[4].abs().max() > 0


def test_the_network_is_left_as_it_was(resnet: ResidualNet, tiles: Evaluation) -> None:
    before = copy.deepcopy(resnet.state_dict())
    loss_changes(resnet.train(), tiles, "layer1.0", {0: silencing(0)}, indices=[0, 1])
    assert resnet.training
    assert all(torch.equal(value, before[key]) for key, value in resnet.state_dict().items())


def test_a_loss_that_is_not_finite_names_the_image(resnet: ResidualNet, tiles: Evaluation) -> None:
    def broken(responses: torch.Tensor, numbers: list[int]) -> torch.Tensor:
        responses[[number == 4 for number in numbers]] = torch.nan
        return responses

    with pytest.raises(RfvizError, match="image 4: the loss is not finite"):
        loss_changes(resnet, tiles, "maxpool", {"broken": broken})


@pytest.mark.parametrize(("count", "at_most"), [(0, 5), (5, 0)])
def test_no_images_are_refused(count: int, at_most: int) -> None:
    with pytest.raises(RfvizError, match=f"at most {at_most} of {count} images"):
        spread(count, at_most)


@given(count=st.integers(1, 500), at_most=st.integers(1, 300))
def test_spread_takes_at_most_so_many_evenly(count: int, at_most: int) -> None:
    chosen = spread(count, at_most)
    assert 1 <= len(chosen) <= at_most
    assert chosen[0] == 0
    assert count - chosen[-1] <= chosen.step
    assert count > at_most or list(chosen) == list(range(count))


# -- one path of a block, and blocks that do not write -----------------------------------------------------------------


def by_hand(net: ResidualNet, image: torch.Tensor, blocks) -> torch.Tensor:
    """The logits of an image, with `blocks` in place of layer1."""
    x = net.maxpool(torch.relu(net.bn1(net.conv1(image))))
    return net.fc(net.layer4(net.layer3(net.layer2(blocks(x)))).mean((2, 3)))


def branch(block, x: torch.Tensor) -> torch.Tensor:
    return block.bn2(block.conv2(torch.relu(block.bn1(block.conv1(x)))))


@pytest.mark.parametrize("path", ["skip", "convolutions", "cut", "offset"])
def test_a_change_of_one_path_is_what_it_is_by_hand(resnet: ResidualNet, tiles: Evaluation, path: str) -> None:
    few, net, channels = Labelled64(tiles), resnet.double(), [1, 4]
    noisy = adding_noise(channels, 3, 2.0)
    change = {
        "skip": lambda: into_skip(net, "maxpool", "layer1.0", noisy),
        "convolutions": lambda: into_convolutions(net, "maxpool", "layer1.0", noisy),
        "cut": lambda: cutting(net, ["maxpool", "layer1.0", "layer1.1", "layer1.2"], channels),
        "offset": lambda: adding(channels, 0.4),
    }[path]()
    found = loss_changes(net, few, "maxpool", {path: change}, preprocess=IMAGENET, batch_size=5)[path]

    def blocks(x: torch.Tensor, number: int, changed: bool) -> torch.Tensor:
        n = noisy(x.clone(), [number]) - x if changed else torch.zeros_like(x)
        if path == "offset" and changed:
            x = x.clone()
            x[:, channels] += 0.4
        first = net.layer1[0]
        if path == "skip":
            x = torch.relu(branch(first, x) + x + n)
        elif path == "convolutions":
            x = torch.relu(branch(first, x + n) + x)
        elif path == "cut" and changed:
            given = x[:, channels]
            for block in net.layer1:
                x = torch.relu(branch(block, x) + x)
                x[:, channels] = given
            return x
        else:
            x = first(x)
        return net.layer1[2](net.layer1[1](x))

    with torch.inference_mode():
        for i in range(len(few)):
            image, label = few[i]
            both = [
                F.cross_entropy(
                    by_hand(net, IMAGENET(image[None]), lambda x, i=i, changed=changed: blocks(x, i, changed)),
                    torch.tensor([label]),
                )
                for changed in (True, False)
            ]
            assert found[i].item() == pytest.approx(float(both[0] - both[1]), abs=1e-9)
    assert found.abs().max() > 1e-5


def test_the_two_paths_of_a_block_add_up_where_its_convolutions_do_nothing(
    resnet: ResidualNet, tiles: Evaluation
) -> None:
    """Then the skip carries everything, and noise in the convolutions is none."""
    net, few = resnet.double(), Labelled64(tiles)
    with torch.no_grad():
        net.layer1[0].bn2.weight.zero_()
    noisy = adding_noise([2], 0)
    changes = {
        "whole": noisy,
        "skip": into_skip(net, "maxpool", "layer1.0", noisy),
        "convolutions": into_convolutions(net, "maxpool", "layer1.0", noisy),
    }
    found = loss_changes(net, few, "maxpool", changes)
    torch.testing.assert_close(found["skip"], found["whole"], atol=1e-9, rtol=0)
    torch.testing.assert_close(found["convolutions"], torch.zeros_like(found["whole"]), atol=1e-9, rtol=0)
    assert found["whole"].abs().max() > 1e-3


def test_the_deviation_is_that_of_all_neurons_of_some_channels(resnet: ResidualNet, tiles: Evaluation) -> None:
    with torch.inference_mode():
        values = torch.cat([resnet.maxpool(torch.relu(resnet.bn1(resnet.conv1(tiles[i][0][None])))) for i in (0, 3, 5)])
    found = deviation(resnet, tiles, "maxpool", [0, 2], indices=[0, 3, 5], batch_size=2)
    assert found == pytest.approx(values[:, [0, 2]].double().std(correction=0).item(), rel=1e-5)
