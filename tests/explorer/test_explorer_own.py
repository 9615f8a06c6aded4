"""Any network and any images: from one command, or one call, to a folder of files that opens without a server."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from rfviz import explore, layers
from rfviz.errors import RfvizError
from rfviz.explorer import own, own_folder, static
from rfviz.explorer.own import NetSource
from rfviz.images.data import Evaluation
from rfviz.kernels import responses
from rfviz.kernels.responses.passes import Pass
from rfviz.nets import receptive_field, zoo

SILENT = 2

NETWORK = f"""
import torch
from torch import nn

def planted():
    net = nn.Sequential(nn.Conv2d(3, 6, 5, 2), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 5, 3), nn.ReLU(),
                        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 2))
    net[0].weight.data[{SILENT}] = 0
    net[0].bias.data[{SILENT}] = -1
    return net
"""


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory, tiles: Evaluation) -> Path:
    """A folder with images of several sizes and kinds, flat and nested, and what is no image."""
    folder = tmp_path_factory.mktemp("photographs")
    (folder / "birds" / "owls").mkdir(parents=True)
    for number in range(6):
        pixels = (tiles[number][0] * 255).byte().permute(1, 2, 0).numpy()
        image = Image.fromarray(np.tile(pixels, (1, 2, 1)) if number % 2 else pixels)
        image.save(folder / ("" if number < 4 else "birds/owls") / f"{number}.{'png' if number % 3 else 'jpg'}")
    Image.fromarray(pixels[:, :, 0]).save(folder / "birds" / "grey.png")
    (folder / "notes.txt").write_text("no image")
    (folder / "broken.jpg").write_bytes(b"not a picture")
    return folder


@pytest.fixture
def network(tmp_path: Path) -> str:
    (tmp_path / "mine.py").write_text(NETWORK)
    return f"{tmp_path / 'mine.py'}:planted"


def test_one_command_writes_a_folder_that_can_be_sent(
    network: str, photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rfviz,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    out = tmp_path / "explorer"
    words = ["explore", network, str(photographs), "--out", str(out), "--size", "48"]
    code, said, _ = rfviz(*words)
    assert code == 0
    assert f"mine.planted, 0: 6 channels, field of 5 px; 1 never fires: {SILENT}" in said
    assert said.strip().splitlines()[-1] == f"open {out / 'index.html'}"
    assert "1 of 8 images left out" in caplog.text and "broken.jpg: not an image" in caplog.text
    rows = json.loads((out / "manifest.js").read_text().partition("]=")[2].rstrip().rstrip(";"))["layers"]
    assert [row["key"] for row in rows] == ["0", "2", "3"]
    for row in rows:
        for part in static.PARTS:
            with Image.open(out / f"mine.planted-{row['key']}{part}.webp") as opened:
                opened.load()
    page = (out / "index.html").read_text()
    assert not re.search(r"https?://", page) and "Measured on 7 images (1 left out)" in page
    assert "1 file in" in caplog.text and "is of a kind that is not read: notes.txt" in caplog.text
    facts = json.loads((out / "mine.planted-0.js").read_text().partition("]=")[2].rstrip().rstrip(";"))
    assert [channel["fires"] for channel in facts["channels"]] == [number != SILENT for number in range(6)]
    assert facts["channels"][SILENT]["stimuli"] == []
    assert {source["class"] for source in facts["sources"]} == {None, "birds", "birds/owls"}
    names = [*sorted(str(path.relative_to(photographs)) for path in photographs.rglob("*.[pj][np]g"))]
    names.remove("broken.jpg")
    assert {source["image"]: source["file"] for source in facts["sources"]} == dict(enumerate(names))
    # Called again, everything is there; and of what is not wanted any more, nothing is left.
    monkeypatch.setattr(own.responses, "collect", None)
    code, again, _ = rfviz(*words, "--layers", "0, 2")
    assert code == 0 and "planted, 2" in again and "planted, 3" not in again
    assert not list(out.glob("mine.planted-3*"))


def test_results_of_other_images_or_weights_are_not_taken(
    photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 2, 3), nn.ReLU()).eval()
    images = torch.rand(4, 3, 16, 16)
    collected = []
    collect = responses.collect
    monkeypatch.setattr(
        own.responses, "collect", lambda *args, **kwargs: collected.append(1) or collect(*args, **kwargs)
    )

    def drawn(net: nn.Module, images: torch.Tensor, **options: object) -> int:
        collected.clear()
        NetSource({"a": net}, images, ["0"], folder=tmp_path, steps=2, **options).drawn("a", "0")
        return len(collected)

    assert drawn(net, images) == 1 and drawn(net, images) == 0
    assert drawn(net, images + 1e-6) == 1 and drawn(net, images, preprocess="imagenet") == 1
    assert drawn(net, images, top_k=3) == 1 and drawn(net, images) == 0
    net[0].weight.data[0, 0, 0, 0] += 1
    assert drawn(net, images) == 1
    other = nn.Sequential(net[0], nn.LeakyReLU()).eval()
    assert drawn(other, images) == 1


def test_live_and_static_are_the_same(photographs: Path, tmp_path: Path) -> None:
    torch.manual_seed(1)
    net = nn.Sequential(nn.Conv2d(3, 3, 3), nn.ReLU())
    explorer = explore({"mine": net, "other": net}, photographs, ["0"], size=24, steps=2)
    page = explorer.save(tmp_path / "mine")
    assert page == tmp_path / "mine" / "index.html" and page.is_file()
    drawn = explorer.source.drawn("mine", "0")
    assert (tmp_path / "mine" / "mine-0.webp").read_bytes() == drawn.cells
    assert {row["model"] for row in explorer.manifest["layers"]} == {"mine", "other"}


@pytest.mark.parametrize("way", ["tensor", "list of pictures", "data set", "folder"])
def test_images_in_every_form(way: str, photographs: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (5, 20, 24, 3), dtype=np.uint8)
    tensor = torch.from_numpy(pixels).permute(0, 3, 1, 2) / 255
    images = {
        "tensor": tensor,
        "list of pictures": [Image.fromarray(each) for each in pixels],
        "data set": TensorDataset(tensor, torch.arange(5)),
        "folder": str(photographs),
    }[way]
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 3, 3), nn.ReLU()).eval()
    source = NetSource({"a": net}, images, ["0"], size=20, steps=2)
    facts = source.drawn("a", "0").facts
    largest = [channel["statistics"]["maximum"] for channel in facts["channels"]]
    if way == "folder":
        assert facts["images"] == 7 and source.images[0][0].shape == (3, 20, 20)
    else:
        with torch.no_grad():
            assert largest == pytest.approx(net(tensor).amax((0, 2, 3)).tolist(), rel=1e-5)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (lambda: iter([torch.rand(2, 3, 9, 9)]), r"passes by once: give a tensor, a data set"),
        (lambda: DataLoader(TensorDataset(torch.rand(2, 3, 9, 9))), r"images are a DataLoader, .*loader\.dataset"),
        (list, "there are no images to explore"),
        (lambda: "nowhere", "there is no image folder 'nowhere'"),
        (lambda: torch.rand(2, 3, 9, 9) * 255, "8-bit values"),
        (lambda: torch.rand(2, 1, 9, 9), "takes images of 3 channels, but these have 1"),
    ],
)
def test_images_that_do_not_do(images: object, message: str) -> None:
    net = nn.Sequential(nn.Conv2d(3, 3, 3), nn.ReLU())
    with pytest.raises(RfvizError, match=message) as caught:
        NetSource({"a": net}, images(), ["0"]).drawn("a", "0")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("channels", [1, 4])
def test_grey_and_four_channels(channels: int, photographs: Path) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(channels, 3, 3), nn.ReLU()).eval()
    source = NetSource({"a": net}, torch.rand(3, channels, 20, 20), ["0"], steps=2)
    keys = [column["key"] for column in source.drawn("a", "0").facts["columns"]]
    assert keys == ["mean", "stretched", "strongest", "maximization"]
    if channels == 1:
        grey = NetSource({"a": net}, photographs, ["0"], size=20, steps=2)
        assert grey.images[0][0].shape == (1, 20, 20)
        assert grey.drawn("a", "0").facts["images"] == 7
    else:
        with pytest.raises(RfvizError, match="not of 4 channels"):
            NetSource({"a": net}, photographs, ["0"])


def test_a_layer_that_sees_the_whole_image(tmp_path: Path) -> None:
    net = nn.Sequential(nn.Conv2d(3, 3, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Conv2d(3, 4, 1), nn.ReLU()).eval()
    images = torch.rand(5, 3, 20, 24)
    source = NetSource({"a": net}, images, ["3"])
    facts = source.drawn("a", "3").facts
    assert facts["field"]["how"] == receptive_field.WHOLE_IMAGE and facts["columns"] == []
    with torch.no_grad():
        best = net(images).amax((2, 3)).argmax(0).tolist()
    for channel, image in zip(facts["channels"], best, strict=True):
        if channel["fires"]:
            assert facts["sources"][channel["stimuli"][0][1]]["image"] == image
    own_folder.save(source, tmp_path)
    assert own_folder.summary(source)[0].startswith("a, 3: 4 channels, whole image")


def test_first_filters_are_those_of_the_only_convolution_before() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 4, 3), nn.ReLU()).eval()
    source = NetSource({"a": net}, torch.rand(3, 3, 24, 24), ["2", "3"], steps=2)
    columns = {layer: [each["key"] for each in source.drawn("a", layer).facts["columns"]] for layer in ("2", "3")}
    assert "filter" in columns["2"] and "filter" not in columns["3"]


def test_without_preprocess_there_is_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    net = zoo.load("torchvision:squeezenet1_1", "random").net
    NetSource({"a": net}, torch.rand(2, 3, 64, 64), ["features.0"])
    assert "preprocess='imagenet'" in caplog.text
    caplog.clear()
    responses.collect(net, torch.rand(2, 3, 64, 64), ["features.0"])
    assert "published weights of SqueezeNet expect images that are normalised" in caplog.text
    caplog.clear()
    NetSource({"a": net}, torch.rand(2, 3, 64, 64), ["features.0"], preprocess="none")
    responses.collect(net, torch.rand(2, 3, 64, 64), ["features.0"], preprocess="imagenet")
    assert not caplog.text


def test_the_page_says_what_the_networks_got_of_the_images(caplog: pytest.LogCaptureFixture) -> None:
    images = torch.rand(2, 3, 64, 64)
    at_random = NetSource({"a": zoo.load("torchvision:alexnet", "random")}, images, ["features.0"], size=64)
    assert (
        b"2 images, not normalised." in own_folder.explorer_page(at_random) and not caplog.text
    )  # random ones expect nothing
    net = nn.Sequential(nn.Conv2d(3, 3, 3), nn.ReLU()).eval()
    page = own_folder.explorer_page(NetSource({"a": net, "b": net}, images, ["1"], "imagenet"))
    assert b"2 images, normalised as for ImageNet." in page


def test_a_file_where_a_folder_is_to_be_is_told_at_once(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("")
    net = nn.Sequential(nn.Conv2d(3, 3, 3), nn.ReLU())
    with pytest.raises(RfvizError, match="mine is a file: name a folder"):
        NetSource({"a": net}, torch.rand(2, 3, 9, 9), ["0"], folder=tmp_path / "mine" / "results")
    explorer = explore(net, torch.rand(2, 3, 9, 9), ["0"])
    with pytest.raises(RfvizError, match="mine is a file: name a folder"):
        explorer.save(tmp_path / "mine")


def test_a_folder_that_cannot_be_written_is_told_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(**_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(own.tempfile, "TemporaryFile", refused)
    monkeypatch.setattr(own, "_read", None)  # not even the images are read
    net = nn.Sequential(nn.Conv2d(3, 3, 3), nn.ReLU())
    with pytest.raises(RfvizError, match=r"mine cannot be written to \(.*Permission denied\): free some space or name"):
        NetSource({"a": net}, torch.rand(2, 3, 9, 9), ["0"], folder=tmp_path / "mine")
    assert not (tmp_path / "mine").exists()


def test_what_is_written_does_not_lie_among_the_images(photographs: Path, tmp_path: Path) -> None:
    net = nn.Sequential(nn.Conv2d(3, 3, 3), nn.ReLU())
    with pytest.raises(RfvizError, match=r"lies in the folder of the images, .*: name one outside of it"):
        NetSource({"a": net}, photographs, ["0"], folder=photographs / "birds" / "results")
    explorer = explore(net, photographs, ["0"], size=9)
    with pytest.raises(RfvizError, match="lies in the folder of the images"):
        explorer.save(photographs / "mine")


def test_weights_are_for_networks_by_name() -> None:
    net = nn.Sequential(nn.Conv2d(3, 3, 3), nn.ReLU())
    for given in (net, {"a": net}):
        with pytest.raises(RfvizError, match="weights are for networks that are given by name"):
            explore(given, torch.rand(2, 3, 9, 9), weights="mine.pth")


def test_why_a_layer_is_not_maximized_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    net = nn.Sequential(nn.Conv2d(3, 30, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1)).eval()
    nn.init.constant_(net[0].bias, -9)
    monkeypatch.setattr(own, "DRIVEN", 10)
    source = NetSource({"a": net}, torch.rand(2, 3, 9, 9), ["1", "2"])
    first, last = own_folder.summary(source)
    assert first.endswith("; not maximized: too many pixels")
    assert "30 never fire: 0, 1, 2" in first and "18, 19, ...;" in first
    assert "none of its neurons stands alone; maximize(..., canvas=...)" in last
    assert b"a, 1 (too many pixels); a, 2 (none of" in own_folder.explorer_page(source)


def test_a_layer_that_one_of_two_networks_lacks_is_told_with_its_network() -> None:
    nets = {"small": nn.Sequential(nn.Conv2d(3, 3, 3)), "large": nn.Sequential(nn.Conv2d(3, 3, 3), nn.Conv2d(3, 3, 3))}
    with pytest.raises(RfvizError, match="unknown layer of small '1'"):
        NetSource(nets, torch.rand(2, 3, 9, 9), ["0", "1"])


def test_networks_without_names_are_refused_in_one_line() -> None:
    net = nn.Sequential(nn.Conv2d(3, 3, 3))
    with pytest.raises(RfvizError, match="networks are a list: give one, or a dict from names to networks"):
        explore([net, net], torch.rand(2, 3, 9, 9))


def test_networks_by_name_take_weights() -> None:
    explorer = explore("torchvision:squeezenet1_1", torch.rand(2, 3, 64, 64), ["features.0"], weights="random")
    assert list(explorer.source.nets) == ["squeezenet1_1-random"]
    assert layers("torchvision:squeezenet1_1")[0].name == "features.0"


def test_two_networks_of_one_name_are_refused(network: str, photographs: Path, tmp_path: Path, rfviz) -> None:
    words = ["explore", f"{network},{network}", str(photographs), "--out", str(tmp_path / "o")]
    code, _, err = rfviz(*words)
    assert code == 2 and "two networks are called 'mine.planted'" in err


def test_layers_are_listed(network: str, rfviz) -> None:
    code, said, _ = rfviz("layers", network)
    lines = said.strip().splitlines()
    assert code == 0 and lines[0].split() == ["layer", "kind", "channels", "receptive", "field", "works"]
    assert re.match(r"0 +Conv2d +6 +5 px every 2 px +stimuli, means", lines[1])
    assert re.match(r"7 +Linear +2 +whole image +strongest images", lines[-1])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--layers", "4x"], "unknown layer '4x'"),
        (["--preprocess", "imagnet"], "unknown preprocess 'imagnet'"),
        (["--strict"], "broken.jpg: not an image"),
        (["--size", "0"], r"size is 0: images must be cut to at least 1 px"),
    ],
)
def test_bad_input_is_one_line(
    words: list[str], message: str, network: str, photographs: Path, tmp_path: Path,
    rfviz,
) -> None:  # fmt: skip
    code, _, err = rfviz("explore", network, str(photographs), "--out", str(tmp_path / "o"), *words)
    assert code == 2
    assert re.search(message, err.strip().splitlines()[-1])


def test_layers_that_are_drawn_together_are_as_each_alone(tmp_path: Path) -> None:
    """One pass of the images for all of them, two threads, and the graph drawn once: the same numbers and pictures."""
    torch.manual_seed(1)
    net = nn.Sequential(
        nn.Conv2d(3, 6, 5, 2), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 8, 3), nn.BatchNorm2d(8), nn.ReLU(),
        nn.Conv2d(8, 5, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 3),
    ).eval()  # fmt: skip
    images = torch.rand(9, 3, 48, 48)
    layers = ["1", "2", "5", "7", "10"]
    together = explore({"net": net}, images, layers, preprocess="none", steps=3, folder=tmp_path / "kept")
    together.save(tmp_path / "page")
    alone = NetSource({"net": net}, images, layers, preprocess="none", steps=3)
    for layer in layers:
        one, other = alone.drawn("net", layer), together.source.drawn("net", layer)
        for name in ("cells", "stimuli", "sources", "maps"):
            assert getattr(one, name) == getattr(other, name), (layer, name)
        assert one.facts == other.facts, layer
    assert not together.source.collected and not list((tmp_path / "kept").glob("*.checkpoint*"))


def test_a_pass_for_all_layers_is_kept_until_they_are_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.ReLU()).eval()
    images, kept = torch.rand(5, 3, 16, 16), tmp_path / "kept"
    options = {"preprocess": "none", "steps": 2, "folder": kept}

    def stopped(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(own.own_layer, "function", stopped)
        with pytest.raises(KeyboardInterrupt):
            own_folder.save(NetSource({"net": net}, images, ["1", "3"], **options), tmp_path / "page")
    assert len(list(kept.glob("pass-net-*.checkpoint"))) == 1
    with monkeypatch.context() as patch:
        patch.setattr(Pass, "respond", None)  # calling it would fail
        source = NetSource({"net": net}, images, ["1", "3"], **options)
        (checkpoint,) = kept.glob("pass-net-*.checkpoint")
        assert own.collect(source, "net", ["3", "1"], checkpoint)["1"].image_count == 5
    own_folder.save(source, tmp_path / "page")
    assert not list(kept.glob("pass-net-*")) and (tmp_path / "page" / "index.html").is_file()


def test_what_was_collected_with_other_options_is_not_taken(tmp_path: Path) -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.ReLU()).eval()
    images = torch.rand(6, 3, 16, 16)

    def source(**options: int) -> NetSource:
        given = {"preprocess": "none", "steps": 2, "folder": tmp_path / "kept", "top_k": 4, "strongest": 8} | options
        return NetSource({"net": net}, images, ["1", "3"], **given)

    own_folder.save(source(), tmp_path / "page")
    assert own.own_layer.find(source(), ("net", "3"), compute=False) is not None
    for options in ({"top_k": 2}, {"strongest": 3}, {"steps": 3}):
        assert own.own_layer.find(source(**options), ("net", "3"), compute=False) is None, options


def test_layers_that_are_too_large_together_take_several_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    net = nn.Sequential(*[part for _ in range(5) for part in (nn.Conv2d(4, 4, 3), nn.ReLU())]).eval()
    net[0] = nn.Conv2d(3, 4, 3)
    layers = ["1", "3", "5", "7", "9"]
    source = NetSource({"net": net}, torch.rand(2, 3, 32, 32), layers, "none")
    waiting = [("net", layer) for layer in layers]
    assert own_folder._together(source, waiting) == [("net", layers)]
    cost = {layer: 20 * 4 * source.known("net", layer)[1].field.size ** 2 for layer in layers}
    monkeypatch.setattr(own_folder, "TOGETHER", cost["7"])
    groups = own_folder._together(source, waiting)
    assert [layer for _, group in groups for layer in group] == layers and len(groups) > 2
    assert all(sum(cost[layer] for layer in group) <= cost["7"] or len(group) == 1 for _, group in groups)
