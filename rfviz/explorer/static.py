"""The explorer of a built book: files that work from a folder on disk, without a server.

Browsers load neither modules nor data from ``file://``, but they do load classic scripts and pictures: so the module
becomes a script, and the data of a layer a script that hands it over.
"""

import html
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from IPython.display import HTML
from tqdm.auto import tqdm

from rfviz.explorer.sources import KeptSource, RunSource, Shelf, Source
from rfviz.lab.run import Run
from rfviz.pages.evidence import reference
from rfviz.storage.files import atomic

HERE = Path(__file__).parent
MODULE, HOST, STYLE = (HERE / name for name in ("explorer.js", "host.js", "explorer.css"))
PARTS = ("", "-stimuli", "-sources", "-maps")
"""Of the names of the sheets of a layer."""

NAME = "rfvizExplorer"
"""The one global name in a page: what a script hands over, it hands to this."""


def classic(module: str) -> str:
    """Turn our module into a classic script: what it exports becomes a property of the global name."""
    body, exports = re.subn(r"^export default \{ (\w+) \};$", rf"globalThis.{NAME}.\1 = \1;", module, flags=re.M)
    assert exports == 1 and not re.search(r"^(import|export)\b", body, re.M)
    return f'"use strict";\nglobalThis.{NAME} ??= {{}};\n(() => {{\n{body}}})();\n'


def front_end() -> dict[str, bytes]:
    """Return the files of the static explorer that are the same for every run, by name."""
    script = classic(MODULE.read_text(encoding="utf-8")) + HOST.read_text(encoding="utf-8")
    bare = re.sub(r"^ *(?://.*)?\n?", "", script, flags=re.M)  # without comments and what is before lines: lighter
    return {"explorer.css": STYLE.read_bytes(), "explorer.js": bare.encode()}


def shelf(run: Run) -> Shelf:
    """Return a run and the networks that the repository keeps."""
    pair, trained = reference.kept(), reference.kept("evidence/resnet18")
    return Shelf([RunSource(run), KeptSource(pair, reference.PAIR), KeptSource(trained, reference.IMAGENET)])


def write(
    source: Source, folder: Path, pages: Mapping[str, bytes] = MappingProxyType({}), progress: bool = False
) -> Path:
    """Write everything that the static explorer of a source loads, and return the folder.

    Parameters
    ----------
    source : Source
    folder : Path
        Files of an earlier atlas are replaced one by one, each whole, and those of layers that are there no longer are
        removed; nothing else is touched.
    pages : mapping from name to bytes
        Further files.
    progress : bool
        Show a progress bar.

    Raises
    ------
    RfvizError
        If a file cannot be written.
    """
    manifest = source.manifest()
    files = {**front_end(), **pages}
    earlier = _files(_earlier(folder / "manifest.js"))
    for row in tqdm(manifest["layers"], desc="layers", unit="layer", disable=not progress):
        model, layer = row["model"], row["key"]
        *sheets, facts = source.drawn(model, layer)
        names = _files([row])
        _write(folder, dict(zip(names, [*sheets, _script(f"{model}/{layer}", facts)], strict=True)))
    _write(folder, {**files, "manifest.js": _script("manifest", manifest)})  # last: it names what is there
    for name in set(earlier) - set(_files(manifest["layers"])):
        (folder / name).unlink(missing_ok=True)
    return folder


def _write(folder: Path, files: Mapping[str, bytes]) -> None:
    for name, content in files.items():
        with atomic(folder / name) as temporary:
            temporary.write_bytes(content)


def _files(rows: Sequence[Mapping[str, str]]) -> list[str]:
    """Return the names of the files of some layers."""
    stems = [f"{row['model']}-{row['key']}" for row in rows]
    return [f"{stem}{part}" for stem in stems for part in (*(f"{part}.webp" for part in PARTS), ".js")]


def _earlier(manifest: Path) -> list[dict[str, str]]:
    """Return the layers that a manifest names; none where there is none, or something else has its place."""
    try:
        _, _, value = manifest.read_text(encoding="utf-8").partition("]=")
        rows = json.loads(value.rstrip().rstrip(";"))["layers"]
        return [row for row in rows if Path(_files([row])[0]).name == _files([row])[0]]
    except (OSError, ValueError, KeyError, TypeError):
        return []


