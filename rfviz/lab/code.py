"""Hashes that stand for what code does: of a module with the rfviz modules it imports, or of one function.

Comments, docstrings and layout do not count: the syntax tree does. The code is taken as it was when the process began
to work, not as it may be edited while it runs.
"""

import ast
import inspect
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

from rfviz.storage.digests import digest

_PACKAGE = Path(__file__).resolve().parents[1]


@cache
def sources() -> dict[str, str]:
    """Return the text of every module of rfviz, by name, as it was at the first call; later edits do not show."""
    found = {}
    for path in sorted(_PACKAGE.rglob("*.py")):
        parts = path.relative_to(_PACKAGE.parent).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path.read_text(encoding="utf-8")
    return found


@cache
def source_digest(module: str, without: str = "") -> str:
    """Return 16 hex digits that stand for what a module of rfviz and the rfviz modules it imports do.

    Parameters
    ----------
    module : str
        Such as ``"rfviz.kernels.silent"``.
    without : str, optional
        A room, such as ``"rfviz.lab"``, of which nothing counts.
    """
    parts, waiting = {}, [module]
    while waiting:
        name = waiting.pop()
        if without and f"{name}.".startswith(f"{without}."):
            continue
        if name not in parts and name in sources():  # else a function that was imported by name, or no longer there
            parts[name], imported = _summary(name)
            waiting += imported
    return digest(sorted(parts.items()))


@cache  # most modules are part of many digests
def _summary(module: str) -> tuple[str, tuple[str, ...]]:
    """Return the digest of one module's syntax tree, and the names that it imports from rfviz."""
    tree = _tree(module)
    return digest(ast.dump(tree)), tuple(dict.fromkeys(_imports(tree)))


@cache
def _tree(module: str) -> ast.Module:
    tree = ast.parse(sources()[module])
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)):
            node.body = [each for each in node.body if not _is_text(each)]
    return tree


def _is_text(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)


def _imports(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "rfviz":
            yield str(node.module)
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.startswith("rfviz."))


def function_digest(function: Callable, apart: Any, without: str = "") -> str:
    """Return 16 hex digits that stand for a function of rfviz and everything of rfviz that its body names.

    Functions and classes of its own module count with their bodies, constants with their values, other modules as
    `source_digest` has them. Hints of types do not count.

    Parameters
    ----------
    function : callable
    apart : type
        Of what the body names of this type, only the defaults of the arguments count.
    without : str, optional
        As `source_digest` has it.
    """
    home = function.__module__
    defined = {node.name: node for node in _tree(home).body if isinstance(node, (ast.FunctionDef, ast.ClassDef))}
    scope = vars(sys.modules[home])
    parts: dict[str, str] = {}
    waiting = [function.__name__]
    while waiting:
        name = waiting.pop()
        if name in parts:
            continue
        node = defined[name]
        parts[name] = digest([ast.dump(each) for each in _parts(node)])
        for used in sorted(_names(node)):
            value: Any = scope.get(used)
            if isinstance(value, apart):
                parts[used] = repr([each.default for each in inspect.signature(value.function).parameters.values()])
            elif used in defined:
                waiting.append(used)
            elif isinstance(value, ModuleType):
                parts[used] = source_digest(value.__name__, without)
            elif callable(value):
                parts[used] = source_digest(getattr(value, "__module__", None) or "", without)
            elif used in scope:
                parts[used] = repr(value)
    return digest(sorted(parts.items()))


def _parts(node: ast.FunctionDef | ast.ClassDef) -> list[ast.AST]:
    """Return what of a definition does something: its body and the defaults of its arguments."""
    defaults = [*node.args.defaults, *node.args.kw_defaults] if isinstance(node, ast.FunctionDef) else []
    return [*node.body, *(each for each in defaults if each is not None)]


def _names(node: ast.FunctionDef | ast.ClassDef) -> set[str]:
    found = set()
    for part in _parts(node):
        hints = {id(each.annotation) for each in ast.walk(part) if isinstance(each, (ast.AnnAssign, ast.arg))}
        hidden = {id(each) for hint in ast.walk(part) if id(hint) in hints for each in ast.walk(hint)}
        found |= {each.id for each in ast.walk(part) if isinstance(each, ast.Name) and id(each) not in hidden}
    return found
