"""Networks by name, and what their weights expect."""

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torchvision
from torch import nn
from torchvision.transforms import v2

from rfviz.errors import RfvizError
from rfviz.images import whitening
from rfviz.images.whitening import IMAGENET, NONE, Whitening
from rfviz.nets import models, zoo

MINE = """
from torch import nn
import beside

def build():
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())

def with_preprocess():
    return build(), ([0.5] * 3, [0.25] * 3)

def broken():
    raise KeyError("layers")

number = 3

def a_number():
    return number

def lazy():
    return nn.Sequential(nn.LazyConv2d(4, 3), nn.ReLU())
"""


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    (tmp_path / "mine.py").write_text(MINE)
    (tmp_path / "beside.py").write_text("")
    return tmp_path / "mine.py"


def test_a_network_of_torchvision_with_the_weights_of_a_file(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = torchvision.models.squeezenet1_1(num_classes=7)
    torch.save({"state_dict": {f"module.{key}": value for key, value in net.state_dict().items()}}, tmp_path / "w.pth")
    loaded = zoo.load("torchvision:squeezenet1_1", str(tmp_path / "w.pth"))
    assert loaded.name == "squeezenet1_1" and not loaded.net.training and loaded.preprocess is None
    image = torch.rand(1, 3, 64, 64)
    torch.testing.assert_close(loaded.net(image), net.eval()(image))


def test_published_weights_bring_what_they_expect(monkeypatch: pytest.MonkeyPatch) -> None:
    net = torchvision.models.resnet18()
    asked = []
    monkeypatch.setattr(zoo, "get_model", lambda name, weights: asked.append((name, weights.name)) or net)
    loaded = zoo.load("torchvision:resnet18")
    assert asked == [("resnet18", "IMAGENET1K_V1")]
    assert torch.equal(loaded.preprocess.mean, IMAGENET.mean) and torch.equal(loaded.preprocess.matrix, IMAGENET.matrix)
    assert (loaded.resize, loaded.crop) == (256, 224)
    assert zoo.load("torchvision:efficientnet_v2_s", "IMAGENET1K_V1").crop == 384


def test_weights_that_cannot_be_downloaded(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr(zoo, "get_model", fail)
    with pytest.raises(
        RfvizError, match=r"IMAGENET1K_V1 of resnet18 cannot be downloaded \(no route to host\): give a"
    ):
        zoo.load("torchvision:resnet18")


def test_random_weights_are_the_same_every_time() -> None:
    first, second = (zoo.load("torchvision:shufflenet_v2_x0_5", "random") for _ in range(2))
    assert first.name == "shufflenet_v2_x0_5-random"
    for one, other in zip(first.net.state_dict().values(), second.net.state_dict().values(), strict=True):
        assert torch.equal(one, other)


def test_a_network_of_ours(tmp_path: Path) -> None:
    net = models.plainnet34(3, 5)
    torch.save(net.state_dict(), tmp_path / "plain.pth")
    loaded = zoo.load("rfviz:plainnet34", str(tmp_path / "plain.pth"))
    assert loaded.name == "plainnet34" and loaded.net.conv1.out_channels == 3
    assert zoo.load("rfviz:resnet18", "random").net.network.name == "resnet18"


def test_a_function_of_a_file(mine: Path) -> None:
    loaded = zoo.load(f"{mine}:build")
    assert loaded.name == "mine.build" and isinstance(loaded.net[0], nn.Conv2d) and loaded.preprocess is None
    again = zoo.load(f"{mine}:build")
    assert torch.equal(loaded.net[0].weight, again.net[0].weight)
    torch.save({"0.weight": torch.ones(4, 3, 3, 3), "0.bias": torch.zeros(4)}, mine.with_name("w.pth"))
    assert (zoo.load(f"{mine}:build", str(mine.with_name("w.pth"))).net[0].weight == 1).all()
    assert zoo.load(f"{mine}:with_preprocess").preprocess.mean.tolist() == [0.5] * 3
    assert str(mine.parent) not in sys.path


def test_timm(monkeypatch: pytest.MonkeyPatch) -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3))
    net.pretrained_cfg = {"mean": [0.5] * 3, "std": [0.5] * 3, "input_size": (3, 160, 160), "crop_pct": 0.8, "url": "x"}
    made = SimpleNamespace(
        list_models=lambda: ["tiny"], list_pretrained=lambda: ["tiny.a1"], create_model=lambda name, pretrained: net
    )
    monkeypatch.setitem(sys.modules, "timm", made)
    loaded = zoo.load("timm:tiny")
    assert (loaded.resize, loaded.crop) == (200, 160)
    assert torch.equal(loaded.preprocess.mean, torch.full((3,), 0.5, dtype=torch.float64))
    assert torch.equal(zoo.expected_preprocess(net).mean, loaded.preprocess.mean)
    assert zoo.load("timm:tiny", "random").preprocess is None
    with pytest.raises(RfvizError, match=r"unknown network of timm 'tinny'\. Did you mean 'tiny'"):
        zoo.load("timm:tinny")
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(RfvizError, match="needs timm, which is not installed: pip install timm"):
        zoo.load("timm:tiny")


