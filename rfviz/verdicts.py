"""Does a measurement bear a statement out? One rule for all of them."""

import math

from rfviz.intervals import Interval

AGREES, DISAGREES, CANNOT_TELL = "agrees", "disagrees", "cannot tell"


def because(measured: Interval, null: str = "0") -> str:
    """Say why the verdict on an interval, taken against a null, is what it is."""
    if math.isnan(measured.low):
        return "there is no interval"
    return f"the interval holds {null}" if measured.sign == 0 else f"the whole interval lies on one side of {null}"


def judge(measured: Interval, expected: int = 1) -> str:
    """Return what an interval says of a statement that expects a positive (or, with -1, a negative) number.

    It agrees if the whole 95 % interval has the expected sign, disagrees if the whole interval has the other, and
    cannot tell if the interval holds 0 or there is none.
    """
    return {1: AGREES, 0: CANNOT_TELL, -1: DISAGREES}[measured.sign * expected]
