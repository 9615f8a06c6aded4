"""What the explorer is fed with: a run, or any network and images."""

import io
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from torch import nn

from rfviz.errors import RfvizError
from rfviz.explorer import atlas, sources
from rfviz.explorer.facts import RANGES, LayerFacts
from rfviz.explorer.own import NetSource
from rfviz.explorer.sources import KeptSource, RunSource, Shelf
from rfviz.images.data import Evaluation
from rfviz.images.whitening import IMAGENET
from rfviz.kernels import maximization, responses
from rfviz.kernels.responses import levels
from rfviz.lab import results
from rfviz.lab.run import Run
from rfviz.nets import models, receptive_field
from rfviz.nets.network import NETWORKS
from rfviz.pages.evidence import reference


def test_a_run_offers_the_layers_that_share_the_channels_of_the_stem_and_one_of_each_stage(smoke: Run) -> None:
    manifest = RunSource(smoke).manifest()
    titles = {model["key"]: model["title"] for model in manifest["models"]}
    assert titles == {
        "resnet34": "ResNet34", "plainnet34": "PlainNet34", "resnet34-random": "ResNet34, random weights",
        "plainnet34-random": "PlainNet34, random weights",
    }  # fmt: skip
    for model in titles:
        network = NETWORKS[model.removesuffix("-random")]
        rows = [row for row in manifest["layers"] if row["model"] == model]
        high = () if model.endswith("-random") else ("layer2.3", "layer3.5", "layer4.2")
        assert [row["key"] for row in rows] == [*network.stream, *high]
        assert [row["stream"] for row in rows] == [True] * 4 + [False] * len(high)
        assert [row["channels"] for row in rows] == [20, 20, 20, 20, 40, 80, 160][: 4 + len(high)]
        assert [row["size"] for row in rows] == [11, 27, 43, 59, 179, 547, 899][: 4 + len(high)]
    assert manifest["start"] == "resnet34/maxpool/18"


def whole(run: Run, model: str, layer: str, control: str | None = None) -> LayerFacts:
    """What a run knows of a layer of its first stage."""
    facts = LayerFacts(
        run.stimuli,
        results.stimuli(run, model, control)[layer],
        results.maxima(run, model, layer, control),
        run.whitening(model),
        results.net_or_control(run, model, control).conv1.weight.detach(),
        orientation=results.orientation(run, model, layer, control),
        colour=results.colour(run, model, layer, control),
    )
    if control:
        return facts
    return facts._replace(
        inactive=results.noise_effect(run, model).inactive if layer == "maxpool" else None,
        clear=results.clear_maxima(run, model, layer) if layer != "layer1.1" else None,
        wrote=results.written(run, model)[layer].share if model == "resnet34" and layer != "maxpool" else None,
        removal=results.ablations(run, model)[layer].mean(1) if layer in ("maxpool", "layer1.2") else None,
    )


@pytest.mark.parametrize(
    ("model", "layer"),
    [
        ("resnet34", "maxpool"),
        ("resnet34-random", "layer1.2"),
        *(
            pytest.param(*each, marks=pytest.mark.thorough)
            for each in (("plainnet34", "maxpool"), ("resnet34", "layer1.1"))
        ),
    ],
)
def test_what_a_run_shows_is_what_its_results_say(smoke: Run, model: str, layer: str) -> None:
    name, _, control = model.partition("-")
    facts = whole(smoke, name, layer, "random weights" if control else None)
    net, white = results.net_or_control(smoke, name, "random weights" if control else None), smoke.whitening(name)
    drawn = RunSource(smoke).drawn(model, layer)
    expected = atlas.draw(facts)
    assert drawn.cells == expected.cells
    said = drawn.facts["channels"]
    wanted: dict[int, list[int]] = {}
    for channel, each in enumerate(said):
        shown = [row[:7] for row in each["stimuli"]]
        for place in {place for _, place, *_, slot in shown if slot >= 16}:
            wanted.setdefault(drawn.facts["sources"][place]["image"], []).append(channel)
    maps = levels.maps(net, smoke.stimuli, layer, wanted, preprocess=white)
    for channel, (mine, theirs) in enumerate(zip(said, expected.facts["channels"], strict=True)):
        assert {**mine, "stimuli": None} == {**theirs, "stimuli": None}
        strongest = [each[:7] for each in mine["stimuli"] if each[6] < 16]
        images = [[drawn.facts["sources"][place]["image"], *rest] for _, place, *rest in strongest]
        theirs = [[expected.facts["sources"][place]["image"], *rest] for _, place, *rest in theirs["stimuli"]]
        assert images == [each[:6] for each in theirs]
        # Of the other ranges: near half and a tenth of the largest response, one of an image, and what a pass finds.
        largest = facts.found.top_values[channel, 0].item()
        for value, place, *_, slot in (each[:7] for each in mine["stimuli"] if each[6] >= 16):
            share = 0.5 if slot < 20 else 0.1
            fires = maps[drawn.facts["sources"][place]["image"], channel]
            assert (fires - value).abs().min() < 1e-5 * value + 1e-12
            assert 0 < value <= largest and (slot in (16, 20)) <= (abs(value / largest - share) < 0.35)
    marked = [channel for channel, each in enumerate(said) if each["inactive"]]
    assert marked == list(facts.inactive or ())


