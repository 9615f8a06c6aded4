"""The figure of the statements: what is drawn is what decides, at the right place, and all of it is there as text."""

import math
import re

import pytest
from bs4 import BeautifulSoup, Tag

from rfviz.nets.network import network
from rfviz.pages import claims, training, verdicts
from rfviz.pages.claims import Claim, Part
from rfviz.pages.verdicts import HEIGHT, MARGIN, TICKS, WIDTH
from rfviz.stats import AGREES, CANNOT_TELL, DISAGREES, NOTHING, Interval


def between(low: float, high: float) -> Interval:
    return Interval((low + high) / 2, low, high, 24)


def claim(letter: str, *parts: Part) -> Claim:
    return claims._claim(letter, f"It is {letter}.", "By looking.", parts, "and beside") if parts else Claim(
        letter, f"It is {letter}.", "By looking.", "–", (), "", CANNOT_TELL, "nobody looked"
    )  # fmt: skip


def drawn(columns: dict[str, list[Claim]]) -> BeautifulSoup:
    return BeautifulSoup(verdicts.figure(columns, {}).data, "html.parser")


GOOD, BAD, WIDE = (Part(name, between(*ends), 0.5) for name, ends in
                   {"good": (1, 2), "bad": (-2, -1), "wide": (-1, 1)}.items())  # fmt: skip


@pytest.mark.parametrize(
    ("parts", "name", "verdict"),
    [
        ([GOOD], "good", AGREES), ([GOOD, WIDE], "wide", CANNOT_TELL), ([WIDE, GOOD, BAD], "bad", DISAGREES),
        ([Part("none", NOTHING), BAD], "bad", DISAGREES),
    ],
)  # fmt: skip
def test_the_part_that_decides_is_drawn(parts: list[Part], name: str, verdict: str) -> None:
    (run,) = drawn({"this run": [claim("a", *parts)]}).select(".run")
    assert run.select_one(".verdict").get_text() == f"{verdicts.MARKS[verdict]} {verdict}"
    assert run.select_one(".number").get_text().startswith(f"{name} ")
    more = f" and {len(parts) - 1} more" if len(parts) > 1 else ""
    assert run.select_one(".number").get_text().endswith(f"n = 24 channels){more}")


def test_beside_the_numbers_of_a_run_stand_channels_to_look_at() -> None:
    columns = {name: [claim(letter, GOOD) for letter in "af"] for name in ("this run", "kept", "other")}
    examples = {
        "this run": verdicts.Example(network("resnet34"), 18, (3, 7)),
        "kept": verdicts.Example(network("resnet18"), 5, (), "imagenet-", " of there"),
    }
    page = BeautifulSoup(verdicts.figure(columns, examples).data, "html.parser")
    said = [each.get_text().partition(" In the explorer: ")[2] for each in page.select("dd")]
    assert said == [
        "ResNet34, conv. layer 7, channel 18.", "ResNet18 of there, conv. layer 5, channel 5.", "",
        "ResNet34, first pooling layer, channels 3 and 7.", "", "",
    ]  # fmt: skip
    assert [each["href"] for each in page.select("dd a")] == [
        f"explorer.html#{where}"
        for where in (
            "resnet34/layer1.2/18",
            "imagenet-resnet18/layer1.1/5",
            "resnet34/maxpool/3",
            "resnet34/maxpool/7",
        )
    ]


def at(svg: Tag, css: str) -> list[float]:
    path = svg.select_one(css)["d"]
    return [float(each) for each in re.findall(r"-?\d+\.?\d*", path)]


@pytest.mark.parametrize("expected", [1, -1])
def test_everything_is_at_its_place_on_one_axis_for_all_runs_of_a_unit(expected: int) -> None:
    part = Part("it", between(-1.0, 3.0), 0.5, expected, random=2.0)
    wider = Part("it", between(4.0, 9.0), 0.5, expected)
    octaves = Part("it", between(100.0, 200.0), 0.5, expected, unit=" octaves")
    one, other, third = drawn({"x": [claim("a", part)], "y": [claim("a", wider)], "z": [claim("a", octaves)]}).select(
        "svg"
    )

    def place(value: float, low: float = -1.0, high: float = 9.0) -> float:
        return pytest.approx(MARGIN + (value - low) / (high - low) * (WIDTH - 2 * MARGIN), abs=0.06)

    assert at(one, ".zero")[0] == at(other, ".zero")[0] == place(0)
    assert at(one, ".limit")[0] == place(0.5)
    assert (at(one, ".interval")[0], at(one, ".interval")[2]) == (place(-1), place(3))
    assert (at(other, ".interval")[0], at(other, ".interval")[2]) == (place(4), place(9))
    assert at(one, ".random")[0] == place(2) and other.select_one(".random") is None
    assert float(one.circle["cx"]) == place(1)
    assert at(third, ".interval")[0] == place(100, 0, 200)  # another unit, another axis
    side = one.select_one(".side")
    left, width = float(side["x"]), float(side["width"])
    assert (left, left + width) == ((place(0.5), WIDTH) if expected > 0 else (0, place(0.5)))
    assert int(one["height"]) == HEIGHT + TICKS
    assert [each.get_text() for each in one.select("text")] == ["0.50"]  # too close to 0 for both
    assert float(one.find("text")["x"]) == place(0.5)


