"""A result is computed once, and anew when anything that it was made of changes or its file is damaged."""

import importlib
import inspect
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import types
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from rfviz import errors
from rfviz.errors import RfvizError
from rfviz.images import whitening
from rfviz.kernels import inactivity, maximization, responses
from rfviz.lab import store
from rfviz.lab.store import Store, source_digest
from rfviz.storage import lock
from rfviz.storage.files import load_tensors
from rfviz.training import distributed
from rfviz.training import trainer as training

KERNELS = (training, responses, maximization, inactivity, whitening)
PACKAGE = Path(inspect.getfile(store)).parent


class Compute:
    """Gives a result and counts how often."""

    def __init__(self, value: float = 1.0):
        self.value, self.count = value, 0

    def __call__(self):
        self.count += 1
        return {"x": torch.full((3, 2), self.value), "y": torch.arange(4)}, {"note": "hello", "numbers": [0.1, 2]}


def assert_right(result) -> None:
    tensors, values = result
    assert tensors.keys() == {"x", "y"}
    assert torch.equal(tensors["x"], torch.ones(3, 2))
    assert torch.equal(tensors["y"], torch.arange(4))
    assert values == {"note": "hello", "numbers": [0.1, 2]}


def kept(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name != lock.FOLDER)


# -- once, and anew ---------------------------------------------------------------------------------------------------


def test_the_same_is_computed_once(tmp_path):
    compute = Compute()
    for _ in range(3):  # every time a new Store, as in a new process
        assert_right(Store(tmp_path).get("result", errors, {"a": 1, "b": [2.5, None]}, compute))
        assert_right(Store(tmp_path).get("result", errors, {"b": (2.5, None), "a": 1}, compute))
    assert compute.count == 1
    assert len(kept(tmp_path)) == 1


@pytest.mark.parametrize(
    "other",
    [{}, {"a": 2, "b": [1, 2]}, {"a": "1", "b": [1, 2]}, {"a": 1, "b": [2, 1]}, {"a": 1, "b": [1, 2], "c": None}],
)
def test_a_changed_parameter_is_computed_anew(tmp_path, other):
    results, parameters = Store(tmp_path), {"a": 1, "b": [1, 2]}
    first, second = Compute(1.0), Compute(2.0)
    results.get("result", errors, parameters, first)
    tensors, _ = results.get("result", errors, other, second)
    assert torch.equal(tensors["x"], torch.full((3, 2), 2.0))
    assert_right(results.get("result", errors, parameters, first))  # the first is still there
    assert (first.count, second.count) == (1, 1)


def test_another_name_or_module_is_another_result(tmp_path):
    results, compute = Store(tmp_path), Compute()
    for name, module in (("a", errors), ("b", errors), ("a", whitening)):
        results.get(name, module, {}, compute)
    assert compute.count == 3
    assert sorted(name[:2] for name in kept(tmp_path)) == ["a-", "a-", "b-"]


def test_what_is_computed_is_what_will_be_read(tmp_path):
    def compute():
        return {"x": torch.ones(2, 3, requires_grad=True).T}, {"pair": (1, 2), "table": {3: 0.1}}

    now, now_values = Store(tmp_path).get("result", errors, {}, compute)
    later, later_values = Store(tmp_path).get("result", errors, {}, compute)
    assert now_values == later_values == {"pair": [1, 2], "table": {"3": 0.1}}
    assert torch.equal(now["x"], later["x"])
    assert not now["x"].requires_grad and not later["x"].requires_grad


def test_an_error_while_computing_stores_nothing(tmp_path):
    def fails():
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        Store(tmp_path).get("result", errors, {}, fails)
    assert kept(tmp_path) == []
    assert_right(Store(tmp_path).get("result", errors, {}, Compute()))


def test_a_folder_that_cannot_be_made_is_an_error(tmp_path):
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(RfvizError, match="cannot be written"):
        Store(tmp_path / "file" / "results").get("result", errors, {}, Compute())


# -- damage -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def written(tmp_path):
    """A store with one result, its file, and a way to ask for the result again that returns how often it computed."""
    results = Store(tmp_path)
    results.get("result", errors, {"a": 1}, Compute())

    def ask() -> int:
        compute = Compute()
        assert_right(results.get("result", errors, {"a": 1}, compute))
        return compute.count

    assert ask() == 0
    return results.path("result", errors, {"a": 1}), ask


