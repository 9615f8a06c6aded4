"""The two networks are torchvision's, and weights are read from every usual file and from no wrong one."""

import os
import pickle
import urllib.error
from collections import OrderedDict

import pytest
import torch
import torchvision
from torch import nn
from torch.nn import functional as F

from rfviz.errors import RfvizError
from rfviz.kernels import maximization, responses
from rfviz.nets import models
from rfviz.nets.network import NETWORKS, network
from rfviz.nets.weights import Stored
from rfviz.storage.files import save_tensors


@pytest.fixture(scope="module")
def peer() -> nn.Module:
    """torchvision's ResNet34 with random weights and statistics."""
    torch.manual_seed(7)
    net = torchvision.models.resnet34(weights=None)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    return net.eval()


def shapes(state: dict) -> dict:
    return {key: (tuple(value.shape), value.dtype) for key, value in state.items()}


def same(net: nn.Module, state: dict) -> bool:
    """Tell whether a network holds exactly these weights."""
    held = net.state_dict()
    return held.keys() == state.keys() and all(torch.equal(held[key], state[key]) for key in state)


def test_resnet34_has_torchvisions_state_dict_key_for_key(peer):
    assert list(models.resnet34().state_dict()) == list(peer.state_dict())
    assert shapes(models.resnet34().state_dict()) == shapes(peer.state_dict())


def test_plainnet34_has_resnet34s_state_dict_less_the_projections():
    resnet, plain = models.resnet34(3, 5).state_dict(), models.plainnet34(3, 5).state_dict()
    projections = [key for key in resnet if ".downsample." in key]
    assert {key.split(".downsample")[0] for key in projections} == {"layer2.0", "layer3.0", "layer4.0"}
    assert list(plain) == [key for key in resnet if key not in projections]
    assert shapes(plain) == {key: shape for key, shape in shapes(resnet).items() if key not in projections}


def test_resnet34_computes_torchvisions_logits_bit_for_bit(peer, some_tiles):
    ours = models.resnet34()
    ours.load_state_dict(peer.state_dict())
    with torch.inference_mode():
        logits = peer(some_tiles[:3])
        assert torch.equal(ours.eval()(some_tiles[:3]), logits)
    assert logits.std() > 0


def test_resnet34_has_torchvisions_gradients_in_training_mode(peer, some_tiles):
    ours = models.resnet34()
    ours.load_state_dict(peer.state_dict())
    gradients = []
    for net in (peer, ours):
        net.train()
        loss = F.cross_entropy(net(some_tiles[:3]), torch.tensor([0, 1, 2]))
        gradients.append(torch.autograd.grad(loss, list(net.parameters())))
    peer.load_state_dict(ours.state_dict())  # the running statistics moved alike
    peer.eval()
    for expected, got in zip(*gradients, strict=True):
        torch.testing.assert_close(got, expected)


def test_initial_weights_have_the_spread_of_torchvisions():
    torch.manual_seed(0)
    net = models.resnet34(32, 10)
    for name, module in net.named_modules():
        if isinstance(module, nn.Conv2d):
            fan_out = module.out_channels * module.kernel_size[0] ** 2
            spread = module.weight.std().item()
            # Four standard errors of a standard deviation.
            assert abs(spread / (2 / fan_out) ** 0.5 - 1) < 4 / (2 * module.weight.numel()) ** 0.5, name
        elif isinstance(module, nn.BatchNorm2d):
            assert (module.weight == 1).all() and (module.bias == 0).all(), name


def plain_block(block: nn.Module, x: torch.Tensor) -> torch.Tensor:
    out = F.relu(block.bn1(F.conv2d(x, block.conv1.weight, stride=block.conv1.stride, padding=1)))
    return F.relu(block.bn2(F.conv2d(out, block.conv2.weight, padding=1)))


def test_plainnet34_equals_a_pass_written_out_by_hand(plainnet, some_tiles):
    with torch.inference_mode():
        x = F.conv2d(some_tiles, plainnet.conv1.weight, stride=2, padding=3)
        x = F.max_pool2d(F.relu(plainnet.bn1(x)), 3, 2, 1)
        for stage in (plainnet.layer1, plainnet.layer2, plainnet.layer3, plainnet.layer4):
            for block in stage:
                assert isinstance(block, models.PlainBlock)
                x = plain_block(block, x)
        expected = F.linear(x.mean((2, 3)), plainnet.fc.weight, plainnet.fc.bias)
        torch.testing.assert_close(plainnet(some_tiles), expected)


