"""The page on claims: each statement of the paper beside what a run measured, and a verdict.

Every verdict but that on (f), where one channel is enough, follows from intervals by the one rule of `rfviz.stats`,
each against a least effect that is fixed here. Where a statement has parts, all must hold. Statements that compare
networks take a training as the unit: with fewer than `TRAININGS` of each, they cannot tell. What other pages show as
well is measured there.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from IPython.display import Markdown
from torch import Tensor

from rfviz import stats
from rfviz.kernels.identify import KINDS
from rfviz.kernels.pictures import centrality, reliability
from rfviz.kernels.silent import inactive_channels
from rfviz.lab import results
from rfviz.lab.code import function_digest
from rfviz.lab.result import Result
from rfviz.lab.results import RANDOM
from rfviz.lab.run import Run
from rfviz.nets.network import Network
from rfviz.pages import colour, higher, maximization, orientation, sharing
from rfviz.pages.inactive import MORE, more_inactive, noise_change
from rfviz.pages.sharing import NO_LABELS
from rfviz.pages.style import no_contrast
from rfviz.stats import AGREES, CANNOT_TELL, DISAGREES, NOTHING, TRAININGS, Interval, all_of, few_trainings, judge

PAPER_SHARE = 13 / 64
"""Share of inactive channels that the paper found in its ResNet34."""

COMPARISONS = "cgh"
"""Statements that compare networks."""

PAPER_DECAY = 1.7
"""Cumulative decay of the paper's recipe."""

SMALL_DECAY = 1.0
"""Cumulative decay below which a channel can hardly vanish: a weight that nothing holds keeps a third and more."""

# Least effects, beside those of the pages.
DIVERSER, ALIKE, CENTRED, HALVES = 0.05, 0.5, 0.25, 0.5
KEEPS, HUES, HARM, HARM_RANDOM = 0.1, 0.1, 0.01, 0.001
LEAD, CUT = 0.1, 0.01

MORE_DIGITS = 3
"""Digits, at most, that an end of an interval gets in addition: no end may read like the least effect beside it."""

ARCHITECTURE = "What random weights have as well is architecture, and does not count against the statement."


class Part(NamedTuple):
    """A number that a statement needs on one side of a limit: above it, or below it if `expected` is -1.

    `random` is the same with random weights, where it is not subtracted.
    """

    name: str
    interval: Interval
    limit: float = 0.0
    expected: int = 1
    form: str = "+.2f"
    unit: str = ""
    random: float | None = None

    @property
    def verdict(self) -> str:
        """What the interval says."""
        return judge(self.interval.minus(self.limit), self.expected)

    @property
    def bound(self) -> str:
        """The limit without its unit, for people."""
        return stats.number(self.limit, self.form).removeprefix("+")

    @property
    def least(self) -> str:
        """The limit, for people."""
        side = "above" if self.expected > 0 else "below"
        return f"{self.name}: {side} {self.bound}{stats.unit(self.form) or self.unit}"

    def __str__(self) -> str:
        """Return name and number, for people: with more digits where an end would read like the limit it is not."""
        form, ends = self.form, [end for end in (self.interval.low, self.interval.high) if end != self.limit]
        for _ in range(MORE_DIGITS):
            said = [float(f"{number:{form}}".rstrip("%")) for number in (self.limit, *ends)]
            if said[0] in said[1:]:
                form = re.sub(r"\d+", lambda digits: str(int(digits[0]) + 1), form)
        random = "" if self.random is None else f", {RANDOM} {self.random:{form}}"
        return f"{self.name} {self.interval:{form}}{random}"


