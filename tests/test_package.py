"""The package as a whole: its public names, and what importing it does not do."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import rfviz

PACKAGE = Path(rfviz.__file__).parent
SHIM = "_torchvision_ops"


def test_to_import_the_package_does_nothing() -> None:
    """Neither to the process nor to its environment; names are loaded when they are used."""
    script = (
        "import os, sys\nbefore = dict(os.environ)\nimport rfviz\n"
        "assert not {'torch', 'numpy', 'ctypes'} & set(sys.modules)\n"
        "from rfviz import receptive_field\n"
        "assert receptive_field.ReceptiveField(7, 2, -3).size == 7\n"
        "for name in rfviz.__all__:\n    assert getattr(rfviz, name) is not None\n"
        "changed = {name for name, value in os.environ.items() if before.get(name) != value}\n"
        "assert not changed & {'OMP_WAIT_POLICY', 'OMP_NUM_THREADS', 'GLIBC_TUNABLES'}, changed\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_what_the_readme_names_is_there_right_after_the_import() -> None:
    names = ("pages.figures.sheet", "images.whitening.of", "images.folders.photographs", "images.data.Evaluation")
    for name in names:
        done = subprocess.run([sys.executable, "-c", f"import rfviz; rfviz.{name}"], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr


def test_public_names() -> None:
    assert {"resnet34", "plainnet34", "load", "receptive_field", "collect", "maximize", "Explorer", "open_run"} <= set(
        rfviz.__all__
    )
    with pytest.raises(AttributeError):
        rfviz.no_such_name  # noqa: B018


def imports(path: Path) -> list[str]:
    """Return what a module imports, in order: names of modules, and ours for the one that torchvision needs."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            shim = node.module == "rfviz" and SHIM in [alias.name for alias in node.names]
            found.append((node.lineno, SHIM if shim else node.module or ""))
        elif isinstance(node, ast.Import):
            found += [(node.lineno, alias.name) for alias in node.names]
    return [name for _, name in sorted(found)]


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_whatever_imports_torchvision_mends_it_first(path: Path) -> None:
    named = imports(path)
    first = next((i for i, name in enumerate(named) if name.partition(".")[0] == "torchvision"), None)
    assert first is None or SHIM in named[:first], f"add `from rfviz import {SHIM}` before torchvision"


ORDER = ("net", "images", "layer", "layers", "channels")


@pytest.mark.parametrize("path", sorted((PACKAGE / "kernels").rglob("*.py")), ids=lambda path: path.stem)
def test_kernels_take_their_arguments_in_one_order(path: Path) -> None:
    """A network, images, a layer of it, channels of that."""
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
            known = [each.arg for each in node.args.args if each.arg in ORDER]
            assert known == sorted(known, key=ORDER.index), f"{node.name} takes {known}"
            assert "net" not in known or node.args.args[0].arg == "net", node.name
