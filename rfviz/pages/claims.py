"""The statements of the paper, each beside what a run measured and a verdict.

Every verdict is computed from an interval by one rule (`rfviz.verdicts`); where a statement speaks of inactive channels
and a run has none, it cannot tell. Where several networks of each kind were trained, intervals are over seeds.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from IPython.display import HTML
from torch import Tensor

from rfviz import intervals
from rfviz.intervals import Interval
from rfviz.kernels.claim_measures import centrality, diversity, own_maximization
from rfviz.kernels.controls import DRAWS
from rfviz.kernels.identification import CHANCE, KINDS
from rfviz.kernels.inactivity import NoiseEffect
from rfviz.kernels.tuning import centre_surround
from rfviz.lab.presets import EXPLORER_LAYERS, FIGURE_LAYERS
from rfviz.lab.run_higher import PICTURE_LAYERS
from rfviz.lab.runs import Run
from rfviz.pages.predictions import NONE_INACTIVE, unlike
from rfviz.pages.sharing_tables import kept
from rfviz.pages.tables import in_sentences
from rfviz.pages.tuning_tables import NULL
from rfviz.verdicts import AGREES, CANNOT_TELL, DISAGREES, because, judge

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


def claims(replicas: Sequence[Run]) -> list[Claim]:
    """Measure every statement on some runs that differ in their seed."""
    return [measure(replicas) for measure in _CLAIMS]


def _over(replicas: Sequence[Run], measure: Callable[[Run], Interval]) -> Interval:
    return intervals.over_seeds([measure(run) for run in replicas])


def _diverse(replicas: Sequence[Run]) -> Claim:
    low, high = FIGURE_LAYERS[0], FIGURE_LAYERS[-1]

    def more(run: Run) -> Interval:
        found, stimuli = run.responses("resnet34"), run.images.stimuli
        side = found[low].receptive_field.size
        return intervals.difference(diversity(stimuli, found[high], side), diversity(stimuli, found[low], side))

    measured = _over(replicas, more)
    return Claim(
        "a", "Stimuli grow more diverse in higher layers (here: of ResNet34).",
        "One less the mean correlation between the strongest stimuli of a channel, in the central 11 px: conv. layer 7 "
        "less the first pooling layer, ResNet34.",
        measured.shown(), judge(measured), because(measured),
    )  # fmt: skip


def _central(replicas: Sequence[Run]) -> Claim:
    low, high = FIGURE_LAYERS[0], FIGURE_LAYERS[-1]

    def centre(run: Run) -> Interval:
        found = run.responses("resnet34")[high]
        assert found.mean_stimulus is not None
        return intervals.median(centrality(found.mean_stimulus[found.positive_count > 0]))

    def alike(run: Run) -> Interval:
        found = run.responses("resnet34")
        side = found[low].receptive_field.size
        return intervals.mean(1 - diversity(run.images.stimuli, found[high], side))

    measured, consistent = _over(replicas, centre), _over(replicas, alike)
    return Claim(
        "b", "In conv. layer 7 single patches look inconsistent, but their mean has a feature at its centre "
        "(here: in ResNet34).",
        "Contrast of the mean stimulus in its central third over that at its rim, in octaves (median over channels); "
        "beside it, the mean correlation between single patches, in the central 11 px. ResNet34.",
        f"{measured.shown()} octaves; single patches: {consistent.shown()}", judge(measured), because(measured),
    )  # fmt: skip


def _keeps(replicas: Sequence[Run]) -> Claim:
    def gains(run: Run, model: str) -> Tensor:
        return kept(run.responses(model, EXPLORER_LAYERS))

    measured = _over(replicas, lambda run: intervals.difference(gains(run, "resnet34"), gains(run, "plainnet34")))
    each = [
        _over(replicas, lambda run, model=model: intervals.mean(gains(run, model)))  # type: ignore[misc]
        for model in ("resnet34", "plainnet34")
    ]
    return Claim(
        "c", "A channel keeps its feature from layer to layer in ResNet34 more than in PlainNet34.",
        "Correlation between the mean stimuli of a channel in neighbouring layers, above that of all pairs, "
        "averaged over three steps: ResNet34 less PlainNet34.",
        f"{measured.shown()}; ResNet34 {each[0].value:+.2f}, PlainNet34 {each[1].value:+.2f}",
        judge(measured), because(measured),
    )  # fmt: skip


def resemblance(replicas: Sequence[Run], model: str) -> Interval:
    """Return how much more like its own maximization image than like others a mean stimulus is (`own_maximization`)."""
    return _over(
        replicas,
        lambda run: intervals.mean(
            own_maximization(run.responses(model), run.maximizations(model), run.whitening(model))
        ),
    )


def _resembles(replicas: Sequence[Run]) -> Claim:
    measured = resemblance(replicas, "resnet34")
    return Claim(
        "d", "The mean stimulus resembles the maximization image (Figs. 3 and 6).",
        "Correlation of the two pictures of a channel, less that with the maximization images of other channels, "
        "ResNet34, mean over three layers.",
        measured.shown(), judge(measured), because(measured),
    )  # fmt: skip


def _opponency(replicas: Sequence[Run]) -> Claim:
    layer = FIGURE_LAYERS[-1]

    def opponent(run: Run) -> tuple[Tensor, Tensor]:
        found, white = run.responses("resnet34")[layer], run.whitening("resnet34")
        assert found.mean_stimulus is not None
        there = found.positive_count > 0
        background = white.to_rgb(torch.zeros(3, 1, 1)).flatten()
        driven = white.to_rgb(run.maximization("resnet34", layer).images)
        by_picture = [
            centre_surround.measure(pictures, background, there).colour_opponent[there]
            for pictures in (driven, found.mean_stimulus)
        ]
        return by_picture[0], by_picture[1]

    both = [opponent(run) for run in replicas]
    measured = intervals.over_seeds([intervals.mean(a.double() - b.double()) for a, b in both])
    shares = [
        intervals.over_seeds([intervals.share(int(each.sum()), len(each)) for each in kind])
        for kind in zip(*both, strict=True)
    ]
    beyond = shares[0].less(centre_surround.LEVEL)
    verdict = CANNOT_TELL if judge(measured) == AGREES and beyond.sign <= 0 else judge(measured)
    why = because(measured)
    if verdict != judge(measured):
        why = f"of maximization alone, the interval holds the {centre_surround.LEVEL:.0%} that chance allows"
    return Claim(
        "e", "Maximization shows an opponency of centre and surround in colour that the mean stimulus misses (in the "
        "paper: a yellow centre in a red surround).",
        "Share of channels of conv. layer 7 with centre and surround of opponent colours beyond pictures with random "
        "phases: maximization images less mean stimuli, ResNet34; the former must also exceed the 5% of chance.",
        f"{measured.shown('+.0%')}; maximization {shares[0].shown('.0%')}, mean {shares[1].shown('.0%')}",
        verdict, why,
    )  # fmt: skip


def _counts(run: Run) -> dict[str, tuple[int, int]]:
    return {
        model: (len(found.inactive), found.channels)
        for model in ("resnet34", "plainnet34")
        for found in [run.noise_effect(model)]
    }


def _exist(replicas: Sequence[Run]) -> Claim:
    each = [_counts(run)["resnet34"] for run in replicas]
    count, channels = sum(inactive for inactive, _ in each), sum(of for _, of in each)
    measured = intervals.share(count, channels)
    if count:
        verdict, why = AGREES, f"{count} of {channels} channels never fire"
    elif measured.high < PAPER_SHARE:
        verdict = DISAGREES
        why = f"none was found, and the share of the paper, {PAPER_SHARE:.0%}, lies above the interval"
    else:
        verdict, why = CANNOT_TELL, f"none was found, but there are too few channels to exclude {PAPER_SHARE:.0%}"
    return Claim(
        "f", "ResNet34 has channels in the first pooling layer that never fire (13 of 64).",
        "Share of channels that are 0 at every position of every evaluation image, all networks together. It agrees if "
        "there is one, and disagrees if there is none and the interval excludes 13 of 64.",
        measured.shown(".0%"), verdict, why,
    )  # fmt: skip


def _more(replicas: Sequence[Run]) -> Claim:
    counts = [_counts(run) for run in replicas]
    measured = intervals.over_seeds(
        [intervals.share_difference(each["resnet34"], each["plainnet34"]) for each in counts]
    )
    verdict, why = judge(measured), because(measured)
    if not any(inactive for each in counts for inactive, _ in each.values()):
        verdict, why = CANNOT_TELL, "neither network has any in this run"
    return Claim(
        "g", "ResNet34 has more of them than PlainNet34.", "Difference of the shares of channels.",
        measured.shown("+.0%"), verdict, why,
    )  # fmt: skip


def _harms(replicas: Sequence[Run]) -> Claim:
    effects = {model: [run.noise_effect(model) for run in replicas] for model in ("resnet34", "plainnet34")}

    def change(found: NoiseEffect, row: str) -> Tensor:
        """Return the change per noise seed: none where there is no channel to disturb."""
        seeds = len(found.effects["least_active"].loss)
        return found.effects[row].loss if row in found.effects else torch.zeros(seeds, dtype=torch.float64)

    def interval(values: Sequence[Tensor]) -> Interval:
        return intervals.over_seeds([intervals.mean(each, "noise seeds") for each in values])

    rows = {"inactive": "ΔL", "random_inactive": "ΔL_rnd"}
    found: dict[str, Interval] = {}
    for row, name in rows.items():
        ours, plain = ([change(each, row) for each in effects[model]] for model in ("resnet34", "plainnet34"))
        found[name] = interval(ours)
        found[f"{name} less PlainNet34's"] = interval([a - b for a, b in zip(ours, plain, strict=True)])
    if not any(each.inactive for each in effects["resnet34"]):
        verdict, why, shown = CANNOT_TELL, "ResNet34 has no inactive channel to disturb in this run", "–"
    else:
        signs = {each.sign for each in found.values()}
        verdict = DISAGREES if -1 in signs else CANNOT_TELL if 0 in signs else AGREES
        why = {
            AGREES: "all four intervals lie above 0",
            DISAGREES: "one of the intervals lies below 0",
            CANNOT_TELL: "one of the intervals holds 0",
        }[verdict]
        shown = "; ".join(f"{name} {each.shown('+.3f')}" for name, each in found.items())
    return Claim(
        "h", "Noise in inactive channels raises the loss of ResNet34 (ΔL and ΔL_rnd), more than that of PlainNet34.",
        "Table 1, nats.", shown, verdict, why,
    )  # fmt: skip


def _oriented(replicas: Sequence[Run]) -> Claim:
    def selective(run: Run) -> Interval:
        ours: list[Tensor] = []
        others: list[Tensor] = []
        for layer in FIGURE_LAYERS:
            edge, held_out = (
                run.orientation("resnet34", layer, "random weights", draw).selectivity for draw in range(DRAWS)
            )
            limit = np.percentile(intervals.known(edge), NULL)
            found = run.orientation("resnet34", layer).selectivity
            for values, shares in ((found, ours), (held_out, others)):
                shares.append(torch.where(values.isfinite(), (values > limit).double(), torch.nan))
        return intervals.difference(torch.stack(ours).nanmean(0), torch.stack(others).nanmean(0))

    measured = _over(replicas, selective)
    return Claim(
        "i", "ResNet has neurons that are selective for orientation.",
        f"Share of channels whose selectivity exceeds the {NULL}th percentile of random weights, mean over three "
        "layers: ResNet34 less another network with random weights.",
        measured.shown("+.0%"), judge(measured), because(measured),
    )  # fmt: skip


def _double_opponent(replicas: Sequence[Run]) -> Claim:
    def shares(run: Run, control: str | None = None) -> Tensor:
        """Return in how many of three layers each channel is double-opponent, of those in which it responds."""
        found = []
        for draw in range(DRAWS if control else 1):
            names = [run.colour("resnet34", layer, control, draw).classes for layer in FIGURE_LAYERS]
            values = [
                [math.nan if name == "silent" else float(name == "double-opponent") for name in layer]
                for layer in names
            ]
            found.append(torch.tensor(values, dtype=torch.float64).nanmean(0))
        return torch.cat(found)

    measured = _over(replicas, lambda run: intervals.difference(shares(run), shares(run, "random weights")))
    ours = _over(replicas, lambda run: intervals.mean(shares(run)))
    verdict, why = judge(measured), because(measured)
    if verdict == DISAGREES:
        verdict = CANNOT_TELL if ours.value > 0 else DISAGREES
        why = "there are some, but fewer than without any learning" if ours.value > 0 else why
    return Claim(
        "j", "ResNet has double-opponent neurons.",
        "Share of double-opponent channels, mean over three layers, less that with random weights: what is there "
        "without learning does not show that it was learnt.",
        f"{measured.shown('+.0%')}; share {ours.shown('.0%')}", verdict, why,
    )  # fmt: skip


def _fails(replicas: Sequence[Run]) -> Claim:
    mean, _, driven = KINDS

    def scores(run: Run) -> Mapping[str, Tensor]:
        return run.identification("resnet34", HIGH)

    measured = _over(replicas, lambda run: intervals.mean(scores(run)[driven] - scores(run)[mean]))
    each = {kind: _over(replicas, lambda run, kind=kind: intervals.mean(scores(run)[kind])) for kind in KINDS}  # type: ignore[misc]
    above_chance = each[mean].less(CHANCE).sign
    verdict, why = judge(measured), because(measured)
    if above_chance > 0:
        verdict, why = (
            DISAGREES,
            "the mean does better than chance: it does not fail"
            + (", though maximization does better still" if measured.sign > 0 else ""),
        )
    return Claim(
        "k", "In high layers the mean stimulus fails where maximization does not.",
        f"How often the picture of a channel drives it more than that of another channel, at equal contrast, in {HIGH} "
        "(0.5 is chance): maximization less mean stimulus, ResNet34. It disagrees if the mean does better than chance.",
        f"{measured.shown()}; mean {each[mean].shown('.2f')}, maximization {each[driven].value:.2f}",
        verdict, why,
    )  # fmt: skip


HIGH = PICTURE_LAYERS[-1]
"""The high layer of statement k."""


def _hypothesis(replicas: Sequence[Run]) -> Claim:
    measured = _over(replicas, lambda run: unlike(run.likeness("resnet34"), run.tested("resnet34")))
    verdict, why = judge(measured, -1), because(measured)
    if not any(run.noise_effect("resnet34").inactive for run in replicas):
        verdict, why = CANNOT_TELL, NONE_INACTIVE
    return Claim(
        "l", "Channels are inactive because later blocks use them for features unlike their filter (the hypothesis).",
        "Correlation of the filter of a channel with its mean stimulus at conv. layer 7: inactive channels (or the "
        "least active ones) of ResNet34 less the others. The page Channel sharing has the other predictions.",
        measured.shown(), verdict, why,
    )  # fmt: skip


_CLAIMS = (
    _diverse, _central, _keeps, _resembles, _opponency, _exist, _more, _harms, _oriented, _double_opponent, _fails,
    _hypothesis,
)  # fmt: skip


def claims_table(found: Sequence[Claim], reference: Sequence[Claim] = ()) -> HTML:
    """Return the statements for people, with the verdicts of the reference run beside where it is given."""
    rows = [
        {
            "": f"({claim.letter})",
            "the paper says": claim.says,
            "measured here": claim.measured,
            "verdict": f"{claim.verdict}: {claim.why}",
        }
        for claim in found
    ]
    if reference:
        kept = {claim.letter: f"{claim.verdict}: {claim.measured}" for claim in reference}
        rows = [row | {"reference run": kept.get(claim.letter, "–")} for row, claim in zip(rows, found, strict=True)]
    return in_sentences(pd.DataFrame(rows))


def methods_table(found: Sequence[Claim]) -> HTML:
    """Return how each statement is measured, for people."""
    return in_sentences(
        pd.DataFrame([{"": f"({claim.letter})", "how it is measured": claim.measure} for claim in found])
    )


def claims_summary(found: Sequence[Claim]) -> str:
    """Say in Markdown how many statements the run agrees with."""
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
    return f"**Answer.** Of the {len(found)} statements, this run {parts[0]}, {parts[1]} and {parts[2]}."