class Claim(NamedTuple):
    """A statement of the paper and what a run says of it.

    Parameters
    ----------
    letter, says : str
    measure : str
        How it is measured.
    least : str
        The least effects.
    parts : sequence of Part
        The numbers that decide; none where nothing could be measured.
    beside : str
        What is shown with them and decides nothing.
    verdict : str
        ``"agrees"``, ``"disagrees"`` or ``"cannot tell"``.
    why : str
    """

    letter: str
    says: str
    measure: str
    least: str
    parts: Sequence[Part]
    beside: str
    verdict: str
    why: str

    @property
    def measured(self) -> str:
        """The numbers, with intervals and n, for people."""
        return "; ".join([*map(str, self.parts), *filter(None, [self.beside])]) or "–"


def claim_of(stored: Mapping[str, Any]) -> Claim:
    """Return a claim that was written as JSON: its fields by name, tuples as lists."""
    parts = [Part(name, Interval(*interval), *rest) for name, interval, *rest in stored["parts"]]
    return Claim(**{**stored, "parts": parts})


def _claim(letter: str, says: str, measure: str, parts: Sequence[Part], beside: str = "") -> Claim:
    """Judge a statement by its parts; `beside` is shown with the numbers and decides nothing."""
    verdict = all_of([part.verdict for part in parts])
    deciding = [part.name for part in parts if part.verdict == verdict]
    side = {AGREES: "on the side that the statement expects", DISAGREES: "on the other side of the least effect"}
    if verdict == CANNOT_TELL:
        why = f"undecided: {'; '.join(deciding)}"
    else:
        why = f"the whole interval lies {side[verdict]}" + (f": {'; '.join(deciding)}" if verdict == DISAGREES else "")
    # parts that differ in the layer only share a least effect
    least = "; ".join(dict.fromkeys(part.least for part in parts))
    return Claim(letter, says, measure, least, parts, beside, verdict, why)


def _open(letter: str, says: str, measure: str, why: str) -> Claim:
    return Claim(letter, says, measure, "–", [], "", CANNOT_TELL, why)


def gather(runs: Sequence[Run], letters: str = "abcdefghijkl") -> list[Claim]:
    """Measure statements on some runs that differ in their seed: those of some letters, in the paper's order."""
    return [_measured(measure, runs) for letter, measure in _CLAIMS.items() if letter in letters]


def code(letters: str = "abcdefghijkl") -> dict[str, str]:
    """Return the hash of what measures each statement of some letters, by ``"claim a"``; see `rfviz.pages.style`.

    What computes results has hashes of its own.
    """
    return {f"claim {letter}": function_digest(_CLAIMS[letter], Result, "rfviz.lab") for letter in letters}


def _measured(measure: Callable[[Sequence[Run]], Claim], runs: Sequence[Run]) -> Claim:
    """Measure a statement, and say where single seeds contradict each other."""
    claim = measure(runs)
    alone = [measure([run]).verdict for run in runs] if len(runs) > 1 else []
    if claim.letter in COMPARISONS and len(runs) < TRAININGS and claim.verdict != CANNOT_TELL:
        claim = claim._replace(verdict=CANNOT_TELL, why=few_trainings(len(runs)))
    if {AGREES, DISAGREES} <= {*alone}:
        each = ", ".join(f"{run.seed} {verdict}" for run, verdict in zip(runs, alone, strict=True))
        claim = claim._replace(why=f"{claim.why}; single seeds contradict each other: {each}")
    return claim


def _over(runs: Sequence[Run], measure: Callable[[Run], Interval]) -> Interval:
    return stats.over_seeds([measure(run) for run in runs])


def _titles(run: Run) -> tuple[str, str]:
    """Return what the network with skips and the one without are called, of subject and contrast."""
    titles = {each.skips: each.title for each in (run.subject, run.contrast) if each}
    return titles.get(True, "a network with skips"), titles.get(False, "a network without skips")


