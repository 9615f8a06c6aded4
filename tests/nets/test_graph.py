"""The graph of a forward pass: names, values, where it stops, and what it leaves as it was."""

import copy
import re
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
import torchvision
from reference import called_modules
from torch import nn
from torch.nn import functional as F

from rfviz.errors import RfvizError
from rfviz.nets import graph, models
from rfviz.nets.graph import ForwardPass


class Branching(nn.Module):
    """Two branches, a function and a method as ReLU, one module that is called twice, nothing in place."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 4, 3, padding=1)
        self.left = nn.Conv2d(4, 4, 3, padding=1)
        self.right = nn.Sequential(nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4), nn.ReLU())
        self.act1 = nn.ReLU()
        self.pool = nn.MaxPool2d(2)
        self.head = nn.Conv2d(4, 2, 1)

    def forward(self, x):
        x = F.relu(self.conv1(x))
        joined = self.act1(self.left(x)) + self.right(x)
        pooled = self.pool(self.pool(joined).relu())
        return self.act1(self.head(pooled)).mean((2, 3))


@pytest.fixture
def branching() -> Branching:
    torch.manual_seed(3)
    return Branching().eval()


def reference(net: models.ResidualNet, images: torch.Tensor, skips: bool) -> tuple[dict, dict, torch.Tensor]:
    """Run a 34-layer network step by step, never in place: responses, values before the last ReLU, logits."""
    responses, before = {}, {}
    before["conv1"] = net.bn1(net.conv1(images))
    responses["conv1"] = responses["relu"] = F.relu(before["conv1"])
    before["maxpool"] = net.maxpool(before["conv1"])
    x = responses["maxpool"] = net.maxpool(responses["conv1"])
    for stage, blocks in enumerate(net.network.blocks):
        for number in range(blocks):
            name = f"layer{stage + 1}.{number}"
            block = net.get_submodule(name)
            before[f"{name}.relu1"] = block.bn1(block.conv1(x))
            inner = responses[f"{name}.relu1"] = responses[f"{name}.conv1"] = F.relu(before[f"{name}.relu1"])
            total = responses[f"{name}.bn2"] = block.bn2(block.conv2(inner))
            # With a skip no ReLU follows the second batch norm directly; without one it does.
            responses[f"{name}.conv2"] = total if skips else F.relu(total)
            if skips:
                total = total + (x if block.downsample is None else block.downsample(x))
            before[name] = total
            x = responses[name] = responses[f"{name}.relu2"] = F.relu(total)
        responses[f"layer{stage + 1}"] = x
    return responses, before, net.fc(x.mean((2, 3)))


def collect(into: dict):
    """Return a reader that keeps a copy of what it is shown."""

    def read(layer, value):
        assert layer not in into, f"{layer} was read twice"
        into[layer] = value.clone()

    return read


@pytest.mark.parametrize("architecture", ["resnet", "plainnet"])
def test_every_value_equals_that_of_a_pass_written_out_by_hand(architecture, some_tiles, request):
    net = request.getfixturevalue(architecture)
    with torch.inference_mode():
        expected, _, logits = reference(net, some_tiles, skips=architecture == "resnet")
        read = {}
        output = ForwardPass(net, list(expected), to_output=True)(some_tiles, collect(read))
    assert set(read) == set(expected)
    for layer, value in expected.items():
        assert torch.equal(read[layer], value), layer
    assert torch.equal(output, net(some_tiles))
    torch.testing.assert_close(output, logits)
    assert not torch.equal(expected["layer1.0.bn2"], expected["layer1.0"])  # reading too late would go unnoticed


@pytest.mark.parametrize("architecture", ["resnet", "plainnet"])
def test_before_relu_equals_a_pass_written_out_by_hand(architecture, some_tiles, request):
    net = request.getfixturevalue(architecture)
    with torch.inference_mode():
        responses, expected, logits = reference(net, some_tiles, skips=architecture == "resnet")
        for layer in ("conv1", "maxpool", "layer1.0.relu1", "layer1.0", "layer1.2", "layer2.0", "layer4.2"):
            alone = ForwardPass(net, [layer], before_relu=True)(some_tiles)
            assert torch.equal(alone, expected[layer]), layer
            assert (alone < 0).any(), layer
            assert torch.equal(F.relu(alone), responses[layer]), layer  # max pooling and ReLU commute
        together = {}
        output = ForwardPass(net, list(expected), before_relu=True, to_output=True)(some_tiles, collect(together))
    for layer, value in expected.items():
        assert torch.equal(together[layer], value), layer
    torch.testing.assert_close(output, logits)  # reading leaves the pass as it is


def test_before_relu_looks_through_several_poolings(some_tiles):
    torch.manual_seed(5)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(inplace=True), nn.MaxPool2d(2), nn.MaxPool2d(3, 1)).eval()
    with torch.inference_mode():
        value = ForwardPass(net, ["3"], before_relu=True)(some_tiles)
        assert torch.equal(value, net[3](net[2](net[0](some_tiles))))
        assert torch.equal(F.relu(value), net(some_tiles))


@pytest.mark.parametrize("layer", ["layer1.0.conv2", "layer1.0.bn1", "avgpool", "fc"])
def test_before_relu_refuses_layers_that_do_not_end_in_one(resnet, layer):
    with pytest.raises(RfvizError, match=rf"layer '{re.escape(layer)}' does not end in a ReLU"):
        ForwardPass(resnet, [layer], before_relu=True)


def test_before_relu_is_not_deceived_by_the_name_of_a_module():
    class Leaky(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv1, self.relu = nn.Conv2d(3, 4, 3), nn.LeakyReLU(0.5)

        def forward(self, x):
            return self.relu(self.conv1(x))

    net, images = Leaky(), torch.randn(1, 3, 8, 8)
    with pytest.raises(RfvizError, match="does not end in a ReLU"):
        ForwardPass(net, ["relu"], before_relu=True)
    assert torch.equal(ForwardPass(net, ["conv1"])(images), net.conv1(images))  # no ReLU follows


@pytest.mark.parametrize("layer", ["conv1", "maxpool", "layer1.2", "layer2.0.relu1", "layer3"])
def test_the_pass_calls_what_lies_before_the_deepest_layer_and_nothing_else(resnet, some_tiles, layer):
    images = some_tiles[:2]
    everything = called_modules(resnet, lambda: resnet(images))
    assert called_modules(resnet, lambda: ForwardPass(resnet, ["conv1"], to_output=True)(images)) == everything
    last = {
        "conv1": "relu",
        "maxpool": "maxpool",
        "layer1.2": "layer1.2.relu",
        "layer2.0.relu1": "layer2.0.relu",
        "layer3": "layer3.5.relu",
    }[layer]
    end = everything.index(last) if layer in ("conv1", "layer2.0.relu1") else last_index(everything, last)
    got = called_modules(resnet, lambda: ForwardPass(resnet, [layer, "conv1"])(images))
    assert got == everything[: end + 1]


def last_index(names: list[str], name: str) -> int:
    return len(names) - 1 - names[::-1].index(name)


def test_layers_on_parallel_branches_are_all_read(branching, some_tiles):
    read = {}
    with torch.inference_mode():
        value = ForwardPass(branching, ["left", "right", "conv1"])(some_tiles, collect(read))
        stem = F.relu(branching.conv1(some_tiles))
        assert torch.equal(read["conv1"], stem)
        assert torch.equal(read["left"], F.relu(branching.left(stem)))
        assert torch.equal(read["right"], branching.right(stem))
        assert torch.equal(value, read["right"])


def test_values_equal_forward_hooks_on_a_network_without_in_place_operations(branching, some_tiles):
    hooked, layers = {}, ["left", "right.0", "right.1", "right.2", "right", "pool1", "act11", "act12", "head"]
    for name in ("act1", "right", "right.1", "right.2", "pool"):
        branching.get_submodule(name).register_forward_hook(
            lambda *args, name=name: hooked.setdefault(name, []).append(args[2].clone())
        )
    with torch.inference_mode():
        branching(some_tiles)
    expected = {
        "left": hooked["act1"][0],
        "act11": hooked["act1"][0],
        "act12": hooked["act1"][1],
        "head": hooked["act1"][1],
        "right.0": hooked["right.2"][0],
        "right.1": hooked["right.1"][0],
        "right.2": hooked["right.2"][0],
        "right": hooked["right"][0],
        "pool1": hooked["pool"][0],
    }
    read = {}
    with torch.inference_mode():
        ForwardPass(branching, layers)(some_tiles, collect(read))
    assert set(read) == set(expected)
    for layer, value in expected.items():
        assert torch.equal(read[layer], value), layer


def test_a_pass_goes_on_from_a_given_value(resnet, some_tiles):
    whole = ForwardPass(resnet, ["maxpool", "layer1.0", "layer2.1"], to_output=True)
    first, second = {}, {}
    with torch.inference_mode():
        logits = whole(some_tiles, collect(first))
        nothing = torch.full_like(some_tiles, torch.nan)  # what stands before a given value is not looked at
        called = called_modules(
            resnet,
            lambda: second.setdefault("logits", whole(nothing, collect(second), {"maxpool": first["maxpool"]})),
        )
        changed = whole(nothing, given={"maxpool": first["maxpool"] + 1})
    assert torch.equal(second["logits"], logits)
    assert torch.equal(second["layer1.0"], first["layer1.0"])
    assert torch.equal(second["layer2.1"], first["layer2.1"])
    assert called[0] == "layer1.0.conv1"
    assert not torch.equal(changed, logits)


def test_a_given_value_is_not_written_to(resnet, some_tiles):
    whole = ForwardPass(resnet, ["layer1.2"], to_output=True)
    with torch.inference_mode():
        read = {}
        whole(some_tiles, collect(read))
        kept = read["layer1.2"].clone()
        whole(some_tiles, given=read)
    assert torch.equal(read["layer1.2"], kept)


def test_modes_come_back_and_statistics_stay(resnet, some_tiles):
    resnet.train()
    resnet.layer2.eval()
    modes = {name: module.training for name, module in resnet.named_modules()}
    state = copy.deepcopy(resnet.state_dict())
    evaluated = copy.deepcopy(resnet).eval()(some_tiles)

    forward = ForwardPass(resnet, ["layer1.0"], to_output=True)
    assert torch.equal(forward(some_tiles), evaluated)
    assert {name: module.training for name, module in resnet.named_modules()} == modes

    def fail(layer, value):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        forward(some_tiles, fail)
    assert {name: module.training for name, module in resnet.named_modules()} == modes
    assert all(torch.equal(value, state[key]) for key, value in resnet.state_dict().items())


def test_a_pass_follows_the_weights_of_its_network(resnet, some_tiles):
    forward = ForwardPass(resnet, ["conv1"])
    with torch.inference_mode():
        before = forward(some_tiles)
        resnet.conv1.weight.neg_()
        after = forward(some_tiles)
        assert torch.equal(after, F.relu(resnet.bn1(resnet.conv1(some_tiles))))
    assert not torch.equal(before, after)


def test_gradients_flow_to_the_images(resnet, some_tiles):
    images = some_tiles[:2].clone().requires_grad_(True)
    (through_graph,) = torch.autograd.grad(ForwardPass(resnet, [], to_output=True)(images).sum(), images)
    (plain,) = torch.autograd.grad(resnet(images).sum(), images)
    assert torch.equal(through_graph, plain)
    assert plain.abs().sum() > 0


def test_names_of_a_resnet(resnet):
    graph_of_net = graph.trace(resnet)
    listed = graph.names(graph_of_net)
    layers = resnet.network.layers
    assert [name for name in listed if name in layers] == list(layers)  # in the order of the pass
    inside = [name.removeprefix("layer1.0.") for name in listed if name.startswith("layer1.0.")]
    assert inside[:5] == ["conv1", "bn1", "relu1", "conv2", "bn2"]
    assert set(inside[5:]) == {"relu", "relu2"}  # both mean the last call, at which the block ends too
    ends = {name: graph.find(graph_of_net, name) for name in ("layer1.0", "layer1.0.relu", "layer1.0.relu2")}
    assert len(set(ends.values())) == 1
    assert "relu1" not in listed  # the stem's ReLU is called once


@pytest.mark.parametrize(
    "net",
    [
        lambda: models.resnet34(2, 3),
        Branching,
        lambda: torchvision.models.DenseNet(2, (2, 2), num_init_features=4, bn_size=2, num_classes=2),
        lambda: torchvision.models.squeezenet1_1(num_classes=2),
    ],
    ids=["resnet34", "branching", "densenet", "squeezenet"],
)
def test_every_listed_name_is_found_and_no_other(net):
    traced = graph.trace(net())
    listed = graph.names(traced)
    assert len(set(listed)) == len(listed)
    for name in listed:
        assert graph.find(traced, name) in set(traced.graph.nodes)
    for name in listed:
        for wrong in (name + "0", name + "1", name + "3"):
            if wrong not in listed:
                with pytest.raises(RfvizError, match="unknown layer"):
                    graph.find(traced, wrong)


def test_a_modules_own_name_goes_before_a_numbered_call():
    class Ambiguous(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.conv1 = nn.Conv2d(3, 3, 3), nn.Conv2d(3, 3, 3)

        def forward(self, x):
            return self.conv(self.conv1(self.conv(x)))

    net, images = Ambiguous(), torch.randn(1, 3, 12, 12)
    assert torch.equal(ForwardPass(net, ["conv1"])(images), net.conv1(net.conv(images)))
    assert torch.equal(ForwardPass(net, ["conv2"])(images), net(images))


@pytest.mark.parametrize(
    ("wrong", "nearest"),
    [
        ("maxpol", "maxpool"),
        ("Layer3.5", "layer3.5"),
        ("layer1.0.con1", "layer1.0.conv1"),
        ("layer1.0.relu3", "layer1.0.relu"),
    ],
)
def test_an_unknown_layer_is_refused_with_the_nearest_name(resnet, wrong, nearest):
    with pytest.raises(RfvizError, match="unknown layer") as caught:
        ForwardPass(resnet, [wrong])
    message = str(caught.value)
    assert repr(wrong) in message
    assert f"Did you mean {nearest!r}?" in message
    assert "\n" not in message


def test_a_network_whose_path_depends_on_values_is_refused():
    class Deciding(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv1 = nn.Conv2d(3, 3, 3)

        def forward(self, x):
            x = self.conv1(x)
            return x if x.sum() > 0 else -x

    net = Deciding().train()
    with pytest.raises(RfvizError, match="forward pass of Deciding depends on the values of an image") as caught:
        ForwardPass(net, ["conv1"])
    assert "\n" not in str(caught.value)
    assert net.training


def test_a_network_that_refuses_to_be_drawn_without_a_word_is_refused():
    class Silent(nn.Module):
        def forward(self, x):
            if not isinstance(x, torch.Tensor):
                raise TypeError
            return x

    with pytest.raises(RfvizError, match=r"cannot be drawn as a graph \(TypeError\)"):
        graph.trace(Silent())


def test_what_is_remembered_is_traced_once_and_gives_the_same(monkeypatch) -> None:
    """Also to several threads at once, which torch.fx would let disturb each other."""
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 5, 3), nn.ReLU()).eval()
    images = torch.rand(2, 3, 12, 12)
    with torch.inference_mode():
        expected = {layer: ForwardPass(net, [layer])(images) for layer in ("0", "1", "2", "3")}
    with graph.remembering([net, net]):
        monkeypatch.setattr(graph._Tracer, "trace", None)  # calling it would fail
        assert str(graph.trace(net).graph) == str(graph.trace(net).graph)

        def compute(number: int) -> bool:
            layer = str(number % 4)
            with torch.inference_mode():
                return torch.equal(ForwardPass(net, [layer])(images), expected[layer])

        with ThreadPoolExecutor(4) as pool:
            assert all(pool.map(compute, range(40)))
    monkeypatch.undo()
    net[1] = nn.Identity()  # it is forgotten behind the block
    with torch.inference_mode():
        assert ForwardPass(net, ["1"])(images).min() < 0


class WithMore(nn.Module):
    """A pass that can be given more than an image."""

    def __init__(self, forward):
        super().__init__()
        self.conv, self.dropout, self.end = nn.Conv2d(3, 4, 3, padding=1), nn.Dropout(), nn.Conv2d(4, 4, 1)
        self.called = 0
        type(self).forward = forward


def without_a_scale(self, x, scale=None, *further, turned=False, **named):
    x = self.conv(x)
    x = -x if scale is None else x * scale
    for each in (*further, *named.values()):
        x = x + each
    return x.flip(2) if turned else self.end(self.dropout(x))


def asking_for_a_type(self, x):
    return self.end(self.conv((x - 0.5) / 0.2 if isinstance(x, torch.Tensor) else x))


def catching_errors(self, x):
    try:
        x = x if float(x.max()) <= 1 else x / 255
    except Exception:
        x = x / 255
    return self.end(self.conv(x))


def reading_what_is_overwritten(self, x):
    skip = x = self.conv(x)
    x += self.end(x)
    return skip


def in_half_precision(self, x):
    with torch.autocast("cpu", dtype=torch.bfloat16):
        return self.end(self.conv(x)).float()


def drawing_numbers(self, x):
    return self.end(F.dropout(self.conv(x)))


def given_two_images(self, image, depth):
    return self.conv(image) + self.conv(depth)


def made(forward):
    torch.manual_seed(0)
    return type("Made", (WithMore,), {})(forward).eval()


def test_what_a_pass_can_be_given_beside_an_image_has_its_default(some_tiles):
    net = made(without_a_scale)
    with torch.inference_mode():
        assert torch.equal(ForwardPass(net, ["end"])(some_tiles), net(some_tiles))
    with pytest.raises(RfvizError, match=r"takes 2 inputs \(image, depth\): wrap it in a module that takes one image"):
        graph.trace(made(given_two_images))


@pytest.mark.parametrize("forward", [asking_for_a_type, catching_errors, reading_what_is_overwritten])
def test_a_graph_that_is_another_network_is_refused(forward):
    with pytest.raises(RfvizError, match="graph of Made puts out something else than the network itself") as caught:
        graph.trace(made(forward))
    assert "\n" not in str(caught.value)


def test_comparing_a_graph_with_its_network_is_done_once_and_changes_nothing():
    net = made(drawing_numbers).double().train()
    net.end = nn.Sequential(net.end, nn.BatchNorm2d(4).double().train())
    calls = []
    net.conv.register_forward_hook(lambda *_: calls.append(torch.is_grad_enabled()))
    net.register_forward_hook(lambda *_: pytest.fail("a hook on the whole network is not called"))
    before, random = copy.deepcopy(net.state_dict()), torch.get_rng_state()
    graph.trace(net)
    graph.trace(net)
    assert calls == [False, False] and net.training and net.conv.training  # the network, and its graph
    assert torch.equal(torch.get_rng_state(), random)
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())


def test_half_precision_inside_a_network_is_no_other_network():
    graph.trace(made(in_half_precision))


@pytest.mark.parametrize(
    ("net", "message"),
    [
        (None, "a NoneType is no network: give a torch.nn.Module"),
        (lambda x: x, "a function is no network"),
        (nn.Conv2d, "a type is no network"),
        (nn.Sequential(nn.LazyConv2d(3, 3)), "Sequential has lazy layers, which have no size yet: call it once on an"),
        (nn.Sequential(nn.ReLU()), "Sequential has no parameters, which tell the device and type of images"),
    ],
)
def test_what_is_no_network_yet_is_refused_in_one_line(net, message):
    with pytest.raises(RfvizError, match=message) as caught:
        ForwardPass(net, ["0"])
    assert "\n" not in str(caught.value)


def test_hooks_of_others_on_a_block_are_no_part_of_it(resnet, some_tiles):
    net, kept = copy.deepcopy(resnet), []
    keeping = net.layer1[0].register_forward_hook(lambda *given: kept.append(given[2].mean((2, 3)).sqrt()))
    expected = graph.ForwardPass(resnet, ["layer1.0"])(some_tiles)
    assert torch.equal(graph.ForwardPass(net, ["layer1.0"])(some_tiles), expected)
    keeping.remove()
    changing = net.layer1[0].register_forward_hook(lambda *given: given[2] * 2)
    assert torch.equal(graph.ForwardPass(net, ["layer1.0"])(some_tiles), 2 * expected)
    changing.remove()
    theirs = torchvision.models.resnet18(num_classes=2).eval()
    theirs.layer1.register_forward_hook(lambda *given: kept.append(given[2].detach().mean((2, 3))))
    assert graph.ForwardPass(theirs, ["layer1"])(torch.rand(1, 3, 64, 64)).shape == (1, 64, 16, 16)


class HeadFirst(nn.Module):
    """The last convolution is registered before the first."""

    def __init__(self):
        super().__init__()
        self.head, self.stem = nn.Conv2d(7, 2, 1), nn.Conv2d(1, 7, 3)

    def forward(self, x):
        assert x.shape[1] in (1, 7)
        return self.head(self.stem(x).relu())


def test_images_have_the_channels_of_the_first_convolution_of_the_pass():
    assert graph.in_channels(HeadFirst()) == 1
    with pytest.raises(RfvizError, match=r"takes images of 1 channels, but these have 3\."):
        graph.ForwardPass(HeadFirst(), ["stem"])(torch.rand(1, 3, 8, 8))


def test_images_of_a_size_that_does_not_go_through():
    with pytest.raises(RfvizError, match=r"^images of 30 x 32 px do not go through the network \(.+\)\.$"):
        graph.ForwardPass(nn.Sequential(nn.Conv2d(3, 4, 31)), ["0"])(torch.rand(1, 3, 30, 32))
    small = torchvision.models.VisionTransformer(32, 8, 1, 1, 8, 8)
    with pytest.raises(RfvizError, match="do not go through the network"):
        graph.ForwardPass(small, ["conv_proj"], to_output=True)(torch.rand(1, 3, 40, 40))
