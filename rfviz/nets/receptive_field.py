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
must agree in stride, and what they see together is the field. Where rows and columns differ, as behind a kernel of
1 x 7, the field is the smallest square around what a neuron sees.

Not everything is a matter of geometry. `known` says how a field is known:

=================  ===================================================================================================
``"exact"``        composed: every pixel of it can matter, and no other
``"bound"``        composed, a square around it: no other pixel can matter
``"measured"``     the pixels with a gradient in pictures of noise, where an operation on the way is not known
``"whole image"``  there is none: everything is averaged over positions somewhere on the way, or no one step between
                   neurons in px holds everywhere, or what was cropped is padded again inside the image
=================  ===================================================================================================
"""

import contextlib
import copy
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import Tensor, fx, nn

from rfviz.errors import RfvizError
from rfviz.nets import graph

WINDOWS = (nn.Conv2d, nn.MaxPool2d, nn.AvgPool2d)
"""Modules of which one output takes a square of inputs together."""

# What they put around an image does not matter to a neuron that does not see it.
PADDINGS = (nn.ConstantPad2d, nn.ReflectionPad2d, nn.ReplicationPad2d)

_ELEMENTWISE_MODULES = (
    nn.BatchNorm2d, nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.PReLU, nn.ELU, nn.CELU, nn.SELU, nn.GELU, nn.SiLU,
    nn.Hardswish, nn.Hardsigmoid, nn.Hardtanh, nn.Sigmoid, nn.Tanh, nn.Softplus, nn.Mish, nn.Identity, nn.Dropout,
    nn.Dropout2d, nn.ChannelShuffle,
)  # fmt: skip
_ELEMENTWISE = {
    "add", "iadd", "mul", "imul", "sub", "isub", "truediv", "div", "neg", "abs", "pow", "exp", "log", "sqrt", "rsqrt",
    "cat", "relu", "relu6", "sigmoid", "tanh", "gelu", "silu", "leaky_relu", "elu", "softplus", "hardswish",
    "hardsigmoid", "hardtanh", "mish", "clamp", "maximum", "minimum", "contiguous", "clone", "detach", "float", "to",
    "type", "half", "Normalize", "dropout", "dropout2d", "stochastic_depth", "batch_norm", "channel_shuffle",
}  # fmt: skip
"""Names of functions and methods, without the underscore of those that work in place; and one of torchvision's."""

_OF_CHANNELS = (nn.LayerNorm, nn.Linear)
"""Modules that mix the last axis: local where that is the axis of the channels."""

_EVERYWHERE = (
    nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d, nn.InstanceNorm2d, nn.GroupNorm, nn.Flatten, nn.MultiheadAttention,
    *_OF_CHANNELS,
)  # fmt: skip
_EVERYWHERE_FUNCTIONS = {
    "adaptive_avg_pool2d", "adaptive_max_pool2d", "mean", "flatten", "linear", "layer_norm", "group_norm",
    "instance_norm",
}  # fmt: skip
"""What takes all positions together."""

_REGROUPING = {"view", "reshape", "transpose", "chunk", "split", "unsqueeze", "squeeze", "expand", "getitem"}
"""What may leave positions where they are; the shapes tell."""


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
    def is_whole_image(self) -> bool:
        """Whether a neuron sees all of an image, however large it is; `size` is then `BOUNDLESS`."""
        return self.size >= BOUNDLESS

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
        y0, y1 = (min(max(row, 0), height) for row in (top, bottom))
        x0, x1 = (min(max(column, 0), width) for column in (left, right))
        patch = image.new_zeros((*image.shape[:-2], self.size, self.size))
        inside = torch.zeros(self.size, self.size, dtype=torch.bool, device=image.device)
        there = ..., slice(y0 - top, y1 - top), slice(x0 - left, x1 - left)  # nothing, of a field outside the image
        patch[there] = image[..., y0:y1, x0:x1]
        inside[there] = True
        return patch, inside


BOUNDLESS = 2**16
"""Side of a field that holds any image, px."""

IMAGE = ReceptiveField(size=1, stride=1, start=0)
"""A pixel sees itself."""

EXACT, BOUND, MEASURED, WHOLE_IMAGE = "exact", "bound", "measured", "whole image"
"""How a field is known; see the module's docstring."""


class Known(NamedTuple):
    """The receptive field of a layer, and how it is known; where that is the whole image, only its stride says much."""

    field: ReceptiveField
    how: str