def _diverse(runs: Sequence[Run]) -> Claim:
    networks = [each for each in (runs[0].subject, runs[0].contrast) if each]
    low, _, high = (networks[0].layer_title(layer) for layer in networks[0].figure_layers)
    side = results.stimuli(runs[0], networks[0].name)[networks[0].figure_layers[0]].receptive_field.size

    def ends(run: Run, network: Network, control: str | None = None) -> tuple[Tensor, Tensor]:
        lowest, _, highest = network.figure_layers
        first, last = (results.diversity(run, network.name, layer, lowest, control) for layer in (highest, lowest))
        return first, last

    def rise(network: Network, control: str | None = None) -> Interval:
        return _over(runs, lambda run: stats.difference(*ends(run, network, control)))

    def beyond(network: Network) -> Interval:
        pairs = ((ends(run, network), ends(run, network, RANDOM)) for run in runs)
        return stats.over_seeds([stats.difference_of_differences(*pair, of="channels") for pair in pairs])

    return _claim(
        "a", "Stimuli grow more diverse in higher layers, in both networks.",
        "One minus the mean likeness of the strongest stimuli of a channel, which may be shifted by 2 px, in the "
        f"central {side} px: {high} minus the {low}. {ARCHITECTURE}",
        [Part(f"rise in {each.title}", rise(each), DIVERSER, random=rise(each, RANDOM).value) for each in networks],
        f"rise minus that with random weights: {'; '.join(f'{each.title} {beyond(each):+.2f}' for each in networks)}",
    )  # fmt: skip


def _central(runs: Sequence[Run]) -> Claim:
    subject, layer = runs[0].subject, runs[0].subject.figure_layers[-1]

    def single(run: Run, control: str | None = None) -> Interval:
        return stats.mean(1 - results.diversity(run, subject.name, layer, layer, control))

    def centre(run: Run, control: str | None = None) -> Tensor:
        found = results.stimuli(run, subject.name, control)[layer]
        return centrality(found.mean_deviation[found.positive_count > 0])

    def halves(run: Run) -> Interval:
        return stats.mean(reliability(*(each.mean_deviation for each in results.halves(run, subject.name))))

    beyond = _over(runs, lambda run: stats.difference(centre(run), centre(run, RANDOM)))
    return _claim(
        "b", f"In {subject.layer_title(layer)} single patches look inconsistent, but their mean "
        f"has a feature at its centre (here: in {subject.title}).",
        "Likeness of single patches (as in a, but of the whole field). Contrast of the mean stimulus in its central "
        "third over that at its rim, in octaves. Correlation of the central thirds of two mean stimuli, of halves of "
        f"the images that share no photograph. {ARCHITECTURE}",
        [
            Part(
                "likeness of single patches", _over(runs, single), ALIKE, -1,
                random=_over(runs, lambda run: single(run, RANDOM)).value,
            ),
            Part(
                "centre over rim", _over(runs, lambda run: stats.mean(centre(run))), CENTRED, unit=" octaves",
                random=_over(runs, lambda run: stats.mean(centre(run, RANDOM))).value,
            ),
            Part("likeness of halves", _over(runs, halves), HALVES),
        ],
        f"centre over rim, minus random weights: {beyond:+.2f}",
    )  # fmt: skip


