"""Receptive fields: which pixels a neuron sees, by composing the geometry of the layers before it.

Along one axis, neuron ``y`` of a layer sees the half-open range of input rows ::

        start        0                                           H
          |          |                                           |
          v          v                image rows                 v
          . . . . . .+-------------------------------------------+
          [--- neuron 0: size ---)
              [--- neuron 1 ---------)
          <-->
          stride

that is ``[stride * y + start, stride * y + start + size)``. `start` is negative where padding lets the first neurons
look past the border. A layer with kernel `k`, stride `s`, padding `p` and dilation `d` on top of a layer with field
``(size, stride, start)`` has ``(size + d * (k - 1) * stride, s * stride, start - p * stride)``; two branches that meet
must agree in stride and centre, and the larger field holds the smaller.
"""

import operator
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from rfviz.errors import RfvizError
from rfviz.nets import graph

WINDOWS = (nn.Conv2d, nn.MaxPool2d, nn.AvgPool2d)
"""Modules of which one output takes a square of inputs together."""

_ELEMENTWISE_MODULES = (
    nn.BatchNorm2d, nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.PReLU, nn.ELU, nn.CELU, nn.SELU, nn.GELU, nn.SiLU,
    nn.Hardswish, nn.Hardsigmoid, nn.Sigmoid, nn.Tanh, nn.Softplus, nn.Mish, nn.Identity, nn.Dropout, nn.Dropout2d,
)  # fmt: skip
_ELEMENTWISE_FUNCTIONS = {
    operator.add, operator.iadd, operator.mul, operator.imul, operator.sub, operator.truediv, torch.add, torch.mul,
    torch.cat, torch.relu, torch.sigmoid, torch.tanh, F.relu, F.gelu, F.silu, F.leaky_relu, F.dropout,
    "add", "add_", "mul", "mul_", "relu", "relu_", "contiguous", "clone", "sigmoid", "tanh",
}  # fmt: skip


@dataclass(frozen=True)
class ReceptiveField:
    """The receptive fields of one layer.

    Parameters
    ----------
    size : int
        Side of the square that one neuron sees, in px.
    stride : int
        Step between the fields of neighbouring neurons, in px.
    start : int
        First row (and column) that neuron (0, 0) sees, in px; negative where it looks past the border.
    """

    size: int
    stride: int
    start: int

    @property
    def centre(self) -> float:
        """Row (and column) at the centre of the field of neuron (0, 0), in px; half-integer for even sizes."""
        return self.start + (self.size - 1) / 2

    def box(self, y: int, x: int) -> tuple[int, int, int, int]:
        """Return ``(top, left, bottom, right)`` of neuron (y, x) in px, half open; it may stick out of the image."""
        top, left = self.stride * y + self.start, self.stride * x + self.start
        return top, left, top + self.size, left + self.size

    def whole(self, neurons: int, pixels: int) -> slice:
        """Return which neurons along one axis see as much of the image as any of them: a field inside it, if any is.

        Parameters
        ----------
        neurons : int
            Of the feature map, along the axis.
        pixels : int
            Of the image, along the axis. If it is smaller than the fields, the neurons are those that see all of it.
        """
        begin = self.stride * torch.arange(neurons) + self.start
        seen = (begin + self.size).clamp(max=pixels) - begin.clamp(min=0)
        first = int(seen.argmax())
        return slice(first, first + int((seen == seen[first]).sum()))

    def inside(self, y: Tensor, x: Tensor, height: int, width: int) -> Tensor:
        """Return whether the fields of neurons (y, x) lie inside an image of that size, bool in the shape of `y`."""
        top, left = self.stride * y + self.start, self.stride * x + self.start
        bottom, right = top + self.size, left + self.size
        return (top >= 0) & (left >= 0) & (bottom <= height) & (right <= width)

    def neuron(self, top: int, left: int) -> tuple[int, int]:
        """Return the neuron ``(y, x)`` whose box begins at (top, left): the inverse of `box`.

        Raises
        ------
        RfvizError
            If no neuron's box begins there, because the offset is not a multiple of the stride.
        """
        (y, rest_y), (x, rest_x) = divmod(top - self.start, self.stride), divmod(left - self.start, self.stride)
        if rest_y or rest_x:
            raise RfvizError(
                f"no receptive field begins at row {top}, column {left}: "
                f"fields begin at {self.start} plus multiples of the stride, {self.stride} px."
            )
        return y, x

    def crop(self, image: Tensor, y: int, x: int) -> tuple[Tensor, Tensor]:
        """Cut what neuron (y, x) sees out of an image.

        Parameters
        ----------
        image : Tensor, shape (..., H, W)
            The image that the network saw.
        y, x : int
            Position of the neuron in its feature map.

        Returns
        -------
        patch : Tensor, shape (..., size, size)
            The receptive field; 0 where there is no image.
        inside : Tensor of bool, shape (size, size)
            Which of its pixels exist.
        """
        top, left, bottom, right = self.box(y, x)
        height, width = image.shape[-2:]
        rows, columns = slice(max(top, 0), min(bottom, height)), slice(max(left, 0), min(right, width))
        patch = image.new_zeros((*image.shape[:-2], self.size, self.size))
        inside = torch.zeros(self.size, self.size, dtype=torch.bool, device=image.device)
        if rows.start < rows.stop and columns.start < columns.stop:
            there = (
                ...,
                slice(rows.start - top, rows.stop - top),
                slice(columns.start - left, columns.stop - left),
            )
            patch[there] = image[..., rows, columns]
            inside[there] = True
        return patch, inside