def known(net: nn.Module, layers: Iterable[str], side: int | None = None, *, measure: bool = True) -> dict[str, Known]:
    """Return what can be known of the receptive fields of some layers.

    Parameters
    ----------
    net : nn.Module
        Any network that `torch.fx` can trace.
    layers : str or iterable of str
        Names as in `rfviz.nets.graph`.
    side : int, optional
        Of the images in which fields are measured, px: larger fields count as the whole image. 224 px by default, or
        what the network takes.
    measure : bool
        Measure what cannot be composed; else it is told as the whole image, and as measured all the same.

    Raises
    ------
    RfvizError
        If a layer does not exist, branches that meet disagree in stride, or a stride is not the same for rows and
        columns.
    """
    traced, layers = graph.trace(net), [layers] if isinstance(layers, str) else layers
    nodes, shapes = {layer: graph.find(traced, layer) for layer in layers}, Shapes(traced)
    found = {}
    for layer, seen in _composed(traced, nodes, shapes).items():
        if isinstance(seen, _NotComposedError):
            found[layer] = measured(net, layer, side or shapes.side) if measure else Known(_boundless(1), MEASURED)
        else:
            found[layer] = _together(seen, layer)
        if found[layer].field.is_whole_image:
            with contextlib.suppress(_NotComposedError):
                shape = shapes(nodes[layer])
                across = shape[1 if graph.channels_are_last(traced, nodes[layer]) else 2] if len(shape) == 4 else 1
                found[layer] = Known(_boundless(max(1, shapes.side // across)), found[layer].how)
    return found


def _boundless(stride: int) -> ReceptiveField:
    return ReceptiveField(BOUNDLESS, stride, -(BOUNDLESS - stride) // 2)


def of(net: nn.Module, layer: str) -> ReceptiveField:
    """Return the receptive field of a layer, composed from the geometry of everything before it, or else measured.

    Parameters
    ----------
    net : nn.Module
        Any network that `torch.fx` can trace.
    layer : str
        Name of the layer; see `rfviz.nets.graph`.

    Raises
    ------
    RfvizError
        If the layer does not exist, has no field but the whole image, or has one that is not the same everywhere.
    """
    return of_layers(net, [layer])[layer]


def of_layers(net: nn.Module, layers: Iterable[str]) -> dict[str, ReceptiveField]:
    """Return the receptive fields of several layers, as `of` does for one, walking through the network once."""
    return {layer: _field_of(layer, each.field) for layer, each in known(net, layers).items()}


def _field_of(layer: str, field: ReceptiveField) -> ReceptiveField:
    if field.is_whole_image:
        raise RfvizError(
            f"every neuron of {layer!r} sees the whole image: it has no receptive field. Choose a layer before it, or "
            "maximize it on a canvas, such as canvas=224."
        )
    return field


def of_nodes(traced: fx.GraphModule, targets: Mapping[str, fx.Node]) -> dict[str, ReceptiveField]:
    """Return the receptive fields of nodes of a graph, by name, where they can be composed."""
    return {
        layer: _field_of(layer, _together(seen, layer).field)
        for layer, seen in _composed(traced, targets, Shapes(traced)).items()
    }


def _composed(traced: fx.GraphModule, targets: Mapping[str, fx.Node], shapes: "Shapes") -> "dict[str, _Seen]":
    needed = set().union(*(graph.ancestors(target) for target in targets.values()))
    seen: dict[fx.Node, _Seen] = {}
    cropped: set[fx.Node] = set()
    for node in traced.graph.nodes:
        if node in needed:
            try:
                seen[node] = _seen(traced, node, [seen[source] for source in node.all_input_nodes], shapes)
                if not isinstance(seen[node], _Axes):
                    continue
                if not cropped.isdisjoint(node.all_input_nodes) or _crops(traced, node, shapes):
                    cropped.add(node)
                    if _pads(traced, node):  # neurons see the padding though their fields lie in the image
                        seen[node] = WHOLE_IMAGE
            except RfvizError as error:
                seen[node] = error
    return {layer: seen[target] for layer, target in targets.items()}


class _NotComposedError(RfvizError):
    """An operation on the way is not known."""


class _Axes(NamedTuple):
    """What neurons see along rows and along columns."""

    rows: ReceptiveField
    columns: ReceptiveField


_Seen = _Axes | str | RfvizError | None
"""What a node sees: a field along either axis, `WHOLE_IMAGE`, why that is not known, or no pixel at all."""


def _together(seen: _Seen, name: str) -> Known:
    """Return the smallest square that holds both axes."""
    if isinstance(seen, RfvizError):
        raise seen
    if not isinstance(seen, _Axes):
        return Known(_boundless(1), WHOLE_IMAGE)
    rows, columns = seen
    if rows.stride != columns.stride:
        raise RfvizError(
            f"{name!r} steps by {rows.stride} px down and by {columns.stride} px across: only one stride for both is "
            "supported. Choose a layer before it."
        )
    return Known(_union([rows, columns]), EXACT if rows == columns else BOUND)


def _union(fields: Sequence[ReceptiveField]) -> ReceptiveField:
    start = min(field.start for field in fields)
    return ReceptiveField(max(field.start + field.size for field in fields) - start, fields[0].stride, start)


class Shapes:
    """Shapes of what nodes put out, found out when first asked for.

    For an image of that one of `rfviz.nets.graph.SIDES` px which goes through the whole network, or else as far as it
    goes.
    """

    def __init__(self, traced: fx.GraphModule):
        self._traced = traced

    @cached_property
    def _found(self) -> tuple[int, dict[str, tuple[int, ...]]]:
        abstract = copy.deepcopy(self._traced).to("meta")
        found = {side: graph.shapes(abstract, side) for side in graph.SIDES[:1]}
        for side in graph.SIDES[1:]:
            if len(found[graph.EXAMPLE]) == len(self._traced.graph.nodes):
                break
            found[side] = graph.shapes(abstract, side)
        return max(found.items(), key=lambda each: len(each[1]))

    @property
    def side(self) -> int:
        """Side of the image, px."""
        return self._found[0]

    def __call__(self, node: fx.Node) -> tuple[int, ...]:
        """Return the shape, empty where it is not that of one tensor."""
        if node.name not in self._found[1]:
            raise _NotComposedError(f"no image of {graph.SIDES} px gets as far as {node.name!r}.")
        return self._found[1][node.name]


def _seen(traced: fx.GraphModule, node: fx.Node, sources: list[_Seen], shapes: Shapes) -> _Seen:
    if node.op == "placeholder":
        return _Axes(IMAGE, IMAGE)
    if graph.asks_for_shape(node):
        return None
    pixels = [source for source in sources if source is not None]
    if WHOLE_IMAGE in pixels:
        return WHOLE_IMAGE
    for source in pixels:
        if isinstance(source, RfvizError):
            raise source
    fields = [source for source in pixels if isinstance(source, _Axes)]
    if not fields:  # a constant
        return None
    module, operation = graph.module_of(traced, node), operation_of(traced, node)
    if isinstance(module, nn.BatchNorm2d) and module.running_mean is None:
        return WHOLE_IMAGE  # it takes the statistics of the images
    last = graph.channels_are_last(traced, node.all_input_nodes[0])
    if isinstance(module, (*WINDOWS, *PADDINGS)) and not last:
        down, across = (_through_window(field, window(module, node.name, axis)) for axis, field in enumerate(fields[0]))
        return _Axes(down, across)
    if isinstance(module, _ELEMENTWISE_MODULES) or (
        (module is None or operation == "Normalize") and operation in _ELEMENTWISE
    ):
        if node.target is torch.cat and _puts_side_by_side(node, last):
            raise RfvizError(f"{node.name!r} puts maps side by side, so its neurons have no common receptive field.")
        return _join(fields, node.name)
    if last and (isinstance(module, _OF_CHANNELS) or operation in ("linear", "layer_norm")):
        return fields[0]
    if graph.permutation(node) in (graph.TO_LAST, graph.TO_FIRST):
        return fields[0]
    if isinstance(module, _EVERYWHERE) or (module is None and operation in _EVERYWHERE_FUNCTIONS):
        if operation != "mean" or _is_spatial(node, last):
            return WHOLE_IMAGE
        return fields[0]
    if module is None and operation in _REGROUPING and (found := _regrouped(traced, node, fields[0], shapes)):
        return found
    if operation == "pad":
        sides: Any = (node.args[1:] or [node.kwargs.get("pad", ())])[0]
        if not last and not any(sides[:4]):
            return fields[0]  # only channels are added
    raise _NotComposedError(
        f"the receptive field of {node.name!r} is not known: {operation} is not a convolution, a pooling or an "
        "elementwise operation. Choose a layer before it."
    )


def operation_of(traced: fx.GraphModule, node: fx.Node) -> str:
    """Return what a node does: the type of its module, or the name of its function or method."""
    module = graph.module_of(traced, node)
    if module is not None:
        return type(module).__name__
    name = getattr(node.target, "__name__", str(node.target))
    return name.strip("_") if name.startswith("__") else name.rstrip("_")


def _others(channels_last: bool) -> set[int]:
    """Return the axes of maps that are neither rows nor columns."""
    return {0, 3, -1, -4} if channels_last else {0, 1, -3, -4}


def _puts_side_by_side(node: fx.Node, channels_last: bool) -> bool:
    dim = (node.args[1:] or [node.kwargs.get("dim", 0)])[0]
    return dim not in _others(channels_last)


def _is_spatial(node: fx.Node, channels_last: bool) -> bool:
    """Tell whether a mean takes positions together."""
    dims: Any = (node.args[1:] or [node.kwargs.get("dim", (2, 3))])[0]
    return not {*([dims] if isinstance(dims, int) else dims)} <= _others(channels_last)


def _crops(traced: fx.GraphModule, node: fx.Node, shapes: Shapes) -> bool:
    """Tell whether a slice leaves positions off at a border."""
    if operation_of(traced, node) != "getitem" or not (before := shapes(node.all_input_nodes[0])):
        return False  # or it takes one of several parts
    after, axes = shapes(node), where(traced, node.all_input_nodes[0])
    for part, old, new in zip(index_of(node, len(before))[axes], before[axes], after[axes], strict=True):
        first, step = part.start or 0, part.step or 1
        if first >= step or first + step * new < old:
            return True
    return False


def _pads(traced: fx.GraphModule, node: fx.Node) -> bool:
    module = graph.module_of(traced, node)
    if not isinstance(module, WINDOWS):
        return isinstance(module, PADDINGS)
    return any(window(module, node.name, axis).padding for axis in (0, 1))


def _regrouped(traced: fx.GraphModule, node: fx.Node, field: _Axes, shapes: Shapes) -> _Axes | None:
    """Return what the result of a change of shape sees, if positions are where they were; None if they may not be."""
    source = node.all_input_nodes[0]
    operation = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "")
    before, after = shapes(source), shapes(node)
    if operation == "getitem":
        index: Any = node.args[1]
        if isinstance(index, int) and not before:
            return field  # one of several parts
        return _sliced(index_of(node, len(before)), field, where(traced, source))
    last, axes = graph.channels_are_last(traced, source), where(traced, source)
    if operation in ("chunk", "split"):
        dim: Any = (node.args[2:] or [node.kwargs.get("dim", 0)])[0]
        return field if dim in _others(last) else None
    if operation == "transpose":
        moved = {each % len(before) for each in node.args[1:] if isinstance(each, int)}
        return field if not last and max(moved, default=len(before)) < len(before) - 2 else None
    return field if before[axes] == after[axes] and min(len(before), len(after)) > 2 else None


def where(traced: fx.GraphModule, maps: fx.Node) -> slice:
    """Return which axes of maps are their rows and columns."""
    return slice(1, 3) if graph.channels_are_last(traced, maps) else slice(-2, None)


def index_of(node: fx.Node, dims: int = 4) -> list[Any]:
    """Return what a node takes along each axis of maps of so many axes."""
    index: Any = node.args[1] if isinstance(node.args[1], tuple) else (node.args[1],)
    return [*index, *[slice(None)] * (dims - len(index))]


def _sliced(index: list[Any], field: _Axes, axes: slice) -> _Axes | None:
    """Return what the positions see that a slice leaves over, such as every second one."""
    clear = len(index) > 2 and Ellipsis not in index and None not in index
    if not clear or not all(isinstance(part, slice) for part in index[axes]):
        return None
    along = []
    for part, axis in zip(index[axes], field, strict=True):
        first, step = part.start or 0, part.step or 1
        if not isinstance(first, int) or not isinstance(step, int) or first < 0 or step < 1:
            return None
        along.append(ReceptiveField(axis.size, axis.stride * step, axis.start + first * axis.stride))
    return _Axes(*along)


def _along(value: int | tuple[int, ...], axis: int) -> int:
    return value[axis] if isinstance(value, tuple) else value


class Window(NamedTuple):
    """Square geometry of a convolution or pooling: what it takes together, in elements of the layer before."""

    kernel: int
    stride: int
    padding: int
    dilation: int


def window(module: nn.Module, name: str, axis: int | None = None) -> Window:
    """Return the geometry of a convolution, a pooling or a padding, along rows (0) or columns (1).

    Raises
    ------
    RfvizError
        If no axis is given, and they differ.
    """
    if axis is None:
        down, across = (window(module, name, each) for each in (0, 1))
        if down != across:
            raise RfvizError(f"{name!r} is not square ({down} against {across}): only square geometry is supported.")
        return down
    if isinstance(module, PADDINGS):
        return Window(1, 1, module.padding[2 if axis == 0 else 0], 1)  # what is behind the last pixel shifts nothing
    assert isinstance(module, WINDOWS)
    kernel, dilation = _along(module.kernel_size, axis), _along(getattr(module, "dilation", 1), axis)
    if module.padding == "same":
        padding = dilation * (kernel - 1) // 2
    elif module.padding == "valid":
        padding = 0
    else:
        padding = _along(module.padding, axis)  # type: ignore[arg-type]  # a string was dealt with above
    return Window(kernel, _along(module.stride, axis), padding, dilation)


def _through_window(source: ReceptiveField, geometry: Window) -> ReceptiveField:
    return ReceptiveField(
        size=source.size + geometry.dilation * (geometry.kernel - 1) * source.stride,
        stride=source.stride * geometry.stride,
        start=source.start - geometry.padding * source.stride,
    )


def _join(sources: list[_Axes], name: str) -> _Axes:
    along = []
    for fields in zip(*sources, strict=True):
        if len({field.stride for field in fields}) > 1:
            strides = " against ".join(f"{stride} px" for stride in sorted({field.stride for field in fields}))
            raise RfvizError(
                f"the branches that meet at {name!r} disagree in stride ({strides}), so its neurons have no common "
                "receptive field."
            )
        along.append(_union(fields))
    return _Axes(*along)


DRAWS, BESIDE = 4, 8
"""Pictures of noise in which a field is measured, and neighbouring neurons that are looked at in each."""


def measured(net: nn.Module, layer: str, side: int = graph.EXAMPLE) -> Known:
    """Find the pixels that have a gradient for some neurons in the middle of the map, whatever the operations are.

    Parameters
    ----------
    net : nn.Module
    layer : str
    side : int
        Of the images, px.

    Raises
    ------
    RfvizError
        If the layer does not exist, or no pixel has a gradient.
    """
    forward = graph.ForwardPass(net, [layer])
    parameter = next(net.parameters())
    random = torch.Generator().manual_seed(0)
    seen: list[tuple[int, int, int]] = []  # position of a neuron, first and last row or column that it sees
    height = 0
    with torch.inference_mode(False), torch.enable_grad():
        for _ in range(DRAWS):
            noise = torch.rand(1, graph.in_channels(forward.traced), side, side, generator=random)
            images = noise.to(parameter).expand(BESIDE + 2, -1, -1, -1).clone().requires_grad_(True)
            maps = forward(images)
            height, width = maps.shape[2:]
            if height != width or height < 2:
                return Known(_boundless(1), WHOLE_IMAGE)
            beside = [min(height - 1, max(0, height // 2 - BESIDE // 2 + number)) for number in range(BESIDE)]
            places = [*beside, *(far := (height // 4, 3 * height // 4))]
            weights = torch.randn(maps.shape[1], generator=random).to(parameter)
            neurons = [(maps[number, :, place, place] * weights).sum() for number, place in enumerate(places)]
            (slope,) = torch.autograd.grad(torch.stack(neurons).sum(), images)
            for place, of_neuron in zip(places, slope.abs().amax(1), strict=True):
                for along in (of_neuron.amax(1), of_neuron.amax(0)):
                    pixels = along.nonzero().flatten().tolist()
                    if pixels:
                        seen.append((place, pixels[0], pixels[-1] + 1))
    if not seen:
        raise RfvizError(f"no pixel has an influence on {layer!r}: its receptive field cannot be measured.")
    elsewhere = [each for each in seen if each[0] in far]
    seen = [each for each in seen if each[0] in beside]
    middle = min(seen, key=lambda each: abs(each[1] + each[2] - side))[0]
    if any(place == middle and (first == 0 or end == side) for place, first, end in seen):
        return Known(_boundless(1), WHOLE_IMAGE)  # or larger than the images
    seen = [each for each in seen if each[1] > 0 and each[2] < side]  # of the others, a part is cut off
    # Without padding a map has fewer neurons than its stride tells; the right one makes the fields of all the smallest.
    usual = max(1, round(side / height))
    fields = [_around(seen, stride) for stride in range(max(1, usual // 2), usual + 2)]
    field = min(fields, key=lambda field: (field.size, abs(field.stride - usual)))
    for place, first, end in elsewhere:  # a stride that is no whole number, and the like
        if not -1 <= first - field.box(place, 0)[0] <= end - field.box(place, 0)[0] <= field.size + 1:
            return Known(_boundless(1), WHOLE_IMAGE)
    return Known(field, MEASURED)


def _around(seen: Sequence[tuple[int, int, int]], stride: int) -> ReceptiveField:
    """Return the smallest field of a stride that holds what was seen of some neurons."""
    start = min(first - stride * place for place, first, _ in seen)
    return ReceptiveField(max(end - stride * place for place, _, end in seen) - start, stride, start)
