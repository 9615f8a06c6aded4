"""Where the explorer's layers come from: a run, whose results are kept, or networks and images of one's own."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from rfviz.errors import RfvizError, unknown
from rfviz.explorer import atlas
from rfviz.explorer.facts import STATISTICS, Layer
from rfviz.images.data import Indexed
from rfviz.images.whitening import NONE, Whitening
from rfviz.kernels import responses
from rfviz.kernels.maximization import Maximization, maximize
from rfviz.lab.presets import EXPLORER_LAYERS, PAPER_CHANNELS
from rfviz.lab.store import source_digest
from rfviz.nets import graph, receptive_field
from rfviz.nets.models import LAYERS, PAPER_ARCHITECTURES, PAPER_NAMES, layers
from rfviz.nets.receptive_field import ReceptiveField

if TYPE_CHECKING:  # results are read through a run; what makes them is not needed here
    from rfviz.lab.runs import Run

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


@dataclass(frozen=True)
class RunSource:
    """The layers of a run; what is drawn is kept with its results.

    Parameters
    ----------
    run : Run
    """

    run: "Run"

    def manifest(self) -> dict[str, Any]:
        """See `Source`."""
        rows = [
            _row(model, layer.name, layer.paper_name, layer.channels, layer.receptive_field)
            for model in PAPER_ARCHITECTURES
            for layer in layers(self.run.net(model))
            if layer.name in EXPLORER_LAYERS
        ]
        model = next(iter(PAPER_ARCHITECTURES))
        return manifest(PAPER_ARCHITECTURES, rows, f"{model}/{EXPLORER_LAYERS[0]}/{PAPER_CHANNELS[model]}")

    def drawn(self, model: str, layer: str) -> Drawn:
        """See `Source`."""
        run = self.run
        if model not in PAPER_ARCHITECTURES:
            raise unknown("model", model, PAPER_ARCHITECTURES)
        if layer not in EXPLORER_LAYERS:
            raise unknown("layer", layer, EXPLORER_LAYERS)

        whole = Layer(  # not in compute, which one of several processes runs alone
            run.images.stimuli,
            run.responses(model, [layer])[layer],
            run.maximization(model, layer),
            run.whitening(model),
            run.net(model).conv1.weight.detach().cpu(),
            run.noise_effect(model).inactive if layer == "maxpool" else None,
            orientation=run.orientation(model, layer),
            colour=run.colour(model, layer),
        )

        def compute() -> tuple[dict[str, Tensor], dict[str, Any]]:
            cells, sources, facts = _encoded(whole)
            return {"cells": _bytes(cells), "sources": _bytes(sources)}, facts

        made_of = run.made_of(
            model,
            layer=layer,
            stimuli=run.images.stimuli.fingerprint,
            evaluation=run.images.evaluation.fingerprint,
            options=[run.preset.top_k, run.preset.strongest, run.preset.maximization_steps],
            precision=run.preset.analysis_precision,
            source=source_digest(__name__),
        )
        tensors, facts = run.store.get(f"atlas-{model}-{layer}", atlas, made_of, compute)
        return Drawn(tensors["cells"].numpy().tobytes(), tensors["sources"].numpy().tobytes(), facts)

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
            rows += [
                _row(model, layer, PAPER_NAMES.get(layer, layer) if layer in LAYERS else layer, channels[layer], field)
                for layer, field in fields.items()
            ]
        return manifest({model: model for model in self.nets}, rows, f"{rows[0]['model']}/{rows[0]['key']}/0")

    def drawn(self, model: str, layer: str) -> Drawn:
        """See `Source`."""
        if model not in self.nets:
            raise unknown("model", model, self.nets)
        if layer not in self._fields[model]:
            raise unknown("layer", layer, self._fields[model])
        if (model, layer) not in self._drawn:
            net = self.nets[model]
            found = self._collect(net, layer, self._fields[model][layer])
            objective = objective_of(net, layer)
            maxima = maximize(net, layer, steps=self.steps, objective=objective)
            maxima = Maximization(maxima.images.cpu(), maxima.activations.cpu())
            whole = Layer(self.images, found, maxima, self.whitening, objective=objective)
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


def _fields(net: nn.Module, chosen: list[str] | None) -> dict[str, ReceptiveField]:
    if chosen is not None:
        return receptive_field.of_layers(net, chosen)
    traced = graph.trace(net)
    named: dict[Any, list[str]] = {}  # several names may mean one response: a block, and the ReLU that ends it
    for name in graph.names(traced):
        named.setdefault(graph.find(traced, name), []).append(name)
    fields: dict[str, ReceptiveField] = {}
    for node, names in named.items():
        name = min(names, key=lambda name: (name not in PAPER_NAMES, _is_relu(net, name), len(name)))
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


def _encoded(layer: Layer) -> Drawn:
    drawn = atlas.draw(layer)
    return Drawn(*drawn.files(), drawn.facts)


def _bytes(data: bytes) -> Tensor:
    return torch.frombuffer(bytearray(data), dtype=torch.uint8)
