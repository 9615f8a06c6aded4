"""Imports point one way, from room to room, and no room holds more than can be seen at once."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "rfviz"
BELOW = {
    "errors": (), "stats": (), "_torchvision_ops": (),
    "storage": ("errors",),
    "images": ("errors", "storage"),
    "nets": ("errors", "storage", "images"),
    "training": ("errors", "storage", "images", "nets"),
    "kernels": ("errors", "stats", "storage", "images", "nets"),
    "lab": ("errors", "stats", "storage", "images", "nets", "training", "kernels"),
    "pages": ("errors", "stats", "storage", "images", "nets", "training", "kernels", "lab"),
    "explorer": ("errors", "stats", "storage", "images", "nets", "training", "kernels", "lab", "pages"),
    "book": ("errors", "stats", "storage", "images", "nets", "training", "kernels", "lab", "pages", "explorer"),
    "__main__": ("errors", "book"),
    "__init__": (),
}  # fmt: skip
"""What each room, or module outside of the rooms, may import from rfviz besides itself."""

ANYWHERE = {"_torchvision_ops"}  # it must come before torchvision, wherever that is imported
MODULES = sorted(PACKAGE.rglob("*.py"))


def imported(path: Path) -> set[str]:
    """Return what a module imports from rfviz: rooms, and modules outside of them."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module == "rfviz":
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("rfviz."):
            found.add(str(node.module).split(".")[1])
        elif isinstance(node, ast.Import):
            found |= {alias.name.split(".")[1] for alias in node.names if alias.name.startswith("rfviz.")}
    return found


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_imports_point_one_way(path):
    room = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    assert imported(path) - ANYWHERE <= {room, *BELOW[room]}


def test_only_training_knows_of_several_processes():
    """Others ask `rfviz.training.distributed`."""
    for path in MODULES:
        if "training" not in path.parts:
            assert "torch.distributed" not in path.read_text(encoding="utf-8"), path


def test_a_room_can_be_seen_at_once():
    for folder in (path for path in PACKAGE.rglob("*") if path.is_dir() and path.name != "__pycache__"):
        assert len([path for path in folder.glob("*.py") if path.name != "__init__.py"]) <= 14, folder