def test_higher_layers_show_what_the_neuron_sees_of_the_image(smoke: Run) -> None:
    facts = RunSource(smoke).drawn("resnet34", "layer3.5").facts
    assert facts["columns"] == [] and facts["cell"] == atlas.PHOTOGRAPH_CELL
    assert [each["name"] for each in facts["ranges"]] == ["the strongest", *RANGES]
    found = results.high_stimuli(smoke, "resnet34")["layer3.5"]
    for channel, said in enumerate(facts["channels"]):
        strongest = [value for value, *_, slot in (each[:7] for each in said["stimuli"]) if slot < 4]
        assert strongest == pytest.approx([each for each in found.top_values[channel].tolist() if each > 0], rel=1e-5)


@pytest.mark.parametrize("folder", ["evidence/resnet18", pytest.param("reference", marks=pytest.mark.thorough)])
def test_what_is_kept_has_pictures_and_no_photographs(folder: str) -> None:
    source = KeptSource(reference.kept(folder), "x")
    for row in source.manifest()["layers"]:
        name = row["model"].removeprefix(source.prefix)
        *sheets, facts = source.drawn(row["model"], row["key"])
        cells, stimuli, sources, maps = (np.asarray(Image.open(io.BytesIO(sheet))) for sheet in sheets)
        assert stimuli.max() == stimuli.min() == sources.max() and maps.max() == 0
        assert [each["key"] for each in facts["columns"]] == ["filter", "stretched", "strongest", "clear"]
        side, shown = facts["cell"], source.kept.sheet(name, f"{row['key']}-strongest")
        gone = source.kept.facts["left out"][name][row["key"]]
        for channel, said in enumerate(facts["channels"]):
            part = cells[channel * side : (channel + 1) * side, 2 * side : 3 * side]
            if channel in gone:
                assert len(np.unique(part)) == 1
            else:
                np.testing.assert_array_equal(part, (shown[channel] * 255).round().byte().permute(1, 2, 0))
            fires = source.kept.exhibit.evidence[name][0].fires[row["key"]][channel].item()
            assert said["statistics"]["firing_rate"] == pytest.approx(100 * fires, rel=1e-5)
            assert said["inactive"] == (
                channel in source.kept.effects[name][0].inactive if row["key"] == "maxpool" else None
            )


def test_a_layer_that_is_not_kept_is_refused() -> None:
    source = KeptSource(reference.kept("evidence/resnet18"), "x")
    with pytest.raises(RfvizError, match=r"unknown layer 'layer1\.2'"):
        source.drawn("imagenet-resnet18", "layer1.2")


