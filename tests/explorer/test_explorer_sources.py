"""What the explorer is fed with: a run, or any network and images."""

from types import SimpleNamespace

import pytest
import torch
import torchvision
from torch import nn

from rfviz.errors import RfvizError
from rfviz.explorer import atlas, sources
from rfviz.explorer.facts import LayerFacts
from rfviz.explorer.sources import NetSource, RunSource
from rfviz.images.data import Evaluation
from rfviz.images.whitening import IMAGENET
from rfviz.kernels import maximization, responses
from rfviz.lab import results
from rfviz.lab.run import Run
from rfviz.nets import models, receptive_field
from rfviz.nets.network import NETWORKS


def test_a_run_offers_the_layers_that_share_the_channels_of_the_stem(smoke: Run) -> None:
    manifest = RunSource(smoke).manifest()
    assert [model["key"] for model in manifest["models"]] == ["resnet34", "plainnet34"]
    assert [(row["model"], row["key"]) for row in manifest["layers"]] == [
        (model, layer) for model in ("resnet34", "plainnet34") for layer in NETWORKS[model].stream
    ]
    assert {row["channels"] for row in manifest["layers"]} == {20}
    assert [row["size"] for row in manifest["layers"][:4]] == [11, 27, 43, 59]
    assert manifest["start"] == "resnet34/maxpool/18"


def test_what_a_run_shows_is_what_its_results_say(smoke: Run) -> None:
    for model in ("resnet34", "plainnet34"):
        whole = LayerFacts(
            smoke.stimuli,
            results.stimuli(smoke, model)["maxpool"],
            results.maxima(smoke, model, "maxpool"),
            smoke.whitening(model),
            smoke.net(model).conv1.weight.detach(),
            results.noise_effect(smoke, model).inactive,
            orientation=results.orientation(smoke, model, "maxpool"),
            colour=results.colour(smoke, model, "maxpool"),
        )
        drawn, expected = RunSource(smoke).drawn(model, "maxpool"), atlas.draw(whole)
        assert (drawn.cells, drawn.sources) == expected.files()
        assert drawn.facts == expected.facts
        marked = [channel for channel, said in enumerate(drawn.facts["channels"]) if said["inactive"]]
        assert marked == list(results.noise_effect(smoke, model).inactive)


def test_what_a_run_shows_is_kept(smoke: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    first = RunSource(smoke).drawn("resnet34", "layer1.1")
    smoke.values.clear()
    monkeypatch.setattr(sources, "draw", None)  # calling it would fail
    assert RunSource(smoke).drawn("resnet34", "layer1.1") == first


def test_any_networks_of_a_run() -> None:
    """Each with its own layers and titles; a bottleneck has other channels behind the stem."""
    members = [NETWORKS[name] for name in ("plainnet18", "resnet50", "resnet18")]
    nets = {each.name: models.build(each.name, 20, 2) for each in members}
    run = SimpleNamespace(networks=members, subject=members[0], net=nets.get)
    manifest = RunSource(run).manifest()
    assert [each["title"] for each in manifest["models"]] == ["PlainNet18", "ResNet50", "ResNet18"]
    deep = [row for row in manifest["layers"] if row["model"] == "resnet50"]
    assert [(row["key"], row["title"], row["channels"]) for row in deep] == [
        ("maxpool", "first pooling layer", 20), ("layer1.0", "conv. layer 4", 80), ("layer1.1", "conv. layer 7", 80),
        ("layer1.2", "conv. layer 10", 80),
    ]  # fmt: skip
    keys = [row["key"] for row in manifest["layers"] if row["model"] == "resnet18"]
    assert keys == ["maxpool", "layer1.0", "layer1.1"]
    assert manifest["start"] == "plainnet18/maxpool/18"
    with pytest.raises(RfvizError, match=r"unknown layer 'layer1.2'.*layer1.1"):
        RunSource(run).drawn("resnet18", "layer1.2")


def test_filters_are_shown_where_a_channel_has_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """In ResNet50, channel 3 of the first block is not channel 3 of the stem."""
    monkeypatch.setattr(sources, "draw", lambda layer: SimpleNamespace(files=lambda: (b"", b""), facts=layer))
    for name in ("stimuli", "maxima", "orientation", "colour", "pooling"):
        found = SimpleNamespace(channels=20, maximum=torch.tensor([1.0, 0, 2])), SimpleNamespace(channels=80)
        planted = dict(zip(("maxpool", "layer1.0"), found, strict=True))
        monkeypatch.setattr(
            sources, name, lambda *_, name=name, all=planted: all["maxpool"] if name == "pooling" else all
        )
    net = SimpleNamespace(conv1=SimpleNamespace(weight=torch.ones(20, 3, 7, 7)))
    run = SimpleNamespace(stimuli="images", net=lambda name: net, whitening=lambda name: IMAGENET)
    stem, block = (sources.atlas.function(run, "resnet50", layer).facts for layer in ("maxpool", "layer1.0"))
    assert stem.filters is not None and block.filters is None
    assert stem.inactive == (1,) and block.inactive is None


@pytest.mark.parametrize(
    ("model", "layer", "message"),
    [("resnet", "maxpool", "Did you mean 'resnet34'"), ("resnet34", "layer1.3", "Did you mean 'layer1")],
)
def test_wrong_names_get_the_nearest_right_one(smoke: Run, model: str, layer: str, message: str) -> None:
    with pytest.raises(RfvizError, match=message):
        RunSource(smoke).drawn(model, layer)


def test_any_network(tiles: Evaluation) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 5, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(5, 7, 3, stride=2), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(7, 2),
    )  # fmt: skip
    source = NetSource({"mine": net}, tiles, IMAGENET, top_k=3, strongest=4, steps=2)
    rows = source.manifest()["layers"]
    # a convolution is read after its ReLU, so each pair is one layer
    assert [(row["key"], row["channels"]) for row in rows] == [("0", 5), ("2", 5), ("3", 7)]
    for row in rows:
        assert row["size"] == receptive_field.of(net, row["key"]).size
    facts = source.drawn("mine", "3").facts
    found = responses.collect(net, tiles, ["3"], 3, preprocess=IMAGENET, strongest=4)["3"]
    curve = maximization.maximize(net, "3", steps=2).activations
    for channel, said in enumerate(facts["channels"]):
        assert said["statistics"]["maximum"] == pytest.approx(found.maximum[channel].item(), rel=1e-5)
        assert said["curve"] == pytest.approx(curve[:, channel].tolist(), rel=1e-4)
    assert source.drawn("mine", "3") is source.drawn("mine", "3")  # computed once
    assert source.net("mine") == (net, IMAGENET)


