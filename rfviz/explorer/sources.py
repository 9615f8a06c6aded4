"""Where the explorer's layers come from: a run, what the repository keeps, or networks and images of one's own."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from rfviz import _torchvision_ops  # isort: skip  # noqa: F401  # torchvision may not load without it
from torchvision.models import ResNet

from rfviz.errors import RfvizError, unknown
from rfviz.explorer.atlas import Atlas, draw, of_sheets
from rfviz.explorer.facts import RANGES, STATISTICS, LayerFacts, Ranges
from rfviz.images.data import Indexed
from rfviz.images.whitening import NONE, Whitening
from rfviz.kernels import responses, silent
from rfviz.kernels.maximization import Maximization, maximize
from rfviz.kernels.responses.levels import maps, nearest
from rfviz.kernels.responses.top_stimuli import EMPTY
from rfviz.lab import results
from rfviz.lab.result import result
from rfviz.lab.run import Run
from rfviz.nets import graph, receptive_field
from rfviz.nets.models import ResidualNet, build, layers, recognize
from rfviz.nets.network import NETWORKS
from rfviz.nets.receptive_field import ReceptiveField
from rfviz.pages.evidence.reference import Reference

MEANS = 2**30
"""Bytes that the means of a layer may take to be computed for a network of one's own."""

OF_RANGE = 4
"""Stimuli from each of the lower ranges of the response."""


class Drawn(NamedTuple):
    """A layer as a browser takes it: four sheets as WebP, and JSON values; see `rfviz.explorer.atlas.Atlas`."""

    cells: bytes
    stimuli: bytes
    sources: bytes
    maps: bytes
    facts: dict[str, Any]


class Source(Protocol):
    """What an explorer shows."""

    def manifest(self) -> dict[str, Any]:
        """Return what there is to choose from, as JSON values."""

    def drawn(self, model: str, layer: str) -> Drawn:
        """Return a layer, computed if need be."""


class LiveSource(Source, Protocol):
    """What an explorer shows beside a kernel, which can maximize again."""

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


def _row(
    model: str, layer: str, title: str, channels: int, field: ReceptiveField, stream: bool = False
) -> dict[str, Any]:
    """Describe a layer; of those of a stream, channels of one number belong together."""
    return {
        "model": model, "key": layer, "title": title, "channels": channels, "size": field.size, "stream": stream,
    }  # fmt: skip


def _check(model: str, layer: str, offered: Mapping[str, Collection[str]]) -> None:
    """Raise RfvizError unless there is such a network, and such a layer of it."""
    if model not in offered:
        raise unknown("network", model, offered)
    if layer not in offered[model]:
        raise unknown("layer", layer, offered[model])


@result
def atlas(run: Run, network: str, layer: str, control: str | None = None) -> Drawn:
    """Return what is known of a layer of a network or of a control, drawn for a browser.

    Of the layers in which the channels of the stem run on, everything; of the last blocks of higher stages, stimuli.
    """
    described, white = run.network(network), run.whitening(network)
    net = results.net_or_control(run, network, control)
    if layer not in described.stream:
        found = results.high_stimuli(run, network)[layer]
        return _encoded(draw(_with_places(LayerFacts(run.stimuli, found, None, white), net, layer, run.preset.borders)))
    found, filters = results.stimuli(run, network, control)[layer], net.conv1.weight.detach().cpu()
    whole = LayerFacts(
        run.stimuli,
        found,
        results.maxima(run, network, layer, control),
        white,
        filters if len(filters) == found.channels else None,  # a bottleneck widens the stem's channels
        orientation=results.orientation(run, network, layer, control),
        colour=results.colour(run, network, layer, control),
    )
    if control is None:
        written, ablated = results.written(run, network), results.ablations(run, network)
        whole = whole._replace(
            inactive=silent.inactive_channels(results.pooling(run, network)) if layer == "maxpool" else None,
            clear=results.clear_maxima(run, network, layer) if layer in described.figure_layers else None,
            wrote=written[layer].share if layer in written else None,
            removal=_of_all(ablated[layer].double().mean(1), found.channels) if layer in ablated else None,
        )
    return _encoded(draw(_with_places(whole, net, layer, run.preset.borders)))


def _of_all(values: Tensor, channels: int) -> Tensor:
    """Return values of the first channels for all of them: NaN where, behind a bottleneck, there are more."""
    return torch.cat([values, values.new_full((channels - len(values),), torch.nan)])


