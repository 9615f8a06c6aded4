"""Does a measurement bear a statement out? One rule for all of them."""

from rfviz.intervals import Interval

AGREES, DISAGREES, CANNOT_TELL = "agrees", "disagrees", "cannot tell"


def judge(measured: Interval, expected: int = 1) -> str:
    """Return what an interval says of a statement that expects a positive (or, with -1, a negative) number.

    It agrees if the whole 95 % interval has the expected sign, disagrees if the whole interval has the other, and
    cannot tell if the interval holds 0 or there is none.
    """
    return {1: AGREES, 0: CANNOT_TELL, -1: DISAGREES}[measured.sign * expected]