@pytest.mark.parametrize(
    ("address", "weights", "message"),
    [
        ("resnet18", None, "'resnet18' is no network: write torchvision:NAME"),
        ("torchvision:", None, "is no network"),
        ("torchvision:resnet81", None, "unknown network of torchvision 'resnet81'. Did you mean 'resnet18'"),
        ("torchvision:resnet18", "nowhere.pth", "no weights file 'nowhere.pth': .*, or 'random'"),
        ("rfviz:resnet81", None, "unknown network 'resnet81'. Did you mean 'resnet18'"),
        ("nowhere.py:build", None, "there is no file 'nowhere.py'"),
        ("MINE:bild", None, "unknown function of .*mine.py 'bild'. Did you mean 'build'"),
        ("MINE:build", "random", "brings weights of its own: leave 'random' out"),
        ("MINE:broken", None, r"mine.py:broken failed with KeyError: 'layers'"),
        ("MINE:a_number", None, r"mine.py:a_number returned a int: a torch.nn.Module is expected"),
        ("MINE:lazy", None, "Sequential has lazy layers, which have no size yet: call it once on an image"),
    ],
)
def test_what_is_wrong_is_told_in_one_line(mine: Path, address: str, weights: str | None, message: str) -> None:
    with pytest.raises(RfvizError, match=message) as caught:
        zoo.load(address.replace("MINE", str(mine)), weights)
    assert "\n" not in str(caught.value)


def test_weights_that_do_not_fit(tmp_path: Path) -> None:
    torch.save(torchvision.models.squeezenet1_1(num_classes=3).state_dict(), tmp_path / "w.pth")
    with pytest.raises(RfvizError, match=r"w\.pth does not fit SqueezeNet: ") as caught:
        zoo.load("torchvision:squeezenet1_0", str(tmp_path / "w.pth"))
    assert "\n" not in str(caught.value)
    net = torchvision.models.squeezenet1_1(num_classes=3)
    torch.save(
        {f"other.{key}": value for key, value in net.state_dict().items()} | {"x": torch.ones(1)}, tmp_path / "w"
    )
    with pytest.raises(RfvizError, match=r"w does not fit SqueezeNet: (Missing|Unexpected)"):
        zoo.load("torchvision:squeezenet1_0", str(tmp_path / "w"))
    state = net.state_dict()
    state["features.0.bias"][0] = torch.nan
    torch.save(state, tmp_path / "w.pth")
    with pytest.raises(RfvizError, match=r"'features\.0\.bias' holds NaN"):
        zoo.load("torchvision:squeezenet1_1", str(tmp_path / "w.pth"))


# ------------------------------------------------------------------------------------------------ preprocess

HALF = Whitening(torch.full((3,), 0.5, dtype=torch.float64), torch.eye(3, dtype=torch.float64) * 4)


@pytest.mark.parametrize(
    "given",
    [
        HALF,
        "0.5,0.5,0.5,0.25,0.25,0.25",
        "0.5,0.25",
        ([0.5] * 3, (0.25, 0.25, 0.25)),
        (0.5, 0.25),
        {"mean": (0.5, 0.5, 0.5), "std": torch.tensor([0.25] * 3)},
        torchvision.transforms.Normalize([0.5] * 3, [0.25] * 3),
        v2.Normalize([0.5] * 3, [0.25] * 3),
        v2.Compose([v2.Resize(9), v2.Compose([v2.Normalize([0.5] * 3, [0.25] * 3)])]),
        nn.Sequential(v2.Resize(9), v2.Normalize([0.5] * 3, [0.25] * 3)),
    ],
)
def test_everything_that_normalises_is_read(given: object) -> None:
    found = whitening.of(given)
    assert torch.equal(found.mean, HALF.mean) and torch.equal(found.matrix, HALF.matrix)