def _keeps(runs: Sequence[Run]) -> Claim:
    subject, contrast = runs[0].subject, runs[0].contrast
    skips, plain = _titles(runs[0])
    says = f"A channel keeps its feature from layer to layer in {skips} more than in {plain}."
    measure = (
        "How much more like itself than like any channel a channel is, averaged over steps from layer to layer: by the "
        "correlation of its mean stimuli, and by that of its responses (Channel sharing): "
        f"{subject.title} minus {contrast.title if contrast else 'the other'}."
    )
    if contrast is None:
        alone = "" if subject.bottleneck else _kept_alone(runs, subject)
        return _open("c", says, measure, no_contrast(runs[0]))._replace(beside=alone)
    wide = [each.title for each in (subject, contrast) if each.bottleneck]
    if wide:
        return _open("c", says, measure, f"in {wide[0]}, layer1 has other channels than the stem")
    expected = 1 if subject.skips else -1

    def part(name: str, measured: Callable[..., Interval], random: float) -> list[Part]:
        found = [Part(name, measured(runs), expected * KEEPS, expected, random=random)]
        if (controlled := runs[0].accuracy_control) is not None:
            found.append(Part(f"{name} at equal accuracy", measured(runs, controlled), expected * KEEPS, expected))
        return found

    kinds = [sharing.parts(runs, each.name) for each in (subject, contrast)]
    by_chance = [each.random_pictures.value for each in kinds], [each.random_responses.value for each in kinds]
    cut = "".join(
        f"; {each.title} with its skips cut: responses {found.cut.value:+.2f} instead of {found.responses.value:+.2f}"
        for each, found in zip((subject, contrast), kinds, strict=True)
        if each.shares_channels
    )
    learnt = ", ".join(
        f"{each.title} {found.learnt:+.2f}" for each, found in zip((subject, contrast), kinds, strict=True)
    )
    beside = f"what random weights have is architecture; learnt, by pictures: {learnt}{cut}"
    by_pictures, by_responses = (first - second for first, second in by_chance)
    parts = [
        *part("pictures", sharing.keeps, by_pictures),
        *part("responses", sharing.keeps_responses, by_responses),
    ]
    return _claim("c", says, measure, parts, beside)


def _kept_alone(runs: Sequence[Run], network: Network) -> str:
    """Say what is measured of one network, which compares with none."""
    found = sharing.parts(runs, network.name)
    return (
        f"{network.title}: pictures {found.pictures:+.2f}, {RANDOM} {found.random_pictures:+.2f}, learnt "
        f"{found.learnt:+.2f}; responses {found.responses:+.2f}, {RANDOM} {found.random_responses:+.2f}"
    )


def _resembles(runs: Sequence[Run]) -> Claim:
    subject = runs[0].subject
    found = maximization.resemblance(runs, subject.name)
    parts = [
        Part(
            f"{maximization.KINDS[kind]}, {subject.layer_title(layer)}",
            each,
            maximization.LEAST,
            form=".2f",
            random=found["random"][layer].value if kind == "maxima" else None,
        )
        for kind in ("maxima", "clear")
        for layer, each in found[kind].items()
    ]
    claim = _claim(
        "d", "The mean stimulus resembles the maximization image (Figs. 3 and 6).",
        "How often the mean stimulus of a channel is more like its own maximization image than like another channel's, "
        f"by correlation at equal spectra (0.5 is chance), in each of three layers and both settings, {subject.title}.",
        parts,
    )  # fmt: skip
    return claim._replace(least=f"each above {maximization.LEAST:g}")


def _surround(runs: Sequence[Run]) -> Claim:
    subject = runs[0].subject
    layer = subject.figure_layers[-1]
    found = [results.opponency(run, subject.name, layer) for run in runs]

    def over(kind: str, other: str) -> Interval:
        return stats.over_seeds([colour.hue_lead(each, kind, other) for each in found])

    counts = "; ".join(
        f"{name} {sum(int(each[kind].hue_differs.sum()) for each in found)} "
        f"({sum(int(each[kind].colour_opponent.sum()) for each in found)} opponent)"
        for kind, name in (*colour.PICTURES.items(), (RANDOM, RANDOM))
    )
    return _claim(
        "e", "Maximization shows another hue around the centre (in the paper: red around yellow), which the mean "
        "stimulus misses.",
        f"Share of channels of {subject.layer_title(layer)} in whose picture centre and surround differ in hue, beyond "
        f"pictures with random phases: maximization images minus mean stimuli, and minus maximization images of random "
        f"weights, {subject.title}.",
        [
            Part("maximization minus mean", over("maximization", "mean"), HUES, form="+.0%"),
            Part("minus random weights", over("maximization", RANDOM), form="+.0%"),
        ],
        f"pictures that differ: {counts}",
    )  # fmt: skip