def test_a_plain_block_has_no_skip(resnet, plainnet):
    x = torch.rand(2, 6, 9, 9)
    for net in (resnet, plainnet):
        nn.init.zeros_(net.layer1[1].conv2.weight)  # F(x) = 0
        nn.init.zeros_(net.layer1[1].bn2.running_mean)
        nn.init.zeros_(net.layer1[1].bn2.bias)
    with torch.inference_mode():
        assert torch.equal(plainnet.layer1[1](x), torch.zeros_like(x))
        assert torch.equal(resnet.layer1[1](x), x)


@pytest.mark.parametrize(("width", "classes"), [(0, 4), (-1, 4), (4, 0)])
def test_impossible_sizes_are_refused(width, classes):
    with pytest.raises(RfvizError, match=f"width {width} and num_classes {classes}"):
        models.resnet34(width, classes)


def test_build():
    assert models.build("plainnet34", 2, 3).name == "plainnet34"
    net = models.build("resnet34", 2, 3)
    assert (net.name, net.conv1.out_channels, net.fc.out_features) == ("resnet34", 2, 3)
    with pytest.raises(RfvizError, match=r"unknown network 'resnet43'\. Did you mean 'resnet34'\?"):
        models.build("resnet43", 2, 3)


# --- reading weights -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("architecture", ["resnet", "plainnet"])
@pytest.mark.parametrize(
    "kind", ["mapping", "safetensors", "pth", "legacy", "model", "pt", "prefixed", "nested", "both"]
)
def test_load_reads_every_usual_form(kind, architecture, tmp_path, request, some_tiles):
    net = request.getfixturevalue(architecture)
    state = net.state_dict()
    prefixed = OrderedDict((f"module.{key}", value) for key, value in state.items())
    path = tmp_path / {"safetensors": "w.safetensors", "model": "w.model", "pt": "w.pt"}.get(kind, "w.pth")
    match kind:
        case "mapping":
            path = state
        case "safetensors":
            save_tensors(state, path)
        case "legacy":
            torch.save(state, path, _use_new_zipfile_serialization=False)
        case "prefixed":
            torch.save(prefixed, path)
        case "nested":
            torch.save({"state_dict": state, "epoch": 3, "best_prec1": 0.5}, path)
        case "both":
            torch.save({"state_dict": prefixed, "arch": "resnet34"}, path)
        case _:
            torch.save(state, path)
    loaded = models.load(path if kind == "mapping" else str(path))
    assert same(loaded, state)
    assert (loaded.name, loaded.training) == (net.name, False)
    with torch.inference_mode():
        assert torch.equal(loaded(some_tiles), net(some_tiles))


WRAPPERS = [
    "module.",
    "_orig_mod.",
    "module._orig_mod.",
    "_orig_mod.module.",
    "model.",
    "backbone.",
    "encoder.",
    "net.",
]


@pytest.mark.parametrize("architecture", ["resnet", "plainnet"])
@pytest.mark.parametrize("prefix", WRAPPERS)
@pytest.mark.parametrize("more", [False, True])
def test_what_a_wrapper_puts_before_the_names_is_taken_off(prefix, more, architecture, tmp_path, request, caplog):
    """Also where other things are beside the network, such as a head or a second network that follows it."""
    net = request.getfixturevalue(architecture)
    state = {f"{prefix}{key}": value for key, value in net.state_dict().items()}
    others = {"projector.0.weight": torch.zeros(2), "momentum.layer1.0.conv1.weight": torch.zeros(2)} if more else {}
    torch.save({"state_dict": others | state, "epoch": 3}, tmp_path / "w.ckpt")
    loaded = models.load(tmp_path / "w.ckpt")
    assert loaded.name == net.name and same(loaded, net.state_dict())
    said = f"w.ckpt: '{prefix}' is taken off the names of its weights" + (" (2 others are left out)" if more else "")
    assert said in caplog.text


def test_of_two_networks_in_a_file_the_first_is_read(resnet, plainnet, caplog):
    both = {f"{prefix}.{key}": value for prefix, net in (("encoder_q", resnet), ("encoder_k", plainnet))
            for key, value in net.state_dict().items()}  # fmt: skip
    assert models.load(both).name == "resnet34" and "'encoder_q.' is taken off" in caplog.text


def test_names_without_a_prefix_stay_without_a_word(resnet, caplog):
    models.load(resnet.state_dict())
    assert not caplog.text


