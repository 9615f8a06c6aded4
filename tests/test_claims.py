"""Verdicts on the statements of the paper follow the numbers, whichever way they come out."""

from types import SimpleNamespace

import pytest
import torch

from rfviz import claims, places, reference
from rfviz.claims import Claim
from rfviz.inactivity import Effect, NoiseEffect
from rfviz.runs import Run
from rfviz.verdicts import AGREES, CANNOT_TELL, DISAGREES

LETTERS = "abcdefghijkl"


def effect(inactive: int, channels: int = 64, loss: float = 1.0, spread: float = 0.1) -> NoiseEffect:
    values = loss + spread * torch.tensor([-1.0, -0.5, 0.0, 0.5, 1.0], dtype=torch.float64)
    control = Effect((63,), values, values)
    effects = {"least_active": control, "random_active": control}
    if inactive:
        each = Effect(tuple(range(inactive)), values, values)
        effects |= {"inactive": each, "random_inactive": each}
    return NoiseEffect(tuple(range(inactive)), channels, 100, 1.0, 0.5, effects)


def run_with(resnet: NoiseEffect, plain: NoiseEffect, likeness: float = -0.5) -> SimpleNamespace:
    tested = torch.arange(64) < 13
    alike = torch.linspace(0, 0.1, 64) + likeness * tested
    return SimpleNamespace(
        noise_effect=lambda model: {"resnet34": resnet, "plainnet34": plain}[model],
        likeness=lambda model: alike, tested=lambda model: tested,
    )  # fmt: skip


def verdicts(*runs: SimpleNamespace) -> dict[str, Claim]:
    measures = (claims._exist, claims._more, claims._harms, claims._hypothesis)
    return {claim.letter: claim for claim in (measure(runs) for measure in measures)}


def test_networks_like_those_of_the_paper() -> None:
    found = verdicts(run_with(effect(13), effect(2, loss=0.0, spread=0.2)))
    assert {letter: claim.verdict for letter, claim in found.items()} == dict.fromkeys("fghl", AGREES)
    assert "ΔL +1.000" in found["h"].measured
    assert "n = 5 noise seeds" in found["h"].measured


def test_networks_that_show_the_opposite() -> None:
    found = verdicts(run_with(effect(2, loss=-1.0), effect(20, loss=1.0), likeness=0.5))
    assert found["f"].verdict == AGREES  # there are some
    assert {found[letter].verdict for letter in "ghl"} == {DISAGREES}


def test_noise_that_changes_nothing_measurable() -> None:
    assert (
        verdicts(run_with(effect(13, loss=0.0), effect(2, spread=0.2)))["h"].verdict == DISAGREES
    )  # less than PlainNet34's
    assert verdicts(run_with(effect(13, loss=0.0), effect(2, loss=0.0, spread=0.2)))["h"].verdict == CANNOT_TELL


def test_a_network_without_any_is_disturbed_by_nothing() -> None:
    assert verdicts(run_with(effect(13), effect(0)))["h"].verdict == AGREES


@pytest.mark.parametrize(("channels", "verdict"), [(64, DISAGREES), (8, CANNOT_TELL)])
def test_no_inactive_channel_at_all(channels: int, verdict: str) -> None:
    found = verdicts(run_with(effect(0, channels), effect(0, channels)))
    assert found["f"].verdict == verdict
    assert {found[letter].verdict for letter in "ghl"} == {CANNOT_TELL}
    assert found["h"].measured == "–"


def test_over_seeds() -> None:
    runs = [run_with(effect(13 + i, loss=1 + 0.1 * i), effect(2, loss=0.0), -0.5 - 0.01 * i) for i in range(3)]
    found = verdicts(*runs)
    assert {claim.verdict for claim in found.values()} == {AGREES}
    assert "n = 3 seeds" in found["g"].measured
    assert "n = 192 channels" in found["f"].measured
    assert found["h"].measured.count("n = 3 seeds") >= 2


def test_every_statement_of_a_real_run(smoke: Run) -> None:
    found = claims.claims([smoke])
    assert "".join(claim.letter for claim in found) == LETTERS
    for claim in found:
        assert claim.verdict in (AGREES, DISAGREES, CANNOT_TELL)
        assert claim.measured == "–" or "n = " in claim.measured
        assert claim.says.endswith((".", ").")) and claim.measure.endswith(".") and claim.why
    assert claims.claims([smoke]) == found
    said = claims.claims_summary(found)
    listed = [letter for part in said.split("(")[1:] for letter in part.split(")")[0].split(", ")]
    assert sorted(listed) == list(LETTERS)


def test_tables_show_every_word_and_the_reference() -> None:
    kept = reference.load(places.repository() / "book" / "reference").facts["claims"]
    stated = [Claim(**each) for each in kept]
    assert "".join(claim.letter for claim in stated) == LETTERS
    html = claims.claims_table(stated, stated[:3]).data + claims.methods_table(stated).data
    for claim in stated:
        for text in (claim.says, claim.why, claim.measure):
            assert text in html
    assert html.count("<td>–</td>") >= 9
    assert "reference run" not in claims.claims_table(stated).data
    odd = stated[0]._replace(measured="<img src=x>")
    assert "<img" not in claims.claims_table([odd], [odd]).data
