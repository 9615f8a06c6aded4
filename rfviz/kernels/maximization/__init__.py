"""Activation maximization: the input that drives a neuron, found by gradient ascent (eq. 2 of the paper).

    x* = argmax_x  f(theta, x) - lambda * ||x||

The norm of eq. 2 is the paper's notation; what its optimiser does is Adam with weight decay, which adds lambda * x to
the gradient, that is, the gradient of (lambda / 2) * ||x||^2.

Only the receptive field can change, so the ascent runs on the field alone, through the cone of positions that the
neuron depends on (`rfviz.nets.cone`); the pass stops at the layer, the weights are frozen, and all channels go in one
batch, one image each. The result is that of the full image, where the full image holds the field.
"""

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from rfviz.errors import RfvizError, check_channel, first_line, unknown
from rfviz.kernels.maximization.objectives import OBJECTIVES, Objective
from rfviz.kernels.maximization.parametrizations import Fourier, Parametrization, Pixels, faint_noise
from rfviz.kernels.maximization.regularizers import L2, Jitter, Regularizer, TotalVariation
from rfviz.kernels.responses import LayerResponses, normalizing
from rfviz.nets import graph, receptive_field
from rfviz.nets.cone import Cone
from rfviz.nets.graph import ForwardPass
from rfviz.nets.precision import exact

_MEMORY = 2**30  # bytes that the images of one batch may take


@dataclass(frozen=True)
class Maximization:
    """Images that drive C channels.

    Parameters
    ----------
    images : Tensor, shape (C, 3, R, R)
        The receptive field, or the whole canvas where one was asked for, in the network's (whitened) input units.
    activations : Tensor, shape (steps + 1, C)
        The objective before every step, without penalties and as the network saw the image, and after the last one.
    from_noise : Tensor of bool, shape (C,)
        Channels that nothing drives at the start, not even a little: they began from faint noise instead.
    """

    images: Tensor
    activations: Tensor
    from_noise: Tensor


class Setting(NamedTuple):
    """How the ascent goes where nothing else is asked for; see `maximize`."""

    steps: int
    learning_rate: float
    regularizers: Sequence[Regularizer]
    of_pixels: bool


SMOOTHING = 1e-3
"""Weight of the total variation in the clear setting: of 0.0003, 0.001 and 0.003 the largest with which, in each layer
of the figures of the default run, the picture of the median channel drives it as the best photograph does, or more."""

SETTINGS = {
    "paper": Setting(31, 0.1, (L2(1e-6),), of_pixels=True),
    "clear": Setting(128, 0.05, (Jitter(2), TotalVariation(SMOOTHING)), of_pixels=False),
}
"""The paper's, and one for pictures that a screen can show and an eye can read, the same way for all channels: Fourier
coefficients in place of pixels, a total variation that is weighed against the strongest response to any photograph, and
a shift of up to 2 px before every step."""


@contextlib.contextmanager
def _frozen(net: nn.Module) -> Iterator[None]:
    trainable = [parameter for parameter in net.parameters() if parameter.requires_grad]
    for parameter in trainable:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in trainable:
            parameter.requires_grad_(True)


