"""Results: functions of a run, each declared once, whose values are computed once and kept.

``@result`` makes a result of a function whose first argument is a `Reader`, such as a run::

    @result
    def sparsest(run: Run, network: str) -> int:
        return int(pooling(run, network).firing_rate.argmin())

Its name is that of the function, its parameters are the arguments, the return type says how it is stored
(`rfviz.storage.codec`). What it depends on is what its body *reads* of the run: fields of the preset, images, weights,
other results. Each read is noted with a hash of its value, and kept with the result. The result is good as long as
every read would give the same and its code has not changed (`rfviz.lab.code`); else it is computed anew.
"""

import contextlib
import inspect
import json
import logging
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property, update_wrapper
from pathlib import Path
from typing import Any, Concatenate, Generic, NamedTuple, ParamSpec, TypeVar, get_type_hints

from safetensors import SafetensorError

from rfviz.errors import RfvizError
from rfviz.lab import code
from rfviz.nets.precision import threads
from rfviz.storage import codec
from rfviz.storage.digests import digest, tensor_digest
from rfviz.storage.files import load_info, load_tensors, save_tensors
from rfviz.storage.lock import locked
from rfviz.training import distributed

P = ParamSpec("P")
T = TypeVar("T")
R = TypeVar("R", bound="Reader")

_log = logging.getLogger(__name__)

RESULTS: dict[str, "Result[Any, ..., Any]"] = {}
"""Every result that was declared, by name.

:meta hide-value:
"""

# What a damaged file may raise.
_UNREADABLE = (OSError, SafetensorError, KeyError, TypeError, ValueError, RecursionError)


class Kept(NamedTuple):
    """A result that is there: its file, and the hash of its content."""

    path: Path
    digest: str


class Frame:
    """A result that is being computed: what it has read so far, and the files it may leave its progress in."""

    def __init__(self, stem: Path):
        self.stem, self.reads = stem, dict[str, str | None]()
        self.scratch: list[Path] = []


class Reader(ABC):
    """What results are functions of.

    Parameters
    ----------
    results : Path
        Folder in which they are kept.
    """

    threads: int | None = None
    """Of a CPU, that results are computed on; None takes as many as there are."""

    def __init__(self, results: Path):
        code.sources()  # as they are now
        self.results = results
        self.values: dict[tuple, Any] = {}
        """Values of results that this process has computed or read, by name and arguments."""
        self.kept: dict[tuple, Kept] = {}
        """Files of results that were found good."""
        self._reading = threading.local()

    @property
    def _frames(self) -> list[Frame | None]:
        """What reads are noted in, innermost last; each thread computes results of its own."""
        if not hasattr(self._reading, "frames"):
            self._reading.frames = []
        return self._reading.frames

    @property
    @abstractmethod
    def identity(self) -> list[Any]:
        """What tells this from others in the same folder, as JSON values."""

    @abstractmethod
    def told(self, kind: str, name: str, *, compute: bool) -> str | None:
        """Return the hash of something of its own that a result can read; see `current`."""

    def note(self, what: str, value: str | None) -> None:
        """Note for the result that is being computed, if any, that it depends on something with this hash."""
        if self._frames and self._frames[-1] is not None:
            self._frames[-1].reads[what] = value

    def read(self, what: str) -> None:
        """Note that the result which is being computed, if any, depends on something; see `current`."""
        if self._frames and self._frames[-1] is not None:
            self.note(what, self.current(what))

    @contextlib.contextmanager
    def reading(self, frame: Frame | None) -> Iterator[None]:
        """Note in `frame` what is read inside the block; with None, to look is not to read."""
        self._frames.append(frame)
        try:
            yield
        finally:
            self._frames.pop()

    def current(self, what: str, *, compute: bool = True) -> str | None:
        """Return the hash that something which a result has read would have now; None where it cannot be told.

        Parameters
        ----------
        what : str
            As `note` got it.
        compute : bool
            Compute a result that is asked for and not there; see `rfviz.lab.result.Result.find`.
        """
        kind, _, name = what.partition(" ")
        if kind == "result":
            called, _, arguments = name.partition(" ")
            if called not in RESULTS:
                return None
            if compute:
                return RESULTS[called].digest(self, json.loads(arguments))
            found = RESULTS[called].find(self, tuple(json.loads(arguments)), compute=False)
            return found and found.digest
        if kind == "code":
            return code.source_digest(name)
        with self.reading(None):
            return self.told(kind, name, compute=compute)

    def unchanged(self, reads: Mapping[str, str | None], *, compute: bool = True) -> bool:
        """Tell whether everything that a result has read is as it was; what is told at once goes first."""
        ordered = sorted(reads, key=lambda what: (what.startswith("result"), what.startswith(("network", "whitening"))))
        return all(self.current(what, compute=compute) == reads[what] for what in ordered)

    def scratch(self) -> Path:
        """Return where the result that is being computed may keep its progress; removed when it is there.

        The name stands for what was read so far: with other images or weights, it is another file.
        """
        frame = self._frames[-1]
        assert frame is not None
        frame.scratch.append(frame.stem.with_name(f"{frame.stem.name}-{digest(frame.reads)[:8]}.checkpoint"))
        return frame.scratch[-1]


