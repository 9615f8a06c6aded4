"""The package as others install it: a wheel, without the repository."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from PIL import Image

from rfviz.images import photographs
from rfviz.storage import places


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the wheel holds, outside of the repository."""
    folder = tmp_path_factory.mktemp("wheel")
    words = ["-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder)]
    subprocess.run([sys.executable, *words, str(places.repository())], check=True, capture_output=True)
    (wheel,) = folder.glob("rfviz-*.whl")
    with zipfile.ZipFile(wheel) as file:
        file.extractall(folder / "site")
    return folder / "site"


def call(installed: Path, folder: Path, *words: str) -> tuple[int, str, str]:
    environment = {name: value for name, value in os.environ.items() if name not in ("RFVIZ_RUNS", "RFVIZ_DATA")}
    done = subprocess.run(
        [sys.executable, "-m", "rfviz", *words], cwd=folder, capture_output=True, text=True,
        env=environment | {"PYTHONPATH": str(installed), "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    return done.returncode, done.stdout, done.stderr


@pytest.mark.thorough
@pytest.mark.parametrize(
    "command", [["book", "-p", "smoke"], ["run", "--only", "02"], ["build"], ["notebooks", "here"]]
)
def test_the_commands_of_the_book_say_that_they_need_a_clone(
    installed: Path, tmp_path: Path, command: list[str]
) -> None:
    code, _, error = call(installed, tmp_path, *command)
    (line,) = error.strip().splitlines()
    assert code == 2 and "its commands need a clone of the repository" in line and str(tmp_path) in line
    assert not list(tmp_path.iterdir())


@pytest.mark.thorough
def test_a_network_is_trained_and_explored_without_the_repository(installed: Path, tmp_path: Path) -> None:
    """Runs lie below the current folder, and the command says where."""
    few = ["--networks", "resnet18", "--epochs", "1", "--set", "repeats=4"]
    code, said, error = call(installed, tmp_path, "train", "-p", "smoke", *few)
    assert code == 0, error
    weights = Path(said.rpartition("weights in ")[2].strip())
    assert weights.is_file() and weights.is_relative_to(tmp_path / "runs")
    (tmp_path / "images").mkdir()
    for number, (image, _) in zip(range(3), photographs.load(64, classes=2).evaluation, strict=False):
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(tmp_path / "images" / f"{number}.png")
    words = [
        "rfviz:resnet18",
        "images",
        "--out",
        "mine",
        "--layers",
        "maxpool",
        "--size",
        "64",
        "--weights",
        str(weights),
    ]
    code, said, error = call(installed, tmp_path, "explore", *words)
    assert code == 0, error
    assert "resnet18, maxpool: 20 channels, field of 11 px" in said
    assert {"index.html", "explorer.js", "explorer.css"} <= {path.name for path in (tmp_path / "mine").iterdir()}
