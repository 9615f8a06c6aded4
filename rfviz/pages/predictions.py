"""The channel-sharing hypothesis as predictions, each with its test.

The paper guesses that channels of the first pooling layer fall silent because the skips make the layers share channels:
later blocks need a channel for a feature that no filter of the first layer has, so the first layer leaves it empty. If
that is so, then:

1. ResNet34 has more inactive channels than PlainNet34, whose layers share nothing.
2. The blocks fill the empty channels: they write more to channels that fire less in the first pooling layer.
3. The inactive channels are in use behind the blocks: without them, the classification loses.
4. What they hold there is unlike their filter, more so than in other channels.
5. Noise in the inactive channels travels along the skip: it hurts ResNet34 more than PlainNet34.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import pandas as pd
from IPython.display import HTML
from torch import Tensor

from rfviz import intervals
from rfviz.intervals import Interval
from rfviz.kernels.noise_dose import PAPER_DOSE
from rfviz.kernels.stream import ABLATED, Written
from rfviz.lab.evidence import Evidence
from rfviz.pages.tables import in_sentences
from rfviz.verdicts import CANNOT_TELL, because, judge

Networks = Mapping[str, Sequence[Evidence]]
"""By architecture, one per seed."""


def unlike(likeness: Tensor, tested: Tensor) -> Interval:
    """Return how much less than in other channels the filter is like what the channel holds later; see `Evidence`."""
    return intervals.difference(likeness[tested], likeness[~tested])


class Prediction(NamedTuple):
    """A prediction of the hypothesis and what a run says of it."""

    says: str
    test: str
    measured: str
    control: str
    verdict: str
    why: str


NONE_INACTIVE = "ResNet34 has no inactive channel in this run; its least active ones stand in for them"

FIRST_BLOCK = "layer1.0"


def predictions(networks: Networks) -> list[Prediction]:
    """Test the five predictions on both architectures, over seeds where there are several.

    Where a ResNet34 has inactive channels, only such networks count in 3 to 5; where none has, the least active
    channels are measured, but decide nothing.
    """
    pairs = list(zip(networks["resnet34"], networks["plainnet34"], strict=True))
    any_inactive = any(resnet.inactive for resnet, _ in pairs)
    having = [pair for pair in pairs if pair[0].inactive] if any_inactive else pairs
    tested = "inactive" if any_inactive else "least active"

    def over(measure: Callable[[Evidence, Evidence], Interval], among: Sequence[tuple[Evidence, Evidence]]) -> Interval:
        return intervals.over_seeds([measure(resnet, plain) for resnet, plain in among])

    def verdict(measured: Interval, expected: int) -> tuple[str, str]:
        if not any_inactive:
            return CANNOT_TELL, NONE_INACTIVE
        return judge(measured, expected), because(measured)

    def share_difference(resnet: Evidence, plain: Evidence) -> Interval:
        ours, other = ((each.inactive, len(each.firing_rate)) for each in (resnet, plain))
        return intervals.share_difference(ours, other)

    more = over(share_difference, pairs)
    filled = over(lambda resnet, _: _filled(resnet.written), pairs)
    by_chance = over(lambda resnet, _: _filled(resnet.by_chance), pairs)
    early, late = (over(lambda resnet, _, layer=layer: _missed(resnet, layer), having) for layer in ABLATED)  # type: ignore[misc]
    strange = over(lambda resnet, _: unlike(resnet.likeness, resnet.tested), having)
    plain_strange = over(lambda _, plain: unlike(plain.likeness, plain.tested), having)

    def noise(resnet: Evidence, plain: Evidence, group: str) -> Interval:
        # A PlainNet34 without inactive channels has none to disturb: nothing changes.
        none = any_inactive and not plain.inactive and group == "tested"
        return resnet.dose.mean(_noise(resnet, group) - (0 if none else _noise(plain, group)))

    hurts, matched = (
        over(lambda resnet, plain, group=group: noise(resnet, plain, group), having)  # type: ignore[misc]
        for group in ("tested", "matched")
    )
    return [
        Prediction(
            "ResNet34 has more inactive channels than PlainNet34.",
            "difference of the shares of channels",
            more.shown("+.1%"), "–", judge(more), because(more),
        ),
        Prediction(
            "The first block writes more to channels that fire less in the first pooling layer.",
            "rank correlation of firing rate and variance written by conv. layer 3",
            filled.shown(), f"random weights: {by_chance.shown()}", judge(filled, -1), because(filled),
        ),
        Prediction(
            f"The {tested} channels are in use behind conv. layer 7.",
            "change of the loss (nats) when one of them is set to 0 there",
            late.shown("+.3f"), f"in the first pooling layer: {early.shown('+.3f')}", *verdict(late, 1),
        ),
        Prediction(
            f"The {tested} channels hold something unlike their filter at conv. layer 7.",
            "correlation of filter and mean stimulus, less that of the other channels",
            strange.shown(), f"PlainNet34: {plain_strange.shown()}", *verdict(strange, -1),
        ),
        Prediction(
            f"Noise in the {tested} channels hurts ResNet34 more than PlainNet34.",
            "difference of the changes of the loss (nats), σ = 1",
            hurts.shown("+.3f"), f"in matched active channels: {matched.shown('+.3f')}", *verdict(hurts, 1),
        ),
    ]  # fmt: skip


def _filled(written: Mapping[str, Written]) -> Interval:
    first = written[FIRST_BLOCK]
    return intervals.rank_correlation(first.given, first.variance)


def _missed(each: Evidence, layer: str) -> Interval:
    return each.dose.mean(each.ablated[layer][each.tested].mean(0))


def _noise(each: Evidence, group: str) -> Tensor:
    return each.dose.loss[group][each.dose.doses.index(PAPER_DOSE)]


def predictions_table(found: Sequence[Prediction]) -> HTML:
    """Return the predictions for people."""
    return in_sentences(
        pd.DataFrame(
            {
                "prediction": [each.says for each in found],
                "measured": [f"{each.test[0].upper()}{each.test[1:]}: {each.measured}." for each in found],
                "for comparison": [each.control for each in found],
                "verdict": [f"{each.verdict}: {each.why}" for each in found],
            }
        )
    )


def predictions_summary(found: Sequence[Prediction], seeds: int) -> str:
    """Say in Markdown how the hypothesis fares."""
    count = {verdict: sum(each.verdict == verdict for each in found) for verdict in ("agrees", "disagrees")}
    undecided = len(found) - sum(count.values())
    sentence = (
        f"**Answer.** Of the {len(found)} predictions, this run agrees with {count['agrees']} and disagrees with "
        f"{count['disagrees']}; it cannot tell about {undecided}."
    )
    if seeds == 1:
        sentence += " It is one network of each kind: the intervals are over channels and images, not over trainings."
    return sentence
