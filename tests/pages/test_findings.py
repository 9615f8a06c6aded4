"""What came out: sentences follow the intervals."""

from types import SimpleNamespace

import pytest

from rfviz.pages.evidence import findings, series
from rfviz.pages.inactive import Why
from rfviz.stats import Interval

UP, DOWN, OPEN = Interval(2.0, 1.0, 3.0, 3), Interval(-2.0, -3.0, -1.0, 3), Interval(0.0, -1.0, 1.0, 3)


def trainings() -> series.Shown:
    networks = ("resnet34", "resnet34-plain-layer1", "plainnet34")
    return series.Shown([{"network": name} for name in networks], {})


def imagenet(tested: Interval, difference: Interval, paths: Interval, cut: Interval) -> SimpleNamespace:
    noise = {"tested": tested, "matched": UP, "difference": difference}
    why = Why(True, {"noise": noise, "skip": noise, "cut": {**noise, "difference": cut}}, paths, UP)
    effects = [SimpleNamespace(inactive=(2, 4), channels=64)]
    shown = SimpleNamespace(why={"resnet18": why})
    return SimpleNamespace(effects={"resnet18": effects}, exhibit=SimpleNamespace(inactive=shown))


@pytest.mark.parametrize(
    ("of", "sign", "said"),
    [
        ("pair", UP, "As in the paper, ResNet34 loses more channels than PlainNet34"),
        ("pair", OPEN, "whether ResNet34 or PlainNet34 loses more channels is undecided"),
        ("pair", DOWN, "Against the paper, PlainNet34 loses more channels than ResNet34"),
        ("skips", UP, "do play a part: without those of layer1, fewer channels fall silent"),
        ("skips", OPEN, "is not borne out: without them, it is undecided whether more or fewer do"),
        ("skips", DOWN, "Not the skips that the paper suspects make channels fall silent"),
        ("equal", UP, "that classifies only about as well as PlainNet34 still loses more channels"),
        ("equal", OPEN, "loses more or fewer channels is undecided"),
        ("equal", DOWN, "even a ResNet34 that classifies only about as well as PlainNet34 loses fewer"),
        ("cost", UP, "Kept from losing channels by a penalty, ResNet34 gains: +2.0"),
        ("cost", OPEN, "ResNet34 neither gains nor loses"),
        ("cost", DOWN, "ResNet34 loses: -2.0"),
        ("tested", UP, "2 of 64 channels are silent, and noise in them raises its loss"),
        ("tested", OPEN, "cannot be told to change its loss"),
        ("tested", DOWN, "lowers its loss"),
        ("difference", UP, "More than in active channels"),
        ("difference", OPEN, "Whether more than in active channels that are read most nearly as strongly is undecided"),
        ("difference", DOWN, "harms more (+2.000 (+1.000 to +3.000, n = 3 channels) nats): silence does not make"),
        ("paths", UP, "harms by the skip more than by the convolutions"),
        ("paths", OPEN, "By which path of the first block the noise harms more is undecided"),
        ("paths", DOWN, "harms by the convolutions of the first block more than by its skip, against"),
        ("cut", UP, "is in use: without it the loss rises, and by more"),
        ("cut", OPEN, "more than what they write to as many active ones is undecided"),
        ("cut", DOWN, "write to the silent channels less than what they write"),
    ],
)
def test_each_sentence_follows_its_interval(of: str, sign: Interval, said: str, monkeypatch) -> None:
    measured = ("pair", "skips", "cost", "equal", "tested", "difference", "paths", "cut")
    planted = dict.fromkeys(measured, OPEN) | {of: sign}
    gaps = {"plainnet34": planted["pair"], "resnet34-plain-layer1": planted["skips"]}
    monkeypatch.setattr(series, "more_silent", lambda _shown, _network, other: gaps[other])
    monkeypatch.setattr(series, "costs", lambda *_: planted["cost"])
    monkeypatch.setattr(findings, "more_inactive_of", lambda _effects: (OPEN, planted["equal"]))
    reference = SimpleNamespace(effects={})
    found = findings.gather(trainings(), reference, imagenet(*list(planted.values())[4:]))
    assert len(found) == 8 and said in findings.listed(found).data
    assert [each.measured for each in found] == list(planted.values())
