"""What the explorer is fed with: a run, or any network and images."""

import pytest
import torch
from torch import nn

from rfviz.errors import RfvizError
from rfviz.explorer import atlas
from rfviz.explorer.facts import Layer
from rfviz.explorer.sources import NetSource, RunSource
from rfviz.images.data import Evaluation
from rfviz.images.whitening import IMAGENET
from rfviz.kernels import maximization, responses
from rfviz.lab.presets import EXPLORER_LAYERS
from rfviz.lab.runs import Run
from rfviz.nets import models, receptive_field


def test_a_run_offers_the_layers_that_share_the_channels_of_the_stem(smoke: Run) -> None:
    manifest = RunSource(smoke).manifest()
    assert [model["key"] for model in manifest["models"]] == ["resnet34", "plainnet34"]
    assert [(row["model"], row["key"]) for row in manifest["layers"]] == [
        (model, layer) for model in ("resnet34", "plainnet34") for layer in EXPLORER_LAYERS
    ]
    assert {row["channels"] for row in manifest["layers"]} == {20}
    assert [row["size"] for row in manifest["layers"][:4]] == [11, 27, 43, 59]
    assert manifest["start"] == "resnet34/maxpool/18"


def test_what_a_run_shows_is_what_its_results_say(smoke: Run) -> None:
    for model in ("resnet34", "plainnet34"):
        whole = Layer(
            smoke.images.stimuli,
            smoke.responses(model)["maxpool"],
            smoke.maximization(model, "maxpool"),
            smoke.whitening(model),
            smoke.net(model).conv1.weight.detach(),
            smoke.noise_effect(model).inactive,
            orientation=smoke.orientation(model, "maxpool"),
            colour=smoke.colour(model, "maxpool"),
        )
        drawn, expected = RunSource(smoke).drawn(model, "maxpool"), atlas.draw(whole)
        assert (drawn.cells, drawn.sources) == expected.files()
        assert drawn.facts == expected.facts
        marked = [channel for channel, said in enumerate(drawn.facts["channels"]) if said["inactive"]]
        assert marked == list(smoke.noise_effect(model).inactive)


def test_what_a_run_shows_is_kept(smoke: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    first = RunSource(smoke).drawn("resnet34", "layer1.1")
    monkeypatch.setattr(atlas, "draw", None)  # calling it would fail
    assert RunSource(smoke).drawn("resnet34", "layer1.1") == first


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


def test_the_layers_of_a_resnet_in_the_order_of_the_pass(resnet: models.Net34, plainnet: models.Net34) -> None:
    images = torch.rand(2, 3, 64, 64)
    source = NetSource({"with skips": resnet, "without": plainnet}, images)
    keys = [row["key"] for row in source.manifest()["layers"] if row["model"] == "with skips"]
    assert [key for key in keys if key in models.LAYERS] == list(models.LAYERS)
    assert "layer1.0.conv1" in keys and "layer1.0.bn1" in keys and "avgpool" not in keys and "fc" not in keys
    assert "layer1.0.relu2" not in keys and "layer1.0.relu" not in keys  # the response of the block
    assert "relu" not in keys and "layer1" not in keys


def test_every_layer_that_is_offered_can_be_drawn(resnet: models.Net34) -> None:
    source = NetSource({"a": resnet}, torch.rand(2, 3, 64, 64), top_k=1, strongest=1, steps=1)
    rows = [row for row in source.manifest()["layers"] if row["size"] < 100]
    assert len(rows) > 15
    for row in rows:
        facts = source.drawn("a", row["key"]).facts
        last = "response" if row["key"].endswith(("bn1", "bn2", "conv2", "downsample")) else "before_relu"
        assert facts["objective"] == last, row["key"]
        assert len(facts["channels"]) == row["channels"]


def test_chosen_layers_only(resnet: models.Net34) -> None:
    images = torch.rand(2, 3, 64, 64)
    assert [row["key"] for row in NetSource({"a": resnet}, images, layers=["maxpool"]).manifest()["layers"]] == [
        "maxpool"
    ]
    with pytest.raises(RfvizError, match="unknown layer 'maxpol'"):
        NetSource({"a": resnet}, images, layers=["maxpol"])
    with pytest.raises(RfvizError, match="nothing to explore"):
        NetSource({"a": nn.Sequential(nn.Flatten(), nn.Linear(12, 2))}, images)


def test_means_that_would_fill_the_memory_are_left_out(resnet: models.Net34, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rfviz.explorer.sources.MEANS", 20 * 6 * 11**2)
    source = NetSource({"a": resnet}, torch.rand(2, 3, 64, 64), top_k=1, steps=1)
    keys = {
        layer: [each["key"] for each in source.drawn("a", layer).facts["columns"]] for layer in ("maxpool", "layer1.0")
    }
    assert "mean" in keys["maxpool"]
    assert keys["layer1.0"] == ["maximization", "stimulus 0"]
