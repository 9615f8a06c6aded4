"""Verdicts on the statements of the paper follow the numbers, whichever way they come out."""

from types import SimpleNamespace

import pytest
import torch

from rfviz.kernels.identification import KINDS
from rfviz.kernels.inactivity import Effect, NoiseEffect
from rfviz.lab.presets import EXPLORER_LAYERS, FIGURE_LAYERS
from rfviz.lab.runs import Run
from rfviz.pages import claims, reference
from rfviz.pages.claims import Claim
from rfviz.storage import places
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


def fake(responses: object = None, **parts: object) -> SimpleNamespace:
    """A run that gives what is planted; every layer of both networks has the same responses."""
    found = SimpleNamespace(
        positive_count=torch.ones(24), mean_stimulus=torch.zeros(24, 3, 9, 9),
        receptive_field=SimpleNamespace(size=11), strongest_stimulus=torch.zeros(24, 3, 9, 9),
    )  # fmt: skip
    white = SimpleNamespace(to_rgb=lambda x, clip=True: x)
    common = {
        "responses": lambda model, layers=(): responses or dict.fromkeys(EXPLORER_LAYERS, found),
        "maximization": lambda model, layer: SimpleNamespace(images=torch.ones(24, 3, 9, 9)),
        "maximizations": lambda model: {}, "whitening": lambda model: white,
        "images": SimpleNamespace(stimuli="stimuli"),
    }  # fmt: skip
    return SimpleNamespace(**{**common, **parts})


def around(value: float) -> torch.Tensor:
    return value + 0.1 * torch.linspace(-1, 1, 24, dtype=torch.float64)


@pytest.mark.parametrize(("high", "verdict"), [(0.9, AGREES), (0.5, CANNOT_TELL), (0.1, DISAGREES)])
def test_diversity_and_centrality_have_a_sign(monkeypatch: pytest.MonkeyPatch, high: float, verdict: str) -> None:
    low, top = FIGURE_LAYERS[0], FIGURE_LAYERS[-1]
    found = {layer: SimpleNamespace(**vars(fake().responses("")[layer]), name=layer) for layer in (low, top)}
    monkeypatch.setattr(claims, "diversity", lambda images, each, side: around(high if each.name == top else 0.5))
    monkeypatch.setattr(claims, "centrality", lambda means: around(high - 0.5))
    run = fake(found)
    assert claims._diverse([run]).verdict == verdict
    assert claims._central([run]).verdict == verdict
    assert f"{1 - high:+.2f}" in claims._central([run]).measured  # single patches


@pytest.mark.parametrize(("resnet", "plain", "verdict"), [(0.7, 0.1, AGREES), (0.1, 0.7, DISAGREES)])
def test_what_is_kept_and_what_resembles(
    monkeypatch: pytest.MonkeyPatch, resnet: float, plain: float, verdict: str
) -> None:
    run = fake()
    run.responses = lambda model, layers=(): {"resnet34": resnet, "plainnet34": plain}[model]
    monkeypatch.setattr(claims, "kept", around)
    assert claims._keeps([run]).verdict == verdict
    monkeypatch.setattr(claims, "own_maximization", lambda found, maxima, white: around(found - 0.4))
    assert claims._resembles([run]).verdict == verdict


@pytest.mark.parametrize(
    ("driven", "mean", "verdict"), [(20, 0, AGREES), (0, 20, DISAGREES), (5, 4, CANNOT_TELL), (4, 0, CANNOT_TELL)]
)
def test_opponency_of_maximization_beyond_chance(
    monkeypatch: pytest.MonkeyPatch, driven: int, mean: int, verdict: str
) -> None:
    def measure(pictures: torch.Tensor, background: torch.Tensor, there: torch.Tensor) -> SimpleNamespace:
        count = driven if pictures.max() > 0 else mean  # the fake means are black
        return SimpleNamespace(colour_opponent=torch.arange(24) < count)

    monkeypatch.setattr(claims.centre_surround, "measure", measure)
    assert claims._opponency([fake()]).verdict == verdict


@pytest.mark.parametrize(("selective", "verdict"), [(12, AGREES), (1, CANNOT_TELL)])
def test_orientation_is_compared_with_a_network_of_its_own(selective: int, verdict: str) -> None:
    def orientation(model: str, layer: str, control: str | None = None, draw: int = 0) -> SimpleNamespace:
        chance = torch.linspace(0, 0.5, 24, dtype=torch.float64)
        return SimpleNamespace(selectivity=chance if control else chance + 0.6 * (torch.arange(24) < selective))

    found = claims._oriented([fake(orientation=orientation)])
    assert found.verdict == verdict


@pytest.mark.parametrize(
    ("ours", "random", "verdict"), [(20, 2, AGREES), (2, 20, CANNOT_TELL), (0, 20, DISAGREES), (12, 12, CANNOT_TELL)]
)
def test_double_opponency_beyond_random_weights(ours: int, random: int, verdict: str) -> None:
    def colour(model: str, layer: str, control: str | None = None, draw: int = 0) -> SimpleNamespace:
        count = random if control else ours
        rest = 22 - count
        return SimpleNamespace(classes=["double-opponent"] * count + ["achromatic"] * rest + ["silent"] * 2)

    found = claims._double_opponent([fake(colour=colour)])
    assert found.verdict == verdict
    assert f"share {ours / 22:.0%}" in found.measured  # silent channels do not count


@pytest.mark.parametrize(
    ("mean", "driven", "verdict"),
    [(0.5, 0.9, AGREES), (0.8, 0.95, DISAGREES), (0.5, 0.5, CANNOT_TELL), (0.5, 0.2, DISAGREES)],
)
def test_the_mean_fails_only_if_it_is_no_better_than_chance(mean: float, driven: float, verdict: str) -> None:
    noise = around(0).flip(0)
    scores = dict(zip(KINDS, (around(mean), around(mean), noise + driven), strict=True))
    assert claims._fails([fake(identification=lambda model, layer: scores)]).verdict == verdict


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