def _exist(runs: Sequence[Run]) -> Claim:
    subject = runs[0].subject
    pooled = [results.pooling(run, subject.name) for run in runs]
    count, channels = sum(len(inactive_channels(each)) for each in pooled), sum(each.channels for each in pooled)
    measured = stats.share(count, channels)
    decay = _decay(runs[0], subject)
    if count:
        verdict, why = AGREES, f"{count} of {channels} channels never fire"
    elif decay is not None and decay < SMALL_DECAY:
        verdict, why = CANNOT_TELL, f"none was found, but D = {decay:.2g} is too small for a channel to vanish"
    elif measured.minus(PAPER_SHARE).sign < 0:
        verdict = DISAGREES
        why = f"none was found, and the share of the paper, {PAPER_SHARE:.0%}, lies above the interval"
    else:
        verdict, why = CANNOT_TELL, f"none was found, but there are too few channels to exclude {PAPER_SHARE:.0%}"
    return Claim(
        "f", f"{subject.title} has channels in the first pooling layer that never fire (in the paper: 13 of 64).",
        "Share of channels that are 0 at every position of every evaluation image, all networks together. It agrees if "
        "there is one, and disagrees if there is none, the cumulative decay D is large enough and the interval "
        "excludes 13 of 64.",
        "one channel", [Part("share", measured, form=".0%")],
        "" if decay is None else f"cumulative decay D = {decay:.2g} (the paper: {PAPER_DECAY:.2g})", verdict, why,
    )  # fmt: skip


def _decay(run: Run, network: Network) -> float | None:
    """Return the cumulative decay of a training; None where the weights of the stem were given."""
    if run.stored(network.name) is not None or run.recipe(network.name).frozen:
        return None
    recipe, count = run.recipe(network.name), len(run.train)
    return recipe.for_images(count).cumulative_decay(recipe.steps(count))


def _more(runs: Sequence[Run]) -> Claim:
    subject, contrast = runs[0].subject, runs[0].contrast
    skips, plain = _titles(runs[0])
    says = f"{skips[0].upper()}{skips[1:]} has more of them than {plain}."
    if contrast is None:
        return _open("g", says, "Difference of the shares of channels.", no_contrast(runs[0]))
    measure = f"Difference of the shares of channels: {subject.title} minus {contrast.title}."
    expected = 1 if subject.skips else -1
    controlled = runs[0].accuracy_control
    compared = [each.name for each in (subject, contrast, controlled) if each]
    pooled = {name: [results.pooling(run, name) for run in runs] for name in compared}
    parts = [Part("share", more_inactive(pooled, subject, contrast), expected * MORE, expected, "+.0%")]
    if controlled is not None:
        equal = more_inactive(pooled, controlled, contrast)
        parts.append(Part("at equal accuracy", equal, expected * MORE, expected, "+.0%"))
    if not any(map(inactive_channels, (*pooled[subject.name], *pooled[contrast.name]))):
        return _open("g", says, measure, "neither network has any in this run")
    return _claim("g", says, measure, parts)


def _harms(runs: Sequence[Run]) -> Claim:
    subject, contrast = runs[0].subject, runs[0].contrast
    skips, plain = _titles(runs[0])
    says = f"Noise in inactive channels raises the loss of {skips} (ΔL and ΔL_rnd), more than that of {plain}."
    measure = "Table 1, nats; where a network has no inactive channel, nothing changes."
    if contrast is None and not subject.skips:
        return _open("h", says, measure, no_contrast(runs[0]))
    if not runs[0].labelled:
        return _open("h", says, measure, NO_LABELS)
    pair = (subject.name, contrast.name if contrast else None)
    ours, other = pair if subject.skips else pair[::-1]
    assert ours is not None
    effects = [results.noise_effect(run, ours) for run in runs]
    if not any(each.inactive for each in effects):
        return _open("h", says, measure, f"{skips} has no inactive channel to disturb in this run")
    parts = []
    for row, name, least in (("inactive", "ΔL", HARM), ("random_inactive", "ΔL_rnd", HARM_RANDOM)):
        parts.append(Part(name, noise_change(effects, row), least, form="+.3f"))
        if other is None:
            continue
        further = {f"{name} minus {plain}'s": ours}
        if (controlled := runs[0].accuracy_control) is not None and subject.skips:
            further[f"{name} of {controlled.title}, minus {plain}'s"] = controlled.name
        parts += [
            Part(each, stats.over_seeds(_further_changes(runs, network, other, row)), form="+.3f")
            for each, network in further.items()
        ]
    claim = _claim("h", says, measure, parts)
    if other is None and claim.verdict == AGREES:  # the first half of the statement
        return claim._replace(verdict=CANNOT_TELL, why=f"it raises the loss. {no_contrast(runs[0])}")
    return claim