def test_the_least_effect_and_0_have_their_numbers() -> None:
    part = Part("it", between(-0.2, 0.6), 0.3, form="+.0%")
    (svg,) = drawn({"x": [claim("a", part)]}).select("svg")
    assert {each.get_text() for each in svg.select("text")} == {"30", "0"}


def test_a_page_begins_with_its_networks_and_what_is_said_of_its_statements(monkeypatch: pytest.MonkeyPatch) -> None:
    here = [claim("a", GOOD), claim("b", BAD)]
    asked = []
    monkeypatch.setattr(verdicts, "gather", lambda runs, letters: asked.append((runs, letters)) or here)
    monkeypatch.setattr(training, "gather", lambda runs: runs)
    monkeypatch.setattr(training, "in_short", lambda shown: f"<{shown[0]}> & more.")
    found = verdicts.at_a_glance(["a run"], "ab", {"kept": [claim("b", WIDE), claim("a", GOOD)], "bare": [here[0]]})
    assert asked == [(["a run"], "ab")]
    page = BeautifulSoup(found.data, "html.parser")
    assert page.p.get_text() == "This run: <a run> & more."
    rows = [[cell.get_text() for cell in row.find_all(["th", "td"])] for row in page.find_all("tr")]
    assert rows == [
        ["the paper says", "this run", "kept", "bare"],
        ["(a) It is a.", "✓ agrees", "✓ agrees", "✓ agrees"],
        ["(b) It is b.", "✗ disagrees", "? cannot tell", "not measured"],
    ]
    assert [each["href"] for each in page.find_all("a")] == ["../claims.html#claim-a", "../claims.html#claim-b"]


def test_a_number_without_interval_is_a_dot() -> None:
    (svg,) = drawn({"x": [claim("a", Part("it", Interval(0.0, math.nan, math.nan, 1)))]}).select("svg")
    assert svg.select_one(".interval") is None and svg.circle is not None


def test_what_overrules_the_number_is_said_beside_it() -> None:
    found = claim("c", GOOD)
    (run,) = drawn({"x": [found._replace(verdict=CANNOT_TELL, why="one training of each network.")]}).select(".run")
    assert run.get_text(" ").endswith("One training of each network.")
    (run,) = drawn({"x": [found]}).select(".run")
    assert found.why not in run.get_text().lower()


def test_all_of_it_is_text_and_runs_may_lack_a_statement() -> None:
    first = [claim("a", GOOD, WIDE), claim("c")]
    soup = drawn({"this run": first, "<another>": first[:1], "third": []})
    rows = soup.select("li")
    assert [row["id"] for row in rows] == ["claim-a", "claim-c"]
    assert all(each.get("aria-hidden") for each in soup.select("svg"))
    for row, stated in zip(rows, first, strict=True):
        text = row.get_text(" ")
        for words in (stated.says, stated.measure, stated.least, stated.measured):
            assert words in text
        assert "In the paper: " in text and row.a["href"].endswith(".html")
    assert "nobody looked" in rows[1].get_text().lower()
    runs = [each.get_text(" ") for each in rows[0].select(".run")]
    assert "<another>" in runs[1] and "not measured" in runs[2]
    assert soup.find("another") is None  # it was escaped


def test_the_order_by_verdict_is_that_of_the_first_run() -> None:
    rows = drawn({"x": [claim("a"), claim("b", BAD), claim("c", GOOD)], "y": [claim("a", GOOD)]}).select("li")
    assert [row["style"] for row in rows] == ["--rank: 2", "--rank: 1", "--rank: 0"]


def test_every_statement_has_its_place() -> None:
    assert "".join(verdicts.WHERE) == "abcdefghijkl"
