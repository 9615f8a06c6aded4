"""The live explorer answers what its front end asks."""

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from rfviz.errors import RfvizError
from rfviz.explorer import Explorer, widget
from rfviz.explorer.sources import RunSource
from rfviz.images.data import Evaluation
from rfviz.images.whitening import IMAGENET
from rfviz.kernels import maximization
from rfviz.kernels.maximization.regularizers import L2, Jitter, TotalVariation
from rfviz.lab.run import Run
from rfviz.nets import models
from rfviz.storage import places

ASKED = {"kind": "maximize", "model": "ResidualNet", "layer": "maxpool", "channel": 2, "steps": 4, "learning_rate": 0.1}


def ask(explorer: Explorer, **message: object) -> tuple[dict, list]:
    """Send a message as a browser does, and return the one answer."""
    answers = []
    explorer.send = lambda content, buffers=None: answers.append((content, buffers))
    explorer._handle_custom_msg(message, [])
    (answer,) = answers
    return answer


@pytest.fixture
def explorer(resnet: models.ResidualNet, tiles: Evaluation) -> Explorer:
    return Explorer(resnet, tiles, ["maxpool", "layer1.0"], IMAGENET, top_k=3, strongest=4, steps=2)


@pytest.fixture(scope="module")
def asked(some_tiles: torch.Tensor) -> Explorer:
    """An explorer that refuses what the tests ask of it, and stays as it is."""
    return Explorer(models.resnet34(6, 4).eval(), some_tiles, ["maxpool"], steps=2)


def test_a_layer_comes_as_a_message(explorer: Explorer) -> None:
    content, buffers = ask(explorer, kind="layer", model="ResidualNet", layer="layer1.0")
    drawn = explorer.source.drawn("ResidualNet", "layer1.0")
    assert content == {"kind": "layer", "key": "ResidualNet/layer1.0", "facts": drawn.facts}
    assert buffers == [drawn.cells, drawn.stimuli, drawn.sources, drawn.maps]


def test_pixels_are_never_state(explorer: Explorer) -> None:
    ask(explorer, kind="layer", model="ResidualNet", layer="layer1.0")
    state = explorer.get_state()
    own = {name: value for name, value in state.items() if not name.startswith("_")}
    assert own.keys() == {"manifest", "state", "layout", "tabbable", "tooltip"}
    assert len(str(own)) < 5000


def test_of_a_run(smoke: Run) -> None:
    explorer = Explorer.of_run(smoke, "plainnet34/layer1.2/19")
    assert explorer.state == "plainnet34/layer1.2/19"
    assert explorer.manifest == {**RunSource(smoke).manifest(), "live": True}
    content, buffers = ask(explorer, kind="layer", model="plainnet34", layer="layer1.2")
    drawn = RunSource(smoke).drawn("plainnet34", "layer1.2")
    assert content["facts"] == drawn.facts
    assert buffers == [drawn.cells, drawn.stimuli, drawn.sources, drawn.maps]


@pytest.mark.parametrize(
    ("settings", "regularizers", "words"),
    [
        ({"l2": 1e-6, "variation": 0, "jitter": 0}, [L2(1e-6)], "4 steps, rate 0.1, L2 1e-06"),
        (
            {"l2": 0.01, "variation": 0.5, "jitter": 2},
            [L2(0.01), TotalVariation(0.5), Jitter(2)],
            "4 steps, rate 0.1, L2 0.01, total variation 0.5, jitter 2 px",
        ),
    ],
)
def test_maximizing_again(explorer, resnet, settings, regularizers, words) -> None:
    content, buffers = ask(explorer, **ASKED, **settings)
    expected = maximization.maximize(resnet, "maxpool", [2], steps=4, regularizers=regularizers)
    assert content["key"] == "ResidualNet/maxpool/2"
    assert content["made_with"] == words
    assert content["curve"] == pytest.approx(expected.activations[:, 0].tolist(), rel=1e-5)
    shown = np.asarray(Image.open(io.BytesIO(buffers[0])))
    image = IMAGENET.to_rgb(expected.images[0])
    np.testing.assert_array_equal(shown, (image * 255).round().byte().permute(1, 2, 0).numpy())


@pytest.mark.parametrize(
    ("message", "text"),
    [
        ({"kind": "layer", "model": "ResidualNet", "layer": "layer9"}, "unknown layer 'layer9'"),
        ({"kind": "layer", "model": "<b>", "layer": "maxpool"}, "unknown network '<b>'"),
        (
            {**ASKED, "steps": 10**9, "l2": 0, "variation": 0, "jitter": 0},
            "steps is 1000000000: it must be a number from 1 to 2000",
        ),
        ({**ASKED, "channel": 6, "l2": 0, "variation": 0, "jitter": 0}, "there is no channel 6"),
        ({**ASKED, "steps": None}, "steps is empty: it must be a number from 1 to 2000"),
        ({**ASKED, "l2": "<b>", "variation": 0, "jitter": 0}, "l2 is <b>: it must be a number"),
        ({**ASKED, "learning_rate": -1, "l2": 0, "variation": 0, "jitter": 0}, "learning rate is -1"),
        ({"kind": "nonsense"}, "KeyError: 'nonsense'"),
        ({}, "KeyError"),
    ],
)
def test_what_cannot_be_answered_is_said(asked: Explorer, message: dict, text: str) -> None:
    content, _ = ask(asked, **message)
    assert content["kind"] == ("failed" if message.get("kind") == "maximize" else "error")
    assert content["text"].startswith(text)
    assert content["key"] == f"{message.get('model')}/{message.get('layer')}"


def test_numbers_that_leave_their_range_are_no_picture(explorer: Explorer) -> None:
    content, buffers = ask(explorer, **{**ASKED, "steps": 200}, l2=1e6, variation=1e6, jitter=0)
    assert content["kind"] in ("failed", "maximized")
    explorer.source.nets["ResidualNet"].conv1.weight.data[2] = float("inf")
    content, buffers = ask(explorer, **ASKED, l2=0, variation=0, jitter=0)
    assert (content["kind"], buffers) == ("failed", None)
    assert "the maximization left the range of numbers: a rate of 0.1 is too high." in content["text"]


@pytest.mark.parametrize("name", ["a/b", "a&b", "", "#1"])
def test_names_that_would_not_survive_a_link(name: str) -> None:
    with pytest.raises(RfvizError, match="give it a name without /, &, # and %"):
        Explorer({name: nn.Sequential(nn.Conv2d(3, 1, 3))}, torch.rand(1, 3, 64, 64))


def test_no_images() -> None:
    with pytest.raises(RfvizError, match="no images to explore"):
        Explorer(nn.Sequential(nn.Conv2d(3, 1, 3)), torch.rand(0, 3, 64, 64))


def test_the_notebook_shows_it_and_no_output_widget_makes_a_batch_wait() -> None:
    assert "Explorer.of_run(run" in (places.repository() / "notebooks" / "02_preferred_stimuli.md").read_text()
    assert "Output(" not in Path(widget.__file__).read_text()  # nbclient, issue 312
