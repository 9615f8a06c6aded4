"""Where the explorer's layers come from: a run, or what the repository keeps; one's own are in `rfviz.explorer.own`."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor, nn

from rfviz.errors import unknown
from rfviz.explorer.atlas import Drawn, draw, of_sheets
from rfviz.explorer.facts import RANGES, STATISTICS, LayerFacts, Ranges
from rfviz.images.whitening import Whitening
from rfviz.kernels import silent
from rfviz.kernels.responses.levels import maps, nearest
from rfviz.kernels.responses.top_stimuli import EMPTY
from rfviz.lab import results
from rfviz.lab.result import result
from rfviz.lab.run import Run
from rfviz.nets import layer_table, receptive_field
from rfviz.nets.models import build
from rfviz.nets.network import NETWORKS
from rfviz.nets.receptive_field import ReceptiveField

if TYPE_CHECKING:
    from rfviz.pages.evidence.reference import Reference

KEPT = 2**28
"""Bytes that the responses of a layer may take to be kept between two looks at them."""

OF_RANGE = 4
"""Stimuli from each of the lower ranges of the response."""


class Source(Protocol):
    """What an explorer shows."""

    def manifest(self) -> dict[str, Any]:
        """Return what there is to choose from, as JSON values."""

    def drawn(self, model: str, layer: str) -> Drawn:
        """Return a layer, computed if need be."""


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


def layer_row(
    model: str, layer: str, title: str, channels: int, field: ReceptiveField, stream: bool = False
) -> dict[str, Any]:
    """Describe a layer; of those of a stream, channels of one number belong together."""
    return {
        "model": model, "key": layer, "title": title, "channels": channels, "size": field.size, "stream": stream,
    }  # fmt: skip


def check(model: str, layer: str, offered: Mapping[str, Collection[str]]) -> None:
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
        return draw(with_places(LayerFacts(run.stimuli, found, None, white), net, layer, run.preset.borders))
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
    return draw(with_places(whole, net, layer, run.preset.borders))


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
        tables = {each.name: layer_table.layers(self.run.net(each.name)) for each in self.run.networks}
        for model, offered in self._offered.items():
            network = self.run.network(model.removesuffix("-random"))
            titles[model] = network.title if model == network.name else f"{network.title}, {results.RANDOM}"
            rows += [
                layer_row(
                    model, row.name, network.layer_title(row.name), row.channels, row.known.field,
                    row.name in network.stream,
                )
                for row in tables[network.name]
                if row.name in offered
            ]  # fmt: skip
        subject = self.run.subject
        return manifest(titles, rows, f"{subject.name}/{subject.stream[0]}/{subject.channel}")

    def drawn(self, model: str, layer: str) -> Drawn:
        """See `Source`."""
        check(model, layer, self._offered)
        name = model.removesuffix("-random")
        return atlas(self.run, name, layer) if model == name else atlas(self.run, name, layer, results.RANDOM)

    def net(self, model: str) -> tuple[nn.Module, Whitening]:
        """Return a network, and the whitening of its input."""
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

    kept: "Reference"
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
                layer_row(f"{self.prefix}{name}", layer, network.layer_title(layer), effects[0].channels, field, True)
                for layer, field in self._fields(name).items()
            ]
        return manifest(titles, rows, f"{rows[0]['model']}/{rows[0]['key']}/0")

    def _fields(self, name: str) -> dict[str, ReceptiveField]:
        return receptive_field.of_layers(build(name, 8, 2), NETWORKS[name].figure_layers)

    def drawn(self, model: str, layer: str) -> Drawn:
        """See `Source`."""
        name = model.removeprefix(self.prefix)
        check(model, layer, {f"{self.prefix}{name}": NETWORKS[name].figure_layers for name in self.kept.effects})
        return of_sheets(self.kept, name, layer, self._fields(name)[layer])


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


def with_places(layer: LayerFacts, net: nn.Module, name: str, borders: bool) -> LayerFacts:
    """Add the stimuli of `RANGES`, and where over the images of all stimuli the channels fire."""
    found, images, white = layer.found, layer.images, layer.whitening
    levels = found.top_values[:, :1].clamp(min=0) * torch.tensor(list(RANGES.values()))
    kept: dict[int, Tensor] | None = {} if 4 * found.channels * found.neuron_count <= KEPT else None
    chosen, positions = nearest(net, images, name, levels, OF_RANGE, preprocess=white, borders=borders, kept=kept)
    wanted: dict[int, set[int]] = {}
    fires = found.competes.tolist()
    for numbers in (found.top_images, chosen.flatten(1)):
        for channel, row in enumerate(numbers.tolist()):
            for number in row if fires[channel] else ():
                wanted.setdefault(number, set()).add(channel)
    wanted.pop(EMPTY, None)
    if kept is None:
        fired = maps(net, images, name, wanted, preprocess=white)
    else:
        fired = {(number, channel): kept[number][channel] for number, of in wanted.items() for channel in of}
    values = torch.zeros(chosen.shape)
    for place in (chosen != EMPTY).nonzero().tolist():
        channel, number, (y, x) = place[0], int(chosen[tuple(place)]), positions[tuple(place)].tolist()
        values[tuple(place)] = fired[number, channel][y, x] if fires[channel] else 0
    return layer._replace(ranges=Ranges(values, chosen, positions), maps=fired)
