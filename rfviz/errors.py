"""The one error that a user of the command line sees as a single line."""

import difflib
import operator
from collections.abc import Iterable, Iterator
from typing import SupportsIndex, TypeVar

Item = TypeVar("Item")


class RfvizError(ValueError):
    """Bad input. The message is one line that names the value, what is wrong with it and the remedy."""


def first_line(error: BaseException) -> str:
    """Return the first line of what an error says, or the name of its type where it says nothing."""
    return next(iter(str(error).splitlines()), type(error).__name__)


def one_line(text: str) -> str:
    """Return a text with escapes in place of what a screen cannot show: names of files may hold anything."""
    return "".join(
        sign if sign.isprintable() else sign.encode("unicode_escape", "surrogatepass").decode() for sign in text
    )


def unknown(kind: str, value: object, choices: Iterable[str]) -> RfvizError:
    """Return the error for a name that is not among `choices`, with the nearest right name first."""
    choices = list(choices)
    near = difflib.get_close_matches(str(value), choices, n=1, cutoff=0.4)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    shown = ", ".join(choices[:20]) + (f" and {len(choices) - 20} more" if len(choices) > 20 else "")
    return RfvizError(f"unknown {kind} {str(value)!r}.{hint} Choose from: {shown}.")


def reraising(items: Iterable[Item]) -> Iterator[Item]:
    """Pass items on that torch's worker processes load, and raise the errors of those processes again.

    Raises
    ------
    RfvizError
        In one line, without the traceback that torch adds to it.
    """
    try:
        yield from items
    except RfvizError as error:
        raise RfvizError(str(error).strip().splitlines()[-1].partition("RfvizError: ")[2] or str(error)) from error


def check_channel(channel: SupportsIndex, channels: int) -> int:
    """Return the number of a channel; raise RfvizError unless it is one of `channels` that count from 0."""
    try:
        truth = isinstance(channel, bool) or "bool" in str(getattr(channel, "dtype", ""))
        number = -1 if truth else operator.index(channel)
    except TypeError:
        number = -1
    if not 0 <= number < channels:
        raise RfvizError(f"there is no channel {channel!r}: this layer has {channels}, numbered 0 to {channels - 1}.")
    return number
