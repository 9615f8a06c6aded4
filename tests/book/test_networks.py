"""A book with one network and with three, through the notebooks; the book of the pair is that of `smoke`."""

import re

import nbformat
import pytest

from rfviz.book import batch
from rfviz.lab.run import open_run

TINY = {
    "epochs": 1, "repeats": 8, "noise_seeds": 2, "maximization_steps": 2, "top_k": 4, "disturbed_images": 8,
    "picture_channels": 3,
}  # fmt: skip


def text_of(path) -> str:
    """Return what a page says: its outputs as text or HTML."""
    found = []
    for cell in nbformat.read(path, as_version=4).cells:
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            found += [data.get("text/html") or data.get("text/markdown") or data.get("text/plain") or ""]
    return re.sub(r"\s+", " ", " ".join(map(str, found)))


def pages(networks: list[str], monkeypatch, folder) -> dict[str, str]:
    monkeypatch.setenv("RFVIZ_RUNS", str(folder))
    overrides = {**TINY, "networks": networks}
    run = open_run("smoke", **overrides)
    run.progress = False
    batch.compute([run])
    parameters = {"preset": "smoke", "seed": 0, "seeds": 1, "channels": None, "overrides": overrides}
    return {path.stem: text_of(path) for path in batch.run_notebooks(run, parameters)}


@pytest.mark.book
@pytest.mark.thorough
@pytest.mark.parametrize("network", ["resnet18", "resnet50"])
def test_a_book_with_one_network_says_what_needs_another(network, monkeypatch, tmp_path):
    told = pages([network], monkeypatch, tmp_path)
    title = {"resnet18": "ResNet18", "resnet50": "ResNet50"}[network]
    missing = f"This needs a network without skips to compare with; this run has {title}."
    assert sum(missing in text for text in told.values()) >= 2  # figures say it in the picture
    assert missing in told["claims"]
    assert title in told["04_inactive_neurons"]
    for name, text in told.items():
        if name != "reference_run" and name != "speed" and name != "claims":
            assert "ResNet34" not in re.sub(r"in the paper[^.]*\.", "", text), name


@pytest.mark.book
@pytest.mark.thorough
def test_a_book_with_three_networks_shows_all_of_them(monkeypatch, tmp_path):
    told = pages(["resnet34", "plainnet34", "resnet18"], monkeypatch, tmp_path)
    for name in ("01_training", "04_inactive_neurons", "05_orientation_and_colour", "07_higher_layers", "explorer"):
        for title in ("ResNet34", "PlainNet34", "ResNet18"):
            assert title in told[name], (name, title)
    assert "conv. layer 5" in told["07_higher_layers"] or "conv. layer 9" in told["07_higher_layers"]
