"""The command line: what it prints, and one clear line for everything that is wrong."""

import re
import resource
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from rfviz.book import batch, cli
from rfviz.lab import run

TINY = ["--set", "repeats=4", "--epochs", "1", "--set", "noise_seeds=2"]


@pytest.fixture(autouse=True, scope="module")
def runs_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All commands of this module share their results."""
    folder = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RFVIZ_RUNS", str(folder))
        yield folder


def test_presets_lists_all(rfviz) -> None:
    code, out, _ = rfviz("presets")
    assert code == 0
    assert [line.split()[0] for line in out.splitlines()] == ["smoke", "quick", "caltech101", "imagenette", "imagenet"]


@pytest.mark.parametrize("command", ["book", "run", "train", "plan", "presets", "build", "notebooks", "reference"])
def test_help_of_every_command(rfviz, command: str) -> None:
    code, out, _ = rfviz(command, "--help")
    assert code == 0
    assert f"Usage: rfviz {command}" in out


@pytest.mark.parametrize("command", ["book", "run", "train", "plan", "build", "reference"])
def test_what_chooses_a_run_has_the_same_options_everywhere(rfviz, command: str) -> None:
    _, out, _ = rfviz(command, "--help")
    options = set(re.findall(r"--[a-z]+", out.split("Parameters")[1]))
    assert options >= {"--preset", "--seed", "--networks", "--images", "--weights", "--epochs", "--strict", "--set"}


@pytest.mark.parametrize("words", [["--help"], ["presets"], ["train", "--help"], ["train", "--sed", "1"]])
def test_what_computes_nothing_answers_at_once(words: list[str]) -> None:
    """Without a look at torch and other large packages: at a few times the cost of the command line's own library."""
    loaded = (
        "import sys\nfrom rfviz.__main__ import main\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "slow = {'torch', 'numpy', 'IPython', 'matplotlib', 'pandas', 'scipy'} & set(sys.modules)\n"
        "sys.exit(' '.join(slow) or 0)\n"
    )

    def seconds(*command: str) -> float:  # of one core; a busy or slow machine slows both alike
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = subprocess.run([sys.executable, "-c", *command], capture_output=True, text=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert done.returncode == 0, done.stderr
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    assert seconds(loaded, *words) < 4 * seconds("from cyclopts import App")


def test_train_says_where_the_weights_are(rfviz) -> None:
    code, out, _ = rfviz("train", "-p", "smoke", "--model", "resnet34", *TINY)
    assert code == 0
    assert "ResNet34" in out
    assert Path(out.split("weights in ")[1].strip()).is_file()


def test_networks_are_chosen(rfviz) -> None:
    code, out, _ = rfviz("train", "-p", "smoke", "--networks", "resnet18, plainnet18", *TINY)
    assert code == 0
    assert [line.partition(":")[0] for line in out.splitlines()] == ["ResNet18", "PlainNet18"]


def test_options_become_overrides() -> None:
    options = cli.RunOptions(
        settings=("window=null", "whitening=zca", "epochs=3"), epochs=2, weights=("resnet34=a=b",), strict=True
    )
    assert options.overrides == {
        "window": None, "whitening": "zca", "epochs": 2, "weights": {"resnet34": "a=b"}, "strict": True
    }  # fmt: skip
    assert cli.RunOptions().overrides == {}


def test_building_needs_notebooks_that_were_run(rfviz) -> None:
    code, out, error = rfviz("build", "-p", "smoke", *TINY)
    assert (code, out) == (2, "")
    assert re.search(r"index\.ipynb is not there: run the notebooks first, with `rfviz book -p smoke`", error)


def test_notebooks_for_binder_and_colab(rfviz, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RFVIZ_REPOSITORY", "someone/rfviz")
    code, out, _ = rfviz("notebooks", str(tmp_path / "out"))
    assert code == 0
    assert [Path(line).exists() for line in out.splitlines()] == [True] * len(batch.choose())
    monkeypatch.setenv("RFVIZ_REPOSITORY", "no address")
    code, _, error = rfviz("notebooks", str(tmp_path / "out"))
    assert code == 2 and "RFVIZ_REPOSITORY is 'no address': set RFVIZ_REPOSITORY=OWNER/NAME." in error


def test_several_seeds(rfviz) -> None:
    code, out, _ = rfviz("train", "-p", "smoke", "-m", "resnet34", "--seeds", "2", *TINY)
    assert code == 0
    assert [line.partition(":")[0] for line in out.splitlines()] == ["ResNet34, seed 0", "ResNet34, seed 1"]
    assert len({line.split("weights in ")[1] for line in out.splitlines()}) == 2
    code, _, error = rfviz("train", "-p", "smoke", "--seeds", "0", *TINY)
    assert (code, error) == (2, "rfviz: seeds is 0: it must be a whole number from 1 up.")


def test_plan_says_what_training_would_take(rfviz) -> None:
    code, out, _ = rfviz("plan", "-p", "smoke", "--epochs", "3")
    assert code == 0
    assert "ResNet34: 3 epochs of 96 visits to each image, 36 steps of 32, 1,152 images of 32 px" in out
    assert "memory of this" in out


def folder_of(tmp_path: Path, **classes: int) -> Path:
    for part in ("train", "val"):
        for name, count in classes.items():
            (tmp_path / part / name).mkdir(parents=True)
            for i in range(count):
                Image.new("RGB", (80, 80), (40 * i, 90, 30)).save(tmp_path / part / name / f"{i}.png")
    return tmp_path


def bad_inputs(tmp_path: Path) -> dict[str, tuple[list[str], str]]:
    one_class = folder_of(tmp_path / "one", cat=3)
    no_split = tmp_path / "nosplit"
    (no_split / "cat").mkdir(parents=True)
    empty = tmp_path / "empty"
    for part in ("train", "val"):
        (empty / part / "cat").mkdir(parents=True)
    broken = folder_of(tmp_path / "broken", cat=3, dog=3)
    (broken / "train" / "dog" / "1.png").write_bytes(b"no image")
    text = tmp_path / "weights.pth"
    text.write_text("not weights")
    smoke = ["-p", "smoke"]
    return {
        "preset": (["train", "-p", "quik"], "unknown preset 'quik'. Did you mean 'quick'?"),
        "model": (["train", *smoke, "-m", "resnet"], "unknown network 'resnet'. Did you mean 'resnet34'?"),
        "networks": (
            ["train", *smoke, "--networks", "resnet43"],
            "unknown network 'resnet43'. Did you mean 'resnet34'?",
        ),
        "networks twice": (["plan", *smoke, "--networks", "resnet34,resnet34"], "name at least one, each once"),
        "channels": (["run", *smoke, "--channels", "a,b"], "channels is 'a,b'"),
        "channel": (["run", *smoke, "--channels", "20"], "there is no channel 20"),
        "option": (["train", *smoke, "--set", "learning_rat=1"], "Did you mean 'learning_rate'?"),
        "value": (["train", *smoke, "--set", "learning_rate=-1"], "learning_rate is -1"),
        "words for numbers": (["train", *smoke, "--set", "learning_rate=fast"], "learning_rate is 'fast'"),
        "area": (["train", *smoke, "--set", "area=[1, 0.5]"], "area is [1, 0.5]"),
        "window": (["train", "-p", "quick", "--set", "window=900"], "window of resnet34 is 900"),
        "crop": (["train", "-p", "quick", "--set", "crop=160", "--set", "window=160"], "crop is 160"),
        "truth": (["train", *smoke, "--set", "strict=no"], "strict is 'no'"),
        "early channel": (["book", "-p", "quick", "--channels", "99"], "there is no channel 99"),
        "early weights": (["book", "-p", "quick", "--weights", "plainnet34=nowhere.pth"], "there is no weights file"),
        "several notebooks": (["run", *smoke, "--only", "0"], "unknown notebook '0'"),
        "epochs": (["train", *smoke, "--epochs", "0"], "epochs is 0"),
        "half an epoch": (["train", *smoke, "--epochs", "1.5"], "value for --epochs: '1.5' is no whole number"),
        "set": (["train", *smoke, "--set", "learning_rate"], "write NAME=VALUE"),
        "seed": (["train", *smoke, "--seed", "-1"], "seed is -1"),
        "seed in words": (["train", *smoke, "--seed", "one"], "value for --seed: 'one' is no whole number"),
        "no value": (["train", "--seed"], "--seed requires an argument. See `rfviz train --help`."),
        "no such option": (["build", "--epoch", "3"], "unknown option: --epoch. Did you mean --epochs?"),
        "no such command": (["tarin"], 'unknown command "tarin". Did you mean "train"?'),
        "a word too many": (["book", "smoke"], "['smoke']. See `rfviz book --help`."),
        "nowhere to write": (["notebooks"], "--to is missing. See `rfviz notebooks --help`."),
        "notebook": (["run", *smoke, "--only", "99"], "unknown notebook '99'"),
        "no folder": (["train", *smoke, "--images", str(tmp_path / "nowhere")], "there is no image folder"),
        "no train": (["train", *smoke, "--images", str(no_split)], "has no folder 'train'"),
        "empty": (["train", *smoke, "--images", str(empty)], "holds no images"),
        "one class": (["train", *smoke, "--images", str(one_class)], "only the class 'cat'"),
        "broken image": (["train", *smoke, "--strict", "--images", str(broken)], "1.png"),
        "no weights": (["train", *smoke, "--weights", "resnet34=nowhere.pth"], "there is no weights file"),
        "no model": (["train", *smoke, "--weights", "nowhere.pth"], "write NAME=VALUE"),
        "wrong model": (["train", *smoke, "--weights", f"alexnet={text}"], "unknown network 'alexnet'"),
        "damaged weights": (["train", *smoke, "--weights", f"resnet34={text}"], "cannot be read as weights"),
    }


CASES = (
    "preset", "model", "networks", "networks twice", "channels", "channel", "option", "value", "words for numbers",
    "area", "window", "crop", "truth", "early channel", "early weights", "several notebooks", "epochs",
    "half an epoch", "set", "seed", "seed in words", "no value", "no such option", "no such command",
    "a word too many", "nowhere to write", "notebook", "no folder", "no train", "empty", "one class", "broken image",
    "no weights", "no model", "wrong model", "damaged weights",
)  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_bad_input_gets_one_line_and_a_code(rfviz, tmp_path: Path, case: str) -> None:
    words, expected = bad_inputs(tmp_path)[case]
    code, out, error = rfviz(*words)
    assert code == 2
    assert out == "" and "\n" not in error
    assert error.startswith("rfviz: ")
    assert expected in error


def test_the_installed_command_prints_no_traceback() -> None:
    done = subprocess.run(
        [Path(sys.executable).with_name("rfviz"), "train", "--sed", "1"], capture_output=True, text=True
    )
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "--seed" in done.stderr


def test_interruption_says_how_to_go_on(rfviz, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(run, "open_run", interrupt)
    code, _, error = rfviz("train", "-p", "smoke")
    assert code == 130
    assert "same command again" in error


@pytest.mark.parametrize("command", ["book", "presets"])
def test_torchrun_is_for_training(rfviz, monkeypatch: pytest.MonkeyPatch, command: str) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert rfviz(command) == (
        2, "", f"rfviz: torchrun is for 'rfviz train': run 'rfviz {command}' without it, in one process."
    )  # fmt: skip
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert rfviz("presets")[0] == 0


def test_too_little_memory_is_said_with_a_remedy(rfviz, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object, **__: object) -> None:
        raise run.torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.\nMore.")

    monkeypatch.setattr(run, "open_run", fails)
    code, _, error = rfviz("train")
    assert code == 2
    assert re.fullmatch(r"rfviz: CUDA out of memory.* such as --set micro_batch=32\.", error)


@pytest.mark.thorough
@pytest.mark.parametrize("given", [False, True], ids=["training", "given weights"])
def test_two_processes_train_together_and_one_tells(rfviz, given: bool, tmp_path: Path, monkeypatch) -> None:
    words = ["train", "-p", "smoke", "-m", "resnet34", *TINY]
    if given:
        _, out, _ = rfviz(*words)
        words += ["--weights", f"resnet34={out.split('weights in ')[1].strip()}"]
    monkeypatch.setenv("RFVIZ_RUNS", str(tmp_path))
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "rfviz"]
    done = subprocess.run([*launch, *words], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("top-1 on held-out images; weights in") == 1