def test_a_shelf_asks_whom_a_network_belongs_to(smoke: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = KeptSource(reference.kept("evidence/resnet18"), "trained on ImageNet")
    run = RunSource(smoke)
    for source in (KeptSource, RunSource):
        monkeypatch.setattr(source, "drawn", lambda *asked: asked)
    both = Shelf([run, kept])
    manifest = both.manifest()
    assert manifest["start"] == run.manifest()["start"]
    assert manifest["models"] == [*run.manifest()["models"], *kept.manifest()["models"]]
    assert manifest["layers"] == [*run.manifest()["layers"], *kept.manifest()["layers"]]
    assert both.drawn("imagenet-resnet18", "maxpool") == (kept, "imagenet-resnet18", "maxpool")
    assert both.drawn("resnet34", "maxpool") == (run, "resnet34", "maxpool")
    with pytest.raises(RfvizError, match=r"unknown network 'imagenet-resnet34'.*Did you mean 'imagenet-resnet18'"):
        both.drawn("imagenet-resnet34", "maxpool")


def test_what_a_run_shows_is_kept(smoke: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    first = RunSource(smoke).drawn("resnet34", "layer1.1")
    smoke.values.clear()
    monkeypatch.setattr(sources, "draw", None)  # calling it would fail
    assert RunSource(smoke).drawn("resnet34", "layer1.1") == first


def test_any_networks_of_a_run() -> None:
    """Each with its own layers and titles; a bottleneck has other channels behind the stem."""
    members = [NETWORKS[name] for name in ("plainnet18", "resnet50", "resnet18")]
    nets = {each.name: models.build(each.name, 20, 2) for each in members}
    run = SimpleNamespace(networks=members, subject=members[0], net=nets.get, network=NETWORKS.get)
    manifest = RunSource(run).manifest()
    assert [each["title"] for each in manifest["models"]][:3] == ["PlainNet18", "ResNet50", "ResNet18"]
    deep = [row for row in manifest["layers"] if row["model"] == "resnet50"]
    assert [(row["key"], row["title"], row["channels"]) for row in deep] == [
        ("maxpool", "first pooling layer", 20), ("layer1.0", "conv. layer 4", 80), ("layer1.1", "conv. layer 7", 80),
        ("layer1.2", "conv. layer 10", 80), ("layer2.3", "conv. layer 22", 160), ("layer3.5", "conv. layer 40", 320),
        ("layer4.2", "conv. layer 49", 640),
    ]  # fmt: skip
    keys = [row["key"] for row in manifest["layers"] if row["model"] == "resnet18"]
    assert keys == ["maxpool", "layer1.0", "layer1.1", "layer2.1", "layer3.1", "layer4.1"]
    assert manifest["start"] == "plainnet18/maxpool/18"
    with pytest.raises(RfvizError, match=r"unknown layer 'layer1.2'.*layer1.1"):
        RunSource(run).drawn("resnet18", "layer1.2")


def test_filters_are_shown_where_a_channel_has_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """In ResNet50, channel 3 of the first block is not channel 3 of the stem."""
    monkeypatch.setattr(sources, "draw", lambda layer: layer)
    monkeypatch.setattr(sources, "with_places", lambda layer, *_: layer)
    found = SimpleNamespace(channels=20, maximum=torch.tensor([1.0, 0, 2])), SimpleNamespace(channels=80)
    planted = dict(zip(("maxpool", "layer1.0"), found, strict=True))
    for name in ("stimuli", "maxima", "clear_maxima", "orientation", "colour"):
        monkeypatch.setattr(results, name, lambda *_, all=planted: all)
    monkeypatch.setattr(results, "pooling", lambda *_: planted["maxpool"])
    monkeypatch.setattr(results, "written", lambda *_: {})
    removed = dict.fromkeys(("maxpool", "layer1.0"), torch.arange(40.0).view(20, 2))
    monkeypatch.setattr(results, "ablations", lambda *_: removed)
    net = SimpleNamespace(conv1=SimpleNamespace(weight=torch.ones(20, 3, 7, 7)))
    run = SimpleNamespace(
        stimuli="images", net=lambda name: net, whitening=lambda name: IMAGENET, network=NETWORKS.get,
        preset=SimpleNamespace(borders=False),
    )  # fmt: skip
    stem, block = (sources.atlas.function(run, "resnet50", layer) for layer in ("maxpool", "layer1.0"))
    assert stem.filters is not None and block.filters is None
    assert stem.inactive == (1,) and block.inactive is None
    # what is known of the first channels is not known of the others
    assert stem.removal.tolist() == (torch.arange(20) * 2 + 0.5).tolist()
    assert block.removal[:20].equal(stem.removal) and block.removal[20:].isnan().all() and len(block.removal) == 80


@pytest.mark.parametrize(
    ("model", "layer", "message"),
    [("resnet", "maxpool", "Did you mean 'resnet34'"), ("resnet34", "layer1.3", "Did you mean 'layer")],
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
    source = NetSource({"mine": net}, tiles, preprocess=IMAGENET, top_k=3, strongest=4, steps=2)
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
    source = NetSource({"with skips": resnet, "without": plainnet}, images, "all")
    keys = [row["key"] for row in source.manifest()["layers"] if row["model"] == "with skips"]
    layers = NETWORKS["resnet34"].layers
    assert [key for key in keys if key in layers] == list(layers)
    assert "layer1.0.conv1" in keys and "layer1.0.bn1" in keys and "avgpool" not in keys and "fc" not in keys
    assert "layer1.0.relu2" not in keys and "layer1.0.relu" not in keys  # the response of the block
    assert "relu" not in keys and "layer1" not in keys


def titles(net: nn.Module) -> dict[str, str]:
    return {
        row["key"]: row["title"] for row in NetSource({"a": net}, torch.rand(1, 3, 64, 64), "all").manifest()["layers"]
    }


def test_layers_are_counted_in_their_own_network() -> None:
    """The last block of ResNet18 is conv. layer 17, not the 31 that it would be in ResNet34."""
    for net in (torchvision.models.resnet18(), models.build("resnet18", 4, 2), models.build("plainnet18", 4, 2)):
        found = titles(net)
        assert (found["maxpool"], found["layer1.0"]) == ("maxpool, first pooling layer", "layer1.0, conv. layer 3")
        assert found["layer4.1"] == "layer4.1, conv. layer 17" and found["layer4.1.conv1"] == "layer4.1.conv1"
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


@pytest.mark.thorough
def test_every_layer_that_is_offered_can_be_drawn(resnet: models.ResidualNet) -> None:
    source = NetSource({"a": resnet}, torch.rand(2, 3, 64, 64), "all", top_k=1, strongest=1, steps=1)
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
    with pytest.raises(RfvizError, match="nothing to show"):
        NetSource({"a": nn.Sequential(nn.Flatten(), nn.Linear(12, 2))}, images)


def test_means_that_would_fill_the_memory_are_left_out(
    resnet: models.ResidualNet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rfviz.explorer.own.MEANS", 20 * 6 * 11**2)
    source = NetSource({"a": resnet}, torch.rand(2, 3, 64, 64), ["maxpool", "layer1.0"], top_k=1, steps=1)
    keys = {
        layer: [each["key"] for each in source.drawn("a", layer).facts["columns"]] for layer in ("maxpool", "layer1.0")
    }
    assert "mean" in keys["maxpool"]
    assert keys["layer1.0"] == ["maximization", "clear"]