def test_a_backbone_without_its_classifier_is_read(resnet, some_tiles):
    state = {key: value for key, value in resnet.state_dict().items() if not key.startswith("fc.")}
    loaded = models.load(state)
    seen = ["maxpool", "layer1.0", "layer4.2"]
    ours, theirs = (responses.collect(net, some_tiles, seen, 2, mean_stimulus=False) for net in (loaded, resnet))
    for layer in seen:
        assert torch.equal(ours[layer].top_values, theirs[layer].top_values)
    with torch.inference_mode():
        assert loaded(some_tiles).shape == (len(some_tiles), resnet.fc.in_features)
    assert maximization.maximize(loaded, "layer1.0", steps=2).images.shape[0] == 6


def test_load_keeps_a_copy(resnet):
    state = resnet.state_dict()
    loaded = models.load(state)
    state["conv1.weight"].zero_()
    assert loaded.conv1.weight.abs().sum() > 0


def test_load_reads_weights_that_lack_the_counters_of_batch_norm(resnet, some_tiles):
    """Weights from before torch 0.4.1 have no num_batches_tracked."""
    old = {key: value for key, value in resnet.state_dict().items() if not key.endswith("num_batches_tracked")}
    assert len(old) < len(resnet.state_dict())
    with torch.inference_mode():
        assert torch.equal(models.load(old)(some_tiles), resnet(some_tiles))


def test_load_by_name_takes_torchvisions_published_weights(peer, monkeypatch):
    asked = []

    def get_state_dict(self, *args, **options):
        asked.append((self, options))
        return peer.state_dict()

    monkeypatch.setattr(torchvision.models.ResNet34_Weights, "get_state_dict", get_state_dict)
    assert same(models.load("IMAGENET1K_V1"), peer.state_dict())
    assert asked == [(torchvision.models.ResNet34_Weights.IMAGENET1K_V1, {"check_hash": True})]


@pytest.mark.parametrize("error", [urllib.error.URLError("no route to host"), RuntimeError("invalid hash value")])
def test_load_by_name_says_when_the_weights_cannot_be_had(error, monkeypatch):
    def get_state_dict(self, *args, **options):
        raise error

    monkeypatch.setattr(torchvision.models.ResNet34_Weights, "get_state_dict", get_state_dict)
    with pytest.raises(RfvizError, match=r"'IMAGENET1K_V1' cannot be downloaded .*(no route|invalid hash)"):
        models.load("IMAGENET1K_V1")


def refused(source, match: str) -> None:
    with pytest.raises(RfvizError, match=match) as caught:
        models.load(source)
    assert "\n" not in str(caught.value)


def of_shapes(build) -> dict[str, torch.Tensor]:
    """Return a state dict that has the shapes of a large network, and takes no memory."""
    with torch.device("meta"):
        return {name: torch.zeros(()).expand(value.shape) for name, value in build().state_dict().items()}


def test_weights_of_other_networks_are_refused(tmp_path):
    path = tmp_path / "resnet101.pth"
    torch.save(of_shapes(torchvision.models.resnet101), path)
    refused(
        path,
        r"resnet101\.pth holds a ResNet101, none of the networks ResNet34, .*: rfviz explore torchvision:resnet101",
    )
    one_more = models.build("resnet34", 2, 3).state_dict() | {"layer1.3.conv1.weight": torch.zeros(2, 2, 3, 3)}
    refused(one_more, "holds a network with other blocks, none of the networks ResNet34, PlainNet34, ")
    refused(torchvision.models.squeezenet1_1().state_dict(), "it has no tensor 'conv1.weight'")
    refused({}, "it has no tensor 'conv1.weight'")


def test_weights_of_another_size_are_named(resnet):
    """As what they are, whatever they were given as."""
    small = models.build("resnet18", 3, 4).state_dict()
    assert models.what(small) == "ResNet18" and models.what({"a": 1}) is None
    assert models.what(of_shapes(torchvision.models.resnet152)) == "ResNet152"
    with pytest.raises(RfvizError, match=r"does not hold a whole ResNet34: .* It holds a ResNet18\.$"):
        models.load(small, NETWORKS["resnet34"])
    with pytest.raises(RfvizError, match=r"does not hold a whole ResNet34 without skips in layer1: .*a ResNet50\.$"):
        models.load(models.build("resnet50", 2, 4).state_dict(), NETWORKS["resnet34-plain-layer1"])


