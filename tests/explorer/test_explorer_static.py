"""The files of the static explorer, and the table that reads without JavaScript."""

import json
import re
from pathlib import Path

import pytest
from bs4 import BeautifulSoup

from rfviz.errors import RfvizError
from rfviz.explorer import static
from rfviz.explorer.sources import RunSource
from rfviz.lab.run import Run


def test_the_module_becomes_a_classic_script() -> None:
    script = static.classic(static.MODULE.read_text())
    assert not re.search(r"^\s*(import|export)\b", script, re.MULTILINE)
    assert script.count("globalThis.rfvizExplorer.render = render;") == 1


def test_a_module_that_exports_something_else_is_noticed() -> None:
    with pytest.raises(AssertionError):
        static.classic("export const render = 1;\nexport default { render };\n")
    with pytest.raises(AssertionError):
        static.classic("function render() {}\n")


def test_every_layer_has_its_files_and_nothing_else_is_left(smoke: Run, tmp_path: Path) -> None:
    (tmp_path / "resnet34-layer9.9.webp").write_bytes(b"of an earlier atlas")
    (tmp_path / "resnet34-layer9.9-sources.webp").write_bytes(b"of an earlier atlas")
    earlier = {"layers": [{"model": "resnet34", "key": "layer9.9"}, {"model": "../..", "key": "thesis"}]}
    (tmp_path / "manifest.js").write_bytes(static._script("manifest", earlier))
    (tmp_path / "mine").mkdir()
    (tmp_path / "thesis.txt").write_text("years of work")
    source = RunSource(smoke)
    assert static.write(source, tmp_path) == tmp_path
    names = {"explorer.css", "explorer.js", "manifest.js", "mine", "thesis.txt"}
    offered = [(row["model"], row["key"]) for row in source.manifest()["layers"]]
    assert len(offered) == 22
    for model, layer in offered:
        *sheets, facts = source.drawn(model, layer)
        for part, sheet in zip(static.PARTS, sheets, strict=True):
            assert (tmp_path / f"{model}-{layer}{part}.webp").read_bytes() == sheet
        text = (tmp_path / f"{model}-{layer}.js").read_text()
        key, value = re.fullmatch(r"\(\(.*\)\.data \?\?= \{\}\)\[(.*?)\]=(.*);\n", text).groups()
        assert json.loads(key) == f"{model}/{layer}"
        assert json.loads(value) == json.loads(json.dumps(facts))
        names |= {f"{model}-{layer}{end}" for end in (*(f"{part}.webp" for part in static.PARTS), ".js")}
    assert {file.name for file in tmp_path.iterdir()} == names


def test_a_folder_that_cannot_be_written_is_named(smoke: Run, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RfvizError, match=r"file/\S+ cannot be written"):
        static.write(RunSource(smoke), tmp_path / "file")


def test_all_numbers_are_in_the_table(smoke: Run) -> None:
    page = BeautifulSoup(static.embedded(smoke).data, "html.parser")
    tables = page.find_all("table")
    source = RunSource(smoke)
    rows = [row for row in source.manifest()["layers"] if row["stream"] and not row["model"].endswith("-random")]
    assert len(tables) == len(rows) == 8
    for table, row in zip(tables, rows, strict=True):
        assert row["title"] in table.caption.get_text()
        channels = source.drawn(row["model"], row["key"]).facts["channels"]
        lines = table.tbody.find_all("tr")
        assert len(lines) == len(channels)
        measured = [key for key in channels[0]["statistics"] if any(said["statistics"][key] for said in channels)]
        assert len(table.thead.find_all("th")) == 1 + len(measured)
        for number, (line, said) in enumerate(zip(lines, channels, strict=True)):
            assert line.a["href"] == f"#{row['model']}/{row['key']}/{number}"
            assert ("never fires" in line.th.get_text()) == (not said["fires"])
            shown = [cell.get_text() for cell in line.find_all("td")]
            for text, key in zip(shown, measured, strict=True):
                value = said["statistics"][key]
                assert text == "–" if value is None else float(text.replace(",", "")) == pytest.approx(value, rel=5e-3)


def test_the_page_loads_only_its_own_files(smoke: Run) -> None:
    page = BeautifulSoup(static.embedded(smoke).data, "html.parser")
    loaded = [tag.get("src") or tag.get("href") for tag in page.find_all(["script", "link"])]
    assert loaded == ["explorer/explorer.css", "explorer/manifest.js", "explorer/explorer.js"]
    assert page.find(class_="rfviz-explorer")["data-run"] == smoke.folder.name
    assert "needs JavaScript" in page.find(class_="rfviz-explorer").get_text()
