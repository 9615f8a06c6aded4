"""What came out, in a few lines for the first page: from numbers that are kept, each by the rule of verdicts.

They speak of the series of small trainings (`rfviz.pages.evidence.series`), of the reference pair with its control for
accuracy, and of the network trained on ImageNet.
"""

import html
from collections.abc import Sequence
from typing import NamedTuple

from IPython.display import HTML

from rfviz.nets.network import NETWORKS
from rfviz.pages.claims import HARM, Claim
from rfviz.pages.evidence import series
from rfviz.pages.evidence.reference import Reference
from rfviz.pages.inactive import more_inactive_of
from rfviz.pages.verdicts import MARKS
from rfviz.stats import AGREES, CANNOT_TELL, DISAGREES, all_of, judge

THERE = {AGREES: "holds, too", DISAGREES: "does not hold", CANNOT_TELL: "is open"}
WORDS = {AGREES: "holds", DISAGREES: "does not hold", CANNOT_TELL: "open"}


class Finding(NamedTuple):
    """A statement, what was found, whether it holds, and the page that shows it, by name and title."""

    states: str
    found: str
    verdict: str
    page: tuple[str, str]


def gather(shown: series.Shown, pair: Reference, imagenet: Reference, wide: Reference) -> list[Finding]:
    """Return what came out.

    Parameters
    ----------
    shown : rfviz.pages.evidence.series.Shown
        Of ResNet34, the same without the skips of layer1, and PlainNet34, in this order.
    pair : Reference
        With a control for accuracy.
    imagenet : Reference
        Of one network.
    wide : Reference
        The pair of full width.
    """
    return [_of_silence(imagenet), _of_networks(shown, pair), *_of_neurons(imagenet, wide.claims)]


def _stated(claims: Sequence[Claim], letter: str) -> Claim:
    return next(claim for claim in claims if claim.letter == letter)


def _of_silence(imagenet: Reference) -> Finding:
    ((name, why),) = imagenet.exhibit.inactive.why.items()
    page = ("imagenet_network", "A network trained on ImageNet")
    title = NETWORKS[name].title
    inactive, channels = len(imagenet.effects[name][0].inactive), imagenet.effects[name][0].channels
    than = {1: "more than", 0: "neither more nor less, as far as can be told, than", -1: "less than"}
    matched = why.changes["noise"]["difference"]
    harm = _stated(imagenet.claims, "h").parts[0].interval
    return Finding(
        "Some channels of the first pooling layer never fire, and noise in them harms",
        f"{inactive} of {channels} in {title} trained on ImageNet, over photographs of Caltech-101; loss {harm:+.3f} "
        f"nats, {than[matched.sign]} in as many active channels ({matched.value:+.3f})",
        all_of([AGREES if inactive else DISAGREES, judge(harm, least=HARM)]), page,
    )  # fmt: skip


def _of_networks(shown: series.Shown, pair: Reference) -> Finding:
    resnet, _, plain = shown.networks
    by_decay = series.more_silent(shown, resnet, plain)
    plainly, equal = more_inactive_of(pair.effects)
    page = ("silence_by_decay", "When channels fall silent")
    titles = [NETWORKS[name].title for name in (resnet, plain)]
    return Finding(
        f"{titles[0]} has more of them than {titles[1]}",
        f"in the reference pair {plainly:+.0%} of the channels, at equal accuracy {equal:+.0%}; in small networks of "
        f"equal cumulative decay {by_decay:+.0f} %",
        _stated(pair.claims, "g").verdict, page,
    )  # fmt: skip


def _of_neurons(imagenet: Reference, pair: Sequence[Claim]) -> list[Finding]:
    (name,) = imagenet.effects
    found = []
    for letter, states in (("i", "selective for orientation"), ("j", "double-opponent")):
        here, there = (_stated(claims, letter) for claims in (imagenet.claims, pair))
        found.append(
            Finding(
                f"Neurons are {states}",
                f"beyond random weights {here.parts[0].interval:+.0%} in {NETWORKS[name].title} trained on ImageNet; "
                f"in ResNet34 trained on Caltech-101 {there.parts[0].interval:+.0%}, where it "
                f"{THERE[there.verdict]}",
                here.verdict,  # as with silence, that of the network trained on ImageNet
                ("claims", "Claims"),
            )
        )
    picture = _stated(imagenet.claims, "d")
    part = next(each for each in picture.parts if each.verdict == picture.verdict)
    found.append(
        Finding(
            "A mean stimulus resembles the maximization image of its channel",
            f"{part.name}: it is more like its own than like another's in {part.interval:.0%}, by chance in 50%; "
            f"{part.limit:.0%} were asked for, in {NETWORKS[name].title} trained on ImageNet",
            picture.verdict, ("claims", "Claims"),
        )
    )  # fmt: skip
    return found


def listed(found: Sequence[Finding]) -> HTML:
    """Return the findings as a list: mark, statement, number, link."""
    lines = (
        f'<li><span class="verdict {each.verdict.replace(" ", "-")}"><span aria-hidden="true">{MARKS[each.verdict]}'
        f"</span> {WORDS[each.verdict]}</span> <b>{html.escape(each.states)}</b>: {html.escape(each.found)}. "
        f'<a href="{each.page[0]}.html">{each.page[1]}</a></li>'
        for each in found
    )
    return HTML(f'<ul class="rfviz-findings">{"".join(lines)}</ul>')
