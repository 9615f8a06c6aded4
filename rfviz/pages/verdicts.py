"""The statements of the paper as a figure: a row each, and beside it every run's number, its interval and its verdict.

It is HTML with drawings in it: it sorts without a program, and a screen reader finds the numbers as text.
"""

import html
import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from IPython.display import HTML

from rfviz.kernels.silent import inactive_channels
from rfviz.lab import results
from rfviz.lab.run import Run
from rfviz.nets.network import Network
from rfviz.pages import training
from rfviz.pages.claims import CONFIRMATORY, Claim, Part, gather
from rfviz.pages.style import channel_link, listed
from rfviz.stats import AGREES, CANNOT_TELL, DISAGREES

MARKS = {AGREES: "✓", DISAGREES: "✗", CANNOT_TELL: "?"}

_PICTURES, _MAXIMIZATION, _TABLE = "its Figs. 2 to 5", "its Figs. 3 and 6", "its section 3.4 and Table 1"
WHERE = {
    **dict.fromkeys("ab", (_PICTURES, "notebooks/02_preferred_stimuli", "Preferred stimuli")),
    "c": (_PICTURES, "notebooks/06_channel_sharing", "Channel sharing"),
    "d": (_MAXIMIZATION, "notebooks/03_activation_maximization", "Activation maximization"),
    "e": (_MAXIMIZATION, "notebooks/05_orientation_and_colour", "Orientation and colour"),
    **dict.fromkeys("fgh", (_TABLE, "notebooks/04_inactive_neurons", "Inactive neurons")),
    **dict.fromkeys("ij", ("its abstract", "notebooks/05_orientation_and_colour", "Orientation and colour")),
    "k": ("its conclusion", "notebooks/07_higher_layers", "Higher layers"),
    "l": ("its conclusion", "notebooks/06_channel_sharing", "Channel sharing"),
}
"""Where in the paper a statement stands, and the page behind it."""

WIDTH, HEIGHT, MARGIN, TICKS = 200, 26, 14, 12
"""Of a drawing, px; `TICKS` is the height of the numbers below it."""


APART = 22
"""Distance at which two numbers below a drawing do not touch, px."""

SILENT = "fghl"
"""Statements on channels that never fire in the first pooling layer."""


class Example(NamedTuple):
    """Channels of a run to look at in the explorer.

    Parameters
    ----------
    network : Network
    channel : int
        One that fires.
    silent : sequence of int
        Those that never fire in the first pooling layer.
    explored : str or None
        See `rfviz.pages.style.place`.
    of : str
        What of a run the network belongs to, where a reader could take it for another.
    elsewhere : str
        Statements that were measured in other networks of the run.
    """

    network: Network
    channel: int
    silent: Sequence[int]
    explored: str | None = ""
    of: str = ""
    elsewhere: str = ""


def example(run: Run) -> Example:
    """Return channels of the subject of a run to look at."""
    network = run.subject
    silent = inactive_channels(results.pooling(run, network.name))
    return Example(network, run.channels()[network.name], silent)


def figure(columns: Mapping[str, Sequence[Claim]], examples: Mapping[str, Example]) -> HTML:
    """Return the statements, one row each; `columns` are the runs by name, the first of which says what is stated.

    Drawn is the part of a statement that decides: a dot and its 95 % interval, a line at 0 and a dashed one at the
    least effect, with their numbers, the side that the statement expects shaded, and a diamond for random weights where
    they are not subtracted. One axis serves all runs of a row that measure in one unit. `examples`, by run, are what
    the numbers of a run are followed by.
    """
    (first, stated), *_ = columns.items()
    rows = []
    for claim in stated:
        found = {name: next((c for c in claims if c.letter == claim.letter), None) for name, claims in columns.items()}
        rows.append(_row(claim, found, examples))
    orders = (("as-in-the-paper", "as in the paper"), ("by-verdict", f"by the verdict of {first}"))
    choice = "".join(
        f'<label><input type="radio" name="claims-order" id="claims-{name}"{" checked" * (not i)}> {words}</label> '
        for i, (name, words) in enumerate(orders)
    )
    return HTML(
        f'<div class="rfviz-claims"><fieldset><legend>Order</legend>{choice}</fieldset>'
        f'<ol aria-label="Statements of the paper">{"".join(rows)}</ol></div>'
    )


