"""Where the explorer's layers come from: a run, whose results are kept, or networks and images of one's own."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from rfviz import _torchvision_ops  # isort: skip  # noqa: F401  # torchvision may not load without it
from torchvision.models import ResNet

from rfviz.errors import RfvizError, unknown
from rfviz.explorer.atlas import draw
from rfviz.explorer.facts import STATISTICS, LayerFacts
from rfviz.images.data import Indexed
from rfviz.images.whitening import NONE, Whitening
from rfviz.kernels import responses, silent
from rfviz.kernels.maximization import Maximization, maximize
from rfviz.lab.result import result
from rfviz.lab.results import colour, maxima, orientation, pooling, stimuli
from rfviz.lab.run import Run
from rfviz.nets import graph, receptive_field
from rfviz.nets.models import ResidualNet, layers, recognize
from rfviz.nets.receptive_field import ReceptiveField

MEANS = 2**30
"""Bytes that the means of a layer may take to be computed for a network of one's own."""


class Drawn(NamedTuple):
    """A layer as a browser takes it: two sheets as WebP, and JSON values; see `rfviz.explorer.atlas.Atlas`."""

    cells: bytes
    sources: bytes
    facts: dict[str, Any]


class Source(Protocol):
    """What an explorer shows."""

    def manifest(self) -> dict[str, Any]:
        """Return what there is to choose from, as JSON values."""

    def drawn(self, model: str, layer: str) -> Drawn:
        """Return a layer, computed if need be."""

    def net(self, model: str) -> tuple[nn.Module, Whitening]:
        """Return a network, and the whitening of its input."""


def manifest(models: Mapping[str, str], rows: list[dict[str, Any]], start: str) -> dict[str, Any]:
    """Describe what there is to choose from: models (key and name), a row per layer, statistics, and where to start."""
    return {
        "models": [{"key": key, "title": title} for key, title in models.items()],
        "layers": rows,
        "statistics": [
            {"key": each.key, "name": each.name, "unit": each.unit, "explanation": each.explanation}
            for each in STATISTICS
        ],
        "start": start,
    }


def _row(model: str, layer: str, title: str, channels: int, field: ReceptiveField) -> dict[str, Any]:
    return {"model": model, "key": layer, "title": title, "channels": channels, "size": field.size}


def _check(model: str, layer: str, offered: Mapping[str, Collection[str]]) -> None:
    """Raise RfvizError unless there is such a network, and such a layer of it."""
    if model not in offered:
        raise unknown("network", model, offered)
    if layer not in offered[model]:
        raise unknown("layer", layer, offered[model])


@result
def atlas(run: Run, network: str, layer: str) -> Drawn:
    """Return what is known of a layer in which the channels of the stem run on, drawn for a browser."""
    found, filters = stimuli(run, network)[layer], run.net(network).conv1.weight.detach().cpu()
    return _encoded(
        LayerFacts(
            run.stimuli,
            found,
            maxima(run, network, layer),
            run.whitening(network),
            filters if len(filters) == found.channels else None,  # a bottleneck widens the stem's channels
            silent.inactive_channels(pooling(run, network)) if layer == "maxpool" else None,
            orientation=orientation(run, network, layer),
            colour=colour(run, network, layer),
        )
    )


@dataclass(frozen=True)
class RunSource:
    """The layers of a run in which the channels of the stem run on; what is drawn is kept with its results.

    Parameters
    ----------
    run : Run
    """

    run: Run

    def manifest(self) -> dict[str, Any]:
        """See `Source`."""
        rows = [
            _row(network.name, layer.name, layer.title, layer.channels, layer.receptive_field)
            for network in self.run.networks
            for layer in layers(self.run.net(network.name))
            if layer.name in network.stream
        ]
        subject = self.run.subject
        start = f"{subject.name}/{subject.stream[0]}/{subject.channel}"
        return manifest({network.name: network.title for network in self.run.networks}, rows, start)

    def drawn(self, model: str, layer: str) -> Drawn:
        """See `Source`."""
        _check(model, layer, {network.name: network.stream for network in self.run.networks})
        return atlas(self.run, model, layer)

    def net(self, model: str) -> tuple[nn.Module, Whitening]:
        """See `Source`."""
        return self.run.net(model), self.run.whitening(model)


