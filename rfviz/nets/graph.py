"""The forward pass of a network as a graph: where a named layer is, and how to run the pass up to it.

Everything else addresses layers by torchvision's module names through this file. The graph comes from `torch.fx`, so
skips, branches and a module that is called twice are all visible, and the network itself is never changed.

A name means a *response*, the value after the ReLU:

===================  ===================================================================================
``maxpool``          output of that module
``layer1.0``         output of the block, after the skip addition and the ReLU
``conv1``            a convolution is read after the batch norm and the ReLU that directly follow it
``layer1.0.relu1``   first call of a module that the pass calls several times (``relu2`` is the second)
===================  ===================================================================================
"""

import contextlib
import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from rfviz.errors import RfvizError, first_line, unknown

_RELU_FUNCTIONS = {F.relu, torch.relu, torch.relu_, "relu", "relu_"}
_NORMALIZATIONS = (nn.BatchNorm2d, nn.Identity)


@contextlib.contextmanager
def evaluating(net: nn.Module) -> Iterator[None]:
    """Put `net` in evaluation mode and give every module its own mode back afterwards."""
    modes = {module: module.training for module in net.modules()}
    net.eval()
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode


def trace(net: nn.Module) -> fx.GraphModule:
    """Return the graph of the forward pass of `net` in evaluation mode; modules are shared with `net`.

    Raises
    ------
    RfvizError
        If the forward pass depends on values, so that no single graph describes it.
    """
    try:
        with evaluating(net):
            traced = fx.symbolic_trace(net)
    except Exception as error:  # fx raises many types; to the user they all mean one thing
        raise RfvizError(
            f"the forward pass of {type(net).__name__} cannot be drawn as a graph ({first_line(error)}): "
            "use a network without value-dependent control flow, or wrap that part in a module."
        ) from error
    for node in traced.graph.nodes:
        if _works_in_place(traced, node):  # whoever reads what it has overwritten depends on it, though fx sees no link
            node.all_input_nodes[0].replace_all_uses_with(node, lambda user, node=node: node < user)
    return traced


def module_of(traced: fx.GraphModule, node: fx.Node) -> nn.Module | None:
    """Return the module that `node` calls, or None if it calls a function or a method."""
    return traced.get_submodule(str(node.target)) if node.op == "call_module" else None


def is_relu(traced: fx.GraphModule, node: fx.Node) -> bool:
    """Tell whether `node` is a rectification, written as a module, a function or a method."""
    if node.op == "call_module":  # its target is a name: a module called "relu" may be anything
        return isinstance(module_of(traced, node), nn.ReLU)
    return node.op in ("call_function", "call_method") and node.target in _RELU_FUNCTIONS


def _works_in_place(traced: fx.GraphModule, node: fx.Node) -> bool:
    """Tell whether `node` overwrites its (first) input with its result."""
    if node.op == "call_module":
        return bool(getattr(module_of(traced, node), "inplace", False))
    name = getattr(node.target, "__name__", str(node.target))
    marked = name.endswith("_") and not hasattr(operator, name)  # relu_, but not and_ or __add__
    overwrites = marked or bool(node.kwargs.get("inplace"))
    return node.op in ("call_function", "call_method") and overwrites


def _calls(traced: fx.GraphModule) -> dict[str, list[fx.Node]]:
    """Map every module name to the last node of each of its calls, in order."""
    calls: dict[str, dict[str, fx.Node]] = {}
    for node in traced.graph.nodes:
        # The keys tell calls apart ("layer1.0.relu", "layer1.0.relu@1"), the values name the module.
        for call, (name, _) in (node.meta.get("nn_module_stack") or {}).items():
            if name:
                calls.setdefault(name, {})[call] = node
    return {name: list(nodes.values()) for name, nodes in calls.items()}


def _named(traced: fx.GraphModule) -> dict[str, fx.Node]:
    """Map every layer name to the node at which its module, or that call of its module, ends."""
    calls = _calls(traced)
    numbered = {
        f"{name}{i + 1}": node for name, nodes in calls.items() if len(nodes) > 1 for i, node in enumerate(nodes)
    }
    return numbered | {name: nodes[-1] for name, nodes in calls.items()}  # a module's own name goes first


def names(traced: fx.GraphModule) -> list[str]:
    """Return every layer name that `find` knows, in the order in which the pass finishes them."""
    order = {node: i for i, node in enumerate(traced.graph.nodes)}
    named = _named(traced)
    return sorted(named, key=lambda name: order[named[name]])


def find(traced: fx.GraphModule, layer: str) -> fx.Node:
    """Return the node that produces the response of `layer`.

    Raises
    ------
    RfvizError
        If the pass calls no module of that name.
    """
    named = _named(traced)
    if layer not in named:
        raise unknown("layer", layer, names(traced))
    node = named[layer]
    if isinstance(module_of(traced, node), nn.Conv2d):
        node = _after_normalization_and_relu(traced, node)
    return node