def _script(key: str, value: Any) -> bytes:
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return f"((globalThis.{NAME} ??= {{}}).data ??= {{}})[{json.dumps(key)}]={text};\n".encode()


def page(title: str, told: str) -> bytes:
    """Return a page that shows the explorer and nothing else."""
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{html.escape(title)}</title>
<link rel="stylesheet" href="explorer.css">
<style>
body {{ margin: 0 auto; padding: 0.5rem 1rem; max-width: 90rem; font-family: system-ui, sans-serif; }}
h1 {{ margin: 0; font-size: 1.3rem; }}
h1 + p {{ margin: 0 0 0.5rem; }}
@media (prefers-color-scheme: dark) {{ .rfviz-explorer {{ --rx-mark: #56b4e9 !important; }} }}
</style>
</head>
<body>
<main>
<h1>{html.escape(title)}</h1>
<p>{html.escape(told)}</p>
<div class="rfviz-explorer"><p>The explorer needs JavaScript.</p></div>
</main>
<script src="manifest.js"></script>
<script src="explorer.js"></script>
</body>
</html>
""".encode()


def embedded(run: Run) -> HTML:
    """Return the explorer of a run for a page beside what it loads, and all numbers as a table without JavaScript."""
    source = RunSource(run)
    manifest = source.manifest()
    titles = {model["key"]: model["title"] for model in manifest["models"]}
    networks = {each.name for each in run.networks}
    own = [row for row in manifest["layers"] if row["model"] in networks and row["stream"]]
    tables = "".join(_table(row, titles[row["model"]], manifest["statistics"], source) for row in own)
    return HTML(
        f'<link rel="stylesheet" href="explorer/explorer.css">'
        f'<div class="rfviz-explorer" data-run="{html.escape(run.folder.name)}">'
        "<p>The explorer needs JavaScript. The table below reads without it.</p></div>"
        '<script src="explorer/manifest.js"></script><script src="explorer/explorer.js"></script>'
        f"<details class='rfviz-numbers'><summary>All numbers as a table</summary>{tables}</details>"
    )


def _table(row: dict[str, Any], title: str, statistics: list[dict[str, str]], source: RunSource) -> str:
    facts = source.drawn(row["model"], row["key"]).facts
    measured = [
        each
        for each in statistics
        if any(channel["statistics"][each["key"]] is not None for channel in facts["channels"])
    ]
    head = "".join(
        f'<th scope="col" title="{html.escape(each["explanation"])}">{html.escape(each["name"])}'
        f"{' (' + html.escape(each['unit']) + ')' if each['unit'] else ''}</th>"
        for each in measured
    )
    rows = []
    for number, channel in enumerate(facts["channels"]):
        values = "".join(f"<td>{_number(channel['statistics'][each['key']])}</td>" for each in measured)
        silent = "" if channel["fires"] else " (never fires)"
        link = f"#{row['model']}/{row['key']}/{number}"
        rows.append(f'<tr><th scope="row"><a href="{link}">{number}</a>{silent}</th>{values}</tr>')
    name = f"{title}, {row['title']} ({row['key']})"
    return (
        f'<div class="rfviz-scroll" tabindex="0" role="region" aria-label="{html.escape(name)}"><table>'
        f"<caption>{html.escape(name)}: {facts['images']} images, field of {row['size']} px</caption>"
        f'<thead><tr><th scope="col">channel</th>{head}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def draw(runs: Sequence[Run]) -> None:
    """Draw every layer of the first of some runs, and keep that with its results."""
    source = RunSource(runs[0])
    for row in source.manifest()["layers"]:
        source.drawn(row["model"], row["key"])


def gather(runs: Sequence[Run]) -> HTML:
    """Return the explorer of the first of some runs, after writing everything that it loads."""
    write(shelf(runs[0]), runs[0].folder / "explorer")
    return embedded(runs[0])


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"
