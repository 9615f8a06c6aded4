"""The page on claims: each statement of the paper beside what a run measured, and a verdict.

Every verdict follows from an interval by the one rule of `rfviz.stats`; where a statement speaks of inactive channels
and a run has none, or of a network that the run does not have, it cannot tell. Where several networks of each kind were
trained, intervals are over seeds. What other pages show as well is measured there.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import pandas as pd
import torch
from IPython.display import HTML, Markdown

from rfviz import stats
from rfviz.kernels.identify import CHANCE, KINDS
from rfviz.kernels.pictures import centrality, diversity
from rfviz.kernels.responses import LayerResponses
from rfviz.kernels.silent import inactive_channels
from rfviz.kernels.tuning import centre_surround
from rfviz.lab import results
from rfviz.lab.run import Run
from rfviz.pages import higher, sharing
from rfviz.pages.colour import double_opponent_shares, opponency, opponent_share
from rfviz.pages.inactive import more_inactive, noise_change
from rfviz.pages.maximization import resemblance
from rfviz.pages.orientation import NULL, selective_share
from rfviz.pages.style import in_sentences, no_contrast
from rfviz.stats import AGREES, CANNOT_TELL, DISAGREES, Interval, because, judge

PAPER_SHARE = 13 / 64
"""Share of inactive channels that the paper found in its ResNet34."""


class Claim(NamedTuple):
    """A statement of the paper and what a run says of it.

    Parameters
    ----------
    letter, says : str
    measure : str
        How it is measured.
    measured : str
        The numbers, with intervals and n.
    verdict : str
        ``"agrees"``, ``"disagrees"`` or ``"cannot tell"``.
    why : str
    """

    letter: str
    says: str
    measure: str
    measured: str
    verdict: str
    why: str


def gather(runs: Sequence[Run]) -> list[Claim]:
    """Measure every statement on some runs that differ in their seed."""
    return [measure(runs) for measure in _CLAIMS]


def _over(runs: Sequence[Run], measure: Callable[[Run], Interval]) -> Interval:
    return stats.over_seeds([measure(run) for run in runs])


def _titles(run: Run) -> tuple[str, str]:
    """Return what the network with skips and the one without are called, of subject and contrast."""
    titles = {each.skips: each.title for each in (run.subject, run.contrast) if each}
    return titles.get(True, "a network with skips"), titles.get(False, "a network without skips")


def _lowest_and_highest(run: Run) -> tuple[LayerResponses, LayerResponses]:
    """Return the responses of the subject in the first and last layer of the figures."""
    found, layers = results.stimuli(run, run.subject.name), run.subject.figure_layers
    return found[layers[0]], found[layers[-1]]


def _diverse(runs: Sequence[Run]) -> Claim:
    subject = runs[0].subject
    low, _, high = (subject.layer_title(layer) for layer in subject.figure_layers)
    side = _lowest_and_highest(runs[0])[0].receptive_field.size

    def more(run: Run) -> Interval:
        lowest, highest = (diversity(run.stimuli, each, side) for each in _lowest_and_highest(run))
        return stats.difference(highest, lowest)

    measured = _over(runs, more)
    return Claim(
        "a", f"Stimuli grow more diverse in higher layers (here: of {subject.title}).",
        f"One minus the mean correlation between the strongest stimuli of a channel, in the central {side} px: {high} "
        f"minus the {low}, {subject.title}.",
        f"{measured:+.2f}", judge(measured), because(measured),
    )  # fmt: skip


def _central(runs: Sequence[Run]) -> Claim:
    subject = runs[0].subject
    side = _lowest_and_highest(runs[0])[0].receptive_field.size

    def centre(run: Run) -> Interval:
        _, found = _lowest_and_highest(run)
        return stats.median(centrality(found.mean_deviation[found.positive_count > 0]))

    measured = _over(runs, centre)
    alike = _over(runs, lambda run: stats.mean(1 - diversity(run.stimuli, _lowest_and_highest(run)[1], side)))
    return Claim(
        "b", f"In {subject.layer_title(subject.figure_layers[-1])} single patches look inconsistent, but their mean "
        f"has a feature at its centre (here: in {subject.title}).",
        "Contrast of the mean stimulus in its central third over that at its rim, in octaves (median over channels); "
        f"beside it, the mean correlation between single patches, in the central {side} px. {subject.title}.",
        f"{measured:+.2f} octaves; single patches: {alike:+.2f}", judge(measured), because(measured),
    )  # fmt: skip


def _keeps(runs: Sequence[Run]) -> Claim:
    subject, contrast = runs[0].subject, runs[0].contrast
    skips, plain = _titles(runs[0])
    says = f"A channel keeps its feature from layer to layer in {skips} more than in {plain}."
    measure = (
        "Correlation between the mean stimuli of a channel in neighbouring layers, above that of all pairs, averaged "
        f"over the steps from layer to layer: {subject.title} minus {contrast.title if contrast else 'the other'}."
    )
    if contrast is None:
        return Claim("c", says, measure, "–", CANNOT_TELL, no_contrast(runs[0]))
    wide = [each.title for each in (subject, contrast) if each.bottleneck]
    if wide:
        return Claim("c", says, measure, "–", CANNOT_TELL, _other_channels(wide[0]))
    each = [sharing.keeping(runs, network.name) for network in (subject, contrast)]
    verdict, shown, why = _compared(runs, sharing.keeps, "+.2f")
    return Claim(
        "c", says, measure, f"{shown}; {subject.title} {each[0].value:+.2f}, {contrast.title} {each[1].value:+.2f}",
        verdict, why,
    )  # fmt: skip


def _compared(runs: Sequence[Run], measure: Callable[..., Interval], digits: str) -> tuple[str, str, str]:
    """Judge whether a measure is greater with skips than without: verdict, what was measured, and why.

    Where the run has a control for accuracy, the difference must have the same sign there: otherwise it may be one of
    accuracy.
    """
    subject, contrast, controlled = runs[0].subject, runs[0].contrast, runs[0].accuracy_control
    measured, expected = measure(runs), 1 if runs[0].subject.skips else -1
    verdict, shown, why = judge(measured, expected), format(measured, digits), because(measured)
    if controlled and contrast:
        at_equal = measure(runs, controlled)
        shown += f"; at equal accuracy ({controlled.title}, minus {contrast.title}) {at_equal:{digits}}"
        if verdict != CANNOT_TELL and judge(at_equal, expected) != verdict:
            so = "the interval holds 0" if judge(at_equal) == CANNOT_TELL else "it is the other way round"
            verdict, why = CANNOT_TELL, f"{subject.title} also classifies better, and at equal accuracy {so}"
    return verdict, shown, why


def _other_channels(title: str) -> str:
    return f"in {title}, layer1 has other channels than the stem"


def _resembles(runs: Sequence[Run]) -> Claim:
    subject = runs[0].subject
    measured = resemblance(runs, subject.name)
    why = _other_channels(subject.title) if subject.bottleneck else because(measured)
    return Claim(
        "d", "The mean stimulus resembles the maximization image (Figs. 3 and 6).",
        "Correlation of the two pictures of a channel, minus that with the maximization images of other channels, "
        f"{subject.title}, mean over three layers.",
        f"{measured:+.2f}", judge(measured), why,
    )  # fmt: skip


def _opponency(runs: Sequence[Run]) -> Claim:
    subject = runs[0].subject
    found = [opponency(run, subject.name, subject.figure_layers[-1]) for run in runs]
    differences = []
    for each in found:
        there = each["mean"].index.isfinite()
        ours, other = (each[kind].colour_opponent[there].double() for kind in ("maximization", "mean"))
        differences.append(stats.mean(ours - other))
    measured = stats.over_seeds(differences)
    driven, mean = (
        stats.over_seeds([opponent_share(each[kind]) for each in found]) for kind in ("maximization", "mean")
    )
    verdict, why = judge(measured), because(measured)
    if verdict == AGREES and driven.minus(centre_surround.LEVEL).sign <= 0:
        verdict = CANNOT_TELL
        why = f"the share of maximization images does not exceed the {centre_surround.LEVEL:.0%} of chance"
    return Claim(
        "e", "Maximization shows an opponency of centre and surround in colour that the mean stimulus misses (in the "
        "paper: a yellow centre in a red surround).",
        f"Share of channels of {subject.layer_title(subject.figure_layers[-1])} with centre and surround of opponent "
        f"colours beyond pictures with random phases: maximization images minus mean stimuli, {subject.title}; the "
        f"former must also exceed the {centre_surround.LEVEL:.0%} of chance.",
        f"{measured:+.0%}; maximization {driven:.0%}, mean {mean:.0%}", verdict, why,
    )  # fmt: skip


def _exist(runs: Sequence[Run]) -> Claim:
    subject = runs[0].subject
    pooled = [results.pooling(run, subject.name) for run in runs]
    count, channels = sum(len(inactive_channels(each)) for each in pooled), sum(each.channels for each in pooled)
    measured = stats.share(count, channels)
    if count:
        verdict, why = AGREES, f"{count} of {channels} channels never fire"
    elif measured.minus(PAPER_SHARE).sign < 0:
        verdict = DISAGREES
        why = f"none was found, and the share of the paper, {PAPER_SHARE:.0%}, lies above the interval"
    else:
        verdict, why = CANNOT_TELL, f"none was found, but there are too few channels to exclude {PAPER_SHARE:.0%}"
    return Claim(
        "f", f"{subject.title} has channels in the first pooling layer that never fire (in the paper: 13 of 64).",
        "Share of channels that are 0 at every position of every evaluation image, all networks together. It agrees if "
        "there is one, and disagrees if there is none and the interval excludes 13 of 64.",
        f"{measured:.0%}", verdict, why,
    )  # fmt: skip


def _more(runs: Sequence[Run]) -> Claim:
    subject, contrast = runs[0].subject, runs[0].contrast
    skips, plain = _titles(runs[0])
    says = f"{skips[0].upper()}{skips[1:]} has more of them than {plain}."
    if contrast is None:
        return Claim("g", says, "Difference of the shares of channels.", "–", CANNOT_TELL, no_contrast(runs[0]))
    pair = (subject.name, contrast.name)
    any_inactive = any(inactive_channels(results.pooling(run, name)) for run in runs for name in pair)
    verdict, shown, why = _compared(runs, more_inactive, "+.0%")
    return Claim(
        "g", says, f"Difference of the shares of channels: {subject.title} minus {contrast.title}.",
        shown, verdict, why if any_inactive else "neither network has any in this run",
    )  # fmt: skip


def _harms(runs: Sequence[Run]) -> Claim:
    subject, contrast = runs[0].subject, runs[0].contrast
    skips, plain = _titles(runs[0])
    says = f"Noise in inactive channels raises the loss of {skips} (ΔL and ΔL_rnd), more than that of {plain}."
    if contrast is None:
        return Claim("h", says, "Table 1, nats.", "–", CANNOT_TELL, no_contrast(runs[0]))
    ours, other = (subject.name, contrast.name) if subject.skips else (contrast.name, subject.name)
    found: dict[str, Interval] = {}
    for row, name in {"inactive": "ΔL", "random_inactive": "ΔL_rnd"}.items():
        found[name] = noise_change(runs, ours, row)
        found[f"{name} minus {plain}'s"] = stats.over_seeds(_further_changes(runs, ours, other, row))
        if (controlled := runs[0].accuracy_control) and subject.skips:
            further = _further_changes(runs, controlled.name, other, row)
            found[f"{name} of {controlled.title}, minus {plain}'s"] = stats.over_seeds(further)
    if not any(results.noise_effect(run, ours).inactive for run in runs):
        verdict, why, shown = CANNOT_TELL, f"{skips} has no inactive channel to disturb in this run", "–"
    else:
        signs = {each.sign for each in found.values()}
        verdict = DISAGREES if -1 in signs else CANNOT_TELL if 0 in signs else AGREES
        why = {
            AGREES: f"all {len(found)} intervals lie above 0",
            DISAGREES: "one of the intervals lies below 0",
            CANNOT_TELL: "one of the intervals holds 0",
        }[verdict]
        shown = "; ".join(f"{name} {each:+.3f}" for name, each in found.items())
    return Claim("h", says, "Table 1, nats.", shown, verdict, why)


def _further_changes(runs: Sequence[Run], network: str, other: str, row: str) -> list[Interval]:
    """Return how much more noise changes the loss of a network than that of another, one interval per run.

    In another network without inactive channels, nothing changes; runs without any in the first do not count.
    """
    found = []
    for run in runs:
        ours, others = (results.noise_effect(run, name).effects for name in (network, other))
        if row in ours:
            change = ours[row].loss - (others[row].loss if row in others else torch.zeros(()))
            found.append(stats.mean(change, "noise seeds"))
    return found


def _oriented(runs: Sequence[Run]) -> Claim:
    subject = runs[0].subject
    measured = _over(runs, lambda run: selective_share(run, subject.name))
    return Claim(
        "i", "ResNet has neurons that are selective for orientation.",
        f"Share of channels whose selectivity exceeds the {NULL}th percentile of random weights, mean over three "
        f"layers: {subject.title} minus another network with random weights.",
        f"{measured:+.0%}", judge(measured), because(measured),
    )  # fmt: skip


def _double_opponent(runs: Sequence[Run]) -> Claim:
    name = runs[0].subject.name
    measured = _over(
        runs,
        lambda run: stats.difference(
            double_opponent_shares(run, name), double_opponent_shares(run, name, "random weights")
        ),
    )
    ours = _over(runs, lambda run: stats.mean(double_opponent_shares(run, name)))
    verdict, why = judge(measured), because(measured)
    if verdict == DISAGREES and ours.value > 0:
        verdict, why = CANNOT_TELL, "there are some, but fewer than without any learning"
    return Claim(
        "j", "ResNet has double-opponent neurons.",
        f"Share of double-opponent channels of {runs[0].subject.title}, mean over three layers, minus that with random "
        "weights: what is there without learning does not show that it was learnt.",
        f"{measured:+.0%}; share {ours:.0%}", verdict, why,
    )  # fmt: skip


def _fails(runs: Sequence[Run]) -> Claim:
    subject = runs[0].subject
    name, layer = subject.name, subject.picture_layers[-1]
    measured = higher.lead(runs, name, layer)
    mean, driven = (higher.score(runs, name, layer, kind) for kind in (KINDS[0], KINDS[-1]))
    verdict, why = judge(measured), because(measured)
    if mean.minus(CHANCE).sign > 0:
        verdict, why = (
            DISAGREES,
            "the mean does better than chance: it does not fail"
            + (", though maximization does better still" if measured.sign > 0 else ""),
        )
    return Claim(
        "k", "In high layers the mean stimulus fails where maximization does not.",
        "How often the picture of a channel drives it more than that of another channel, at equal contrast, in "
        f"{subject.layer_title(layer)} ({CHANCE:g} is chance): maximization minus mean stimulus, {subject.title}. It "
        "disagrees if the mean does better than chance.",
        f"{measured:+.2f}; mean {mean:.2f}, maximization {driven.value:.2f}", verdict, why,
    )  # fmt: skip


def _hypothesis(runs: Sequence[Run]) -> Claim:
    subject = runs[0].subject
    says = "Channels are inactive because later blocks use them for features unlike their filter (the hypothesis)."
    measure = (
        f"Correlation of the filter of a channel with its mean stimulus at {subject.layer_title(subject.stream[-1])}: "
        f"inactive channels (or the least active ones) of {subject.title} minus the others. The page Channel sharing "
        "has the other predictions."
    )
    if not subject.shares_channels:
        why = f"no skips hand on the channels of the stem of {subject.title}"
        return Claim("l", says, measure, "–", CANNOT_TELL, why)
    evidence = [results.evidence(run, subject.name) for run in runs]
    having = [each for each in evidence if each.inactive]
    measured = stats.over_seeds([sharing.unlike(each) for each in having or evidence])
    verdict, why = judge(measured, -1), because(measured)
    if not having:
        verdict, why = CANNOT_TELL, sharing.none_inactive(subject)
    return Claim("l", says, measure, f"{measured:+.2f}", verdict, why)


_CLAIMS = (
    _diverse, _central, _keeps, _resembles, _opponency, _exist, _more, _harms, _oriented, _double_opponent, _fails,
    _hypothesis,
)  # fmt: skip


def claims_table(found: Sequence[Claim], others: Mapping[str, Sequence[Claim]] | None = None) -> HTML:
    """Return the statements for people, with the verdicts of other runs beside, each under its name."""
    rows = [
        {
            "": f"({claim.letter})",
            "the paper says": claim.says,
            "this run": f"{claim.verdict}: {claim.measured}; {claim.why}",
        }
        for claim in found
    ]
    for name, claims in (others or {}).items():
        kept = {claim.letter: f"{claim.verdict}: {claim.measured}" for claim in claims}
        rows = [row | {name: kept.get(claim.letter, "–")} for row, claim in zip(rows, found, strict=True)]
    return in_sentences(pd.DataFrame(rows))


def methods_table(found: Sequence[Claim]) -> HTML:
    """Return how each statement is measured, for people."""
    return in_sentences(
        pd.DataFrame([{"": f"({claim.letter})", "how it is measured": claim.measure} for claim in found])
    )


def claims_answer(found: Sequence[Claim]) -> Markdown:
    """Say how many statements the run agrees with."""
    by_verdict = {
        verdict: [claim.letter for claim in found if claim.verdict == verdict]
        for verdict in (AGREES, DISAGREES, CANNOT_TELL)
    }
    parts = [
        f"{words} {len(letters)} ({', '.join(letters)})" if letters else f"{words} none"
        for words, letters in zip(
            ("agrees with", "disagrees with", "cannot tell about"), by_verdict.values(), strict=True
        )
    ]
    return Markdown(f"**Answer.** Of the {len(found)} statements, this run {parts[0]}, {parts[1]} and {parts[2]}.")