@pytest.mark.parametrize("architecture", ["resnet", "plainnet"])
def test_a_missing_a_strange_and_a_misshapen_entry_are_named(architecture, request):
    net = request.getfixturevalue(architecture)
    state = net.state_dict()
    paper_name = net.network.title
    refused(
        {key: value for key, value in state.items() if key != "layer3.2.bn1.weight"},
        rf"the state dict does not hold a whole {paper_name}: 'layer3\.2\.bn1\.weight' is missing\.$",
    )
    refused(state | {"layer1.1.extra.weight": torch.zeros(1)}, r"'layer1\.1\.extra\.weight' does not belong there\.$")
    refused(
        state | {"layer1.1.conv2.weight": torch.zeros(6, 6, 1, 1)},
        r"'layer1\.1\.conv2\.weight' has shape \(6, 6, 1, 1\) instead of \(6, 6, 3, 3\)\.$",
    )
    refused(state | {"fc.bias": torch.zeros(5)}, r"'fc\.bias' has shape \(5,\) instead of \(4,\)")
    refused({key: value for key, value in state.items() if key != "fc.weight"}, "'fc.bias' does not belong there")


def test_an_extra_projection_makes_no_plainnet(plainnet):
    refused(
        plainnet.state_dict() | {"layer2.0.downsample.0.weight": torch.zeros(12, 6, 1, 1)},
        r"does not hold a whole ResNet34: 'layer2\.0\.downsample\.1\.weight' is missing \(and \d+ more",
    )


@pytest.mark.parametrize("value", [3, [1.0], "x", None, torch.tensor(1.0)])
@pytest.mark.parametrize("key", ["conv1.weight", "fc.weight", "bn1.bias", "layer4.2.bn2.running_var"])
def test_entries_that_are_no_weights_are_refused(resnet, key, value):
    refused(
        resnet.state_dict() | {key: value}, f"does not hold a (whole ResNet34|network of the ResNet family).*'{key}'"
    )


@pytest.mark.parametrize("content", [[1, 2], "weights", torch.zeros(3), None])
def test_files_that_hold_no_state_dict_are_refused(content, tmp_path):
    path = tmp_path / "w.pth"
    torch.save(content, path)
    refused(path, f"does not hold a state dict but a {type(content).__name__}")


def test_names_that_are_not_strings_are_refused(tmp_path):
    path = tmp_path / "w.pth"
    torch.save({0: torch.zeros(2), 1: torch.zeros(3)}, path)
    refused(path, "it has no tensor 'conv1.weight'")


@pytest.mark.parametrize("suffix", ["safetensors", "pth", "model"])
@pytest.mark.parametrize("keep", [0.0, 0.3, 0.99])
def test_truncated_files_are_refused(suffix, keep, resnet, tmp_path):
    path = tmp_path / f"w.{suffix}"
    if suffix == "safetensors":
        save_tensors(resnet.state_dict(), path)
    else:
        torch.save(resnet.state_dict(), path)
    content = path.read_bytes()
    path.write_bytes(content[: int(keep * len(content))])
    refused(path, rf"w\.{suffix} cannot be read as weights \(")


@pytest.mark.parametrize("suffix", ["safetensors", "pth", "model"])
def test_files_of_something_else_are_refused(suffix, tmp_path):
    path = tmp_path / f"w.{suffix}"
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(range(256)))
    refused(path, rf"w\.{suffix} cannot be read as weights \(")


class Trap:
    """When unpickled, makes a folder."""

    def __init__(self, folder):
        self.folder = str(folder)

    def __reduce__(self):
        return os.mkdir, (self.folder,)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("form", ["torch", "legacy", "pickle", "inside", "whole network"])
def test_code_in_a_file_is_not_run(form, resnet, tmp_path):
    path, sign = tmp_path / "w.pth", tmp_path / "the code has run"
    match form:
        case "torch":
            torch.save(Trap(sign), path)
        case "legacy":
            torch.save({"state_dict": Trap(sign)}, path, _use_new_zipfile_serialization=False)
        case "pickle":
            path.write_bytes(pickle.dumps(Trap(sign)))
        case "inside":
            torch.save({"state_dict": resnet.state_dict(), "optimizer": Trap(sign)}, path)
        case "whole network":
            resnet.trap = Trap(sign)
            torch.save(resnet, path)
    refused(path, r"w\.pth cannot be read as weights \(")
    assert not sign.exists()
    # The trap works: whoever trusts the file runs its code.
    if form == "pickle":
        pickle.loads(path.read_bytes())  # noqa: S301
    else:
        torch.load(path, weights_only=False)
    assert sign.exists()


