"""Tuning of neurons for orientation and spatial frequency, measured with drifting gratings.

The gratings fill the receptive field of one neuron and no more, and only what that neuron depends on is computed
(`rfviz.nets.cone`). All channels of a layer are measured at once. A response is the value after the ReLU.
"""

import dataclasses
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from rfviz.errors import RfvizError
from rfviz.images.whitening import NONE, Whitening
from rfviz.kernels.responses import normalizing
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

    def half(self, which: int) -> "Tuning":
        """Return the tuning for every second phase of the drift only, from the first (0) or from the second (1) on."""
        gratings = dataclasses.replace(self.gratings, phases=self.gratings.phases[which::2])
        return Tuning(gratings, self.responses[..., which::2], self.blank)

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
    def vectors(self) -> Tensor:
        """``sum r exp(2i theta) / sum r`` over orientations theta, complex `(C, F)`; NaN where all r are 0."""
        angle = 2 * torch.deg2rad(torch.tensor(self.gratings.orientations, dtype=torch.float64))
        total = self.strength.sum(1)
        vectors = (self.strength * torch.polar(torch.ones_like(angle), angle)[:, None]).sum(1)
        return vectors / total  # 0 / 0 is NaN

    @property
    def selectivities(self) -> Tensor:
        """Orientation selectivity at every frequency, `(C, F)` in [0, 1]: 1 minus the circular variance.

        1 for a neuron that responds to one orientation only, 0 for one that responds to all alike (Ringach, Shapley and
        Hawken, 2002). Unlike the ratio of the best orientation and the one across it, which is 1 for any neuron that a
        threshold keeps silent across, it takes all orientations (Mazurek, Kager and Van Hooser, 2014).
        """
        return self.vectors.abs()

    @property
    def selectivity(self) -> Tensor:
        """That at the best frequency, `(C,)`; NaN where nothing responds."""
        return torch.where(self.responds, self._at_best(self.selectivities), torch.nan)

    @property
    def preferred_orientation(self) -> Tensor:
        """Degrees in [0, 180), the direction of the vector sum at the best frequency, `(C,)`; NaN for no response."""
        angle = torch.rad2deg(self._at_best(self.vectors).angle()) / 2 % 180
        return torch.where(self.responds, angle, torch.nan)

    @property
    def reliability(self) -> Tensor:
        """Degrees, `(C,)` in [0, 90], between the orientations that the two halves of the drift prefer.

        Each at the best frequency of the whole; NaN where nothing responds.
        """
        first, second = (torch.rad2deg(self._at_best(self.half(which).vectors).angle()) / 2 for which in (0, 1))
        apart = (first - second).abs() % 180
        return torch.where(self.responds, torch.minimum(apart, 180 - apart), torch.nan)

    def _at_best(self, by_frequency: Tensor) -> Tensor:
        _, frequency = self.best
        return by_frequency[torch.arange(len(frequency)), frequency]

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


def measure(
    net: nn.Module,
    layer: str,
    gratings: Gratings | None = None,
    *,
    axis: str | Tensor = "luminance",
    contrast: float = 1.0,
    preprocess: Any = None,
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
    preprocess : Whitening, transform, str or pair, optional
        As for `rfviz.kernels.responses.collect`.

    Raises
    ------
    RfvizError
        If the layer or the axis is unknown, or the gratings are not of the size of the receptive field.
    """
    field = receptive_field.of(net, layer)
    gratings = gratings or for_field(field.size)
    if gratings.size != field.size:
        raise RfvizError(
            f"gratings of {gratings.size} px do not fit the receptive field of {layer!r}, which is {field.size} px."
        )
    colour = opponent.direction(axis) if isinstance(axis, str) else axis
    respond = Neuron(net, layer, normalizing(net, preprocess))
    blank = respond(opponent.coloured(torch.zeros(1, field.size, field.size), colour))[0]
    shown = [respond(opponent.coloured(part, colour, contrast)) for part in gratings.patterns()]
    _, frequencies, phases = gratings.shape
    responses = torch.stack(shown).unflatten(1, (frequencies, phases)).permute(3, 0, 1, 2)
    return Tuning(gratings, responses.clone().contiguous(), blank.clone())


class Neuron:
    """The neuron of every channel of a layer, which takes pictures of its receptive field.

    Calling it with sRGB in [0, 1], `(N, 3, R, R)`, gives float64 `(N, C)`: the responses, or the values before the
    layer's last ReLU.
    """

    def __init__(self, net: nn.Module, layer: str, preprocess: Whitening = NONE, *, before_relu: bool = False):
        self.forward, self.preprocess = Cone(net, layer, before_relu=before_relu), preprocess
        self.parameter = next(net.parameters())

    def __call__(self, images: Tensor) -> Tensor:
        """Return the responses."""
        with torch.inference_mode(), exact(self.parameter.device):
            found = [
                self.forward(self.preprocess(part.to(self.parameter)))[:, :, 0, 0].double().cpu()
                for part in images.split(AT_ONCE)
            ]
        return torch.cat(found)
