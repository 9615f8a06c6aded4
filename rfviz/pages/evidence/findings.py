"""What came out, in a few sentences for the first page: from numbers that are kept, each by the rule of verdicts.

They speak of the series of small trainings (`rfviz.pages.evidence.series`), of the reference pair with its control for
accuracy, and of the network trained on ImageNet.
"""

from collections.abc import Sequence
from typing import NamedTuple

from IPython.display import Markdown

from rfviz.nets.network import NETWORKS
from rfviz.pages.evidence import series
from rfviz.pages.evidence.reference import Reference
from rfviz.pages.inactive import Why, more_inactive_of
from rfviz.stats import Interval


class Finding(NamedTuple):
    """A sentence, and the number whose sign it follows."""

    says: str
    measured: Interval


def gather(shown: series.Shown, pair: Reference, imagenet: Reference) -> list[Finding]:
    """Return what came out.

    Parameters
    ----------
    shown : rfviz.pages.evidence.series.Shown
        Of ResNet34, the same without the skips of layer1, and PlainNet34, in this order.
    pair : Reference
        With a control for accuracy.
    imagenet : Reference
        Of one network.
    """
    return [*_of_skips(shown), _at_equal_accuracy(pair), *_of_noise(imagenet)]


def _of_skips(shown: series.Shown) -> list[Finding]:
    resnet, without, plain = shown.networks
    titles = {name: NETWORKS[name].title for name in shown.networks}
    found = []
    gap = series.more_silent(shown, resnet, plain)
    says = {
        1: f"As in the paper, {titles[resnet]} loses more channels than {titles[plain]}, at equal cumulative decay",
        0: f"At equal cumulative decay, whether {titles[resnet]} or {titles[plain]} loses more channels is undecided",
        -1: f"Against the paper, {titles[plain]} loses more channels than {titles[resnet]}, at equal cumulative decay",
    }[gap.sign]
    found.append(Finding(f"{says}: {gap:+.0f} % of the channels.", gap))
    gap = series.more_silent(shown, resnet, without)
    says = {
        1: "The skips that the paper suspects do play a part: without those of layer1, fewer channels fall silent",
        0: "That the skips of layer1 make channels fall silent is not borne out: without them, it is undecided "
        "whether more or fewer do",
        -1: "Not the skips that the paper suspects make channels fall silent: without those of layer1, more do",
    }[gap.sign]
    found.append(Finding(f"{says} (with minus without: {gap:+.0f} % of the channels).", gap))
    cost = series.costs(shown, resnet)
    says = {1: "gains", 0: "neither gains nor loses, as far as can be told", -1: "loses"}[cost.sign]
    says = f"Kept from losing channels by a penalty, {titles[resnet]} {says}"
    return [*found, Finding(f"{says}: {cost:+.1f} points of top-1 accuracy.", cost)]


def _at_equal_accuracy(pair: Reference) -> Finding:
    gap = more_inactive_of(pair.effects)[1]
    says = {
        1: "a ResNet34 that classifies only about as well as PlainNet34 still loses more channels",
        0: "whether a ResNet34 that classifies only about as well as PlainNet34 loses more or fewer channels is "
        "undecided",
        -1: "even a ResNet34 that classifies only about as well as PlainNet34 loses fewer channels",
    }[gap.sign]
    return Finding(f"On Caltech-101, {says} (difference of the shares: {gap:+.0%}).", gap)


def _of_noise(imagenet: Reference) -> list[Finding]:
    ((name, why),) = imagenet.exhibit.inactive.why.items()
    title, noise = NETWORKS[name].title, why.changes["noise"]
    inactive = len(imagenet.effects[name][0].inactive)
    says = {
        1: "raises its loss: silence matters, as in the paper",
        0: "cannot be told to change its loss",
        -1: "lowers its loss",
    }[noise["tested"].sign]
    first = Finding(
        f"In {title} trained on ImageNet, {inactive} of {imagenet.effects[name][0].channels} channels are silent, and "
        f"noise in them {says} ({noise['tested']:+.3f} nats).",
        noise["tested"],
    )
    says = {
        1: "More than in active channels that are read most nearly as strongly",
        0: "Whether more than in active channels that are read most nearly as strongly is undecided",
        -1: "But the same noise in as many active channels that are read most nearly as strongly harms more",
    }[noise["difference"].sign]
    so = ": silence does not make a channel more sensitive" if noise["difference"].sign < 0 else ""
    second = Finding(f"{says} ({noise['matched']:+.3f} nats){so}.", noise["difference"])
    return [first, second, *_of_path(why)]


def _of_path(why: Why) -> list[Finding]:
    if "skip" not in why.changes:
        return []
    says = {
        1: "The noise harms by the skip more than by the convolutions of the first block, as the paper's idea has it",
        0: "By which path of the first block the noise harms more is undecided",
        -1: "The noise harms by the convolutions of the first block more than by its skip, against the paper's idea",
    }[why.paths.sign]
    by_path = Finding(f"{says} (skip minus convolutions: {why.paths:+.3f} nats).", why.paths)
    cut = why.changes["cut"]["difference"]
    says = {
        1: "What the blocks of layer1 write to the silent channels is in use: without it the loss rises, and by more "
        "than without what they write to as many active ones",
        0: "Whether the network misses what the blocks of layer1 write to the silent channels more than what they "
        "write to as many active ones is undecided",
        -1: "The network misses what the blocks of layer1 write to the silent channels less than what they write to as "
        "many active ones",
    }[cut.sign]
    return [by_path, Finding(f"{says} (difference: {cut:+.3f} nats).", cut)]


def listed(found: Sequence[Finding]) -> Markdown:
    """Return the sentences as a list."""
    return Markdown("\n".join(f"- {each.says}" for each in found))
