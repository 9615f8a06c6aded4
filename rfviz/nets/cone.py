"""The forward pass of one neuron: of every layer, only the positions that the neuron depends on.

Behind the receptive field of a neuron stands a cone of positions. For layer1.2 of a ResNet34, along one axis ::

    image   conv1   maxpool   layer1.0        layer1.1        layer1.2
     59  ->   27  ->  13   ->   11  ->  9  ->   7  ->   5  ->   3  ->  1

On an image, each layer computes many more, of which the neuron sees nothing. The cone never touches a border, so
nothing is padded; where branches meet, the longer one is cropped to the shorter. The arithmetic is that of the whole
image, in another order where the libraries choose one.
"""

import contextlib
from typing import Any

from torch import Tensor, fx, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_weights

from rfviz.errors import RfvizError
from rfviz.nets.graph import ForwardPass, channels_are_last, module_of
from rfviz.nets.receptive_field import PADDINGS, WINDOWS, Window, index_of, of_nodes, operation_of, where, window

_GEOMETRIC = (*WINDOWS, *PADDINGS)

Span = tuple[int, int]
"""Positions along one axis, half open, counted so that the neuron of the layer in question is at 0."""


class Cone(ForwardPass):
    """The forward pass of one neuron, all channels of it.

    Calling it with images `(N, 3, R, R)` of exactly the receptive field gives `(N, C, 1, 1)`.

    Parameters
    ----------
    net : nn.Module
        Any network that `torch.fx` can trace. It is run in evaluation mode.
    layer : str
        See `rfviz.nets.graph` for the names.
    before_relu : bool
        The value before the layer's last ReLU instead of the response.

    Raises
    ------
    RfvizError
        If the layer does not exist, or its receptive field is not composed of square geometry alone.
    """

    def __init__(self, net: nn.Module, layer: str, *, before_relu: bool = False):
        super().__init__(net, [layer], before_relu=before_relu)
        of_nodes(self.traced, self.nodes)  # refuses what it does not know
        self.spans = _spans(self.traced, self.nodes[layer])
        self._channels_last = {node for node in self.spans if channels_are_last(self.traced, node)}
        self._folded = {node: folded for node in self.spans if (folded := _folded(self.traced, node))}

    def run_node(self, n: fx.Node) -> Any:
        """Compute the positions of one node that the neuron needs."""
        if n not in self.spans or n.op == "placeholder":
            return super().run_node(n)
        module, geometry = module_of(self.traced, n), _geometry(self.traced, n)
        needed = self.spans[n] if geometry is None else _before(self.spans[n], geometry)

        def fetch(source: fx.Node) -> Any:
            value = self.env[source]
            if source not in self.spans or self.spans[source] == needed:
                return value
            begin, end = (position - self.spans[source][0] for position in needed)
            return _positions(value, begin, end, source in self._channels_last)

        args: Any = fx.map_arg(n.args, fetch)
        kwargs: Any = fx.map_arg(n.kwargs, fetch)
        if isinstance(module, PADDINGS):
            value = args[0]
        elif geometry is not None and module is None:
            every = slice(None, None, geometry.stride)
            index = index_of(n)
            index[where(self.traced, n.all_input_nodes[0])] = [every, every]
            value = args[0][tuple(index)]
        elif geometry is not None:
            assert module is not None
            value = _unpadded(module, args[0], geometry, self._folded.get(n))
        elif n.all_input_nodes[0] in self._folded:
            return args[0]  # a normalization that is part of the convolution
        else:
            value = getattr(self, n.op)(n.target, args, kwargs)
        self.elements += value.numel() if isinstance(value, Tensor) else 0
        return value


def _positions(value: Any, begin: int, end: int, channels_last: bool) -> Any:
    """Cut positions out of maps, or out of each of several; what is no map has none."""
    if isinstance(value, (tuple, list)):
        return type(value)(_positions(each, begin, end, channels_last) for each in value)
    if not isinstance(value, Tensor):
        return value
    return value[:, begin:end, begin:end] if channels_last else value[..., begin:end, begin:end]


def _spans(traced: fx.GraphModule, neuron: fx.Node) -> dict[fx.Node, Span]:
    """Go back from a neuron and note which positions of every node it needs."""
    spans: dict[fx.Node, Span] = {neuron: (0, 1)}
    for node in reversed(traced.graph.nodes):
        if node not in spans:
            continue
        geometry = _geometry(traced, node)
        needed = spans[node] if geometry is None else _before(spans[node], geometry)
        for source in node.all_input_nodes:
            if source.op != "get_attr":  # a constant has no positions
                begin, end = spans.get(source, needed)
                spans[source] = min(begin, needed[0]), max(end, needed[1])
    return spans


def alone(traced: fx.GraphModule) -> set[fx.Node]:
    """Return the nodes before which nothing but the square geometry stands that a cone can have."""
    found: set[fx.Node] = set()
    for node in traced.graph.nodes:
        with contextlib.suppress(RfvizError):
            _geometry(traced, node)
            if found.issuperset(node.all_input_nodes):
                found.add(node)
    return found


def _geometry(traced: fx.GraphModule, node: fx.Node) -> Window | None:
    """Return what a node takes together, or which positions it leaves over; None where it leaves them as they are."""
    module = module_of(traced, node)
    if module is not None:
        return window(module, node.name) if isinstance(module, _GEOMETRIC) else None
    sliced = operation_of(traced, node) == "getitem"
    parts = index_of(node)[where(traced, node.all_input_nodes[0])] if sliced else []
    if all(part == slice(None) for part in parts):
        return None
    first, step = (getattr(parts[0], each, None) or default for each, default in (("start", 0), ("step", 1)))
    if parts[0] != parts[1] or not isinstance(parts[0], slice) or {type(first), type(step)} != {int}:
        raise RfvizError(f"{node.name!r} leaves over no square of positions that is known beforehand.")
    return Window(1, step, -first, 1)


def _before(span: Span, geometry: Window) -> Span:
    """Return which positions of its input a convolution or pooling needs for a span of its output."""
    begin, end = span
    first = geometry.stride * begin - geometry.padding
    last = geometry.stride * (end - 1) - geometry.padding + geometry.dilation * (geometry.kernel - 1)
    return first, last + 1


def _folded(traced: fx.GraphModule, node: fx.Node) -> tuple[Tensor, Tensor] | None:
    """Return weight and bias of a convolution that does what it and its batch norm do: fewer values to keep.

    None where no batch norm is all that follows a convolution, or it does not do the same to every image.
    """
    convolution = module_of(traced, node)
    norm = module_of(traced, next(iter(node.users))) if len(node.users) == 1 else None
    if not isinstance(convolution, nn.Conv2d) or not isinstance(norm, nn.BatchNorm2d):
        return None
    if norm.running_mean is None or norm.running_var is None:
        return None
    weight, bias = fuse_conv_bn_weights(
        convolution.weight, convolution.bias, norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias
    )
    return weight.detach(), bias.detach()


def _unpadded(module: nn.Module | None, x: Tensor, geometry: Window, folded: tuple[Tensor, Tensor] | None) -> Tensor:
    if isinstance(module, nn.Conv2d):
        weight, bias = folded or (module.weight, module.bias)
        return F.conv2d(x, weight, bias, geometry.stride, 0, geometry.dilation, module.groups)
    if isinstance(module, nn.MaxPool2d):
        return F.max_pool2d(x, geometry.kernel, geometry.stride, 0, geometry.dilation)
    assert isinstance(module, nn.AvgPool2d)
    return F.avg_pool2d(x, geometry.kernel, geometry.stride, divisor_override=module.divisor_override)
