"""Files and names from others: read as tensors and shown as text, never executed; nothing is written elsewhere."""

import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from processes import SETTINGS, begin, command
from reference import TINY
from safetensors import SafetensorError
from safetensors.torch import save_file

from rfviz.book import cli
from rfviz.errors import RfvizError
from rfviz.lab import presets, results
from rfviz.lab.result import _stem
from rfviz.lab.run import Run, open_run, root
from rfviz.nets import models, weights
from rfviz.storage import places
from rfviz.storage.files import load_tensors, save_tensors
from rfviz.training.state import States

pytestmark = pytest.mark.faults


class Trap:
    """When unpickled, makes a file."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


# -- weights ----------------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_a_checkpoint_that_would_run_code_is_refused_and_runs_nothing(tmp_path):
    sprung, file = tmp_path / "sprung", tmp_path / "w.pth"
    torch.save({"state_dict": {"conv1.weight": Trap(sprung)}}, file)
    process = begin(command("train", "-p", "smoke", *SETTINGS, "--weights", f"resnet34={file}"), tmp_path / "runs")
    _, said = process.communicate(timeout=120)
    assert process.returncode == 2
    assert said.strip().splitlines()[-1].startswith(f"rfviz: {file} cannot be read as weights (")
    file.write_bytes(pickle.dumps(Trap(sprung)))  # and a plain pickle of that name
    with pytest.raises(RfvizError, match=r"cannot be read as weights \("):
        weights.read(file)
    assert not sprung.exists()
    assert pickle.loads(file.read_bytes()) is None and sprung.exists()  # noqa: S301  # it is a trap indeed


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("key", ["conv1.weight", "layer4.2.bn2.running_var", "fc.bias"])
def test_weights_that_are_not_finite_are_refused_by_name(tmp_path, resnet, key, value):
    state = {name: tensor.clone() for name, tensor in resnet.state_dict().items()}
    state[key].view(-1)[-1] = value
    path = tmp_path / "w.safetensors"
    save_tensors(state, path)
    with pytest.raises(RfvizError, match=rf"w\.safetensors: '{key}' holds NaN or infinity"):
        models.load(path)


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex64, torch.float8_e4m3fn])
def test_numbers_that_do_not_fit_are_refused(resnet, dtype):
    state = {name: tensor.clone() for name, tensor in resnet.state_dict().items()}
    state["fc.bias"] = (
        state["fc.bias"].to(dtype) if dtype != torch.float64 else torch.full_like(state["fc.bias"], 1e300, dtype=dtype)
    )
    with pytest.raises(RfvizError, match=r"'fc\.bias' holds (NaN or infinity|torch\.(complex64|float8_e4m3fn))\."):
        models.load(state)


def test_a_negative_variance_is_refused(resnet):
    state = {name: tensor.clone() for name, tensor in resnet.state_dict().items()}
    state["bn1.running_var"][0] = -1e-3
    with pytest.raises(RfvizError, match=r"'bn1\.running_var' holds a variance below 0"):
        models.load(state)


@pytest.mark.parametrize(
    "told",
    [
        {"values": {"classes": 3}}, {"values": {"classes": ["a", 4]}}, {"values": []},
        {"values": {"history": "x"}}, {"values": {"history": [{"epoch": 1}]}}, {"values": {"whitening": {"mean": "x"}}},
        {"values": {"history": [dict.fromkeys(weights.HISTORY, "<script>")]}},
        {"values": {"whitening": {"mean": [0.0, 0.0, float("nan")], "matrix": torch.eye(3).tolist()}}},
        {"values": {"whitening": {"mean": [0.0], "matrix": [[1.0]]}}},
    ],
)  # fmt: skip
def test_what_a_file_tells_of_itself_is_checked(tmp_path, resnet, told):
    path = tmp_path / "w.safetensors"
    save_tensors(resnet.state_dict(), path, told)
    with pytest.raises(RfvizError, match=r"w\.safetensors cannot be read as weights \("):
        weights.read(path)


# -- results ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> Run:
    """A run with a trained ResNet34."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RFVIZ_RUNS", str(tmp_path_factory.mktemp("runs")))
        run = open_run("smoke", **TINY)
        run.progress = False
        run.net("resnet34")
    return run


def reached(run: Run, layer: str) -> tuple[torch.Tensor, Path]:
    """Return the values that the maximization of a layer reaches, and their file, as another process finds them."""
    other = Run(run.given, 0, run.folder, progress=False)  # remembers nothing
    return results.maxima(other, "resnet34", layer).activations[-1], results.maxima.path(other, "resnet34", layer)


def test_a_tampered_result_is_computed_anew_and_said(tiny, caplog):
    right, path = reached(tiny, "maxpool")
    tensors, info = load_tensors(path)
    tensors["activations"] += 1  # better values, by hand
    save_file(tensors, path, metadata={"rfviz": json.dumps(info)})
    assert torch.equal(reached(tiny, "maxpool")[0], right)
    assert [record.getMessage() for record in caplog.records] == [
        f"rfviz: {path} is damaged or was changed: it is computed anew."
    ]
    caplog.clear()
    assert torch.equal(reached(tiny, "maxpool")[0], right) and not caplog.records


def test_the_file_of_another_result_is_not_taken_for_this_one(tiny):
    (pooling, right), (block, wrong) = reached(tiny, "maxpool"), reached(tiny, "layer1.0")
    assert not torch.equal(pooling, block)
    wrong.write_bytes(right.read_bytes())
    assert torch.equal(reached(tiny, "layer1.0")[0], block)


