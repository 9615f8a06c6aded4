"""A book with one network and with three, through the notebooks; the book of the pair is that of `smoke`."""

import re

import nbformat
import pytest
import torch
from PIL import Image
from reference import TINY

from rfviz.book import batch
from rfviz.images import photographs
from rfviz.lab.run import open_run
from rfviz.nets import models


def text_of(path) -> str:
    """Return what a page says: its outputs as text or HTML."""
    found = []
    for cell in nbformat.read(path, as_version=4).cells:
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            found += [data.get("text/html") or data.get("text/markdown") or data.get("text/plain") or ""]
    return re.sub(r"\s+", " ", " ".join(map(str, found)))


def pages(networks: list[str] | None, monkeypatch, folder, **more) -> dict[str, str]:
    monkeypatch.setenv("RFVIZ_RUNS", str(folder))
    overrides = {**TINY, **({"networks": networks} if networks else {}), **more}
    run = open_run("smoke", **overrides)
    run.progress = False
    batch.compute([run])
    parameters = {"preset": "smoke", "seed": 0, "seeds": 1, "channels": None, "overrides": overrides}
    return {path.stem: text_of(path) for path in batch.run_notebooks(run, parameters)}


@pytest.mark.book
@pytest.mark.thorough
@pytest.mark.parametrize(
    ("network", "title", "said_on"),
    [("resnet18", "ResNet18", ["06_channel_sharing", "claims"]), ("resnet50", "ResNet50", ["claims"])],
)
def test_a_book_with_one_network_says_what_needs_another(network, title, said_on, monkeypatch, tmp_path):
    """In words; where a figure is missing, the line is in its picture."""
    told = pages([network], monkeypatch, tmp_path)
    missing = f"This needs a network without skips to compare with; there is only {title}."
    of_this_run = told.keys() - {"imagenet_network"}  # which is about a single network, whatever the run
    assert sorted(name for name in of_this_run if missing in told[name]) == said_on
    for name in ("01_training", "04_inactive_neurons", "05_orientation_and_colour", "06_channel_sharing"):
        assert title in told[name], name
    before = {"index", "introduction", "reference_run", "speed", "claims", "silence_by_decay", "imagenet_network",
              "your_network"}  # fmt: skip
    for name in told.keys() - before:  # what the paper found is said of its networks
        for sentence in re.split(r"(?<=\.) (?=[A-Z])", told[name]):
            assert "ResNet34" not in sentence or "paper" in sentence, (name, sentence)


@pytest.mark.book
@pytest.mark.thorough
def test_a_book_with_three_networks_shows_all_of_them(monkeypatch, tmp_path):
    told = pages(["resnet34", "plainnet34", "resnet18"], monkeypatch, tmp_path)
    for name in ("01_training", "04_inactive_neurons", "05_orientation_and_colour", "07_higher_layers", "explorer"):
        for title in ("ResNet34", "PlainNet34", "ResNet18"):
            assert title in told[name], (name, title)
    assert "conv. layer 5" in told["07_higher_layers"] or "conv. layer 9" in told["07_higher_layers"]


@pytest.mark.book
@pytest.mark.thorough
def test_a_book_of_weights_and_images_that_they_were_not_trained_on(monkeypatch, tmp_path):
    """One network, no training, a flat folder: every page, and the output in the place of the loss."""
    images = tmp_path / "images"
    images.mkdir()
    for number, tile in enumerate(photographs.load(96, 4).evaluation):
        Image.fromarray(tile[0].permute(1, 2, 0).numpy()).save(images / f"{number}.jpg")
    torch.manual_seed(0)
    net = models.build("resnet18", 20, 1000)
    net.bn1.weight.data[3], net.bn1.bias.data[3] = 0, -1  # a silent channel
    torch.save(net.state_dict(), tmp_path / "weights.pth")
    overrides = {"images": str(images), "weights": {"resnet18": str(tmp_path / "weights.pth")}}
    told = pages(None, monkeypatch, tmp_path / "runs", **overrides)
    assert "accuracy cannot be told" in told["01_training"]
    assert "ResNet18 has one inactive channel of 20" in told["04_inactive_neurons"]
    for said in ("noise in the one inactive channel moves the output by a divergence", "KL divergence in place of"):
        assert said in told["04_inactive_neurons"]
    assert "difference of the divergences of the output" in told["06_channel_sharing"]
    assert "no labels that the networks know" in told["claims"]
    for name in ("04_inactive_neurons", "06_channel_sharing"):
        ours = re.sub('<div class="rfviz-glance">.*?</div>', "", told[name])  # but for what the paper says
        assert len(ours) < len(told[name])
        assert not re.search("(changes|raises|lowers) the loss|change of the loss", ours), name
