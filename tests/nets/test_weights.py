"""Weights from files, addresses and torchvision, and what is refused."""

import hashlib
import http.server
import threading
from pathlib import Path

import pytest
import torch
import torchvision

from rfviz.errors import RfvizError
from rfviz.images.whitening import IMAGENET, Whitening
from rfviz.nets import models, weights
from rfviz.nets.weights import read
from rfviz.storage.files import save_tensors


@pytest.fixture(scope="module")
def state() -> dict[str, torch.Tensor]:
    """The state dict of a narrow ResNet34, which has the keys of torchvision's own."""
    torch.manual_seed(0)
    return models.resnet34(6, 3).state_dict()


@pytest.fixture(scope="module")
def published(state, tmp_path_factory):
    """A folder on a server of this machine, with files as torchvision and the authors publish them."""
    folder = tmp_path_factory.mktemp("published")
    torch.save(state, folder / "resnet34.pth")
    digest = sha256(folder / "resnet34.pth")
    (folder / f"resnet34-{digest[:8]}.pth").write_bytes((folder / "resnet34.pth").read_bytes())
    torch.manual_seed(1)
    plain = models.plainnet34(6, 3).state_dict()
    torch.save({f"module.{name}": value for name, value in plain.items()}, folder / "plain net.model")
    asked: list[str] = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *arguments):
            super().__init__(*arguments, directory=str(folder))

        def log_message(self, *arguments):
            asked.append(self.path)

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield folder, f"http://127.0.0.1:{server.server_port}", asked
    server.shutdown()


