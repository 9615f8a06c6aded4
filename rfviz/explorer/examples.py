"""Channels worth a look, each chosen by a rule that any run can follow."""

import html
import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from IPython.display import HTML
from torch import Tensor

from rfviz.kernels.pictures import central, correlations
from rfviz.lab.results import colour, orientation, stimuli
from rfviz.lab.run import Run
from rfviz.nets.network import network
from rfviz.pages import landing
from rfviz.pages.evidence.reference import Reference
from rfviz.pages.style import Place, place


class Example(NamedTuple):
    """A channel: what it is called, how it was chosen, and where the explorer shows it."""

    title: str
    rule: str
    place: Place


def examples(run: Run) -> list[Example]:
    """Choose channels of the subject of a run; what no channel shows is left out."""
    subject = run.subject
    low, first, last = subject.figure_layers
    found = stimuli(run, subject.name)
    fires = {layer: each.firing_rate for layer, each in found.items()}
    title = subject.layer_title(last)
    small, large = (found[layer].strongest_deviation for layer in (first, last))
    assert small is not None and large is not None
    kept = correlations(small, central(large, small.shape[-1])).diagonal()
    kept = torch.where((fires[first] > 0) & (fires[last] > 0), kept, torch.nan)
    chosen: list[tuple[str, str, str, Tensor]] = [
        (
            "The same feature, two blocks on",
            f"the most alike of all means over the strongest neurons in {subject.layer_title(first)} and {title}",
            last, kept,
        ),
        (
            "The most oriented", f"the largest orientation selectivity in {title}",
            last, orientation(run, subject.name, last).selectivity,
        ),
        (
            "The most colourful", f"the most colour over luminance in {title}",
            last, colour(run, subject.name, last).sensitivity,
        ),
        ("The rarest", f"of the channels that fire in {title}, the one that fires least", last, _rarity(fires[last])),
    ]  # fmt: skip
    if len(fires[low]) == len(fires[last]):  # a channel of the stem is one of the blocks, too
        rises = torch.where(fires[low] == 0, found[last].maximum, torch.nan)
        rule = f"of the inactive channels, the one with the largest response in {title}"
        chosen.insert(1, ("Silent in the stem, busy behind it", rule, low, rises))
    return [
        Example(name, rule, there)
        for name, rule, layer, merit in chosen
        if (number := _best(merit)) is not None and (there := place(subject, layer, number))
    ]


def kept_example(kept: Reference) -> Example:
    """Choose a silent channel of a network that is kept: one of the few that the first page shows."""
    *_, number = landing.chosen(kept)
    (described,) = map(network, kept.effects)
    there = place(described, described.stream[0], number, kept.explored)
    assert there is not None
    rule = f"of the inactive channels of {described.title} that Fig. S21 shows, the last"
    return Example("The same, trained on ImageNet", rule, there)


def _rarity(rate: Tensor) -> Tensor:
    return torch.where(rate > 0, -rate, torch.nan)


def _best(merit: Tensor) -> int | None:
    """Return the channel of the largest finite number, the first of equal ones; None if there is none."""
    finite = torch.where(merit.isfinite(), merit.double(), -math.inf)
    return None if finite.isinf().all() else int(finite.argmax())


def named(found: Sequence[Example]) -> HTML:
    """Return the examples as links in one line."""
    links = " · ".join(map(_link, found))
    return HTML(f'<p class="rfviz-examples">For example: {links}</p>')


def listed(found: Sequence[Example]) -> HTML:
    """Return the examples with their rules as a list."""
    rules = "".join(f"<li>{_link(each)}: {html.escape(each.rule)}</li>" for each in found)
    return HTML(f'<ul class="rfviz-examples">{rules}</ul>')


def _link(example: Example) -> str:
    return f'<a href="{example.place.address}">{html.escape(example.title)}</a>'