IMAGE = ReceptiveField(size=1, stride=1, start=0)
"""A pixel sees itself."""


def of(net: nn.Module, layer: str) -> ReceptiveField:
    """Compose the receptive field of a layer from the geometry of everything before it.

    Parameters
    ----------
    net : nn.Module
        Any network of convolutions, poolings and elementwise operations that `torch.fx` can trace.
    layer : str
        Name of the layer; see `rfviz.nets.graph`.

    Raises
    ------
    RfvizError
        If the layer does not exist, if branches that meet disagree in stride or centre, or if an operation on the way
        is not local (a global pooling, a linear layer) or not square.
    """
    return of_layers(net, [layer])[layer]


def of_layers(net: nn.Module, layers: Iterable[str]) -> dict[str, ReceptiveField]:
    """Return the receptive fields of several layers, as `of` does for one, walking through the network once."""
    traced = graph.trace(net)
    return of_nodes(traced, {layer: graph.find(traced, layer) for layer in layers})


def of_nodes(traced: fx.GraphModule, targets: Mapping[str, fx.Node]) -> dict[str, ReceptiveField]:
    """Return the receptive fields of nodes of a graph, by name."""
    needed = set().union(*(_ancestors(target) for target in targets.values()))
    fields: dict[fx.Node, ReceptiveField] = {}
    for node in traced.graph.nodes:
        if node in needed:
            fields[node] = _field(traced, node, [fields[source] for source in node.all_input_nodes])
    return {layer: fields[target] for layer, target in targets.items()}


def _ancestors(node: fx.Node) -> set[fx.Node]:
    found, waiting = set(), [node]
    while waiting:
        node = waiting.pop()
        if node not in found:
            found.add(node)
            waiting.extend(node.all_input_nodes)
    return found


def _field(traced: fx.GraphModule, node: fx.Node, sources: list[ReceptiveField]) -> ReceptiveField:
    if node.op == "placeholder":
        return IMAGE
    module = graph.module_of(traced, node)
    if isinstance(module, WINDOWS):
        return _through_window(sources[0], window(module, node.name))
    if isinstance(module, _ELEMENTWISE_MODULES) or (module is None and node.target in _ELEMENTWISE_FUNCTIONS):
        if node.target is torch.cat and (node.args[1:] or [node.kwargs.get("dim", 0)])[0] not in (0, 1, -4, -3):
            raise RfvizError(f"the receptive field of {node.name!r} is not known: it puts maps side by side.")
        return _join(sources, node.name)
    operation = type(module).__name__ if module is not None else getattr(node.target, "__name__", str(node.target))
    raise RfvizError(
        f"the receptive field of {node.name!r} is not known: {operation} is not a convolution, a pooling or an "
        "elementwise operation. Choose a layer before it."
    )


def _square(value: int | tuple[int, ...], what: str, name: str) -> int:
    if isinstance(value, tuple):
        if len(set(value)) != 1:
            raise RfvizError(f"{name!r} has the rectangular {what} {value}: only square geometry is supported.")
        return value[0]
    return value


class Window(NamedTuple):
    """Square geometry of a convolution or pooling: what it takes together, in elements of the layer before."""

    kernel: int
    stride: int
    padding: int
    dilation: int


def window(module: nn.Conv2d | nn.MaxPool2d | nn.AvgPool2d, name: str) -> Window:
    """Return the geometry of a module.

    Raises
    ------
    RfvizError
        If it is not square.
    """
    kernel = _square(module.kernel_size, "kernel", name)
    stride = _square(module.stride, "stride", name)
    dilation = _square(getattr(module, "dilation", 1), "dilation", name)
    if module.padding == "same":
        padding = dilation * (kernel - 1) // 2
    elif module.padding == "valid":
        padding = 0
    else:
        padding = _square(module.padding, "padding", name)  # type: ignore[arg-type]  # a string was dealt with above
    return Window(kernel, stride, padding, dilation)


def _through_window(source: ReceptiveField, geometry: Window) -> ReceptiveField:
    return ReceptiveField(
        size=source.size + geometry.dilation * (geometry.kernel - 1) * source.stride,
        stride=source.stride * geometry.stride,
        start=source.start - geometry.padding * source.stride,
    )


def _join(sources: list[ReceptiveField], name: str) -> ReceptiveField:
    largest = max(sources, key=lambda field: field.size)
    for field in sources:
        if field.stride != largest.stride or field.centre != largest.centre:
            raise RfvizError(
                f"the branches that meet at {name!r} disagree: stride {field.stride} px and centre {field.centre} px "
                f"against {largest.stride} px and {largest.centre} px, so its neurons have no common receptive field."
            )
    return largest