class Result(Generic[R, P, T]):
    """A function of a run whose values are kept; see `result`."""

    def __init__(self, function: Callable[Concatenate[R, P], T], together: bool):
        update_wrapper(self, function)
        self.function, self.together, self.name = function, together, function.__name__
        self.signature = inspect.signature(function)
        RESULTS[self.name] = self

    @cached_property
    def code(self) -> str:
        """Hash of what the function does."""
        return code.function_digest(self.function, Result)

    @cached_property
    def hint(self) -> Any:
        """Type of the value."""
        return get_type_hints(self.function)["return"]

    def __call__(self, run: R, *args: P.args, **kwargs: P.kwargs) -> T:
        """Return the value: from its file if there is a good one, else computed and written."""
        arguments = self.arguments(run, *args, **kwargs)
        if (self.name, *arguments) not in run.values:
            run.values[self.name, *arguments] = self._value(run, arguments)
        run.note(f"result {self.name} {json.dumps(arguments)}", self.digest(run, arguments))
        return run.values[self.name, *arguments]

    def path(self, run: R, *args: P.args, **kwargs: P.kwargs) -> Path:
        """Return the file of a value, computed if need be."""
        return self._obtain(run, self.arguments(run, *args, **kwargs)).path

    def digest(self, run: R, arguments: Sequence[Any]) -> str:
        """Return the hash of a value, computed if need be."""
        return self._obtain(run, tuple(arguments)).digest

    def arguments(self, run: R, *args: P.args, **kwargs: P.kwargs) -> tuple[Any, ...]:
        """Return the arguments of a call in order, defaults included."""
        bound = self.signature.bind(run, *args, **kwargs)
        bound.apply_defaults()
        return tuple(bound.arguments.values())[1:]

    def find(self, run: R, arguments: tuple[Any, ...], *, compute: bool = True) -> Kept | None:
        """Return the result if there is a good one.

        Parameters
        ----------
        run : Run
        arguments : tuple
        compute : bool
            Compute other results that this one has read, if need be, to tell whether they are the same; else a result
            that would have to be computed is not the same.
        """
        if (self.name, *arguments) in run.kept:
            return run.kept[self.name, *arguments]
        for path in sorted(run.results.glob(f"{_stem(self.name, arguments)}-{'?' * 8}-{'?' * 8}.safetensors")):
            try:
                info = load_info(path)
                described = info["name"], tuple(info["arguments"]), info["code"]
                reads, content = dict(info["reads"]), str(info["content"])
            except _UNREADABLE:
                _damaged(path)
                continue
            if described == (self.name, arguments, self.code) and run.unchanged(reads, compute=compute):
                return Kept(path, content)
        return None

    def _value(self, run: R, arguments: tuple[Any, ...]) -> T:
        kept = self._obtain(run, arguments)
        if (self.name, *arguments) in run.values:  # it has just been computed
            return run.values[self.name, *arguments]
        try:
            tensors, info = load_tensors(kept.path, ours=True)
            return codec.decode(self.hint, tensors, info["values"])
        except _UNREADABLE:
            _damaged(kept.path)
            kept.path.unlink(missing_ok=True)
            del run.kept[self.name, *arguments]
            return self._value(run, arguments)

    def _obtain(self, run: R, arguments: tuple[Any, ...]) -> Kept:
        """Find the result or compute it; several processes (`rfviz.training.distributed`) do so together."""
        first = not self.together or distributed.world()[0] == 0

        def there() -> bool:
            found = first and self.find(run, arguments) is not None
            return distributed.first_says(found) if self.together else found

        if not there():
            key = digest([run.identity, self.code])[:8]
            stem = run.results / f"{_stem(self.name, arguments)}-{key}"
            with locked(run.results, stem.name) if first else contextlib.nullcontext():
                if not there():  # else another process made it meanwhile
                    self._compute(run, arguments, stem, write=first)
        if self.together:
            distributed.barrier()
        found = self.find(run, arguments)
        if found is None:
            raise RfvizError(f"{self.name} was computed by another process but cannot be read in {run.results}.")
        run.kept[self.name, *arguments] = found
        return found

    def _compute(self, run: R, arguments: tuple[Any, ...], stem: Path, write: bool) -> None:
        frame = Frame(stem)
        with run.reading(frame), threads(run.threads):
            value = self.function(run, *arguments)  # type: ignore[call-arg]
        tensors, values = codec.encode(value)
        if not write:
            return
        values = json.loads(json.dumps(values))
        info = {
            "name": self.name, "arguments": list(arguments), "code": self.code, "reads": frame.reads,
            "content": digest([tensor_digest(tensors), values]), "values": values,
        }  # fmt: skip
        path = stem.with_name(f"{stem.name}-{digest(frame.reads)[:8]}.safetensors")
        save_tensors(tensors, path, info)
        # the same types whether computed or read
        run.values[self.name, *arguments] = codec.decode(self.hint, tensors, values)
        run.kept[self.name, *arguments] = Kept(path, info["content"])
        for scratch in frame.scratch:
            for file in scratch.parent.glob(f"{scratch.name}*"):
                file.unlink(missing_ok=True)


def result(function: Callable[Concatenate[R, P], T]) -> Result[R, P, T]:
    """Make a result of a function of a run; the module's docstring says how it is kept."""
    return Result(function, together=False)


def result_of_all_processes(function: Callable[Concatenate[R, P], T]) -> Result[R, P, T]:
    """Make a result that all processes which `torchrun` started compute together; the first writes it."""
    return Result(function, together=True)


def _damaged(path: Path) -> None:
    if path.exists():
        _log.warning("rfviz: %s is damaged or was changed: it is computed anew.", path)


def _stem(name: str, arguments: Sequence[Any]) -> str:
    """Return what a person reads in the folder of results, such as ``hues-resnet34-maxpool-random-weights-0``."""
    parts = [f"{each:g}" if isinstance(each, float) else str(each) for each in arguments if each is not None]
    stem = "-".join([name.replace("_", "-"), *parts]).replace(" ", "-")
    if Path(stem).name != stem:
        raise RfvizError(f"{stem!r} cannot be the name of a result: it must not lead to another folder.")
    return stem
