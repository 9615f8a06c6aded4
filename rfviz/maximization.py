"""Activation maximization: the input that drives a neuron, found by gradient ascent (eq. 2 of the paper).

    x* = argmax_x  f(theta, x) - lambda * ||x||

The norm of eq. 2 is the paper's notation; what its optimiser does is Adam with weight decay, which adds lambda * x to
the gradient, that is, the gradient of (lambda / 2) * ||x||^2.

Only the receptive field can change, so the ascent runs on an input that just holds it and is aligned to the layer's
stride; the pass stops at the layer, the weights are frozen, and all channels go in one batch, one image each. The
result is that of the full image, where the full image holds the field.
"""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import ceil

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from rfviz import receptive_field
from rfviz.errors import RfvizError, unknown
from rfviz.graph import ForwardPass
from rfviz.receptive_field import ReceptiveField
from rfviz.responses import check_channel

OBJECTIVES = ("before_relu", "response")


@dataclass(frozen=True)
class Maximization:
    """Images that drive the centre neuron of C channels.

    Parameters
    ----------
    images : Tensor, shape (C, 3, R, R)
        The receptive field, or the whole canvas where one was asked for, in the network's (whitened) input units.
    activations : Tensor, shape (steps + 1, C)
        The objective before every step and after the last one.
    """

    images: Tensor
    activations: Tensor


def aligned_input(field: ReceptiveField) -> tuple[int, int]:
    """Return the smallest input that holds a receptive field without any padding reaching the neuron.

    Returns
    -------
    side : int
        Side of the square input in px, a multiple of the stride.
    neuron : int
        Row and column of the neuron whose field lies inside, the first there is.
    """
    neuron = ceil(-field.start / field.stride)
    end = field.stride * neuron + field.start + field.size
    return field.stride * ceil(end / field.stride), neuron


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


def maximize(
    net: nn.Module,
    layer: str,
    channels: Sequence[int] | None = None,
    *,
    steps: int = 31,
    learning_rate: float = 0.1,
    weight_decay: float = 1e-6,
    objective: str = "before_relu",
    canvas: int | None = None,
    batch_size: int = 64,
    progress: bool = False,
) -> Maximization:
    """Maximise the centre neuron of channels of a layer, starting from zeros, the mean colour (Fig. 6 of the paper).

    Parameters
    ----------
    net : nn.Module
        Any network that `torch.fx` can trace; it is run in evaluation mode with frozen weights.
    layer : str
        Name as in `rfviz.graph`.
    channels : sequence of int, optional
        All channels by default.
    steps, learning_rate, weight_decay : int, float, float
        Of Adam; the paper's are the defaults. The weight decay is coupled (part of the gradient).
    objective : {"before_relu", "response"}
        The value before the layer's last ReLU, which the paper calls the neuron's input, or the response itself. A
        channel that is silent on the zero image has no gradient in its response and would never move.
    canvas : int, optional
        Side of the input in px, whose neuron (h // 2, w // 2) is maximised. By default the input just holds the
        receptive field. From layer3.0 of ResNet34 on, the field is larger than the paper's 224 px: there ``canvas=224``
        is what the paper does, and it differs from the default because padding takes part.
    batch_size : int
        Channels that are optimised together. Changes speed and memory, not the result.
    progress : bool
        Show a progress bar.

    Raises
    ------
    RfvizError
        If the layer, a channel or the objective is unknown, or an option is impossible.
    """
    if objective not in OBJECTIVES:
        raise unknown("objective", objective, OBJECTIVES)
    if steps < 1 or batch_size < 1 or (canvas is not None and canvas < 1):
        raise RfvizError(f"steps ({steps}), batch_size ({batch_size}) and canvas ({canvas}) must be at least 1.")
    field = receptive_field.of(net, layer)
    forward = ForwardPass(net, [layer], before_relu=objective == "before_relu")
    parameter = next(net.parameters())
    side, _ = aligned_input(field) if canvas is None else (canvas, 0)
    with torch.inference_mode():
        _, available, height, width = forward(parameter.new_zeros(1, 3, side, side)).shape
    y, x = (aligned_input(field)[1],) * 2 if canvas is None else (height // 2, width // 2)
    chosen = list(range(available)) if channels is None else list(channels)
    if not chosen:
        raise RfvizError("no channels were asked for: name at least one, or leave them out to take all.")
    for channel in chosen:
        check_channel(channel, available)

    images, curves = [], []
    with _frozen(net), tqdm(total=len(chosen) * steps, desc="maximization", unit="step", disable=not progress) as bar:
        for begin in range(0, len(chosen), batch_size):
            part = torch.tensor(chosen[begin : begin + batch_size], device=parameter.device)
            each = torch.arange(len(part), device=parameter.device)
            image = parameter.new_zeros(len(part), 3, side, side).requires_grad_(True)
            adam = torch.optim.Adam([image], lr=learning_rate, weight_decay=weight_decay)
            curve = []
            for step in range(steps + 1):
                activation = forward(image)[each, part, y, x]
                curve.append(activation.detach())
                if step < steps:
                    adam.zero_grad()
                    (-activation.sum()).backward()
                    adam.step()
                    bar.update(len(part))
            final = image.detach()
            images.append(final if canvas is not None else field.crop(final, y, x)[0])
            curves.append(torch.stack(curve))
    return Maximization(torch.cat(images), torch.cat(curves, dim=1))
