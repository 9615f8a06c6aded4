"""Tuning for hue: which colours of equal luminance drive a neuron, at equal distance from grey.

Gratings alternate between the two ends of an axis through grey in the plane of L-M and S
(`rfviz.kernels.tuning.opponent.hue`): 0 degrees is L-M, 90 degrees S. All axes reach as far, in units of the largest
contrast of L-M and of S, so a neuron's curve says which mixture of the two it follows, after Derrington, Krauskopf and
Lennie (1984).

A neuron that weights places and colours separately, adds up and then rectifies responds as ``abs(cos(angle - best))``,
whatever it prefers: its selectivity is 1/3, but for the curvature of sRGB. More is narrower than linear. Less means
that its best grating changes with the axis, as in random filters, where every place has a colour of its own.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from rfviz.errors import RfvizError
from rfviz.images.whitening import NONE, Whitening
from rfviz.kernels import tuning
from rfviz.kernels.tuning import Tuning, opponent
from rfviz.kernels.tuning.gratings import Gratings, for_field
from rfviz.nets import receptive_field

ORIENTATIONS, FREQUENCIES, PHASES = 4, 3, 4
"""Of the gratings along each axis; frequency 0, a uniform field, comes on top."""

CONTRAST = 0.4
"""Share of what a screen can show. At full contrast, the curvature of sRGB, which is what networks see, would turn the
preferred axis of a filter that is linear in sRGB by up to 29 degrees; like this it is 7 at most."""

LINEAR = 1 / 3
"""Axis selectivity of a linear neuron with one colour axis, rectified: ``abs(cos)`` has this vector sum."""


@dataclass(frozen=True)
class HueTuning:
    """Responses of C channels to gratings along A axes of colour.

    Parameters
    ----------
    gratings : Gratings
        O orientations, F frequencies, P phases: the same along every axis. One of the frequencies is 0.
    angles : tuple of float
        Degrees, evenly over [0, 180).
    responses : Tensor of float64, shape (C, A, O, F, P)
    blank : Tensor of float64, shape (C,)
        Response to the grey background alone.

    Raises
    ------
    RfvizError
        If there is no uniform field among the gratings, or the responses have another shape.
    """

    gratings: Gratings
    angles: tuple[float, ...]
    responses: Tensor
    blank: Tensor

    def __post_init__(self) -> None:
        if 0 not in self.gratings.frequencies:
            raise RfvizError("the gratings of hue tuning have no frequency 0: uniform fields must be among them.")
        expected = (len(self.blank), len(self.angles), *self.gratings.shape)
        if tuple(self.responses.shape) != expected:
            raise RfvizError(f"responses have the shape {tuple(self.responses.shape)}: it must be {expected}.")

    @property
    def along(self) -> list[Tuning]:
        """The tuning along each axis in turn."""
        return [Tuning(self.gratings, each, self.blank) for each in self.responses.unbind(1)]

    @property
    def responds(self) -> Tensor:
        """Whether a channel responds to gratings along any axis, bool `(C,)`; see `Tuning.responds`."""
        return torch.stack([each.responds for each in self.along]).any(0)

    @property
    def axis_curve(self) -> Tensor:
        """The largest response (F0 or F1) over orientations and frequencies, by axis, `(C, A)`, at least 0."""
        return torch.stack([each.strength.amax((1, 2)) for each in self.along], dim=1)

    @property
    def preferred_axis(self) -> Tensor:
        """Degrees in [0, 180), the direction of the vector sum of the curve, `(C,)`; NaN where nothing responds."""
        angle = torch.rad2deg(self._vector.angle()) / 2 % 180
        return torch.where(self.responds, angle, torch.nan)

    @property
    def axis_selectivity(self) -> Tensor:
        """``|sum r exp(2i angle)| / sum r`` of the curve, `(C,)`: 1 for one axis only, 0 for all alike; NaN for none.

        1 minus the circular variance of Ringach, Shapley and Hawken (2002). `LINEAR` is that of a linear neuron.
        """
        return torch.where(self.responds, self._vector.abs() / self.axis_curve.sum(1), torch.nan)

    @property
    def uniform_curve(self) -> Tensor:
        """Response to uniform fields minus that to grey, at least 0, `(C, 2A)`: at `angles`, then 180 degrees further.

        The first half are the fields at the one end of each axis, the second half those at the other.
        """
        fields = self.responses[:, :, 0, self.gratings.frequencies.index(0)]
        size = [math.sin(phase) for phase in self.gratings.phases]
        ends = [fields[..., size.index(most)] for most in (max(size), min(size))]
        return (torch.cat(ends, dim=1) - self.blank[:, None]).clamp(min=0)

    @property
    def preferred_hue(self) -> Tensor:
        """Degrees in [0, 360), the direction of the vector sum over uniform fields, `(C,)`; NaN where none counts."""
        curve = self.uniform_curve
        angle = torch.deg2rad(torch.tensor([*self.angles, *(each + 180 for each in self.angles)], dtype=torch.float64))
        vector = (curve * torch.polar(torch.ones_like(angle), angle)).sum(1)
        driven = curve.amax(1) > 1e-6 * (1 + self.blank.abs())
        return torch.where(driven, torch.rad2deg(vector.angle()) % 360, torch.nan)

    @property
    def _vector(self) -> Tensor:
        angle = 2 * torch.deg2rad(torch.tensor(self.angles, dtype=torch.float64))
        return (self.axis_curve * torch.polar(torch.ones_like(angle), angle)).sum(1)


def measure(net: nn.Module, layer: str, *, preprocess: Whitening = NONE, angles: int = 12) -> HueTuning:
    """Show gratings along several axes of equal luminance to the neuron of every channel of a layer.

    Parameters
    ----------
    net, layer, preprocess
        As for `rfviz.kernels.tuning.measure`.
    angles : int
        How many axes, evenly over 180 degrees.

    Raises
    ------
    RfvizError
        If there are fewer than 3 axes, or the layer is unknown.
    """
    if angles < 3:
        raise RfvizError(f"angles is {angles}: to find a preferred axis takes 3 or more.")
    size = receptive_field.of(net, layer).size
    scaled = for_field(size, ORIENTATIONS, FREQUENCIES, PHASES)
    gratings = Gratings(size, scaled.orientations, (0.0, *scaled.frequencies), scaled.phases)
    degrees = tuple(180 * i / angles for i in range(angles))
    axes = [opponent.hue(angle) for angle in degrees]
    along = tuning.measure_along(net, layer, axes, gratings, contrast=CONTRAST, preprocess=preprocess)
    return HueTuning(gratings, degrees, torch.stack([each.responses for each in along], dim=1), along[0].blank)
