"""Tuning of neurons for orientation, spatial frequency and colour, measured with drifting gratings.

The gratings fill the receptive field of one neuron and no more, and only what that neuron depends on is computed
(`rfviz.nets.cone`). All channels of a layer are measured at once. A response is the value after the ReLU.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from rfviz.errors import RfvizError
from rfviz.images.whitening import NONE, Whitening
from rfviz.kernels.tuning import opponent
from rfviz.kernels.tuning.gratings import Gratings, for_field
from rfviz.nets import receptive_field
from rfviz.nets.cone import Cone
from rfviz.nets.precision import exact

AT_ONCE = 256
"""Images that go through the network together: changes the speed, and results by rounding only."""


@dataclass(frozen=True)
class Tuning:
    """Responses of C channels to drifting gratings.

    Parameters
    ----------
    gratings : Gratings
        O orientations, F frequencies, P phases.
    responses : Tensor of float64, shape (C, O, F, P)
    blank : Tensor of float64, shape (C,)
        Response to the grey background alone.
    """

    gratings: Gratings
    responses: Tensor
    blank: Tensor

    @property
    def f0(self) -> Tensor:
        """Mean over the phases minus the response to the background, `(C, O, F)`."""
        return self.responses.mean(-1) - self.blank[:, None, None]

    @property
    def f1(self) -> Tensor:
        """Amplitude of the modulation at the drift's own frequency, `(C, O, F)`."""
        phases = torch.tensor(self.gratings.phases, dtype=torch.float64)
        turning = torch.polar(torch.ones_like(phases), -phases)
        return 2 * (self.responses * turning).mean(-1).abs()

    @property
    def strength(self) -> Tensor:
        """The larger of F0 and F1, `(C, O, F)`, at least 0: what tuning curves show of simple and complex cells."""
        return torch.maximum(self.f0, self.f1).clamp(min=0)

    @property
    def best(self) -> tuple[Tensor, Tensor]:
        """Index of the orientation and of the frequency, each `(C,)`, to which a channel responds most strongly."""
        strongest = self.strength.flatten(1).argmax(1)
        frequencies = self.strength.shape[2]
        return strongest // frequencies, strongest % frequencies

    @property
    def orientation_curve(self) -> Tensor:
        """Strength by orientation at the best frequency, `(C, O)`."""
        _, frequency = self.best
        return self.strength[torch.arange(len(frequency)), :, frequency]

    @property
    def frequency_curve(self) -> Tensor:
        """Strength by frequency at the best orientation, `(C, F)`."""
        orientation, _ = self.best
        return self.strength[torch.arange(len(orientation)), orientation]

    @property
    def responds(self) -> Tensor:
        """Whether a channel responds to any grating more than to the background or in step with it, bool `(C,)`."""
        return self.strength.amax((1, 2)) > 1e-6 * (1 + self.blank.abs())

    @property
    def preferred_orientation(self) -> Tensor:
        """Degrees in [0, 180), the direction of the vector sum of the curve, `(C,)`; NaN where nothing responds."""
        angle = torch.rad2deg(self._vector.angle()) / 2 % 180
        return torch.where(self.responds, angle, torch.nan)

    @property
    def circular_variance(self) -> Tensor:
        """``1 - |sum r exp(2i theta)| / sum r`` of the curve, `(C,)`: 0 for one orientation only, 1 for all alike.

        After Ringach, Shapley and Hawken (2002).
        """
        curve = self.orientation_curve
        return torch.where(self.responds, 1 - self._vector.abs() / curve.sum(1), torch.nan)

    @property
    def selectivity(self) -> Tensor:
        """Orientation selectivity index, (preferred - orthogonal) / (preferred + orthogonal), `(C,)`.

        The orthogonal response is interpolated where no grating is exactly orthogonal to the best one.
        """
        curve = self.orientation_curve
        count = curve.shape[1]
        best = curve.argmax(1)
        rows = torch.arange(len(curve))
        across = (curve[rows, (best + count // 2) % count] + curve[rows, (best + (count + 1) // 2) % count]) / 2
        most = curve[rows, best]
        return torch.where(self.responds, (most - across) / (most + across), torch.nan)

    @property
    def preferred_frequency(self) -> Tensor:
        """Cycles/px, `(C,)`: the peak of a parabola through the best frequency and its neighbours, on a log axis.

        The frequencies must be in equal ratios, as `rfviz.kernels.tuning.gratings.for_field` has them.
        """
        curve = self.frequency_curve
        logarithm = torch.tensor(self.gratings.frequencies, dtype=torch.float64).clamp(min=1e-9).log()
        last = curve.shape[1] - 1
        best = curve.argmax(1)
        inner = best.clamp(1, max(1, last - 1))
        rows = torch.arange(len(curve))
        if last < 2:
            shift = torch.zeros(len(curve), dtype=torch.float64)
        else:
            before, at, after = (curve[rows, inner + i] for i in (-1, 0, 1))
            bend = before - 2 * at + after
            shift = torch.where(bend < 0, 0.5 * (before - after) / bend, 0.0).clamp(-1, 1)
            shift = torch.where(inner == best, shift, 0.0)
        step = (logarithm[-1] - logarithm[0]) / max(1, last)
        return torch.where(self.responds, (logarithm[best] + shift * step).exp(), torch.nan)

    @property
    def modulation(self) -> Tensor:
        """F1 / F0 at the best grating, `(C,)`: above 1 for simple, below for complex cells (Skottun et al., 1991)."""
        orientation, frequency = self.best
        rows = torch.arange(len(orientation))
        f0, f1 = self.f0[rows, orientation, frequency], self.f1[rows, orientation, frequency]
        return torch.where(self.responds & (f0 > 0), f1 / f0, torch.where(self.responds, torch.inf, torch.nan))

    @property
    def _vector(self) -> Tensor:
        angle = 2 * torch.deg2rad(torch.tensor(self.gratings.orientations, dtype=torch.float64))
        return (self.orientation_curve * torch.polar(torch.ones_like(angle), angle)).sum(1)


def measure(
    net: nn.Module,
    layer: str,
    gratings: Gratings | None = None,
    *,
    axis: str | Tensor = "luminance",
    contrast: float = 1.0,
    preprocess: Whitening = NONE,
) -> Tuning:
    """Show drifting gratings to the neuron of every channel of a layer.

    Parameters
    ----------
    net : nn.Module
        Any network that `torch.fx` can trace; it is run in evaluation mode.
    layer : str
        Name as in `rfviz.nets.graph`.
    gratings : Gratings, optional
        Those that `rfviz.kernels.tuning.gratings.for_field` gives for the layer's receptive field by default.
    axis : {"luminance", "L-M", "S"} or Tensor, shape (3,)
        The colours that the bars alternate between: an axis of `rfviz.kernels.tuning.opponent`, or any direction in
        linear RGB.
    contrast : float
        Share of what a screen can show along the axis.
    preprocess : Whitening
        Applied to the images just before the network.

    Raises
    ------
    RfvizError
        If the layer or the axis is unknown, or the gratings are not of the size of the receptive field.
    """
    return measure_along(net, layer, [axis], gratings, contrast=contrast, preprocess=preprocess)[0]


def measure_along(
    net: nn.Module,
    layer: str,
    axes: Sequence[str | Tensor],
    gratings: Gratings | None = None,
    *,
    contrast: float = 1.0,
    preprocess: Whitening = NONE,
) -> list[Tuning]:
    """Do for several axes what `measure` does for one, and give their tunings in order."""
    field = receptive_field.of(net, layer)
    gratings = gratings or for_field(field.size)
    if gratings.size != field.size:
        raise RfvizError(
            f"gratings of {gratings.size} px do not fit the receptive field of {layer!r}, which is {field.size} px."
        )
    parameter = next(net.parameters())
    forward = Cone(net, layer)
    colours = [opponent.direction(axis) if isinstance(axis, str) else axis for axis in axes]

    def respond(images: Tensor) -> Tensor:
        """Return the responses `(N, C)`."""
        return torch.cat(
            [forward(preprocess(part.to(parameter)))[:, :, 0, 0].double().cpu() for part in images.split(AT_ONCE)]
        )

    with torch.inference_mode(), exact(parameter.device):
        blank = respond(opponent.coloured(torch.zeros(1, field.size, field.size), colours[0]))[0]
        by_orientation = [
            [respond(opponent.coloured(part, colour, contrast)) for colour in colours] for part in gratings.patterns()
        ]
    _, frequencies, phases = gratings.shape
    found = []
    for along in zip(*by_orientation, strict=True):
        responses = torch.stack(along).unflatten(1, (frequencies, phases)).permute(3, 0, 1, 2)
        found.append(Tuning(gratings, responses.clone().contiguous(), blank.clone()))
    return found


LOW_PASS = 0.5
"""A colour neuron whose response to the lowest frequency is at least this share of its largest is low-pass."""

CHROMATIC = 0.5
"""A neuron is chromatic if gratings of equal luminance drive it at least this much as strongly as grey ones."""


@dataclass(frozen=True)
class ColourTuning:
    """Responses of C channels to gratings along the three axes.

    Parameters
    ----------
    along : dict from axis to Tuning
        For each of `rfviz.kernels.tuning.opponent.AXES`.
    """

    along: dict[str, Tuning]

    @property
    def sensitivity(self) -> Tensor:
        """The largest response to a grating of equal luminance over that to a grey one, `(C,)`; inf without the latter.

        Johnson, Hawken and Shapley (2001) call cells with less than 0.5 luminance-preferring.
        """
        chromatic = torch.maximum(*(self.along[axis].strength.amax((1, 2)) for axis in ("L-M", "S")))
        grey = self.along["luminance"].strength.amax((1, 2))
        responds = torch.stack([tuning.responds for tuning in self.along.values()]).any(0)
        ratio = torch.where(grey > 0, chromatic / grey, torch.inf)
        return torch.where(responds, ratio, torch.nan)

    @property
    def low_pass(self) -> Tensor:
        """Response to the lowest frequency of the better colour axis over the largest, `(C,)`."""
        shares, strongest = [], []
        for axis in ("L-M", "S"):
            curve = self.along[axis].frequency_curve
            largest = curve.amax(1)
            strongest.append(largest)
            shares.append(torch.where(largest > 0, curve[:, 0] / largest, torch.nan))
        return torch.where(strongest[0] >= strongest[1], shares[0], shares[1])

    @property
    def classes(self) -> list[str]:
        """Say of every channel ``"achromatic"``, ``"single-opponent"``, ``"double-opponent"`` or ``"silent"``.

        A chromatic neuron is single-opponent if it responds to uniform colour nearly as well as to stripes, and
        double-opponent if stripes of opposite colours must meet in its field (Shapley and Hawken, 2011).
        """
        named = []
        for sensitivity, share in zip(self.sensitivity.tolist(), self.low_pass.tolist(), strict=True):
            if math.isnan(sensitivity):
                named.append("silent")
            elif sensitivity < CHROMATIC:
                named.append("achromatic")
            else:
                named.append("single-opponent" if share >= LOW_PASS else "double-opponent")
        return named


def measure_colour(net: nn.Module, layer: str, *, preprocess: Whitening = NONE, frequencies: int = 6) -> ColourTuning:
    """Show gratings of equal luminance and grey ones to every channel of a layer, uniform fields among them.

    Parameters
    ----------
    net, layer, preprocess
        As for `measure`.
    frequencies : int
        How many, besides 0.
    """
    size = receptive_field.of(net, layer).size
    scaled = for_field(size, orientations=6, frequencies=frequencies)
    gratings = Gratings(size, scaled.orientations, (0.0, *scaled.frequencies), scaled.phases)
    along = measure_along(net, layer, list(opponent.AXES), gratings, preprocess=preprocess)
    return ColourTuning(dict(zip(opponent.AXES, along, strict=True)))