class NetSource:
    """The layers of any networks, over any images; each is computed when it is first looked at.

    Parameters
    ----------
    nets : dict from str to nn.Module
    images : Tensor (N, 3, H, W) or data set
        RGB in [0, 1].
    whitening : Whitening
        Applied to the images just before the networks.
    layers : sequence of str, optional
        By default every layer whose receptive field is known.
    top_k, strongest, steps : int
        See `rfviz.kernels.responses.collect` and `rfviz.kernels.maximization.maximize`.

    Raises
    ------
    RfvizError
        If a network has no layer with a known receptive field, a layer is unknown, or a name has one of ``/&#%`` in it.
    """

    def __init__(
        self,
        nets: Mapping[str, nn.Module],
        images: Tensor | Indexed,
        whitening: Whitening = NONE,
        layers: list[str] | None = None,
        *,
        top_k: int = 16,
        strongest: int = 256,
        steps: int = 31,
    ):
        for name in nets:
            if not name or set(name) & set("/&#%"):
                raise RfvizError(f"a network is called {name!r}: give it a name without /, &, # and %.")
        self.nets, self.images, self.whitening = dict(nets), images, whitening
        self.top_k, self.strongest, self.steps = top_k, strongest, steps
        self._fields = {model: _fields(net, layers) for model, net in self.nets.items()}
        self._drawn: dict[tuple[str, str], Drawn] = {}

    def manifest(self) -> dict[str, Any]:
        """See `Source`."""
        rows = []
        for model, fields in self._fields.items():
            channels = _channels(self.nets[model], list(fields), self.images)
            titles = _titles(self.nets[model])
            rows += [
                _row(model, layer, titles.get(layer, layer), channels[layer], field) for layer, field in fields.items()
            ]
        return manifest({model: model for model in self.nets}, rows, f"{rows[0]['model']}/{rows[0]['key']}/0")

    def drawn(self, model: str, layer: str) -> Drawn:
        """See `Source`."""
        _check(model, layer, self._fields)
        if (model, layer) not in self._drawn:
            net = self.nets[model]
            found = self._collect(net, layer, self._fields[model][layer])
            objective = objective_of(net, layer)
            driven = maximize(net, layer, steps=self.steps, objective=objective)
            driven = Maximization(driven.images.cpu(), driven.activations.cpu(), driven.from_noise.cpu())
            whole = LayerFacts(self.images, found, driven, self.whitening, objective=objective)
            self._drawn[model, layer] = _encoded(whole)
        return self._drawn[model, layer]

    def _collect(self, net: nn.Module, layer: str, field: ReceptiveField) -> responses.LayerResponses:
        channels = _channels(net, [layer], self.images)[layer]
        means = 20 * channels * field.size**2 <= MEANS
        found = responses.collect(
            net, self.images, [layer], self.top_k, mean_stimulus=means, preprocess=self.whitening,
            strongest=self.strongest if means else None,
        )  # fmt: skip
        return found[layer]

    def net(self, model: str) -> tuple[nn.Module, Whitening]:
        """See `Source`."""
        return self.nets[model], self.whitening


def objective_of(net: nn.Module, layer: str) -> str:
    """Return what to maximise: the value before a layer's last ReLU, or its response where none ends it."""
    traced = graph.trace(net)
    return "before_relu" if graph.ends_in_relu(traced, graph.find(traced, layer)) else "response"


def _titles(net: nn.Module) -> dict[str, str]:
    """Return the paper's names of the layers of a ResNet or PlainNet, counted in it; none of another network's."""
    network = recognize(net.state_dict()) if isinstance(net, (ResidualNet, ResNet)) else None
    return {layer: network.layer_title(layer) for layer in network.layers} if network else {}


def _fields(net: nn.Module, chosen: list[str] | None) -> dict[str, ReceptiveField]:
    if chosen is not None:
        return receptive_field.of_layers(net, chosen)
    traced = graph.trace(net)
    named: dict[Any, list[str]] = {}  # several names may mean one response: a block, and the ReLU that ends it
    for name in graph.names(traced):
        named.setdefault(graph.find(traced, name), []).append(name)
    titles, fields = _titles(net), dict[str, ReceptiveField]()
    for node, names in named.items():
        name = min(names, key=lambda name: (name not in titles, _is_relu(net, name), len(name)))
        try:
            fields |= receptive_field.of_nodes(traced, {name: node})
        except RfvizError:  # a layer that sees the whole image, such as the classifier
            continue
    if not fields:
        raise RfvizError(f"{type(net).__name__} has no layer with a receptive field: nothing to explore.")
    return fields


def _is_relu(net: nn.Module, name: str) -> bool:
    modules = dict(net.named_modules())
    return isinstance(modules.get(name, modules.get(name.rstrip("0123456789"))), nn.ReLU)


def _channels(net: nn.Module, names: list[str], images: Tensor | Indexed) -> dict[str, int]:
    item = images[0]
    image = item[0] if isinstance(item, (tuple, list)) else item
    found: dict[str, int] = {}
    parameter = next(net.parameters())
    with torch.inference_mode(), graph.evaluating(net):
        graph.ForwardPass(net, names)(
            image[None].to(parameter), lambda name, response: found.update({name: response.shape[1]})
        )
    return found


def _encoded(layer: LayerFacts) -> Drawn:
    drawn = draw(layer)
    return Drawn(*drawn.files(), drawn.facts)