def at_a_glance(runs: Sequence[Run], letters: str, kept: Mapping[str, Sequence[Claim]]) -> HTML:
    """Return, for the top of a page in a folder, which networks it shows and what is said of some statements.

    Parameters
    ----------
    runs : sequence of Run
        That the page shows.
    letters : str
        Of the statements.
    kept : dict from str to list of Claim
        What other runs say of them, by what readers call these.
    """
    here = gather(runs, letters)
    columns = {"this run": here, **kept}
    rows = []
    for claim in here:
        found = [next((c.verdict for c in claims if c.letter == claim.letter), None) for claims in columns.values()]
        cells = "".join(f"<td>{marked(each) if each else 'not measured'}</td>" for each in found)
        rows.append(
            f'<tr><th scope="row"><a href="../claims.html#claim-{claim.letter}">({claim.letter})</a> '
            f"{html.escape(claim.says)}</th>{cells}</tr>"
        )
    heads = "".join(f'<th scope="col">{html.escape(name)}</th>' for name in columns)
    return HTML(
        f'<div class="rfviz-glance"><p>This run: {html.escape(training.in_short(training.gather(runs)))}</p>'
        f'<table><thead><tr><th scope="col">the paper says</th>{heads}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def marked(verdict: str) -> str:
    """Return a verdict with its mark and colour."""
    return (
        f'<span class="verdict {verdict.replace(" ", "-")}"><span aria-hidden="true">{MARKS[verdict]}</span> '
        f"{verdict}</span>"
    )


def _row(claim: Claim, found: Mapping[str, Claim | None], examples: Mapping[str, Example]) -> str:
    rank = (AGREES, DISAGREES, CANNOT_TELL).index(claim.verdict)
    runs = "".join(_cell(name, each, _axes(found)) for name, each in found.items())
    place, page, title = WHERE[claim.letter]
    own = "The paper measures it itself." if claim.letter in CONFIRMATORY else "The measure is this edition's."
    numbers = "".join(
        f"<dt>{html.escape(name)}: {each.verdict}</dt><dd>{html.escape(each.measured)}. {_sentence(each.why)}"
        f"{_look(claim.letter, examples[name]) if name in examples else ''}</dd>"
        for name, each in found.items()
        if each is not None
    )
    return (
        f'<li style="--rank: {rank}" id="claim-{claim.letter}"><p><b>({claim.letter})</b> {html.escape(claim.says)}</p>'
        f'<div class="runs">{runs}</div>'
        f"<details><summary>How it is measured, and all numbers of ({claim.letter})</summary>"
        f"<p>{html.escape(claim.measure)} {own} Least effect: {html.escape(claim.least)}.</p><dl>{numbers}</dl>"
        f'<p>In the paper: {place}. In this book: <a href="{page}.html">{title}</a>.</p></details></li>'
    )


def _look(letter: str, example: Example) -> str:
    """Say which channels show in the explorer what a statement is about."""
    network = example.network
    if letter in example.elsewhere:
        return ""
    layer, channels = network.figure_layers[-1], [example.channel]
    if letter in SILENT:
        layer, channels = network.stream[0], [*example.silent]
    links = [channel_link(network, layer, channel, example.explored) for channel in channels]
    if not links:
        return ""
    number = f"{'channels' if len(links) > 1 else 'channel'} {listed(links)}"
    return f" In the explorer: {network.title}{example.of}, {network.layer_title(layer)}, {number}."


def _sentence(words: str) -> str:
    return html.escape(f"{words[:1].upper()}{words[1:].rstrip('.')}.")


def _cell(name: str, claim: Claim | None, axes: Mapping[str, tuple[float, float]]) -> str:
    if claim is None:
        return f'<div class="run"><span class="name">{html.escape(name)}</span> <span>not measured</span></div>'
    head = f'<span class="name">{html.escape(name)}</span> {marked(claim.verdict)}'
    part = decisive(claim)
    if part is None:
        return f'<div class="run">{head}<span class="number">{_sentence(claim.why)}</span></div>'
    others = len(claim.parts) - 1
    more = f" and {others} more" if others else ""
    why = "" if part.verdict == claim.verdict else f'<span class="number">{_sentence(claim.why)}</span>'
    return (
        f'<div class="run">{head}{_drawing(part, axes[_unit(part)])}'
        f'<span class="number">{html.escape(str(part))}{more}</span>{why}</div>'
    )


def decisive(claim: Claim) -> Part | None:
    """Return the part that decides: the first with the verdict that the parts give; None where nothing was measured."""
    measured = [part for part in claim.parts if not math.isnan(part.interval.value)]
    for verdict in (DISAGREES, CANNOT_TELL):
        for part in measured:
            if part.verdict == verdict:
                return part
    return measured[0] if measured else None


def _unit(part: Part) -> str:
    return f"{part.form}{part.unit}"


def _axes(found: Mapping[str, Claim | None]) -> dict[str, tuple[float, float]]:
    """Return the ends of an axis that holds what is drawn of all runs, by unit."""
    ends: dict[str, list[float]] = {}
    for claim in found.values():
        part = decisive(claim) if claim else None
        if part is not None:
            marks = [0.0, part.limit, 0.0 if part.random is None else part.random, *part.interval[:3]]
            ends.setdefault(_unit(part), []).extend(each for each in marks if math.isfinite(each))
    return {unit: (min(marks), max(marks)) for unit, marks in ends.items()}


def _drawing(part: Part, axis: tuple[float, float]) -> str:
    low, high = axis
    scale = (WIDTH - 2 * MARGIN) / ((high - low) or 1)

    def at(value: float) -> float:
        return round(MARGIN + (value - low) * scale, 1)

    middle, limit = HEIGHT / 2, at(part.limit)
    left, right = (limit, WIDTH) if part.expected > 0 else (0, limit)
    drawn = [
        f'<rect class="side" x="{left}" y="0" width="{right - left:g}" height="{HEIGHT}"/>',
        f'<path class="zero" d="M{at(0)} 0V{HEIGHT}"/>',
        f'<path class="limit" d="M{limit} 0V{HEIGHT}"/>',
    ]
    if math.isfinite(part.interval.low):
        drawn.append(f'<path class="interval" d="M{at(part.interval.low)} {middle}H{at(part.interval.high)}"/>')
    if part.random is not None:
        x = at(part.random)
        drawn.append(f'<path class="random" d="M{x} {middle - 5}l5 5l-5 5l-5 -5Z"/>')
    drawn.append(f'<circle cx="{at(part.interval.value)}" cy="{middle}" r="4"/>')
    ticks = {limit: part.bound}
    if abs(at(0) - limit) > APART:
        ticks[at(0)] = "0"
    tall = HEIGHT + TICKS
    drawn += [f'<text x="{x:g}" y="{tall - 2}">{number}</text>' for x, number in ticks.items()]
    return (
        f'<svg aria-hidden="true" width="{WIDTH}" height="{tall}" viewBox="0 0 {WIDTH} {tall}">{"".join(drawn)}</svg>'
    )