def test_names_and_nothing() -> None:
    assert whitening.of("imagenet") is IMAGENET and whitening.of("none") is NONE and whitening.of(None) is NONE
    transforms = torchvision.models.ResNet18_Weights.IMAGENET1K_V1.transforms()
    assert torch.equal(whitening.of(transforms).matrix, IMAGENET.matrix)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("imagnet", "unknown preprocess 'imagnet'. Did you mean 'imagenet'"),
        ("0.5,0.5,0.5", "give as many means as standard deviations"),
        ("1,0", "and these above 0"),
        ((0.5, "a"), "are not numbers"),
        (lambda x: x, "of which no mean and standard deviation can be read"),
        (v2.Compose([v2.Resize(9)]), "of which no mean and standard deviation can be read"),
    ],
)
def test_what_does_not_normalise_is_refused(given: object, message: str) -> None:
    with pytest.raises(RfvizError, match=message) as caught:
        whitening.of(given)
    assert "\n" not in str(caught.value)


def test_other_numbers_of_colours() -> None:
    grey = torch.rand(2, 1, 4, 4)
    assert torch.equal(NONE(grey), grey) and torch.equal(NONE.to_rgb(grey), grey)
    one = whitening.of(([0.5], [0.25]))
    assert len(one.mean) == 3
    four = whitening.of(([0.5] * 4, [0.25] * 4))
    torch.testing.assert_close(four(torch.full((1, 4, 2, 2), 0.75)), torch.ones(1, 4, 2, 2))
    with pytest.raises(RfvizError, match="the images have 1 channels, but preprocess is made for 3"):
        IMAGENET(grey)


def trained(net: nn.Module) -> nn.Module:
    """Let the batch norms look as if they had seen images."""
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean += 1
    return net


def test_whose_weights_expect_to_be_normalised() -> None:
    expected = zoo.expected_preprocess
    assert expected(trained(torchvision.models.resnet18())) is IMAGENET
    assert expected(nn.DataParallel(trained(torchvision.models.resnet18()))) is IMAGENET
    assert expected(torchvision.models.squeezenet1_1()) is IMAGENET  # nothing tells
    assert expected(torchvision.models.resnet18()) is None  # as it begins
    assert expected(trained(torchvision.models.resnet18(num_classes=10))) is None
    assert expected(models.resnet34(2, 1000)) is None


def test_weights_behind_a_wrapper_or_without_a_classifier(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    state = torchvision.models.squeezenet1_1(num_classes=5).state_dict()
    torch.save({f"model._orig_mod.{key}": value for key, value in state.items()}, tmp_path / "wrapped.ckpt")
    net = zoo.load("torchvision:squeezenet1_1", str(tmp_path / "wrapped.ckpt")).net
    assert torch.equal(net.features[0].weight, state["features.0.weight"])
    assert "'model._orig_mod.' is taken off" in caplog.text
    state = torchvision.models.resnet18().state_dict()
    backbone = {f"encoder.{key}": value for key, value in state.items() if not key.startswith("fc.")}
    torch.save(backbone | {"head.0.weight": torch.zeros(3)}, tmp_path / "backbone.pth")
    net = zoo.load("torchvision:resnet18", str(tmp_path / "backbone.pth")).net
    assert torch.equal(net.layer4[1].conv2.weight, state["layer4.1.conv2.weight"])
    assert "backbone.pth holds no classifier: what the network puts out means nothing" in caplog.text


def test_weights_of_another_network_are_named(tmp_path: Path) -> None:
    torch.save(torchvision.models.resnet18().state_dict(), tmp_path / "small.pth")
    with pytest.raises(
        RfvizError, match=r"small\.pth holds a ResNet18, which is not the network that was asked for\.$"
    ) as caught:
        zoo.load("torchvision:resnet34", str(tmp_path / "small.pth"))
    assert "\n" not in str(caught.value)


def test_a_file_of_ones_own_may_hold_data_classes(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(
        "from __future__ import annotations\nfrom dataclasses import dataclass\nfrom typing import ClassVar\n"
        "from torch import nn\n\n\n@dataclass\nclass Sizes:\n    colours: ClassVar[int] = 3\n    width: int = 4\n\n\n"
        "def build():\n    return nn.Conv2d(Sizes.colours, Sizes().width, 3)\n"
    )
    assert zoo.load(f"{tmp_path / 'own.py'}:build").net.out_channels == 4
