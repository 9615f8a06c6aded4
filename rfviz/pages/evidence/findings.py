"""What came out, in a few lines for the first page: from numbers that are kept, each by the rule of verdicts.

They speak of the series of small trainings (`rfviz.pages.evidence.series`), of the reference pair with its control for
accuracy, and of the network trained on ImageNet.
"""

import html
from collections.abc import Sequence
from typing import NamedTuple

from IPython.display import HTML

from rfviz.nets.network import NETWORKS
from rfviz.pages.claims import Claim
from rfviz.pages.evidence import series
from rfviz.pages.evidence.reference import Reference
from rfviz.pages.inactive import MORE, more_inactive
from rfviz.pages.style import roles
from rfviz.pages.verdicts import marked
from rfviz.stats import judge


class Finding(NamedTuple):
    """A statement, and in which networks it holds.

    Parameters
    ----------
    states : str
    found : list of (str, str)
        For some networks each the verdict, in the words of `rfviz.pages.claims`, and what was measured.
    page : (str, str)
        The page that shows it, by name and title.
    """

    states: str
    found: list[tuple[str, str]]
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
    exist, harm = _of_silence(imagenet)
    return [exist, _of_networks(shown, pair, wide), harm, *_of_neurons(imagenet, wide.claims)]


def _stated(claims: Sequence[Claim], letter: str) -> Claim:
    return next(claim for claim in claims if claim.letter == letter)


def _of_silence(imagenet: Reference) -> list[Finding]:
    ((name, why),) = imagenet.exhibit.inactive.why.items()
    found = imagenet.effects[name][0]
    than = {1: "more than", 0: "neither more nor less, as far as can be told, than", -1: "less than"}
    by_skip = why.changes["skip"]["difference"]
    exist, harms = (_stated(imagenet.claims, letter) for letter in "fh")
    silent = f"{_on_imagenet(name)}: {len(found.inactive)} of {found.channels}, over photographs of Caltech-101"
    harm = (
        f"noise in them changes its loss, in nats, by {harms.parts[0].interval:+.3f}; by the skip of the first block "
        f"alone it does {than[by_skip.sign]} in as many active channels (difference, in nats, {by_skip:+.3f}). There "
        "is no such network without skips to compare with"
    )
    page = ("imagenet_network", "A network trained on ImageNet")
    return [
        Finding("Some channels of the first pooling layer never fire", [(exist.verdict, silent)], page),
        Finding("Noise in them harms a network with skips, more than one without", [(harms.verdict, harm)], page),
    ]


def _on_imagenet(name: str) -> str:
    return f"{NETWORKS[name].title} trained on ImageNet"


def _of_networks(shown: series.Shown, pair: Reference, wide: Reference) -> Finding:
    resnet, _, plain = shown.networks
    by_decay = series.more_silent(shown, resnet, plain).times(0.01)
    _, subject, contrast, controlled = roles([NETWORKS[name] for name in pair.effects])
    plainly, equal = (more_inactive(pair.effects, each, contrast) for each in (subject, controlled))
    trained = f"three pairs trained on Caltech-101: {plainly:+.0%} of the channels, at equal accuracy {equal:+.0%}"
    counts = " against ".join(f"{len(effects[0].inactive)}" for effects in wide.effects.values())
    channels = next(iter(wide.effects.values()))[0].channels
    one = f"one pair with {channels} channels as in the paper, trained on Caltech-101: {counts}"
    small = f"small networks at equal cumulative decay: {by_decay:+.0%}"
    return Finding(
        f"{NETWORKS[resnet].title} has more of them than {NETWORKS[plain].title}",
        [
            (_stated(pair.claims, "g").verdict, trained),
            (_stated(wide.claims, "g").verdict, one),
            (judge(by_decay, least=MORE), small),
        ],
        ("silence_by_decay", "When channels fall silent"),
    )


def _of_neurons(imagenet: Reference, pair: Sequence[Claim]) -> list[Finding]:
    (name,) = imagenet.effects
    found = []
    for letter, states in (("i", "selective for orientation"), ("j", "double-opponent")):
        here, there = (_stated(claims, letter) for claims in (imagenet.claims, pair))
        ours = (
            f"{_on_imagenet(name)}: the share of channels that are, averaged over three layers, minus that with random "
            f"weights, is {here.parts[0].interval:+.0%}"
        )
        other = f"ResNet34 trained on Caltech-101: it is {there.parts[0].interval:+.0%}"
        verdicts = [(here.verdict, ours), (there.verdict, other)]
        found.append(Finding(f"Neurons are {states}, more than random weights give", verdicts, ("claims", "Claims")))
    picture = _stated(imagenet.claims, "d")
    part = next(each for each in picture.parts if each.verdict == picture.verdict)
    shares = [each.interval.value for each in picture.parts]
    untrained = max(each.random for each in picture.parts if each.random is not None)
    told = (
        f"{_on_imagenet(name)}: by layer and setting, it is more like its own than like another channel's in "
        f"{min(shares):.0%} to {max(shares):.0%} of comparisons (by chance: 50%; with random weights: up to "
        f"{untrained:.0%}). To agree takes {part.limit:.0%} in every layer and setting. "
        f"{part.name[0].upper()}{part.name[1:]}: {part.interval:.0%}"
    )
    states = "A mean stimulus resembles the maximization image of its channel"
    return [*found, Finding(states, [(picture.verdict, told)], ("claims", "Claims"))]


def listed(found: Sequence[Finding]) -> HTML:
    """Return the findings as a list: statement, link, and for each network mark, verdict and number."""
    lines = (
        f'<li><b>{html.escape(each.states)}</b> (<a href="{each.page[0]}.html">{each.page[1]}</a>)<ul>'
        + "".join(f"<li>{marked(verdict)}: {html.escape(told)}.</li>" for verdict, told in each.found)
        + "</ul></li>"
        for each in found
    )
    return HTML(f'<ul class="rfviz-findings">{"".join(lines)}</ul>')
