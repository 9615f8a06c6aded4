"""Whatever results are computed of: what they read of it is noted, and kept with them."""

import contextlib
import json
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rfviz.lab import code
from rfviz.lab.result import RESULTS, Frame, Kept
from rfviz.storage.digests import digest


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