@pytest.fixture(autouse=True)
def data(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("RFVIZ_DATA", str(tmp_path / "data"))
    return tmp_path / "data"


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def refused(source: object, match: str) -> None:
    with pytest.raises(RfvizError, match=match) as caught:
        read(source)
    assert "\n" not in str(caught.value)


# -- addresses --------------------------------------------------------------------------------------------------------


def test_an_address_with_a_checksum_is_downloaded_once(published, state, data):
    folder, server, asked = published
    address = f"{server}/resnet34.pth#sha256={sha256(folder / 'resnet34.pth')}"
    asked.clear()
    first, second = read(address), read(address)
    assert len(asked) == 1
    for found in (first, second):
        assert found.tensors.keys() == state.keys()
        assert all(torch.equal(found.tensors[name], value) for name, value in state.items())
    assert [path.name[16:] for path in (data / "weights").iterdir()] == ["-resnet34.pth"]
    assert models.load(address).name == "resnet34"


def test_the_checksum_may_be_in_the_name_as_torchvision_has_it(published, data):
    folder, server, _ = published
    name = next(folder.glob("resnet34-*")).name
    assert models.load(f"{server}/{name}").fc.out_features == 3


def test_an_address_may_be_one_of_a_file_and_have_spaces(published):
    folder, server, _ = published
    digest = sha256(folder / "plain net.model")
    for address in (f"{server}/plain%20net.model", (folder / "plain net.model").as_uri()):
        assert models.load(f"{address}#sha256={digest.upper()}").name == "plainnet34"


def test_another_checksum_is_refused_and_leaves_nothing(published, data):
    _, server, _ = published
    refused(f"{server}/resnet34.pth#sha256={'0' * 64}", rf"resnet34\.pth does not have the SHA-256 {'0' * 64}: ")
    refused(f"{server}/resnet34.pth#sha256={'0' * 64}", "does not have the SHA-256")
    assert list((data / "weights").iterdir()) == []


def test_a_file_that_was_damaged_since_is_downloaded_again(published, state, data):
    folder, server, asked = published
    address = f"{server}/resnet34.pth#sha256={sha256(folder / 'resnet34.pth')}"
    read(address)
    kept = next((data / "weights").iterdir())
    kept.write_bytes(kept.read_bytes()[:-10])
    asked.clear()
    assert torch.equal(read(address).tensors["conv1.weight"], state["conv1.weight"])
    assert len(asked) == 1


@pytest.mark.parametrize("fragment", ["#sha256=", "#sha256=12ab", "#md5=" + "0" * 32])
def test_a_checksum_of_another_kind_is_refused(published, fragment):
    refused(f"{published[1]}/resnet34.pth{fragment}", "what follows # must be sha256= and the 64 digits")


@pytest.mark.parametrize("name", ["resnet34.pth", "weights-resnet34-17991e41d9c99e0e.safetensors"])
def test_an_address_without_a_checksum_is_refused(published, name):
    """The name of one of our own files ends in digits too, which are no checksum."""
    refused(f"{published[1]}/{name}", r"has no checksum: add #sha256= and the 64 digits")


def test_addresses_that_cannot_be_had_are_refused(published):
    server = published[1]
    refused(f"{server}/none.pth#sha256={'0' * 64}", r"none\.pth cannot be downloaded to .*404.*: give a file")
    refused(f"http://127.0.0.1:9/w.pth#sha256={'0' * 64}", "cannot be downloaded")
    refused(f"ftp://127.0.0.1/w.pth#sha256={'0' * 64}", "give a file or an address that begins with https://")


@pytest.mark.parametrize(
    ("source", "expected"),
    [("https://x.org/w.pth", True), ("file:///w.pth", True), ("w.pth", False), ("C:\\w.pth", False), ("a/b", False)],
)
def test_what_is_an_address(source, expected):
    assert weights.is_address(source) is expected


# -- files ------------------------------------------------------------------------------------------------------------


def test_a_safetensors_file_says_what_the_network_was_trained_with(tmp_path, state):
    white = Whitening(torch.tensor([0.1, 0.2, 0.3]).double(), torch.eye(3).double() * 4)
    history = [dict.fromkeys(weights.HISTORY, 0.5)]
    values = {"whitening": white.to_json(), "history": history, "classes": ["a", "b", "c"]}
    path = tmp_path / "w.safetensors"
    save_tensors(state, path, {"values": values})
    found = read(path)
    assert found.whitening is not None
    assert torch.equal(found.whitening.mean, white.mean) and torch.equal(found.whitening.matrix, white.matrix)
    assert (found.classes, found.history) == (["a", "b", "c"], history)


@pytest.mark.parametrize("kind", ["safetensors", "pth", "mapping", "nested"])
def test_other_weights_say_nothing_of_it(tmp_path, state, kind):
    path = tmp_path / f"w.{'safetensors' if kind == 'safetensors' else 'pth'}"
    if kind == "safetensors":
        save_tensors(state, path)
    else:
        torch.save({"state_dict": state, "epoch": 3} if kind == "nested" else state, path)
    found = read(state if kind == "mapping" else path)
    assert (found.whitening, found.classes, found.history) == (None, None, [])
    assert found.tensors.keys() == state.keys()


def test_torchvisions_weights_were_trained_with_its_whitening(state, monkeypatch):
    monkeypatch.setattr(torchvision.models.ResNet34_Weights, "get_state_dict", lambda *_, **__: state)
    assert read("IMAGENET1K_V1").whitening is IMAGENET


@pytest.mark.parametrize("suffix", ["safetensors", "pth"])
def test_a_truncated_file_is_refused_in_one_line(tmp_path, state, suffix):
    path = tmp_path / f"w.{suffix}"
    save_tensors(state, path) if suffix == "safetensors" else torch.save(state, path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    refused(path, rf"w\.{suffix} cannot be read as weights \(")


@pytest.mark.parametrize("under", weights.UNDER)
def test_a_state_dict_may_stand_under_the_names_of_training_scripts(tmp_path, state, under):
    torch.save({under: state, "epoch": 3}, tmp_path / "w.pth")
    assert read(tmp_path / "w.pth").tensors.keys() == state.keys()


@pytest.mark.filterwarnings("ignore")
def test_a_torchscript_archive_is_told(tmp_path):
    torch.jit.script(torch.nn.ReLU()).save(tmp_path / "w.pt")
    with pytest.raises(RfvizError, match=r"w\.pt is a TorchScript archive: save its state_dict") as caught:
        read(tmp_path / "w.pt")
    assert "\n" not in str(caught.value)
