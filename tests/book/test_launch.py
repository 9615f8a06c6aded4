"""Links to where the book can be run follow from the repository's address."""

import subprocess
from pathlib import Path

import nbformat
import pytest
import yaml

from rfviz.book import batch, html, launch
from rfviz.errors import RfvizError
from rfviz.storage import places
from rfviz.storage.lock import locked


@pytest.fixture
def clone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("RFVIZ_REPOSITORY", raising=False)
    monkeypatch.delenv("GITHUB_REPOSITORY", raising=False)
    monkeypatch.setattr(places, "repository", lambda: tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("remote", "expected"),
    [
        ("https://github.com/someone/rfviz.git", "https://github.com/someone/rfviz"),
        ("https://github.com/someone/rfviz", "https://github.com/someone/rfviz"),
        ("git@github.com:Some-One/my.book.git", "https://github.com/Some-One/my.book"),
        ("ssh://git@github.com/someone/rfviz.git", "https://github.com/someone/rfviz"),
        ("https://gitlab.com/someone/rfviz.git", None),
        ("https://github.com.evil.example/someone/rfviz", None),
        ("/srv/git/rfviz", None),
    ],
)
def test_the_remote_is_read(clone: Path, remote: str, expected: str | None) -> None:
    for command in (["init", "--quiet"], ["remote", "add", "origin", remote]):
        subprocess.run(["git", "-C", str(clone), *command], check=True)
    assert launch.address() == expected


def test_no_remote_no_links(clone: Path) -> None:
    assert launch.address() is None
    config = {"sphinx": {"config": {}}}
    launch.configuration(config, None)
    assert config == {"sphinx": {"config": {}}}


@pytest.mark.parametrize("variable", ["RFVIZ_REPOSITORY", "GITHUB_REPOSITORY"])
def test_the_environment_goes_first(clone: Path, monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    monkeypatch.setenv(variable, "someone/rfviz")
    assert launch.address() == "https://github.com/someone/rfviz"


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("https://github.com/Someone/rfviz", "https://someone.github.io/rfviz/"),
        ("https://github.com/Someone/someone.github.io", "https://someone.github.io/"),
    ],
)
def test_where_pages_are_published(address: str, expected: str) -> None:
    assert launch.site(address) == expected


def test_the_staged_book_has_the_links(smoke, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RFVIZ_REPOSITORY", "someone/rfviz")
    with locked(smoke.folder, "book"):  # another process of the tests may be building
        config = yaml.safe_load((html.stage(smoke) / "_config.yml").read_text())
    assert config["repository"] == {"url": "https://github.com/someone/rfviz", "branch": launch.BRANCH}
    assert config["launch_buttons"]["binderhub_url"] and config["launch_buttons"]["colab_url"]
    assert config["sphinx"]["config"]["ogp_site_url"] == "https://someone.github.io/rfviz/"


def test_exported_notebooks_install_what_they_need(tmp_path: Path) -> None:
    chosen = batch.choose()
    written = launch.export_notebooks(chosen, tmp_path, "https://github.com/someone/rfviz")
    assert [path.relative_to(tmp_path).with_suffix("").as_posix() for path in written] == list(chosen)
    for path in written:
        notebook = nbformat.read(path, as_version=4)
        nbformat.validate(notebook)
        first = notebook.cells[0].source
        assert '%pip install --quiet "git+https://github.com/someone/rfviz"' in first
        assert all(not cell.get("outputs") for cell in notebook.cells)
        assert any("parameters" in cell.metadata.get("tags", []) for cell in notebook.cells[1:]) or path.stem in (
            "index", "methods", "speed", "reference_run", "silence_by_decay", "imagenet_network",
            "your_network",
        )  # fmt: skip
    with pytest.raises(RfvizError, match="RFVIZ_REPOSITORY=OWNER/NAME"):
        launch.export_notebooks(chosen, tmp_path, None)


def test_the_workflow_writes_the_branch_that_the_links_name() -> None:
    workflow = (places.repository() / ".github" / "workflows" / "pages.yml").read_text()
    assert f"HEAD:{launch.BRANCH}" in workflow
    assert "rfviz notebooks ." in workflow
    steps = yaml.safe_load(workflow)["jobs"]["build"]["steps"]
    assert any(step.get("with", {}).get("path") == "runs/quick/html" for step in steps)