def _further_changes(runs: Sequence[Run], network: str, other: str, row: str) -> list[Interval]:
    """Return how much more noise changes the loss of a network than that of another, one number per run.

    In another network without inactive channels, nothing changes; runs without any in the first do not count.
    """
    found = []
    for run in runs:
        ours, others = (results.noise_effect(run, name).effects for name in (network, other))
        if row in ours:
            change = ours[row].loss.mean() - (others[row].loss.mean() if row in others else 0)
            found.append(NOTHING._replace(value=float(change), n=1, of="trainings"))
    return found


def _oriented(runs: Sequence[Run]) -> Claim:
    subject = runs[0].subject
    excess = _over(runs, lambda run: orientation.selective_excess(run, subject.name))
    return _claim(
        "i", f"{subject.title} has neurons that are selective for orientation (here: more than random weights give).",
        "Share of three layers in which a channel is more selective (1 minus circular variance) than "
        f"{orientation.NULL} % of channels with random weights at the same frequency, and {orientation.LEAST:g} at "
        f"least, and prefers the same orientation within {orientation.RELIABLE:.0f}° by the even and by the odd "
        "phases of the drift; minus that with random weights.",
        [Part("share minus random weights", excess, MORE, form="+.0%")],
    )  # fmt: skip


def _double_opponent(runs: Sequence[Run]) -> Claim:
    subject = runs[0].subject
    there = colour.layers(subject)
    counts = [colour.double_opponent([results.colour(run, subject.name, layer) for run in runs])[0] for layer in there]
    named = ", ".join(
        f"{count} {'among the first filters' if layer == 'conv1' else f'in {subject.layer_title(layer)}'}"
        for layer, count in zip(there, counts, strict=True)
    )
    excess = _over(runs, lambda run: colour.double_opponent_excess(run, subject.name))
    return _claim(
        "j", f"{subject.title} has double-opponent neurons (here: more than random weights give).",
        "Share of three layers in which a channel is double-opponent (Glossary): among the first filters from their "
        "weights, in two blocks from spots and rings; minus that with random weights.",
        [Part("share minus random weights", excess, MORE, form="+.0%")],
        f"double-opponent: {named}",
    )  # fmt: skip


def _fails(runs: Sequence[Run]) -> Claim:
    subject = runs[0].subject
    parts = []
    judged = [layer for layer in higher.judged(subject) if higher.fits(runs[0], subject.name, layer)]
    for layer in judged:
        title = subject.layer_title(layer)
        here = [results.readability(run, subject.name, layer) for run in runs]
        low = [results.readability(run, subject.name, subject.figure_layers[0]) for run in runs]
        lost = stats.over_seeds([stats.difference(*pair) for pair in zip(low, here, strict=True)])
        readable = stats.over_seeds([stats.median(each) for each in here])
        parts += [
            Part(f"contrast of the mean, {title}", readable, higher.HARD, -1, ".0%"),
            Part(f"contrast lost since the pooling layer, {title}", lost, form="+.0%"),
            Part(f"lead of maximization, {title}", higher.lead(runs, subject.name, layer), LEAD),
        ]
    scores = "; ".join(
        f"{subject.layer_title(layer)} {higher.score(runs, subject.name, layer, KINDS[0]):.2f}" for layer in judged
    )
    return _claim(
        "k", "In high layers it is hard to grasp from the mean stimulus what a neuron prefers, not from maximization.",
        "Readability: contrast of the mean stimulus, minus the mean patch, over that of the strongest stimuli, and how "
        "much lower it is than in the first pooling layer. Information: how often the picture of a channel drives it "
        "more than that of another channel, at equal contrast: maximization minus mean. "
        f"{subject.title}, in the paper's highest layer and further up, as far as a field fits into the images.",
        parts, f"the mean drives its own channel most in: {scores} (chance 0.5)",
    )  # fmt: skip