@torch.inference_mode(False)
@torch.enable_grad()
def maximize(
    net: nn.Module,
    layer: str,
    channels: int | Sequence[int] | None = None,
    *,
    setting: str = "paper",
    steps: int | None = None,
    learning_rate: float | None = None,
    objective: str | Objective | None = None,
    regularizers: Sequence[Regularizer] | None = None,
    parametrization: Parametrization | None = None,
    units: Tensor | LayerResponses | None = None,
    preprocess: Any = None,
    canvas: int | None = None,
    batch_size: int | None = None,
    progress: bool = False,
) -> Maximization:
    """Maximise channels of a layer (Fig. 6 of the paper).

    By default the start is zeros: the mean colour, where images are whitened before the network; without a preprocess,
    or with one inside the network, black. Where the gradient vanishes there, as in a network without biases, it is
    faint noise. What is optimised is float32 at least; the network sees it in its own type.

    Parameters
    ----------
    net : nn.Module
        Any network that `torch.fx` can trace; it is run in evaluation mode with frozen weights.
    layer : str
        Name as in `rfviz.nets.graph`.
    channels : int or sequence of int, optional
        All channels by default.
    setting : {"paper", "clear"}
        What steps, learning rate, regularizers and parametrization are where they are not given; see `SETTINGS`.
        ``"clear"`` needs `units` and, where images are normalised before the network, `preprocess`; it paints in RGB.
    steps, learning_rate : int, float, optional
        Of Adam.
    objective : {"before_relu", "response", "channel_mean"} or Objective, optional
        What is maximised: the centre neuron's value before the layer's last ReLU, its response, the mean of the channel
        over a canvas, or anything like those in `rfviz.kernels.maximization.objectives`. By default the first where a
        ReLU ends the layer, else the second.
    regularizers : sequence of Regularizer, optional
        See `rfviz.kernels.maximization.regularizers`.
    parametrization : Parametrization, optional
        What is changed: `rfviz.kernels.maximization.parametrizations.Pixels`, the paper's, or ``Fourier``.
    units : LayerResponses, or Tensor of shape (channels,), optional
        What the activation of each channel is divided by when it is weighed against penalties, so that a penalty means
        the same for all: its strongest response to photographs, of what `rfviz.kernels.responses.collect` found in the
        layer, or numbers above 0.
    preprocess : Whitening, transform, str or pair, optional
        What the network sees of a picture, for the clear setting, as for `rfviz.kernels.responses.collect`.
    canvas : int, optional
        Side of the input in px. By default the input is the receptive field of one neuron, which no padding reaches.
        From layer3.0 of ResNet34 on, the field is larger than the paper's 224 px: there ``canvas=224`` is what the
        paper does, and it differs from the default because padding takes part.
    batch_size : int, optional
        Channels that are optimised together; by default as many as take about 1 GiB of memory. Each image depends on
        nothing but its own channel; but in float32, another number of them may change rounding, which from layer2.0 on
        can send a neuron up another path.
    progress : bool
        Show a progress bar.

    Raises
    ------
    RfvizError
        If the layer, a channel, the objective or the setting is unknown, or an option is impossible.
    """
    if setting not in SETTINGS:
        raise unknown("setting", setting, SETTINGS)
    default = SETTINGS[setting]
    steps = default.steps if steps is None else steps
    learning_rate = default.learning_rate if learning_rate is None else learning_rate
    regularizers = default.regularizers if regularizers is None else regularizers
    if units is None and not default.of_pixels:
        raise RfvizError(
            f"the {setting} setting weighs pictures against responses to photographs: give what collect found in the "
            "layer as units."
        )
    if objective is None:
        objective = objective_of(net, layer)
    if isinstance(objective, str):
        if objective not in OBJECTIVES:
            raise unknown("objective", objective, OBJECTIVES)
        objective = OBJECTIVES[objective]
    if any(value is not None and value < 1 for value in (steps, batch_size, canvas)):
        raise RfvizError(f"steps ({steps}), batch_size ({batch_size}) and canvas ({canvas}) must be at least 1.")
    colours = graph.in_channels(net)
    if parametrization is None and default.of_pixels:
        parametrization = Pixels(colours)
    elif parametrization is None:
        if colours != 3:
            raise RfvizError(
                f"the {setting} setting paints in RGB, but the network takes images of {colours} channel(s): use "
                "setting='paper'."
            )
        parametrization = Fourier(normalizing(net, preprocess))
    forward: ForwardPass
    if canvas is None and objective.one_neuron:
        field = receptive_field.of(net, layer)
        forward = Cone(net, layer, before_relu=objective.before_relu)
        side = field.size
    elif canvas is None:
        raise RfvizError("this objective looks at a whole map: give the side of a canvas, such as canvas=224.")
    else:
        forward, side = ForwardPass(net, [layer], before_relu=objective.before_relu), canvas
    parameter = next(net.parameters())
    try:
        with torch.inference_mode(), exact(parameter.device):
            available = forward(parameter.new_zeros(1, colours, side, side)).shape[1]
    except RfvizError as error:
        if canvas is None or error.__cause__ is None:
            raise
        raise RfvizError(
            f"a canvas of {canvas} px does not go through the network ({first_line(error.__cause__)}): give one of "
            "another size."
        ) from error
    listed = range(available) if channels is None else getattr(channels, "tolist", lambda: channels)()
    chosen = [check_channel(each, available) for each in (listed if isinstance(listed, Iterable) else [listed])]
    if not chosen:
        raise RfvizError("no channels were asked for: name at least one, or leave them out to take all.")
    # Every value is kept for the gradient, which has one of the same size, and the next one is on its way.
    bytes_each = 3 * forward.elements * parameter.element_size()
    at_once = batch_size or max(1, _MEMORY // bytes_each)
    if isinstance(units, LayerResponses):
        if units.channels != available:
            raise RfvizError(
                f"units are responses of {units.channels} channels, but layer {layer!r} has {available}: give what "
                "collect found in this layer."
            )
        best = units.top_values[chosen, 0]
        units = torch.where(best > 0, best, 1.0)
    weights = torch.ones(len(chosen)) if units is None else units
    if len(weights) != len(chosen) or not (weights > 0).all():
        raise RfvizError(f"units has {len(weights)} values for {len(chosen)} channels: give one above 0 for each.")

    found = []
    with (
        _frozen(net),
        exact(parameter.device),
        tqdm(total=len(chosen) * steps, desc="maximization", unit="step", disable=not progress) as bar,
    ):
        for begin in range(0, len(chosen), at_once):
            part = torch.tensor(chosen[begin : begin + at_once], device=parameter.device)
            of_part = weights[begin : begin + at_once].to(parameter.device)
            found.append(
                _ascend(
                    forward, part, side, steps, learning_rate, objective, regularizers, parametrization, of_part, bar
                )
            )
    return Maximization(
        torch.cat([each.images for each in found]), torch.cat([each.activations for each in found], dim=1),
        torch.cat([each.from_noise for each in found]),
    )  # fmt: skip


def objective_of(net: nn.Module, layer: str) -> str:
    """Return what `maximize` maximises of a layer: before its last ReLU, or its response where none ends it."""
    return "before_relu" if graph.is_rectified(net, layer) else "response"


def _ascend(
    forward: ForwardPass,
    channels: Tensor,
    side: int,
    steps: int,
    learning_rate: float,
    objective: Objective,
    regularizers: Sequence[Regularizer],
    parametrization: Parametrization,
    units: Tensor,
    bar: tqdm,
) -> Maximization:
    margin = sum(regularizer.margin for regularizer in regularizers)
    around = side + 2 * margin
    kept_as = torch.promote_types(forward.dtype, torch.float32)  # Adam's squares would vanish, or steps, in 16 bits
    units = units.to(kept_as)
    start = parametrization.start(channels, around, torch.empty((), device=channels.device, dtype=kept_as))
    parameters = start.requires_grad_(True)
    adam = torch.optim.Adam([parameters], lr=learning_rate, fused=parameters.device.type in ("cpu", "cuda"))

    def gradient(step: int) -> tuple[Tensor, Tensor]:
        seen = image = parametrization.images(parameters, around)
        for regularizer in regularizers:
            seen = regularizer.view(seen, channels, step)
        activation = objective(forward(seen), channels).to(kept_as)
        penalty = sum(regularizer.penalty(image).sum() for regularizer in regularizers)
        return activation.detach(), torch.autograd.grad(penalty - (activation / units).sum(), parameters)[0]

    activation, slope = gradient(0)
    unmoved = slope.flatten(1).abs().amax(1) == 0
    if unmoved.any():
        with torch.no_grad():
            shape = tuple(parameters.shape[1:])
            parameters[unmoved] += faint_noise(shape, 0, channels[unmoved], parameters)
        activation, slope = gradient(0)
    curve = []
    for step in range(steps):
        if step:
            activation, slope = gradient(step)
        curve.append(activation)
        parameters.grad = slope
        adam.step()
        bar.update(len(channels))
    with torch.no_grad():
        image = parametrization.images(parameters.detach(), around)
        final = image[:, :, margin : margin + side, margin : margin + side].contiguous()
        curve.append(objective(forward(final), channels).to(kept_as))
    return Maximization(final, torch.stack(curve), unmoved)