def _after_normalization_and_relu(traced: fx.GraphModule, node: fx.Node) -> fx.Node:
    while len(node.users) == 1:
        (user,) = node.users
        if is_relu(traced, user):
            return user
        if not isinstance(module_of(traced, user), _NORMALIZATIONS):
            return node
        node = user
    return node


def ends_in_relu(traced: fx.GraphModule, node: fx.Node) -> bool:
    """Tell whether a ReLU ends `node`, looking through max pooling, which commutes with it."""
    while isinstance(module_of(traced, node), nn.MaxPool2d):
        node = node.all_input_nodes[0]
    return is_relu(traced, node)


def _without_last_relu(traced: fx.GraphModule, node: fx.Node, layer: str) -> fx.Node:
    """Return what the ReLU that ends `node` rectifies, looking through max pooling, which commutes with it."""
    poolings, candidate = [], node
    while isinstance(module_of(traced, candidate), nn.MaxPool2d):
        poolings.append(candidate)
        candidate = candidate.all_input_nodes[0]
    if not is_relu(traced, candidate):
        raise RfvizError(f"layer {layer!r} does not end in a ReLU: use objective='response' for it.")
    before = candidate.all_input_nodes[0]
    for pooling in reversed(poolings):
        # A second pooling, ahead of the ReLU, which may work in place; deeper layers go on from the first one.
        with traced.graph.inserting_after(before):
            before = traced.graph.node_copy(pooling, lambda _, source=before: source)  # type: ignore[misc]
    return before


def _memory_format(net: nn.Module) -> torch.memory_format:
    """Return the memory format of the weights, in which images should come: the two orders differ in speed."""
    last = torch.channels_last
    weights = [weight for weight in net.parameters() if weight.dim() == 4 and not weight.is_contiguous()]
    return last if any(w.is_contiguous(memory_format=last) for w in weights) else torch.contiguous_format


class ForwardPass(fx.Interpreter):
    """The forward pass of a network up to the deepest of some layers, and nothing behind it.

    Values are handed out at the moment they are computed: torchvision's blocks rectify in place, so a value that is
    kept and read later may have been overwritten by then.

    Parameters
    ----------
    net : nn.Module
        Any network that `torch.fx` can trace. It is run in evaluation mode.
    layers : sequence of str
        The layers to read; see the module's docstring for the names.
    before_relu : bool
        Read the layers before their last ReLU instead of after it.
    to_output : bool
        Go on to the network's own output instead of stopping at the deepest layer.
    """

    def __init__(self, net: nn.Module, layers: Sequence[str], *, before_relu: bool = False, to_output: bool = False):
        traced = trace(net)
        wanted = [find(traced, layer) for layer in layers]
        if before_relu:
            wanted = [_without_last_relu(traced, node, layer) for node, layer in zip(wanted, layers, strict=True)]
        if not to_output:
            (output,) = traced.graph.find_nodes(op="output")
            output.args = (tuple(wanted),)
            traced.graph.eliminate_dead_code()
            deepest = [node for node in traced.graph.nodes if node in set(wanted)][-1]
            output.args = (deepest,)  # the others are read on the way: holding them would only cost memory
        super().__init__(traced)
        self.extra_traceback = False  # fx would add lines of its own to our one-line messages
        self.net, self.traced = net, traced
        self.memory_format = _memory_format(net)
        self.nodes = dict(zip(layers, wanted, strict=True))
        self.layers: dict[fx.Node, list[str]] = {}
        for node, layer in zip(wanted, layers, strict=True):
            self.layers.setdefault(node, []).append(layer)
        self._read: Callable[[str, Tensor], None] | None = None
        self.elements = 0  # of all values that the last call computed

    def __call__(
        self,
        images: Tensor,
        read: Callable[[str, Tensor], None] | None = None,
        given: Mapping[str, Tensor] | None = None,
    ) -> Tensor:
        """Run the pass.

        Parameters
        ----------
        images : Tensor, shape (N, 3, H, W)
            What the network takes; ignored where `given` already says everything.
        read : callable, optional
            Called as ``read(layer, response)`` when the response of a layer has just been computed.
        given : mapping from layer name to Tensor, optional
            A value to go on from in place of the layer's own, for a layer through which every path runs: nothing
            before it is computed.

        Returns
        -------
        Tensor
            The value at the deepest layer, or the network's output.
        """
        known: dict[fx.Node, Any] = {}
        for layer, value in (given or {}).items():
            node = find(self.traced, layer)
            for earlier in self.traced.graph.nodes:
                known[earlier] = None
                if earlier is node:
                    break
            known[node] = value
        self._read, self.elements = read, 0
        images = images.contiguous(memory_format=self.memory_format)
        try:
            with evaluating(self.net):
                return self.run(images, initial_env=known or None)
        finally:
            self._read = None  # a reader may hold much, this pass among it
            self.env = {}

    def run_node(self, n: fx.Node) -> Any:
        """Compute one node and hand out its value at once if it is one of the layers."""
        value = super().run_node(n)
        self.elements += value.numel() if isinstance(value, Tensor) else 0
        if self._read is not None:
            for layer in self.layers.get(n, ()):
                self._read(layer, value)
        return value