@dataclass(frozen=True)
class RunSource:
    """The layers of a run in which the channels of the stem run on, and one of each higher stage.

    Beside every network its control of random weights. What is drawn is kept with the results of the run.

    Parameters
    ----------
    run : Run
    """

    run: Run

    @property
    def _offered(self) -> dict[str, tuple[str, ...]]:
        """The layers that are offered, by network."""
        networks = self.run.networks
        return {each.name: (*each.stream, *each.high_layers) for each in networks} | {
            f"{each.name}-random": each.stream for each in networks
        }

    def manifest(self) -> dict[str, Any]:
        """See `Source`."""
        titles, rows = {}, []
        for model, offered in self._offered.items():
            network = self.run.network(model.removesuffix("-random"))
            titles[model] = network.title if model == network.name else f"{network.title}, {results.RANDOM}"
            rows += [
                _row(
                    model, layer.name, layer.title, layer.channels, layer.receptive_field, layer.name in network.stream
                )
                for layer in layers(self.run.net(network.name))
                if layer.name in offered
            ]
        subject = self.run.subject
        return manifest(titles, rows, f"{subject.name}/{subject.stream[0]}/{subject.channel}")

    def drawn(self, model: str, layer: str) -> Drawn:
        """See `Source`."""
        _check(model, layer, self._offered)
        name = model.removesuffix("-random")
        return atlas(self.run, name, layer) if model == name else atlas(self.run, name, layer, results.RANDOM)

    def net(self, model: str) -> tuple[nn.Module, Whitening]:
        """See `Source`."""
        name = model.removesuffix("-random")
        net = results.net_or_control(self.run, name, None if model == name else results.RANDOM)
        return net, self.run.whitening(name)


@dataclass(frozen=True)
class KeptSource:
    """A network of which the repository keeps pictures and numbers, but no photographs.

    Parameters
    ----------
    kept : Reference
        An exported run; see `rfviz.pages.evidence.reference`.
    data : str
        What it was trained on, for people.
    """

    kept: Reference
    data: str

    @property
    def prefix(self) -> str:
        """What distinguishes its networks from those of other sources: it stands before their names."""
        assert self.kept.explored is not None
        return self.kept.explored

    def manifest(self) -> dict[str, Any]:
        """See `Source`."""
        titles, rows = {}, []
        for name, effects in self.kept.effects.items():
            network = NETWORKS[name]
            titles[f"{self.prefix}{name}"] = f"{network.title}, {self.data}"
            rows += [
                _row(f"{self.prefix}{name}", layer, network.layer_title(layer), effects[0].channels, field, True)
                for layer, field in self._fields(name).items()
            ]
        return manifest(titles, rows, f"{rows[0]['model']}/{rows[0]['key']}/0")

    def _fields(self, name: str) -> dict[str, ReceptiveField]:
        return receptive_field.of_layers(build(name, 8, 2), NETWORKS[name].figure_layers)

    def drawn(self, model: str, layer: str) -> Drawn:
        """See `Source`."""
        name = model.removeprefix(self.prefix)
        _check(model, layer, {f"{self.prefix}{name}": NETWORKS[name].figure_layers for name in self.kept.effects})
        return _encoded(of_sheets(self.kept, name, layer, self._fields(name)[layer]))


class Shelf:
    """Several sources as one; see `Source`. It begins where the first does, and its statistics are those of all.

    Parameters
    ----------
    sources : sequence of Source
        Their networks have different names.
    """

    def __init__(self, sources: Sequence[Source]):
        self._manifests = [source.manifest() for source in sources]
        self._owners = {
            model["key"]: source
            for source, offered in zip(sources, self._manifests, strict=True)
            for model in offered["models"]
        }

    def manifest(self) -> dict[str, Any]:
        """See `Source`."""
        joined = {key: [row for each in self._manifests for row in each[key]] for key in ("models", "layers")}
        return {**self._manifests[0], **joined}

    def drawn(self, model: str, layer: str) -> Drawn:
        """See `Source`."""
        if model not in self._owners:
            raise unknown("network", model, self._owners)
        return self._owners[model].drawn(model, layer)


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
            self._drawn[model, layer] = _encoded(draw(_with_places(whole, net, layer, borders=False)))
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


def _with_places(layer: LayerFacts, net: nn.Module, name: str, borders: bool) -> LayerFacts:
    """Add the stimuli of `RANGES`, and where over the images of all stimuli the channels fire."""
    found, images, white = layer.found, layer.images, layer.whitening
    levels = found.top_values[:, :1].clamp(min=0) * torch.tensor(list(RANGES.values()))
    chosen, positions = nearest(net, images, name, levels, OF_RANGE, preprocess=white, borders=borders)
    wanted: dict[int, set[int]] = {}
    fires = found.competes.tolist()
    for numbers in (found.top_images, chosen.flatten(1)):
        for channel, row in enumerate(numbers.tolist()):
            for number in row if fires[channel] else ():
                wanted.setdefault(number, set()).add(channel)
    wanted.pop(EMPTY, None)
    fired = maps(net, images, name, wanted, preprocess=white)
    values = torch.zeros(chosen.shape)
    for place in (chosen != EMPTY).nonzero().tolist():
        channel, number, (y, x) = place[0], int(chosen[tuple(place)]), positions[tuple(place)].tolist()
        values[tuple(place)] = fired[number, channel][y, x] if fires[channel] else 0
    return layer._replace(ranges=Ranges(values, chosen, positions), maps=fired)


def _encoded(drawn: Atlas) -> Drawn:
    return Drawn(*drawn.files(), drawn.facts)