def test_the_layers_of_a_resnet_in_the_order_of_the_pass(
    resnet: models.ResidualNet, plainnet: models.ResidualNet
) -> None:
    images = torch.rand(2, 3, 64, 64)
    source = NetSource({"with skips": resnet, "without": plainnet}, images)
    keys = [row["key"] for row in source.manifest()["layers"] if row["model"] == "with skips"]
    layers = NETWORKS["resnet34"].layers
    assert [key for key in keys if key in layers] == list(layers)
    assert "layer1.0.conv1" in keys and "layer1.0.bn1" in keys and "avgpool" not in keys and "fc" not in keys
    assert "layer1.0.relu2" not in keys and "layer1.0.relu" not in keys  # the response of the block
    assert "relu" not in keys and "layer1" not in keys


def titles(net: nn.Module) -> dict[str, str]:
    return {row["key"]: row["title"] for row in NetSource({"a": net}, torch.rand(1, 3, 64, 64)).manifest()["layers"]}


def test_layers_are_counted_in_their_own_network() -> None:
    """The last block of ResNet18 is conv. layer 17, not the 31 that it would be in ResNet34."""
    for net in (torchvision.models.resnet18(), models.build("resnet18", 4, 2), models.build("plainnet18", 4, 2)):
        found = titles(net)
        assert (found["maxpool"], found["layer1.0"]) == ("first pooling layer", "conv. layer 3")
        assert found["layer4.1"] == "conv. layer 17" and found["layer4.1.conv1"] == "layer4.1.conv1"
        assert found["conv1"] == "conv1"  # its responses; the paper's name is that of the filters


def test_other_networks_keep_the_names_of_their_modules() -> None:
    """Also where these look like those of a ResNet."""
    block = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.ReLU())
    net = nn.Sequential()
    net.add_module("maxpool", nn.Sequential(nn.Conv2d(3, 4, 3), nn.MaxPool2d(2)))
    for stage in (1, 2, 3, 4):
        net.add_module(f"layer{stage}", nn.Sequential(block, block))
    found = titles(net)
    assert len(found) > 4 and all(key == title for key, title in found.items())


def test_every_layer_that_is_offered_can_be_drawn(resnet: models.ResidualNet) -> None:
    source = NetSource({"a": resnet}, torch.rand(2, 3, 64, 64), top_k=1, strongest=1, steps=1)
    rows = [row for row in source.manifest()["layers"] if row["size"] < 100]
    assert len(rows) > 15
    for row in rows:
        facts = source.drawn("a", row["key"]).facts
        last = "response" if row["key"].endswith(("bn1", "bn2", "conv2", "downsample")) else "before_relu"
        assert facts["objective"] == last, row["key"]
        assert len(facts["channels"]) == row["channels"]


def test_chosen_layers_only(resnet: models.ResidualNet) -> None:
    images = torch.rand(2, 3, 64, 64)
    assert [row["key"] for row in NetSource({"a": resnet}, images, layers=["maxpool"]).manifest()["layers"]] == [
        "maxpool"
    ]
    with pytest.raises(RfvizError, match="unknown layer 'maxpol'"):
        NetSource({"a": resnet}, images, layers=["maxpol"])
    with pytest.raises(RfvizError, match="nothing to explore"):
        NetSource({"a": nn.Sequential(nn.Flatten(), nn.Linear(12, 2))}, images)


def test_means_that_would_fill_the_memory_are_left_out(
    resnet: models.ResidualNet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rfviz.explorer.sources.MEANS", 20 * 6 * 11**2)
    source = NetSource({"a": resnet}, torch.rand(2, 3, 64, 64), top_k=1, steps=1)
    keys = {
        layer: [each["key"] for each in source.drawn("a", layer).facts["columns"]] for layer in ("maxpool", "layer1.0")
    }
    assert "mean" in keys["maxpool"]
    assert keys["layer1.0"] == ["maximization", "stimulus 0"]