def _hypothesis(runs: Sequence[Run]) -> Claim:
    subject = runs[0].subject
    says = "Channels are inactive because later blocks use them for features unlike the filters (the hypothesis)."
    measure = (
        f"Of inactive channels of {subject.title}, minus the others: share of the contrast energy of the mean stimulus "
        f"at {subject.layer_title(subject.stream[-1])}, in its centre, as large as a filter, that no mixture of the "
        "filters makes (open where that is less than the least effect in every channel). And the change of the loss, "
        "nats, when the blocks may write nothing to the inactive channels, and how much more it is than with as many "
        "active ones that the first block reads most nearly as strongly. Channel sharing has the other predictions, "
        "When channels fall silent what keeping all channels alive costs."
    )
    if not subject.shares_channels:
        return _open("l", says, measure, f"no skips hand on the channels of the stem of {subject.title}")
    evidence = [results.evidence(run, subject.name) for run in runs]
    having = [each for each in evidence if each.inactive]
    if not having:
        return _open("l", says, measure, sharing.none_inactive(subject))
    if not runs[0].labelled:
        return _open("l", says, measure, NO_LABELS)
    cut = stats.over_seeds([each.dose.mean(each.cut[0]) for each in having])
    further = stats.over_seeds([each.dose.mean(each.cut[0] - each.cut[1]) for each in having])
    all_made = any(map(sharing.all_made, having))
    strange = NOTHING if all_made else stats.over_seeds([sharing.unlike(each) for each in having])
    return _claim(
        "l", says, measure,
        [
            Part("outside the filters", strange, sharing.STRANGE),
            Part("nothing written", cut, CUT, form="+.3f", unit=" nats"),
            Part("minus the same in matched active channels", further, form="+.3f", unit=" nats"),
        ],
        sharing.ALL_MADE if all_made else "",
    )  # fmt: skip


_CLAIMS = {
    "a": _diverse, "b": _central, "c": _keeps, "d": _resembles, "e": _surround, "f": _exist, "g": _more, "h": _harms,
    "i": _oriented, "j": _double_opponent, "k": _fails, "l": _hypothesis,
}  # fmt: skip

CONFIRMATORY = "fgh"
"""Statements that the paper measures itself, with numbers to compare; of the others, the measure is this edition's."""


def claims_answer(found: Mapping[str, Sequence[Claim]]) -> Markdown:
    """Say how many statements each set of networks agrees with, by what readers call it."""
    words = {AGREES: "agrees with", DISAGREES: "disagrees with", CANNOT_TELL: "cannot tell about"}
    sentences = []
    for called, stated in found.items():
        parts = []
        for verdict, said in words.items():
            letters = [claim.letter for claim in stated if claim.verdict == verdict]
            parts.append(f"{said} {len(letters)} ({', '.join(letters)})" if letters else f"{said} none")
        sentences.append(f"{called[0].upper()}{called[1:]}: {parts[0]}, {parts[1]} and {parts[2]}.")
    count = len(next(iter(found.values())))
    return Markdown(f"**Answer.** Of the {count} statements: {' '.join(sentences)}")
