"""Sine gratings behind a round window, as physiologists show them to cells: any orientation, frequency, phase, colour.

An orientation is that of the bars, in degrees counterclockwise from the horizontal: 0 has horizontal bars, 90 vertical
ones. Rows of an image count downwards, so the wave runs along ``(sin, cos)`` of the orientation in (x, y).
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from rfviz.errors import RfvizError

EDGE = 0.3
"""Outer share of the window's radius over which contrast falls to 0, as half a cosine does."""

FINEST = 0.4
"""Highest spatial frequency, cycles/px: coarser than the grid of pixels, for every orientation alike."""


@dataclass(frozen=True)
class Gratings:
    """A set of gratings: every orientation at every frequency and phase.

    Parameters
    ----------
    size : int
        Side of the images, px: that of the receptive field.
    orientations : tuple of float
        Degrees in [0, 180).
    frequencies : tuple of float
        Cycles/px.
    phases : tuple of float
        Radians: the steps of a drift.

    Raises
    ------
    RfvizError
        If a value is missing or out of range.
    """

    size: int
    orientations: tuple[float, ...]
    frequencies: tuple[float, ...]
    phases: tuple[float, ...]

    def __post_init__(self) -> None:
        if self.size < 1 or not (self.orientations and self.frequencies and self.phases):
            raise RfvizError(
                "gratings need a size of 1 px or more, and an orientation, a frequency and a phase at least."
            )
        for orientation in self.orientations:
            if not 0 <= orientation < 180:
                raise RfvizError(f"orientation is {orientation:g}: it must be from 0 to below 180 degrees.")
        for frequency in self.frequencies:
            if not 0 <= frequency <= 0.5:
                raise RfvizError(f"frequency is {frequency:g}: it must be from 0 to 0.5 cycles/px.")

    @property
    def shape(self) -> tuple[int, int, int]:
        """(O, F, P): how many orientations, frequencies and phases."""
        return len(self.orientations), len(self.frequencies), len(self.phases)

    def patterns(self) -> Iterator[Tensor]:
        """Give the modulation in [-1, 1] of each orientation in turn, ``(F * P, size, size)``, 0 outside the window.

        At frequency 0 it is uniform and fills the whole field: the window is there so that the corners of the field
        do not favour an orientation, and a uniform field has none.
        """
        centre = (self.size - 1) / 2
        place = torch.arange(self.size, dtype=torch.float64) - centre
        y, x = place[:, None], place[None, :]
        frequency = torch.tensor(self.frequencies, dtype=torch.float64)[:, None, None, None]
        phase = torch.tensor(self.phases, dtype=torch.float64)[None, :, None, None]
        inside = window(self.size)
        for degrees in self.orientations:
            angle = math.radians(degrees)
            along = x * math.sin(angle) + y * math.cos(angle)
            wave = torch.sin(2 * math.pi * frequency * along + phase)
            yield (wave * torch.where(frequency == 0, 1.0, inside)).flatten(0, 1).float()


def window(size: int) -> Tensor:
    """Return the round window `(size, size)`: 1 inside, falling to 0 at the edge of the field."""
    place = torch.arange(size, dtype=torch.float64) - (size - 1) / 2
    distance = torch.hypot(place[:, None], place[None, :]) / (size / 2)
    beyond = ((distance - (1 - EDGE)) / EDGE).clamp(0, 1)
    return 0.5 * (1 + torch.cos(math.pi * beyond))


def for_field(size: int, orientations: int = 12, frequencies: int = 8, phases: int = 8) -> Gratings:
    """Return gratings that are scaled to a receptive field.

    Parameters
    ----------
    size : int
        Side of the field, px.
    orientations, frequencies, phases : int
        How many: orientations evenly over 180 degrees, frequencies in equal ratios from one cycle per field to
        `FINEST`, phases evenly over a cycle.
    """
    lowest = min(1 / size, FINEST)
    ratio = (FINEST / lowest) ** (1 / max(1, frequencies - 1))
    return Gratings(
        size,
        tuple(180 * i / orientations for i in range(orientations)),
        tuple(lowest * ratio**i for i in range(frequencies)),
        tuple(2 * math.pi * i / phases for i in range(phases)),
    )