def test_a_truncated_file_is_computed_anew(written):
    path, ask = written
    whole = path.read_bytes()
    for length in (0, 1, 7, 8, 9, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        assert ask() == 1
        assert path.read_bytes() == whole
        assert ask() == 0


def test_no_flipped_byte_gives_a_wrong_result(written):
    path, ask = written
    whole = path.read_bytes()
    recomputed = 0
    for position in range(len(whole)):
        damaged = bytearray(whole)
        damaged[position] ^= 1
        path.write_bytes(damaged)
        recomputed += ask()  # which checks the result
    assert recomputed > len(whole) // 2


@pytest.mark.parametrize("content", [b"", b"not safetensors at all", b"\x80\x04N.", b"\xff" * 100])
def test_garbage_is_computed_anew(written, content):
    path, ask = written
    path.write_bytes(content)
    assert ask() == 1
    assert ask() == 0


def rewrite(path: Path, change) -> None:
    tensors, info = load_tensors(path)
    info = change(tensors, info)
    save_file(tensors, path, metadata=info if isinstance(info, dict) else {"rfviz": info})


def _another_value(tensors, info):
    tensors["x"][1, 1] += 1e-6
    return json.dumps(info)


def _another_type(tensors, info):
    tensors["y"] = tensors["y"].to(torch.int32)
    return json.dumps(info)


def _another_name(tensors, info):
    tensors["z"] = tensors.pop("y")
    return json.dumps(info)


def _other_values(tensors, info):
    return json.dumps({**info, "values": {**info["values"], "numbers": [0.2, 2]}})


def _no_digest(tensors, info):
    return json.dumps({"values": info["values"]})


def _no_values(tensors, info):
    return json.dumps({"digest": info["digest"]})


def _a_list(tensors, info):
    return "[]"


def _no_json(tensors, info):
    return "{"


def _no_metadata(tensors, info):
    return {}


@pytest.mark.parametrize(
    "change",
    [
        _another_value, _another_type, _another_name, _other_values, _no_digest, _no_values, _a_list, _no_json,
        _no_metadata,
    ],
)  # fmt: skip
def test_a_tampered_file_is_computed_anew(written, change):
    path, ask = written
    rewrite(path, change)
    assert ask() == 1
    assert ask() == 0


def test_rewriting_alone_is_no_damage(written):
    """The test above would otherwise prove nothing."""
    path, ask = written
    rewrite(path, lambda tensors, info: json.dumps(info))
    assert ask() == 0


def test_a_killed_writer_leaves_earlier_results(tmp_path):
    script = """
import os, pathlib, signal, sys, torch
from rfviz import errors
from rfviz.storage import files
from rfviz.lab import store
results = store.Store(pathlib.Path(sys.argv[1]))
results.get("old", errors, {}, lambda: ({"x": torch.ones(3)}, {}))
def half(tensors, temporary, metadata):
    complete(tensors, temporary, metadata)
    os.truncate(temporary, temporary.stat().st_size // 2)
    os.kill(os.getpid(), signal.SIGKILL)
complete, files.save_file = files.save_file, half
results.get("new", errors, {}, lambda: ({"x": torch.ones(3)}, {}))
"""
    ended = subprocess.run([sys.executable, "-c", script, str(tmp_path)], cwd=PACKAGE.parent, check=False)
    assert ended.returncode == -signal.SIGKILL
    compute = Compute()
    tensors, _ = Store(tmp_path).get("old", errors, {}, compute)
    assert torch.equal(tensors["x"], torch.ones(3))
    assert compute.count == 0
    assert_right(Store(tmp_path).get("new", errors, {}, compute))
    assert compute.count == 1


# -- what is stored ---------------------------------------------------------------------------------------------------


def test_one_element_of_a_column_can_be_stored(tmp_path):
    """Such a tensor is contiguous although its stride is not 1."""
    column = torch.arange(6.0).view(1, 6)[:, 2]
    column = column.as_strided((1,), (6,), column.storage_offset())
    assert column.stride() == (6,) and column.is_contiguous()
    for _ in range(2):
        tensors, _ = Store(tmp_path).get("result", errors, {}, lambda: ({"x": column}, {}))
        assert torch.equal(tensors["x"], torch.tensor([2.0]))


# -- digests of source ------------------------------------------------------------------------------------------------

SOURCE = '''"""A kernel."""

LIMIT = 3


class Meter:
    """Measures."""

    unit: str = "px"
    """Of length."""

    def read(self, x):
        """Read it."""
        return min(x, LIMIT)  # at most
'''
SAME = {
    "comments": SOURCE.replace("# at most", "# never more") + "# the end\n",
    "docstrings": SOURCE.replace("Measures.", "Takes measurements.")
    .replace("Read it.", "Read.")
    .replace("Of le", "Le"),
    "no docstrings": "\n".join(line for line in SOURCE.splitlines() if '"""' not in line),
    "layout": SOURCE.replace("min(x, LIMIT)", "min(\n            x,\n            LIMIT,\n        )").replace(
        "\n\n\n", "\n"
    ),
    "quotes": SOURCE.replace('"px"', "'px'"),
}
OTHER = {
    "constant": SOURCE.replace("LIMIT = 3", "LIMIT = 4"),
    "default": SOURCE.replace('"px"', '"mm"'),
    "function": SOURCE.replace("min(", "max("),
    "name": SOURCE.replace("def read", "def measure"),
    "addition": SOURCE + "\nMORE = 1\n",
}


@pytest.fixture
def module_digest(tmp_path, monkeypatch):
    """Write a module of a given source and digest it."""
    monkeypatch.syspath_prepend(tmp_path)

    def of(source: str) -> str:
        (tmp_path / "some_kernel.py").write_text(source, encoding="utf-8")
        importlib.invalidate_caches()
        return source_digest.__wrapped__("some_kernel")  # without its cache

    return of


@pytest.mark.parametrize("kind", SAME)
def test_comments_docstrings_and_layout_do_not_count(module_digest, kind):
    assert SAME[kind] != SOURCE
    assert module_digest(SAME[kind]) == module_digest(SOURCE)


@pytest.mark.parametrize("kind", OTHER)
def test_what_code_does_counts(module_digest, kind):
    assert OTHER[kind] != SOURCE
    assert module_digest(OTHER[kind]) != module_digest(SOURCE)


def test_a_changed_source_is_computed_anew(module_digest, tmp_path, monkeypatch):
    monkeypatch.setattr(store, "source_digest", source_digest.__wrapped__)  # as in a new process
    module, compute = types.ModuleType("some_kernel"), Compute()
    counts = []
    for source in (SOURCE, SAME["comments"], OTHER["constant"], SOURCE):
        module_digest(source)
        assert_right(Store(tmp_path / "results").get("result", module, {}, compute))
        counts.append(compute.count)
    assert counts == [1, 1, 2, 2]


@pytest.mark.parametrize(
    "statement",
    ["from rfviz import whitening", "from rfviz.images.whitening import fit", "import rfviz.images.whitening",
     "import rfviz.images.whitening as w", "def later():\n    from rfviz.images.whitening import fit"],
)  # fmt: skip
def test_every_way_to_import_a_module_of_rfviz_is_followed(module_digest, monkeypatch, statement):
    before = module_digest(statement)
    genuine = Path.read_text

    def changed(path, *arguments, **options):
        text = genuine(path, *arguments, **options)
        return text.replace("tiny = 1e-6", "tiny = 1e-5") if path == PACKAGE / "whitening.py" else text

    monkeypatch.setattr(Path, "read_text", changed)
    assert module_digest(statement) != before


def digests_of_kernels() -> dict[str, str]:
    return {each.__name__.removeprefix("rfviz."): source_digest.__wrapped__(each.__name__) for each in KERNELS}


@pytest.fixture
def copied(tmp_path, monkeypatch):
    """A copy of the package that digests are taken of, and the digests of all kernels."""
    package = tmp_path / "rfviz"
    shutil.copytree(PACKAGE, package, ignore=shutil.ignore_patterns("__pycache__"))

    def find_spec(name):
        path = tmp_path.joinpath(*name.split("."))
        for origin in (path.with_suffix(".py"), path / "__init__.py"):
            if origin.exists():
                return types.SimpleNamespace(origin=str(origin))
        return None

    def digests() -> dict[str, str]:
        with monkeypatch.context() as patch:
            patch.setattr(store.importlib.util, "find_spec", find_spec)
            return digests_of_kernels()

    return package, digests


@pytest.mark.parametrize(
    ("changed", "affected", "unaffected"),
    [
        ("errors", "training responses maximization inactivity whitening", ""),  # imported by all
        ("whitening", "training responses inactivity whitening", "maximization"),
        ("receptive_field", "training responses maximization inactivity", "whitening"),  # training through models
        ("responses", "responses inactivity", "training maximization whitening"),
        ("patch_sums", "responses inactivity", "training maximization whitening"),
        ("cone", "maximization", "training responses inactivity whitening"),
        ("data", "training", "whitening"),
        ("training", "training", "responses maximization inactivity whitening"),
        ("inactivity", "inactivity", "training responses maximization whitening"),
        ("maximization", "maximization", "training responses inactivity whitening"),
        *((name, "", "training responses maximization inactivity whitening") for name in ("presets", "store", "runs")),
    ],
)
def test_a_changed_module_counts_for_those_that_import_it(copied, changed, affected, unaffected):
    package, digests = copied
    before = digests()
    with (package / f"{changed}.py").open("a", encoding="utf-8") as file:
        file.write("\nONE_MORE = 1\n")
    after = digests()
    changes = {name for name in before if before[name] != after[name]}
    assert changes >= set(affected.split())
    assert changes.isdisjoint(unaffected.split())


def test_comments_in_the_package_do_not_count(copied):
    package, digests = copied
    before = digests()
    assert before == digests_of_kernels()  # of the original
    for path in package.glob("*.py"):
        with path.open("a", encoding="utf-8") as file:
            file.write("\n# a remark\n")
    assert digests() == before


def test_the_place_of_the_package_does_not_count(tmp_path):
    """A copy elsewhere, in a process of its own, has the same digests, and others once it differs."""
    package = tmp_path / "rfviz"
    shutil.copytree(PACKAGE, package, ignore=shutil.ignore_patterns("__pycache__"))
    graph = package / "graph.py"
    graph.write_text(graph.read_text(encoding="utf-8") + "\nONE_MORE = 1\n", encoding="utf-8")
    script = (
        "import json, rfviz.lab.store as s; "
        "print(json.dumps([s.__file__, s.source_digest('rfviz.images.whitening'), s.source_digest('rfviz.kernels.responses')]))"
    )
    path = os.pathsep.join([str(tmp_path), *sys.path])
    done = subprocess.run(
        [sys.executable, "-c", script], env={**os.environ, "PYTHONPATH": path}, cwd=tmp_path, check=True,
        capture_output=True, text=True,
    )  # fmt: skip
    file, of_whitening, of_responses = json.loads(done.stdout)
    assert Path(file) == package / "store.py"
    assert of_whitening == source_digest.__wrapped__("rfviz.images.whitening")
    assert of_responses != source_digest.__wrapped__("rfviz.kernels.responses")


# -- several processes ------------------------------------------------------------------------------------------------


def in_a_group(rank: int, port: int, folder: str, together: bool) -> None:
    """One of two processes: asks twice for a result, and notes what it did."""
    distributed.dist.init_process_group("gloo", f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    compute = Compute()
    kept = Store(Path(folder, "results"))
    for _ in range(2):
        assert_right(kept.get("result", errors, {"a": 1}, compute, together=together))
    Path(folder, f"computed-{rank}").write_text(str(compute.count))
    distributed.dist.destroy_process_group()


@pytest.mark.parametrize(("together", "computed"), [(False, ["1", "0"]), (True, ["1", "1"])])
@pytest.mark.parametrize("before", ["nothing", "damaged"])
def test_of_several_processes_the_first_computes_and_writes_or_all_compute(tmp_path, together, computed, before):
    if before == "damaged":
        path = Store(tmp_path / "results").path("result", errors, {"a": 1})
        path.parent.mkdir()
        path.write_bytes(b"garbage")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    torch.multiprocessing.spawn(in_a_group, (port, str(tmp_path), together), nprocs=2)
    assert [(tmp_path / f"computed-{rank}").read_text() for rank in (0, 1)] == computed
    assert len(kept(tmp_path / "results")) == 1
    here = Compute()
    assert_right(Store(tmp_path / "results").get("result", errors, {"a": 1}, here))
    assert here.count == 0
