"""What came out: lines follow the intervals."""

from types import SimpleNamespace

import pytest
from bs4 import BeautifulSoup

from rfviz.pages.claims import Part, _claim
from rfviz.pages.evidence import findings, series
from rfviz.pages.inactive import Why
from rfviz.stats import AGREES, CANNOT_TELL, DISAGREES, Interval

UP, DOWN, OPEN = Interval(2.0, 1.0, 3.0, 3), Interval(-2.0, -3.0, -1.0, 3), Interval(0.0, -1.0, 1.0, 3)


def trainings() -> series.Shown:
    networks = ("resnet34", "resnet34-plain-layer1", "plainnet34")
    return series.Shown([{"network": name} for name in networks], {})


def imagenet(tested: Interval, difference: Interval, tuned: Interval, inactive: int = 2) -> SimpleNamespace:
    why = Why(True, {"skip": {"tested": OPEN, "matched": UP, "difference": difference}}, OPEN, UP)
    effects = [SimpleNamespace(inactive=tuple(range(inactive)), channels=64)]
    claims = [
        _claim(letter, "It is.", "By looking.", [Part("share", tuned, form=".2f", random=0.6)]) for letter in "ijd"
    ]
    claims.append(_claim("g", "It is.", "By counting.", [Part("share", OPEN)]))
    count = Interval(inactive / 64, *([1.0, 1.0] if inactive else [-1.0, -1.0]), 64)
    claims.append(_claim("f", "It is.", "By counting.", [Part("share", count)]))
    claims.append(_claim("h", "It is.", "By looking.", [Part("loss", tested), Part("loss of others", OPEN)]))
    exhibit = SimpleNamespace(inactive=SimpleNamespace(why={"resnet18": why}))
    return SimpleNamespace(effects={"resnet18": effects}, exhibit=exhibit, claims=claims)


MEASURED = ("decay", "equal", "tested", "difference", "tuned", "wide")


NONE = "neither more nor less, as far as can be told, than in as many active channels (difference, in nats, +0.000"


@pytest.mark.parametrize(
    ("planted", "line", "verdicts", "said"),
    [
        ({}, 0, [AGREES], "ResNet18 trained on ImageNet: 2 of 64, over"),
        ({"inactive": 0}, 0, [DISAGREES], "0 of 64, over"),
        ({"tested": UP}, 2, [CANNOT_TELL], "changes its loss, in nats, by +2.000 (+1.000 to +3.000"),
        ({"tested": DOWN}, 2, [DISAGREES], "changes its loss, in nats, by -2.000"),
        ({}, 2, [CANNOT_TELL], NONE),
        ({"difference": UP}, 2, [CANNOT_TELL], "does more than in as many active channels (difference, in"),
        ({"difference": DOWN}, 2, [CANNOT_TELL], "does less than in as many active channels (difference, in"),
        (
            {"equal": UP, "decay": UP.times(100)}, 1, [AGREES, CANNOT_TELL, AGREES],
            "decay: +200 points (+100 to +300, n = 3 channels)",
        ),
        ({"decay": UP}, 1, [CANNOT_TELL, CANNOT_TELL, DISAGREES], "equal cumulative decay: +2 points (+1 to +3, "),
        ({"decay": OPEN.times(100)}, 1, [CANNOT_TELL, CANNOT_TELL, CANNOT_TELL], "at equal accuracy +0 points"),
        ({"equal": DOWN, "decay": UP.times(100)}, 1, [DISAGREES, CANNOT_TELL, AGREES], "at equal accuracy -200 points"),
        (
            {"tuned": UP, "wide": UP}, 3, [AGREES, AGREES],
            "minus that with random weights, is +200 points (+100 to +300, n = 3 channels)",
        ),
        ({"tuned": DOWN, "wide": DOWN}, 4, [DISAGREES, DISAGREES], "trained on Caltech-101: it is -200 points"),
        ({"tuned": UP}, 4, [AGREES, CANNOT_TELL], "ResNet34 trained on Caltech-101: it is +0 points"),
        ({"tuned": DOWN}, 5, [DISAGREES], "than like another channel's in -200% to -200% of comparisons"),
    ],
)  # fmt: skip
def test_each_line_follows_its_interval(
    planted: dict, line: int, verdicts: list[str], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    of = dict.fromkeys(MEASURED, OPEN) | planted
    monkeypatch.setattr(series, "more_silent", lambda *_: of["decay"])  # in per cent
    monkeypatch.setattr(findings, "more_inactive", lambda _, one, __: of["equal"] if one.control_of else OPEN)
    network = imagenet(of["tested"], of["difference"], of["tuned"], of.get("inactive", 2))
    wide = imagenet(OPEN, OPEN, of["wide"])
    wide.effects = {
        "resnet34": wide.effects["resnet18"],
        "plainnet34": imagenet(OPEN, OPEN, OPEN, 1).effects["resnet18"],
    }
    effects = dict.fromkeys(("resnet34", "plainnet34", "resnet34-short"))
    pair = SimpleNamespace(
        effects=effects, claims=[_claim("g", "It is.", "By counting.", [Part("share", of["equal"])])]
    )
    found = findings.gather(trainings(), pair, network, wide)
    assert len(found) == 6
    assert [verdict for verdict, _ in found[line].found] == verdicts
    assert said in "; ".join(told for _, told in found[line].found)
    lines = BeautifulSoup(findings.listed(found).data, "html.parser").select(".rfviz-findings > li")
    assert [each.get_text().split(" ", 1)[1] for each in lines[line].select(".verdict")] == verdicts
    assert said in lines[line].get_text() and lines[line].a["href"] == f"{found[line].page[0]}.html"
