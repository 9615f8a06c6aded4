"""Pieces of work on all cores at once, each piece on one of them.

torch divides every single operation among its threads and waits for all of them at its end. What is done to feature
maps here is many short operations, and to wake threads takes as long as one of them: two cores are slower than one
that way. So the images are divided once, and each core goes through all operations on its images.
"""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from types import TracebackType
from typing import TypeVar

import torch

_Piece = TypeVar("_Piece")
_Found = TypeVar("_Found")


class Cores:
    """As many threads as torch has in this one, in each of which torch has one; they live inside a ``with`` block.

    Outside of it, and where torch has one thread, everything is done in the thread that asks.
    """

    def __init__(self) -> None:
        self._pool: ThreadPoolExecutor | None = None

    def __enter__(self) -> "Cores":
        number = torch.get_num_threads()
        if number > 1:
            begun = Barrier(number + 1)

            def begin() -> None:
                torch.get_num_threads()  # first, or what is set now would be forgotten when it is asked for
                torch.set_num_threads(1)  # also for threads that are yet to ask: hence the barrier
                begun.wait()

            self._pool = ThreadPoolExecutor(number, initializer=begin)
            try:
                for _ in range(number):
                    self._pool.submit(bool)
                begun.wait()
            except BaseException:
                begun.abort()  # or those that wait there would wait forever
                self.__exit__(None, None, None)
                raise
            finally:
                torch.set_num_threads(number)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
            self._pool = None

    def each(self, work: Callable[[_Piece], _Found], pieces: Iterable[_Piece]) -> list[_Found]:
        """Return what `work` makes of each of the pieces, in their order."""
        pieces = list(pieces)
        if self._pool is None or len(pieces) < 2:
            return [work(piece) for piece in pieces]
        inference = torch.is_inference_mode_enabled()

        def done(piece: _Piece) -> _Found:
            with torch.inference_mode(inference):
                return work(piece)

        return list(self._pool.map(done, pieces))


ALONE = Cores()
"""Everything in the thread that asks."""
