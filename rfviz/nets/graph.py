"""The forward pass of a network as a graph: where a named layer is, and how to run the pass up to it.

Everything else addresses layers by torchvision's module names through this file. The graph comes from `torch.fx`, so
skips, branches and a module that is called twice are all visible, and the network itself is never changed.

A name means a *response*, the value after the ReLU:

===================  ===================================================================================
``maxpool``          output of that module
``layer1.0``         output of the block, after the skip addition and the ReLU
``conv1``            a convolution is read after the batch norm and the ReLU that directly follow it; another
                     activation, such as GELU, is read under its own name, if it is a module
``layer1.0.relu1``   first call of a module that the pass calls several times (``relu2`` is the second)
===================  ===================================================================================
"""

import contextlib
import copy
import inspect
import operator
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F
from torch.utils._pytree import tree_leaves

from rfviz.errors import RfvizError, first_line, unknown

_RELU_FUNCTIONS = {F.relu, torch.relu, torch.relu_, "relu", "relu_"}
_NORMALIZATIONS = (nn.BatchNorm2d, nn.Identity)
_WRAPPERS = (nn.DataParallel, nn.parallel.DistributedDataParallel)
_COMMUTING = (nn.MaxPool2d, nn.Identity, nn.Dropout, nn.Dropout2d)
"""Modules that may stand before a ReLU or behind it: the result is the same."""


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


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Draw random numbers from a seed inside the block, and leave those of whoever calls as they were."""
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else range(0)
    with torch.random.fork_rng(devices):
        torch.default_generator.manual_seed(seed)
        if devices:
            torch.cuda.manual_seed_all(seed)
        yield


def unwrapped(net: nn.Module) -> nn.Module:
    """Return a network without what `DataParallel` and `torch.compile` wrap around it.

    Raises
    ------
    RfvizError
        If it is no module, or has layers without a size.
    """
    while (inner := getattr(net, "_orig_mod", None) or (isinstance(net, _WRAPPERS) and net.module)) and inner:
        net = inner
    if not isinstance(net, nn.Module):
        raise RfvizError(f"a {type(net).__name__} is no network: give a torch.nn.Module.")
    if any(map(nn.parameter.is_lazy, (*net.parameters(), *net.buffers()))):
        raise RfvizError(f"{type(net).__name__} has lazy layers, which have no size yet: call it once on an image.")
    return net


class _Tracer(fx.Tracer):
    """Draws the graph of networks that ask for the shape of what goes through them, such as ``assert x.shape[1] == 3``.

    What such a question says is found out with one image of `EXAMPLE` px. What else a forward pass can be given has
    its default.
    """

    asked_for_shape = False

    def create_args_for_root(self, root_fn: Callable, is_module: bool, concrete_args: Any = None) -> tuple[Any, list]:
        further = inspect.signature(root_fn).parameters
        root_fn, args = super().create_args_for_root(root_fn, is_module, concrete_args)
        inputs = {str(proxy.node.target): proxy.node for proxy in args[1:]}
        needed = [name for name, node in inputs.items() if not node.args and not name.startswith("*")]
        if len(needed) > 1:
            raise RfvizError(
                f"the forward pass of {type(self.root).__name__} takes {len(needed)} inputs ({', '.join(needed)}): "
                "wrap it in a module that takes one image."
            )
        for number, (name, node) in list(enumerate(inputs.items(), 1))[1:]:
            args[number] = further[name].default if name in further else {} if name.startswith("**") else ()
            self.graph.erase_node(node)
        return root_fn, args

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        # torchvision's Normalize asks for types, which a graph has none of
        return type(m).__module__.startswith("torchvision.transforms") or super().is_leaf_module(
            m, module_qualified_name
        )

    def call_module(self, m: nn.Module, forward: Callable, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        name = self.path_of_module(m)
        number = self.num_calls.get(name, 0)
        given = super().call_module(m, forward, args, kwargs)
        if m._forward_hooks and isinstance(given, fx.Proxy):  # what they compute besides is no value of the module
            given.node.meta[_ENDS] = (*given.node.meta.get(_ENDS, ()), f"{name}@{number}" if number else name)
        return given

    def to_bool(self, obj: fx.Proxy) -> bool:
        if not _is_of_shape(obj.node):
            return super().to_bool(obj)
        self.asked_for_shape = True
        assert isinstance(self.root, nn.Module)
        asked = fx.Graph()
        copied: dict[fx.Node, fx.Node] = {}
        asked.graph_copy(self.graph, copied)
        asked.output(copied[obj.node])
        known = fx.GraphModule(self.root, asked)
        known.graph.eliminate_dead_code()
        image = next(self.root.parameters(), torch.empty(0)).new_zeros(
            1, _taken(self.root, self.graph), EXAMPLE, EXAMPLE
        )
        with torch.no_grad():
            return bool(fx.Interpreter(known).run(image))


_ENDS = "rfviz ends"
"""Of a node: calls of modules with hooks that end there."""

EXAMPLE = 224
"""Side of the image that tells the shapes that a network asks for, px."""

SIDES = (EXAMPLE, 32, 28, 64, 96, 256, 299, 384)
"""Sides of images that may go through a network, px, in the order in which they are tried."""


def _is_of_shape(node: fx.Node) -> bool:
    """Tell whether a node depends on images by their shapes alone."""
    if node.op in ("placeholder", "call_module"):
        return False
    return asks_for_shape(node) or all(_is_of_shape(source) for source in node.all_input_nodes)


def asks_for_shape(node: fx.Node) -> bool:
    """Tell whether a node says something of a value which its pixels have no part in, such as ``x.shape``."""
    if node.op == "call_method":
        return node.target in ("size", "dim")
    return node.op == "call_function" and node.target is getattr and node.args[1] in _ATTRIBUTES


_ATTRIBUTES = ("shape", "ndim", "dtype", "device")


_REMEMBERED: dict[nn.Module, fx.GraphModule] = {}


@contextlib.contextmanager
def remembering(nets: Iterable[nn.Module]) -> Iterator[None]:
    """Trace some networks now and not again inside the block, in which several threads may use them.

    `torch.fx` cannot trace while another thread computes: for that time it changes what calling a module does.
    """
    before = dict(_REMEMBERED)
    _REMEMBERED.update({unwrapped(net): trace(net) for net in nets})
    try:
        yield
    finally:
        _REMEMBERED.clear()
        _REMEMBERED.update(before)


def trace(net: nn.Module) -> fx.GraphModule:
    """Return the graph of the forward pass of `net` in evaluation mode; modules are shared with `net`.

    Poolings and paddings that are written as functions stand in it as modules.

    Raises
    ------
    RfvizError
        See `unwrapped`; and if the forward pass depends on values, so that no single graph describes it.
    """
    net = unwrapped(net)
    if net in _REMEMBERED:
        return fx.GraphModule(_REMEMBERED[net], copy.deepcopy(_REMEMBERED[net].graph))
    tracer = _Tracer()
    try:
        with evaluating(net):
            traced = fx.GraphModule(net, tracer.trace(net))
    except RfvizError:
        raise
    except fx.proxy.TraceError as error:
        raise RfvizError(
            f"the forward pass of {type(net).__name__} depends on the values of an image ({first_line(error)}), so no "
            "single graph describes it: put what asks for them into a module outside the network."
        ) from error
    except Exception as error:  # fx raises many types; to the user they all mean one thing
        raise RfvizError(
            f"the forward pass of {type(net).__name__} cannot be drawn as a graph ({first_line(error)}): torch.fx must "
            "be able to trace it."
        ) from error
    for node in list(traced.graph.nodes):
        _as_module(traced, node)
    traced.recompile()
    for node in traced.graph.nodes:
        if _works_in_place(traced, node):  # whoever reads what it has overwritten depends on it, though fx sees no link
            node.all_input_nodes[0].replace_all_uses_with(node, lambda user, node=node: node < user)
    if net not in _COMPARED and not type(net).__module__.startswith("rfviz."):
        _compare(net, traced, SIDES if tracer.asked_for_shape else sorted(SIDES))
        _COMPARED.add(net)
    return traced


_COMPARED: weakref.WeakSet[nn.Module] = weakref.WeakSet()
"""Networks whose graphs put out what they do; ours are tested to."""

_APART = 0.05
"""Largest difference of outputs, of the largest: a network may round to half precision where its graph does not."""


def _compare(net: nn.Module, traced: fx.GraphModule, sides: Iterable[int]) -> None:
    """Raise RfvizError if a graph puts out something else than its network, for noise of the first side that goes.

    Hooks on the whole network are not called; those on its layers are.
    """
    weight = next(net.parameters(), torch.empty(0))
    for side in () if weight.is_meta else sides:
        image = torch.rand(1, in_channels(traced), side, side, generator=torch.Generator().manual_seed(0)).to(weight)
        found = []
        with contextlib.suppress(Exception), torch.no_grad(), evaluating(net):
            for run in (net.forward, fx.Interpreter(traced).run):
                with seeded(0):  # a network that draws numbers draws the same
                    found.append([each for each in tree_leaves(run(image.clone())) if isinstance(each, Tensor)])
        if len(found) < 2:
            continue
        same = len(found[0]) == len(found[1]) and all(map(_are_close, *found))
        if not same:
            raise RfvizError(
                f"the graph of {type(net).__name__} puts out something else than the network itself: its forward pass "
                "asks what type an image is, catches errors, draws numbers, or changes with += what it reads "
                "elsewhere. Write x = x + y there, and put the rest into a module outside the network."
            )
        return


def _are_close(expected: Tensor, found: Tensor) -> bool:
    """Tell whether two results are alike but for rounding; NaN and infinity are where they are."""
    if expected.shape != found.shape:
        return False
    finite = expected.isfinite()
    largest = expected[finite].abs().amax() if finite.any() else 0
    return torch.equal(finite, found.isfinite()) and bool(((expected - found)[finite].abs() <= _APART * largest).all())


def _max_pool(
    kernel_size: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1, ceil_mode: bool = False, *_: Any
) -> nn.Module:
    return nn.MaxPool2d(kernel_size, stride, padding, dilation, ceil_mode=ceil_mode)


def _pad(pad: Any, mode: str = "constant", value: float | None = None) -> nn.Module | None:
    if mode == "constant":
        return nn.ConstantPad2d(tuple(pad), value or 0.0) if len(pad) == 4 else None
    return {"reflect": nn.ReflectionPad2d, "replicate": nn.ReplicationPad2d}[mode](tuple(pad))


_AS_MODULES: dict[Any, Callable[..., nn.Module | None]] = {
    F.max_pool2d: _max_pool,
    torch.max_pool2d: _max_pool,
    F.avg_pool2d: nn.AvgPool2d,
    F.pad: _pad,
}


def _as_module(traced: fx.GraphModule, node: fx.Node) -> None:
    """Put a module in the place of a function that does the same, so that its geometry is read in one way."""
    make = _AS_MODULES.get(node.target) if node.op == "call_function" else None
    if make is None or len(node.all_input_nodes) != 1:  # sizes that are computed are no geometry
        return
    source, *args = node.args or (node.kwargs["input"],)
    options = {name: value for name, value in node.kwargs.items() if name not in ("input", "return_indices")}
    try:
        module = make(*args, **options)
    except (TypeError, KeyError):  # a kind that is not known
        return
    if module is None:
        return
    name = f"as_module_{node.name}"
    traced.add_submodule(name, module)
    with traced.graph.inserting_before(node):
        same = traced.graph.call_module(name, (source,))
    same.meta = dict(node.meta)
    node.replace_all_uses_with(same)
    traced.graph.erase_node(node)


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


def ancestors(node: fx.Node) -> set[fx.Node]:
    """Return a node and everything that it is computed from."""
    found, waiting = set(), [node]
    while waiting:
        node = waiting.pop()
        if node not in found:
            found.add(node)
            waiting.extend(node.all_input_nodes)
    return found


TO_LAST, TO_FIRST = (0, 2, 3, 1), (0, 3, 1, 2)
"""How axes are exchanged to put the channels of maps last, and first again."""


def permutation(node: fx.Node) -> tuple[int, ...]:
    """Return the order in which a node puts the axes; empty where it does something else."""
    if node.op not in ("call_function", "call_method") or node.target not in (torch.permute, "permute"):
        return ()
    given: Any = node.args[1:] or (node.kwargs["dims"],)
    return tuple(given[0] if isinstance(given[0], (list, tuple)) else given)


def channels_are_last(traced: fx.GraphModule, node: fx.Node) -> bool:
    """Tell whether the maps of a node are `(N, H, W, C)`, as between two permutations."""
    while node.op != "placeholder" and not isinstance(module_of(traced, node), nn.Conv2d):
        if order := permutation(node):
            return order == TO_LAST
        if not node.all_input_nodes:
            break
        node = node.all_input_nodes[0]
    return False


def in_channels(net: nn.Module) -> int:
    """Return how many channels the images of a network have: those of the first convolution of its pass, or else 3."""
    traced = net if isinstance(net, fx.GraphModule) else trace(net)
    return _taken(traced, traced.graph)


def _taken(root: nn.Module, graph: fx.Graph) -> int:
    called = [root.get_submodule(str(node.target)) for node in graph.nodes if node.op == "call_module"]
    modules = [*called, *root.modules()]  # of a pass that is not drawn as far, in the order in which they were made
    return next((module.in_channels for module in modules if isinstance(module, nn.Conv2d)), 3)


def shapes(traced: fx.GraphModule, side: int = EXAMPLE) -> dict[str, tuple[int, ...]]:
    """Return the shape of every value of a pass with a square image, empty for what is no tensor.

    Where the image cannot go through, what is behind is missing.
    """
    found: dict[str, tuple[int, ...]] = {}

    class Noting(fx.Interpreter):
        def run_node(self, n: fx.Node) -> Any:
            value = super().run_node(n)
            found[n.name] = tuple(value.shape) if isinstance(value, Tensor) else ()
            return value

    image = next(traced.parameters(), torch.empty(0)).new_zeros(1, in_channels(traced), side, side)
    noting = Noting(traced)
    noting.extra_traceback = False
    with (
        torch.no_grad(),
        evaluating(traced),
        contextlib.suppress(Exception),
    ):  # a linear layer wants one size, and the like
        noting.run(image)
    return found


def _calls(traced: fx.GraphModule) -> dict[str, list[fx.Node]]:
    """Map every module name to the last node of each of its calls, in order."""
    calls: dict[str, dict[str, fx.Node]] = {}
    for node in traced.graph.nodes:
        # The keys tell calls apart ("layer1.0.relu", "layer1.0.relu@1"), the values name the module.
        for call, (name, _) in (node.meta.get("nn_module_stack") or {}).items():
            nodes = calls.setdefault(name, {}) if name else {}
            if call not in nodes or call not in nodes[call].meta.get(_ENDS, ()):
                nodes[call] = node
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
    """Tell whether a ReLU ends `node`, or one each part that it puts together; max pooling commutes with it."""
    if is_relu(traced, node):
        return True
    looks_through = node.target is torch.cat or isinstance(module_of(traced, node), _COMMUTING)
    return looks_through and all(ends_in_relu(traced, source) for source in node.all_input_nodes)


def is_rectified(net: nn.Module, layer: str) -> bool:
    """Tell whether a ReLU ends a layer of a network."""
    traced = trace(net)
    return ends_in_relu(traced, find(traced, layer))


def _without_last_relu(traced: fx.GraphModule, node: fx.Node, layer: str) -> fx.Node:
    """Return what the ReLU that ends `node` rectifies, looking through what commutes with it."""
    if not ends_in_relu(traced, node):
        raise RfvizError(
            f"layer {layer!r} does not end in a ReLU: use objective='response' where there is a choice, or another "
            "layer."
        )
    return _unrectified(traced, node)


def _unrectified(traced: fx.GraphModule, node: fx.Node, *, kept: bool = False) -> fx.Node:
    """Return `node` without the ReLU that ends it; if it is to be kept, it is not overwritten by a ReLU in place."""
    if is_relu(traced, node):
        before = node.all_input_nodes[0]
        if kept:
            with traced.graph.inserting_after(before):
                before = traced.graph.call_method("clone", (before,))
        return before
    several = len(node.all_input_nodes) > 1
    sources = {source: _unrectified(traced, source, kept=several) for source in node.all_input_nodes}
    # A second such node, ahead of the ReLU, which may work in place; deeper layers go on from the first one.
    last = max(sources.values())
    with traced.graph.inserting_after(last):
        return traced.graph.node_copy(node, lambda source: sources[source])


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
        net = unwrapped(net)
        traced = trace(net)
        parameter = next(net.parameters(), None)
        if parameter is None:
            raise RfvizError(
                f"{type(net).__name__} has no parameters, which tell the device and type of images: make one of its "
                "buffers an nn.Parameter."
            )
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
        self.dtype = parameter.dtype
        self.nodes = dict(zip(layers, wanted, strict=True))
        self.layers: dict[fx.Node, list[str]] = {}
        for node, layer in zip(wanted, layers, strict=True):
            self.layers.setdefault(node, []).append(layer)
        self.to_output = to_output
        self._last = {node for node in self.layers if channels_are_last(traced, node)}
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
            What the network takes, of any floating-point type: it sees them in its own. Ignored where `given`
            already says everything.
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
        images = images.to(self.dtype).contiguous(memory_format=self.memory_format)
        try:
            with evaluating(self.net):
                value = self.run(images, initial_env=known or None)
                return value if self.to_output else self._maps(max(self.layers), value)
        except (RuntimeError, AssertionError) as error:
            if given or isinstance(error, torch.OutOfMemoryError):
                raise
            colours, *sides = images.shape[1:]
            if colours != (taken := in_channels(self.traced)):
                raise RfvizError(f"the network takes images of {taken} channels, but these have {colours}.") from error
            size = " x ".join(map(str, sides))
            raise RfvizError(f"images of {size} px do not go through the network ({first_line(error)}).") from error
        finally:
            self._read = None  # a reader may hold much, this pass among it
            self.env = {}

    def run_node(self, n: fx.Node) -> Any:
        """Compute one node and hand out its value at once if it is one of the layers."""
        value = super().run_node(n)
        self.elements += value.numel() if isinstance(value, Tensor) else 0
        if self._read is not None:
            for layer in self.layers.get(n, ()):
                self._read(layer, self._maps(n, value))
        return value

    def _maps(self, node: fx.Node, value: Any) -> Tensor:
        """Return a response as maps `(N, C, H, W)`; a vector has one position."""
        if isinstance(value, Tensor) and value.dim() == 2:
            return value[:, :, None, None]
        if not isinstance(value, Tensor) or value.dim() != 4:
            shape = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
            raise RfvizError(
                f"{self.layers[node][0]!r} puts out {shape}: only maps (N, C, H, W) and vectors (N, C) can be read. "
                "Choose another layer."
            )
        return value.permute(*TO_FIRST) if node in self._last else value