def test_no_changed_byte_of_a_checkpoint_is_overlooked(tmp_path):
    """Of a training or a pass: a number that is wrong by a little would go into every result that follows."""
    path = tmp_path / "w.checkpoint.00000001"
    tensors = {"weights/a": torch.linspace(-1, 1, 40), "sums": torch.arange(3)}
    save_tensors(tensors, path, {"step": 1, "loss": 0.5})
    good = path.read_bytes()
    for place in range(8, len(good), 3):
        path.write_bytes(good[:place] + bytes([good[place] ^ 1]) + good[place + 1 :])
        try:
            found, info = load_tensors(path, ours=True)
        except (SafetensorError, json.JSONDecodeError):
            continue
        assert info == {"step": 1, "loss": 0.5} and found.keys() == tensors.keys()
        assert all(torch.equal(found[key], tensors[key]) for key in tensors)
    States(tmp_path / "w.checkpoint").save(2, tensors, {})
    last = tmp_path / "w.checkpoint.00000002"
    last.write_bytes(last.read_bytes()[:-4] + b"\0\0\0\1")
    path.write_bytes(good)
    assert States(tmp_path / "w.checkpoint").last()[1]["step"] == 1  # the one before it


# -- parameters -------------------------------------------------------------------------------------------------------

NASTY = st.text(alphabet="./\\~$`'\"<>&;|* \n\0aé", min_size=1, max_size=12)


@given(NASTY)
def test_no_name_leads_out_of_the_folder_of_results(name):
    folder = Path("/some/where/results")
    try:
        path = folder / f"{_stem('maxima', ['resnet34', name])}.safetensors"
    except RfvizError:
        return
    assert path.parent == folder and os.path.normpath(path) == str(path)


@given(NASTY, st.sampled_from(["preset", "images", "weights"]))
def test_no_parameter_leads_out_of_the_folder_of_runs(text, which):
    """Whatever a notebook from others says, a run lies right in the folder of runs."""
    try:
        if which == "preset":
            run = open_run(text)
        elif which == "images":
            run = open_run("smoke", images=text)
        else:
            run = open_run("smoke", weights={"resnet34": text})
    except RfvizError:
        return
    assert run.folder.parent == root()
    assert run.folder.name.replace("-", "").isalnum()


@pytest.mark.parametrize("seed", ["0", 1.5, -1, True, None, [1]])
def test_a_seed_is_a_whole_number(seed):
    with pytest.raises(RfvizError, match=r"^seed is "):
        open_run("smoke", seed)


@pytest.mark.parametrize(
    "setting", ["epochs=__import__('os').getpid()", "width=$(id)", "images=`touch x`", "weights=!!python/object"]
)
def test_code_among_the_settings_is_text(tmp_path, monkeypatch, capsys, setting):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RFVIZ_RUNS", str(tmp_path / "runs"))
    monkeypatch.setattr(sys, "argv", ["rfviz", "train", "-p", "smoke", "--set", setting])
    monkeypatch.setattr(cli.process, "prepare", lambda: None)  # of this process and its environment, others test
    with pytest.raises(SystemExit) as caught:
        cli.main()
    assert caught.value.code == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("rfviz: ")
    assert {path.name for path in tmp_path.iterdir()} <= {"runs"}
    assert not list(tmp_path.rglob("*.safetensors"))


def test_a_run_writes_to_its_own_folder_only(tmp_path, monkeypatch):
    """Every file that a run opens for writing lies in its folder, or in one for temporary files."""
    watched = (
        "import sys\nfrom pathlib import Path\nroot, home = Path(sys.argv[1]).resolve(), Path(sys.argv[2])\n"
        "seen = set()\n"
        "def hook(event, arguments):\n"
        "    if event == 'open' and isinstance(arguments[0], str) and isinstance(arguments[1], str):\n"
        "        if set(arguments[1]) & set('wax+'): seen.add(arguments[0])\n"
        "    if event == 'os.mkdir': seen.add(str(arguments[0]))\n"
        "    if event == 'os.rename': seen.add(str(arguments[1]))\n"
        "from rfviz.lab import results\nfrom rfviz.lab.run import open_run\n"
        "sys.addaudithook(hook)\n"
        f"run = open_run('smoke', **{TINY})\nrun.progress = False\n"
        "results.noise_effect(run, 'resnet34'), results.maxima(run, 'resnet34', 'maxpool')\n"
        "outside = [each for each in seen if not Path(each).resolve().is_relative_to(root)\n"
        "           and '/dev/' not in each and 'matplotlib' not in each]\n"
        "import json; print(json.dumps([sorted(outside), len(seen)]))\n"
    )
    folder = tmp_path / "runs"
    process = begin(["-c", watched, str(folder), str(tmp_path)], folder)
    out, said = process.communicate(timeout=120)
    assert process.returncode == 0, said
    outside, count = json.loads(out.splitlines()[-1])
    assert outside == [] and count > 3


# -- the server -------------------------------------------------------------------------------------------------------


def test_the_book_is_served_to_this_machine_only():
    makefile = (places.repository() / "Makefile").read_text(encoding="utf-8")
    assert "http.server $(PORT) --bind 127.0.0.1" in makefile


def test_no_code_comes_from_text():
    """No eval, no exec, no pickle and no shell in the package: ruff's rules for security are on, with no exception."""
    settings = (places.repository() / "pyproject.toml").read_text(encoding="utf-8")
    assert '"S"' in settings
    done = subprocess.run(
        [sys.executable, "-m", "ruff", "check", "--isolated", "--select", "S102,S301,S307,S602,S604,S605,S609",
         str(places.repository() / "rfviz")],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout


def test_presets_are_not_changed_by_what_others_ask_for():
    before = repr(presets.PRESETS)
    presets.get("smoke", epochs=2, weights={"resnet34": "x"})
    assert repr(presets.PRESETS) == before
