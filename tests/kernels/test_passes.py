"""The loop behind a pass: what it leaves behind, memory formats, and nets out of the ordinary."""

import copy
import dataclasses
import gc
import weakref
from functools import cache

import pytest
import torch
from reference import settled
from torch import Tensor, nn

from rfviz.images import photographs
from rfviz.images.data import Evaluation
from rfviz.kernels import responses
from rfviz.kernels.responses import LayerResponses, collect, passes
from rfviz.kernels.responses.patch_sums import Workspace
from rfviz.nets import models
from rfviz.nets.receptive_field import ReceptiveField

torch.set_num_threads(1)  # also where a child process imports this module

LAYERS = ("maxpool", "layer1.0", "layer2.0")


def small_net(seed: int = 0) -> models.ResidualNet:
    """The `resnet` of conftest, also for child processes."""
    torch.manual_seed(seed)
    return settled(models.resnet34(6, 4))


@cache
def _tiles() -> Evaluation:
    return Evaluation(photographs.load(64, classes=4).evaluation)


def pictures(count: int, *, mixed: bool = False) -> list[Tensor]:
    """Tiles of 64 px, spread over four photographs; or pieces of them whose size changes within a batch, small first.

    In small images no neuron of layer2.0 sees the first rows and columns of its field.
    """
    tiles = _tiles()
    chosen = [tiles[i * len(tiles) // count][0] for i in range(count)]
    sizes = [(20, 24), (20, 24), (20, 24), (24, 40), (24, 40), (64, 64), (64, 40)] if mixed else [(64, 64)]
    cut = [image[:, : sizes[i % len(sizes)][0], : sizes[i % len(sizes)][1]] for i, image in enumerate(chosen)]
    return [image.contiguous() for image in cut]


def tensors_of(found: dict[str, LayerResponses]) -> dict[str, Tensor]:
    """Every number that a pass found, by name."""
    tensors = {}
    for layer, of_layer in found.items():
        for field in dataclasses.fields(of_layer):
            value = getattr(of_layer, field.name)
            if isinstance(value, ReceptiveField):
                value = dataclasses.astuple(value)
            if value is not None:
                tensors[f"{layer}/{field.name}"] = value if isinstance(value, Tensor) else torch.tensor(value)
    return tensors


def assert_same_bits(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    assert [name for name in expected if not same_bits(found[name], expected[name])] == []


def same_bits(a: Tensor, b: Tensor) -> bool:
    if a.dtype != b.dtype or a.shape != b.shape:
        return False
    return a.contiguous().flatten().view(torch.uint8).equal(b.contiguous().flatten().view(torch.uint8))


def plain_responses(net: nn.Module, images: Tensor, layer: str, batch_size: int) -> Tensor:
    """Responses `(N, C, h, w)` of a module in the plain forward pass, in the order in which `images` lie in memory."""
    outputs = []
    hook = net.get_submodule(layer).register_forward_hook(lambda module, args, output: outputs.append(output.clone()))
    order = torch.channels_last if images.is_contiguous(memory_format=torch.channels_last) else torch.contiguous_format
    with torch.no_grad():
        for batch in images.split(batch_size):
            net(batch.contiguous(memory_format=order))
    hook.remove()
    return torch.cat(outputs)


# -- nothing is left behind -------------------------------------------------------------------------------------------


class Cruel:
    """Images of which one cannot be loaded, once it has been asked for a number of times."""

    def __init__(self, images: list[Tensor], bad: int, times: int = 0):
        self.images, self.bad, self.times = images, bad, times

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Tensor:
        if index == self.bad:
            self.times -= 1
            if self.times < 0:
                raise OSError("no such picture")
        return self.images[index]


@pytest.fixture
def remembered(monkeypatch):
    """Weak references to the passes, workspaces and tensors of workspaces that are made."""
    made = []

    class RememberedWorkspace(Workspace):
        def __init__(self):
            super().__init__()
            made.append(weakref.ref(self))

        def empty(self, *arguments):
            view = super().empty(*arguments)
            made.extend(weakref.ref(held) for held in self._held.values())
            return view

    class RememberedPass(passes.Pass):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            made.append(weakref.ref(self))

    monkeypatch.setattr(passes, "Workspace", RememberedWorkspace)
    monkeypatch.setattr(responses, "Pass", RememberedPass)
    gc.collect()
    gc.disable()
    yield made
    gc.enable()


@pytest.mark.parametrize("mixed", [pytest.param(False, marks=pytest.mark.thorough), True])
@pytest.mark.parametrize("options", [{}, {"strongest": 50}, {"neuron": (0, 0)}])
def test_the_memory_of_a_pass_is_free_when_it_has_ended(remembered, tmp_path, options, mixed):
    found = collect(
        small_net(), pictures(6, mixed=mixed), LAYERS, batch_size=4, checkpoint=tmp_path / "c", checkpoint_every=0,
        **options,
    )  # fmt: skip
    assert len(remembered) > 10
    assert [each for each in remembered if each() is not None] == []
    assert set(found) == set(LAYERS)


@pytest.mark.parametrize("times", [0, 1])
def test_the_memory_of_a_pass_is_free_when_it_has_failed(remembered, times):
    """In the first stage or in the second."""
    refused = False
    try:
        collect(small_net(), Cruel(pictures(6), 5, times), LAYERS, batch_size=2, strongest=10**4)
    except OSError:
        refused = True
    assert refused
    assert len(remembered) > 10
    assert [each for each in remembered if each() is not None] == []


@pytest.mark.parametrize("fails", [None, 0, 1])
def test_the_network_and_the_settings_of_torch_are_as_before(tmp_path, fails):
    net = small_net().train()
    net.layer2.eval()
    for parameter in net.layer1.parameters():
        parameter.requires_grad_(False)

    def state():
        return (
            {name: module.training for name, module in net.named_modules()},
            {name: (len(m._forward_hooks), len(m._forward_pre_hooks)) for name, m in net.named_modules()},
            {name: (p.requires_grad, p.grad, p.is_inference()) for name, p in net.named_parameters()},
            torch.is_inference_mode_enabled(), torch.is_grad_enabled(),
            torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32, torch.get_num_threads(),
        )  # fmt: skip

    before, weights = state(), copy.deepcopy(net.state_dict())
    images = pictures(6) if fails is None else Cruel(pictures(6), 5, fails)
    options = {"batch_size": 2, "strongest": 10**4, "checkpoint": tmp_path / "c"}
    if fails is None:
        collect(net, images, LAYERS, **options)
    else:
        with pytest.raises(OSError, match="no such picture"):
            collect(net, images, LAYERS, **options)
    assert state() == before
    assert_same_bits(net.state_dict(), weights)
    assert not collect(net, pictures(2), ["maxpool"])["maxpool"].top_values.is_inference()  # may be changed in place


# -- nets out of the ordinary -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("mixed", [False, True])
def test_layers_in_which_no_neuron_fires(mixed):
    """All of them: then no image holds a strongest neuron. Or some."""
    images = pictures(5, mixed=mixed)
    net = small_net()
    net.bn1.bias.data -= 1e6
    silent = collect(net, images, ["conv1", "maxpool"], 3, strongest=7, batch_size=2)
    some = collect(net, images, ["conv1", "maxpool", "layer1.0"], 3, strongest=7, batch_size=2)
    assert some["layer1.0"].strongest_count.any()
    assert_same_bits(
        tensors_of({layer: some[layer] for layer in ("conv1", "maxpool")}),
        tensors_of(silent),
    )
    for found in silent.values():
        size = found.receptive_field.size
        assert found.top_values.tolist() == [[0.0] * 3] * 6
        assert found.top_images.tolist() == [[0, 1, 2]] * 6
        assert not found.positive_count.any() and found.histogram[:, 0].tolist() == [found.neuron_count] * 6
        for stimulus in (found.mean_stimulus, found.strongest_stimulus):
            assert torch.equal(stimulus, torch.zeros(6, 3, size, size))
        for count in (found.mean_count, found.strongest_count):
            assert torch.equal(count, torch.zeros(6, size, size, dtype=torch.int64))


def strongest_by_hand(images: list[Tensor], maps: list[Tensor], channel: int, k: int, padding: int, size: int):
    """Sum over the patches of the k strongest positive neurons, pixels outside the image not counting; and counts."""
    neurons = [
        (-value, i, y, x)
        for i, of_image in enumerate(maps)
        for y, row in enumerate(of_image[channel].tolist())
        for x, value in enumerate(row)
        if value > 0
    ]
    total, count = torch.zeros(3, size, size, dtype=torch.float64), torch.zeros(size, size, dtype=torch.int64)
    for _, i, y, x in sorted(neurons)[:k]:
        image = images[i].double()
        for v in range(size):
            for u in range(size):
                row, column = y - padding + v, x - padding + u
                if 0 <= row < image.shape[1] and 0 <= column < image.shape[2]:
                    total[:, v, u] += image[:, row, column]
                    count[v, u] += 1
    return total / count.clamp(min=1), count


@pytest.mark.parametrize("batch_size", [1, 2, 7])
@pytest.mark.parametrize("mixed", [False, True])
@pytest.mark.parametrize(("size", "padding", "k"), [(3, 2, 9), (3, 2, 60), (1, 2, 60), (2, 3, 400), (5, 4, 25)])
def test_maps_that_are_larger_than_the_image(size, padding, k, mixed, batch_size):
    """Padding wider than the field needs: the last neurons see little of the image, or nothing."""
    generator = torch.Generator().manual_seed(size * k)
    sizes = [(8, 6), (8, 6), (5, 5), (5, 9), (8, 6)] if mixed else [(8, 6)] * 5
    images = [torch.rand(3, *each, generator=generator) / 10 for each in sizes]
    images[0][:, -1, -1] = images[1][:, 3, 3] = 0.9
    net = nn.Sequential(nn.Conv2d(3, 3, size, padding=padding), nn.ReLU()).double()
    net[0].weight.data = torch.rand(3, 3, size, size, generator=generator).double() - 0.3
    net[0].bias.data = torch.tensor([0.0, 0.005, -0.05]).double()
    with torch.no_grad():
        maps = [net(image[None].double())[0] for image in images]
    assert maps[0].shape[1] > 8
    images = [image.double() for image in images]
    found = collect(net, images, ["1"], strongest=k, borders=True, batch_size=batch_size)["1"]
    everything = collect(net, images, ["1"], strongest=10**4, borders=True, batch_size=batch_size)["1"]
    for channel in range(3):
        mean, count = strongest_by_hand(images, maps, channel, k, padding, size)
        assert torch.equal(found.strongest_count[channel], count)
        torch.testing.assert_close(found.strongest_stimulus[channel].double(), mean, rtol=0, atol=1e-5)
    assert torch.equal(everything.strongest_count, everything.mean_count)
    torch.testing.assert_close(everything.strongest_stimulus, everything.mean_stimulus, rtol=0, atol=1e-6)


def test_a_network_that_overwrites_its_input_does_not_change_the_images():
    net = nn.Sequential(nn.Hardtanh(0.4, 0.6, inplace=True), nn.Conv2d(3, 2, 3), nn.ReLU())
    images = torch.stack(pictures(4))
    before = images.clone()
    found = collect(net, images, ["2"], 2, strongest=5)["2"]
    assert torch.equal(images, before)
    net[0].inplace = False
    assert_same_bits(tensors_of({"2": found}), tensors_of({"2": collect(net, images, ["2"], 2, strongest=5)["2"]}))


# -- channels last ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("per_image", [1, None])
def test_channels_last_equals_a_plain_pass_of_the_same_net(per_image):
    net = small_net().to(memory_format=torch.channels_last)
    images = torch.stack(pictures(10))
    found = collect(net, images, LAYERS, 6, per_image=per_image, strongest=30, borders=True, batch_size=4)
    for layer in LAYERS:
        maps = plain_responses(net, images.contiguous(memory_format=torch.channels_last), layer, 4)
        assert maps.is_contiguous(memory_format=torch.channels_last)
        assert not maps.is_contiguous()
        of_channel = maps.contiguous().flatten(2).transpose(0, 1)  # C, N, h * w
        candidates = of_channel.amax(2) if per_image == 1 else of_channel.flatten(1)
        assert torch.equal(found[layer].top_values, candidates.sort(1, descending=True).values[:, :6])
        values = [
            [maps[i, channel, y, x].item() for i, (y, x) in zip(*lists, strict=True)]
            for channel, lists in enumerate(
                zip(found[layer].top_images.tolist(), found[layer].top_positions.tolist(), strict=True)
            )
        ]
        assert values == found[layer].top_values.tolist()
        assert torch.equal(found[layer].maximum, maps.amax((0, 2, 3)).double())
        assert torch.equal(found[layer].positive_count, (maps > 0).sum((0, 2, 3)))
        torch.testing.assert_close(found[layer].mean, maps.double().mean((0, 2, 3)), rtol=1e-12, atol=0)


@pytest.mark.parametrize("options", [{}, {"per_image": None}, {"neuron": (2, 5)}])
def test_channels_last_and_the_usual_order_agree(options):
    images = torch.stack(pictures(20)).double()
    one = collect(small_net().double(), images, LAYERS, strongest=30, batch_size=8, **options)
    net = small_net().double().to(memory_format=torch.channels_last)
    other = collect(net, images, LAYERS, strongest=30, batch_size=8, **options)
    assert net.conv1.weight.is_contiguous(memory_format=torch.channels_last)
    for layer in LAYERS:
        a, b = one[layer], other[layer]
        for name in ("top_images", "top_positions", "positive_count", "histogram", "mean_count", "strongest_count"):
            assert torch.equal(getattr(a, name), getattr(b, name)), name
        torch.testing.assert_close(a.top_values, b.top_values, rtol=1e-12, atol=0)
        torch.testing.assert_close(a.mean, b.mean, rtol=1e-12, atol=0)
        for name in ("mean_stimulus", "strongest_stimulus"):
            torch.testing.assert_close(getattr(a, name), getattr(b, name), rtol=0, atol=1e-6)