def test_missing_files_are_refused(tmp_path):
    refused(
        tmp_path / "none.pth",
        "there is no weights file '.*none.pth': give a file, an address, 'IMAGENET1K_V1', or 'random'",
    )
    refused(tmp_path, "there is no weights file")
    refused("IMAGENET1K_V2", r"unknown weights of resnet34 'IMAGENET1K_V2'\. Did you mean 'IMAGENET1K_V1'")


@pytest.mark.parametrize("name", ["resnet18", "resnet34", "resnet50"])
def test_networks_have_the_layout_of_torchvision(name):
    """Names and shapes of the state dict, and what it computes."""
    torch.manual_seed(0)
    theirs = torchvision.models.get_model(name, num_classes=3).eval()
    ours = models.load(theirs.state_dict())
    assert ours.name == name
    images = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(ours(images), theirs(images))


@pytest.mark.parametrize(
    ("name", "titles"),
    [
        ("resnet18", {"layer1.0": 3, "layer1.1": 5, "layer4.1": 17}),
        ("resnet34", {"layer1.0": 3, "layer1.2": 7, "layer4.2": 33}),
        ("resnet50", {"layer1.0": 4, "layer1.2": 10, "layer4.2": 49}),
    ],
)
def test_titles_count_the_convolutions_of_their_network(name, titles):
    net = models.build(name, 2, 2)
    assert {layer: net.network.titles[layer] for layer in titles} == {
        layer: f"conv. layer {number}" for layer, number in titles.items()
    }
    convolutions = [key for key, each in net.named_modules() if isinstance(each, torch.nn.Conv2d) and "down" not in key]
    for layer, number in titles.items():
        assert convolutions[number - 1].startswith(f"{layer}.conv")
        assert not convolutions[number].startswith(layer) if number < len(convolutions) else True


# -- networks without some of their skips, and the front of others -----------------------------------------------------


def test_skips_may_be_missing_in_the_first_stage_alone(resnet, some_tiles):
    """ResNet34's weights and all of its skips but those of layer1; written out by hand there."""
    described = network("resnet34-plain-layer1")
    net = models.load(resnet.state_dict(), described)
    assert same(net, resnet.state_dict()) and net.name == "resnet34-plain-layer1"
    assert described.skips and not described.shares_channels and network("resnet34").shares_channels
    with torch.no_grad():
        x = resnet.maxpool(resnet.relu(resnet.bn1(resnet.conv1(some_tiles))))
        for block in resnet.layer1:
            x = torch.relu(block.bn2(block.conv2(torch.relu(block.bn1(block.conv1(x))))))
        x = resnet.layer4(resnet.layer3(resnet.layer2(x)))
        expected = resnet.fc(x.mean((2, 3)))
        found = net(some_tiles)
    torch.testing.assert_close(found, expected)
    assert (found - resnet(some_tiles)).abs().max() > 1e-3
    assert models.load(resnet.state_dict()).name == "resnet34"  # names of weights do not tell the two apart


def test_a_front_is_taken_over_and_nothing_else_is_read(resnet):
    front = {key: value for key, value in resnet.state_dict().items() if not key.startswith(("layer4", "fc"))}
    torch.manual_seed(5)
    net = models.resnet34(6, 9)
    fresh = {key: value.clone() for key, value in net.state_dict().items()}
    without_counters = {key: value for key, value in front.items() if not key.endswith("num_batches_tracked")}
    models.take_over(net, Stored(without_counters | {"fc.weight": "nonsense"}), "layer3")
    for key, value in net.state_dict().items():
        assert key.endswith("num_batches_tracked") or torch.equal(value, front.get(key, fresh[key])), key


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda state: state.pop("layer3.0.conv1.weight"), "layer3.0.conv1.weight .* is missing"),
        (lambda state: state.update({"conv1.weight": torch.zeros(7, 3, 7, 7)}), r"conv1.weight .* of shape \(7, 3, 7"),
        (
            lambda state: state.update({"bn1.bias": torch.full((6,), torch.nan)}),
            "bn1.bias .* but is not finite",
        ),
    ],
)
def test_a_front_that_does_not_fit_is_refused(change, said, resnet):
    state = dict(resnet.state_dict())
    change(state)
    with pytest.raises(RfvizError, match=said):
        models.take_over(models.resnet34(6, 4), Stored(state, "that file"), "layer3")
