"""Results that are kept under what they were made of.

A result is stored under a key: a hash of its parameters, of the hashes of the weights and data that went in, and of
the source of the code that made it. Ask again with the same, and it is read; change one of them, and it is computed
anew.
"""

import ast
import contextlib
import importlib.util
import json
import logging
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

from safetensors import SafetensorError
from torch import Tensor

from rfviz.errors import RfvizError
from rfviz.storage.digests import digest, tensor_digest
from rfviz.storage.files import load_tensors, save_tensors
from rfviz.storage.lock import alone
from rfviz.training.distributed import barrier, first_says, world

_log = logging.getLogger(__name__)

Result = tuple[dict[str, Tensor], dict[str, Any]]
"""Named tensors, and an object of JSON values."""


@cache
def source_digest(module: str) -> str:
    """Return 16 hex digits that stand for what a module of rfviz and the rfviz modules it imports do.

    Comments, docstrings and layout do not count: the syntax tree does.
    """
    parts, waiting = {}, [module]
    while waiting:
        name = waiting.pop()
        if name in parts:
            continue
        try:
            spec = importlib.util.find_spec(name)
        except ModuleNotFoundError:  # a name that was imported from a module, such as a function, is no module
            continue
        if spec is None or spec.origin is None:
            continue
        parts[name], imported = _summary(Path(spec.origin).read_text(encoding="utf-8"))
        waiting += imported
    return digest(sorted(parts.items()))


@cache  # by what the source says: most modules are part of many digests
def _summary(source: str) -> tuple[str, tuple[str, ...]]:
    """Return the digest of one module's syntax tree, and the names that it imports from rfviz."""
    tree = ast.parse(source)
    return digest(ast.dump(_without_docstrings(tree))), tuple(dict.fromkeys(_imports(tree)))


def _imports(tree: ast.Module) -> list[str]:
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module == "rfviz":
            found += [f"rfviz.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("rfviz."):
            found += [str(node.module), *(f"{node.module}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Import):
            found += [alias.name for alias in node.names if alias.name.startswith("rfviz.")]
    return found


def _without_docstrings(tree: ast.Module) -> ast.Module:
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)):
            node.body = [
                statement
                for statement in node.body
                if not (isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant))
            ]
    return tree


class Store:
    """A folder of results.

    Parameters
    ----------
    folder : Path
        Made when the first result is written.
    """

    def __init__(self, folder: Path):
        self.folder = folder

    def path(self, name: str, module: ModuleType, made_of: Mapping[str, Any]) -> Path:
        """Return the file in which the result of `module` for the parameters `made_of` lives.

        Raises
        ------
        RfvizError
            If the name is one of another folder.
        """
        if Path(name).name != name:
            raise RfvizError(f"{name!r} cannot be the name of a result: it must not lead to another folder.")
        key = digest({"made_of": made_of, "source": source_digest(module.__name__)})
        return self.folder / f"{name}-{key}.safetensors"

    def get(
        self,
        name: str,
        module: ModuleType,
        made_of: Mapping[str, Any],
        compute: Callable[[], Result],
        together: bool = False,
    ) -> Result:
        """Return a result, from its file if there is a good one, else computed and written.

        Parameters
        ----------
        name : str
            What a person reads in the folder.
        module : module
            The kernel whose source is part of the key.
        made_of : mapping
            Everything else the result depends on, as JSON values.
        compute : callable
            Makes the result.
        together : bool
            Where there are several processes (`rfviz.training.distributed`), all of them compute, and share the work in
            `compute`. Otherwise the first one does, and the others wait and read. The first one writes.
        """
        path = self.path(name, module, made_of)
        first = world()[0] == 0
        made_of = json.loads(json.dumps(made_of))
        result = _read(path, made_of) if first else None
        if not first_says(result is not None):
            with alone(self.folder, path.stem) if first else contextlib.nullcontext():
                result = _made_meanwhile(path, made_of) if first else None
                if not first_says(result is not None):
                    if first or together:
                        tensors, values = compute()
                        # the same device and the same types whether computed or read
                        tensors = {name: tensor.detach().cpu() for name, tensor in tensors.items()}
                        result = tensors, json.loads(json.dumps(values))
                    if first and result is not None:
                        made = {"digest": _result_digest(*result), "made_of": made_of, "values": result[1]}
                        save_tensors(result[0], path, made)
            barrier()
        result = result or _read(path, made_of)
        if result is None:
            raise RfvizError(f"{path} was written by another process but cannot be read here.")
        return result


def _read(path: Path, made_of: object) -> Result | None:
    """Return a result that is there, good, and of these parameters; any other is computed anew and written over."""
    try:
        tensors, info = load_tensors(path)
        if info["digest"] == _result_digest(tensors, info["values"]) and info["made_of"] == made_of:
            return tensors, info["values"]
    except (OSError, SafetensorError, KeyError, TypeError, json.JSONDecodeError, RecursionError):
        pass
    return None


def _made_meanwhile(path: Path, made_of: object) -> Result | None:
    """Return what another process has written since; say that a file is bad before it is written over."""
    result = _read(path, made_of)
    if result is None and path.exists():
        _log.warning("rfviz: %s is damaged or was changed: it is computed anew.", path)
    return result


def _result_digest(tensors: Mapping[str, Tensor], values: Any) -> str:
    return digest([tensor_digest(tensors), values])
