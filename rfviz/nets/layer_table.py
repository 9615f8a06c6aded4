"""The layers of any network, as tables: what each is called, what a neuron of it sees, and what can be found out."""

import contextlib
import re
from typing import Any, NamedTuple

from torch import nn

from rfviz.errors import RfvizError
from rfviz.nets import cone, graph, receptive_field, zoo
from rfviz.nets.receptive_field import MEASURED, Known

SHOWN = 8
"""Layers that are shown of a network unless others are asked for, at most."""

UNFINISHED = (
    "Conv2d", "BatchNorm2d", "LayerNorm", "LayerNorm2d", "Permute", "AdaptiveAvgPool2d", "AdaptiveMaxPool2d",
)  # fmt: skip
"""Kinds of modules that are shown only if nothing else is: what follows them says more."""


class LayerRow(NamedTuple):
    """A layer: its name, what module it is, its channels, its receptive field and how that is known, whether a ReLU
    ends it, the positions that its maps have down and across, for an image of 224 px, and whether one neuron of it can
    be computed alone, as maximization without a canvas does.
    """

    name: str
    kind: str
    channels: int
    known: Known
    ends_in_relu: bool
    positions: int
    alone: bool

    @property
    def field(self) -> str:
        """The receptive field in words."""
        field, how = self.known
        if how == MEASURED:
            return "to be measured"
        if field.is_whole_image:
            return "whole image"
        return f"{field.size} px every {field.stride} px" + (" at most" if how == receptive_field.BOUND else "")

    @property
    def works(self) -> str:
        """What can be found out about its channels."""
        if self.known.field.is_whole_image and self.known.how != MEASURED:
            return "strongest images, activity, maximization on a canvas"
        alone = self.alone and self.known.how != MEASURED
        return "stimuli, means, activity, maximization" + ("" if alone else " on a canvas")


def layers(net: nn.Module | str) -> list[LayerRow]:
    """Return every layer of a network that can be read, in the order of the pass.

    Parameters
    ----------
    net : nn.Module or str
        Any network that `torch.fx` can trace, or the name of one.

    Raises
    ------
    RfvizError
        If it cannot be traced.
    """
    net = graph.unwrapped(zoo.built(net) if isinstance(net, str) else net)
    traced = graph.trace(net)
    names = graph.names(traced)
    shapes = receptive_field.Shapes(traced)
    composed = _composed(net, names)
    alone = cone.alone(traced)
    rows = []
    for name in composed:
        node = graph.find(traced, name)
        try:
            shape = shapes(node)
        except RfvizError:  # no image gets there
            continue
        if len(shape) not in (2, 4):
            continue
        last = graph.channels_are_last(traced, node)
        rows.append(
            LayerRow(
                name, _kind(net, name), shape[-1 if last else 1], composed[name], graph.ends_in_relu(traced, node),
                1 if len(shape) == 2 else shape[1 if last else 2], node in alone,
            )
        )  # fmt: skip
    return rows


def _composed(net: nn.Module, names: list[str]) -> dict[str, Known]:
    """Return the receptive fields of the layers that have one; behind strides that differ down and across, none has."""
    try:
        return receptive_field.known(net, names, measure=False)
    except RfvizError:
        found: dict[str, Known] = {}
        for name in names:
            with contextlib.suppress(RfvizError):
                found |= receptive_field.known(net, name, measure=False)
        return found


def _kind(net: nn.Module, name: str) -> str:
    modules = dict(net.named_modules())
    return type(modules.get(name, modules.get(re.sub(r"\d+$", "", name), net))).__name__


def shown(net: nn.Module) -> list[str]:
    """Choose some layers that give an overview of a network: the parts that it is made of, evenly, `SHOWN` at most."""
    net = graph.unwrapped(net)
    rows = {row.name: row for row in layers(net)}
    parts = [name for name, _ in net.named_children()]
    while len(mapped := [name for name in parts if name in rows and rows[name].positions > 1]) < 4:
        inside = [
            part
            for name in parts
            for part in (_children(net, name) if name in mapped or name not in rows else ()) or [name]
        ]
        if inside == parts:
            break
        parts = inside
    nodes: dict[Any, str] = {}
    traced = graph.trace(net)
    for name in mapped:
        if rows[name].ends_in_relu or rows[name].kind not in UNFINISHED:
            nodes.setdefault(graph.find(traced, name), name)
    for node, name in nodes.items():  # a part of which nothing else is shown, by its own name
        parent = name.rpartition(".")[0]
        inside = [each for each in nodes.values() if each.startswith(f"{parent}.")]
        if parent in rows and graph.find(traced, parent) is node and inside == [name]:
            nodes[node] = parent
    chosen = list(nodes.values()) or mapped or [name for name, row in rows.items() if row.kind == "Linear"][:1]
    if not chosen:
        raise RfvizError(
            f"{type(net).__name__} has no layer of maps or vectors for any image: there is nothing to show."
        )
    if len(chosen) > SHOWN:
        chosen = [chosen[round(number * (len(chosen) - 1) / (SHOWN - 1))] for number in range(SHOWN)]
    return chosen


def _children(net: nn.Module, name: str) -> list[str]:
    return [f"{name}.{child}" for child, _ in net.get_submodule(name).named_children()]


def natural_side(net: nn.Module) -> int:
    """Return the side of images that go through a network, px: 224 if these do."""
    return receptive_field.Shapes(graph.trace(net)).side
