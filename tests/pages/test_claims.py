"""Verdicts on the statements of the paper follow the numbers, whichever way they come out, in any networks."""

from types import SimpleNamespace

import pytest
import torch

from rfviz.kernels.identify import KINDS
from rfviz.kernels.noise import Effect, NoiseEffect
from rfviz.lab import results
from rfviz.lab.run import Run
from rfviz.nets.network import NETWORKS, accuracy_control, contrast
from rfviz.pages import claims, maximization, sharing
from rfviz.pages.claims import Claim
from rfviz.pages.evidence import reference
from rfviz.stats import AGREES, CANNOT_TELL, DISAGREES

LETTERS = "abcdefghijkl"
PAIR = ("resnet34", "plainnet34")
PLANTED = ("noise_effect", "pooling", "evidence", "stimuli", "maxima", "orientation", "colour", "identification")


@pytest.fixture(autouse=True)
def planted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Results of a fake run are what it holds."""
    for name in PLANTED:

        def found(run: object, *arguments: object, name: str = name, real: object = getattr(results, name)) -> object:
            return real(run, *arguments) if isinstance(run, Run) else getattr(run, name)(*arguments)

        monkeypatch.setattr(results, name, found)


def fake(*names: str, **parts: object) -> SimpleNamespace:
    """A run of some networks that gives what is planted; every layer of all networks has the same responses."""
    networks = [NETWORKS[name] for name in names or PAIR]
    subject = networks[0]
    found = SimpleNamespace(
        channels=24, positive_count=torch.ones(24), mean_deviation=torch.zeros(24, 3, 9, 9),
        receptive_field=SimpleNamespace(size=11), strongest_deviation=torch.zeros(24, 3, 9, 9),
    )  # fmt: skip
    common = {
        "networks": networks,
        "network": NETWORKS.get,
        "subject": subject,
        "contrast": contrast(networks),
        "accuracy_control": accuracy_control(networks),
        "stimuli": lambda name: dict.fromkeys(NETWORKS[name].layers, found),
        "maxima": lambda name, layer: SimpleNamespace(images=torch.ones(24, 3, 9, 9)),
        "whitening": lambda name: SimpleNamespace(to_rgb=lambda x, clip=True: x),
    }
    return SimpleNamespace(**{**common, **parts})


def around(value: float) -> torch.Tensor:
    return value + 0.1 * torch.linspace(-1, 1, 24, dtype=torch.float64)


# -- inactive channels -------------------------------------------------------------------------------------------------


def effect(inactive: int, channels: int = 64, loss: float = 1.0, spread: float = 0.1) -> NoiseEffect:
    values = loss + spread * torch.tensor([-1.0, -0.5, 0.0, 0.5, 1.0], dtype=torch.float64)
    control = Effect((63,), values, values)
    effects = {"least_active": control, "random_active": control}
    if inactive:
        each = Effect(tuple(range(inactive)), values, values)
        effects |= {"inactive": each, "random_inactive": each}
    return NoiseEffect(tuple(range(inactive)), channels, 100, 1.0, 0.5, effects)


def run_with(*effects: NoiseEffect, likeness: float = -0.5, names: tuple[str, ...] = PAIR) -> SimpleNamespace:
    of_each = dict(zip(names, effects, strict=True))
    tested = torch.arange(64) < 13

    def pooling(name: str) -> SimpleNamespace:
        found = of_each[name]
        return SimpleNamespace(
            channels=found.channels, maximum=(torch.arange(found.channels) >= len(found.inactive)).float()
        )

    def evidence(name: str) -> SimpleNamespace:
        alike = torch.linspace(0, 0.1, 64) + likeness * tested
        return SimpleNamespace(inactive=len(of_each[name].inactive), likeness=alike, tested=tested)

    return fake(*names, noise_effect=of_each.get, pooling=pooling, evidence=evidence)


def verdicts(*runs: SimpleNamespace) -> dict[str, Claim]:
    measures = (claims._exist, claims._more, claims._harms, claims._hypothesis)
    return {claim.letter: claim for claim in (measure(runs) for measure in measures)}


def test_networks_like_those_of_the_paper() -> None:
    found = verdicts(run_with(effect(13), effect(2, loss=0.0, spread=0.2)))
    assert {letter: claim.verdict for letter, claim in found.items()} == dict.fromkeys("fghl", AGREES)
    assert "ΔL +1.000" in found["h"].measured and "ΔL minus PlainNet34's +1.000" in found["h"].measured
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
    runs = [run_with(effect(13 + i, loss=1 + 0.1 * i), effect(2, loss=0.0), likeness=-0.5 - 0.01 * i) for i in range(3)]
    found = verdicts(*runs)
    assert {claim.verdict for claim in found.values()} == {AGREES}
    assert "n = 3 seeds" in found["g"].measured
    assert "n = 192 channels" in found["f"].measured
    assert found["h"].measured.count("n = 3 seeds") >= 2


def test_runs_without_any_say_nothing_of_what_noise_in_them_does() -> None:
    having = [run_with(effect(3, loss=1 + i / 9), effect(2, loss=0.0), likeness=-0.5 - i / 99) for i in range(3)]
    found = verdicts(*having, run_with(effect(0), effect(2), likeness=5.0))
    assert found["h"].verdict == found["l"].verdict == AGREES
    assert found["h"].measured.count("n = 3 seeds") == 4


# -- any networks ------------------------------------------------------------------------------------------------------


def test_a_network_without_another_to_compare_with() -> None:
    for names, missing in ((("resnet18",), "without"), (("plainnet34", "plainnet18"), "with")):
        run = run_with(*[effect(13)] * len(names), names=names)
        found = {claim.letter: claim for claim in (claims._keeps([run]), *verdicts(run).values())}
        for letter in "cgh":
            assert (found[letter].verdict, found[letter].measured) == (CANNOT_TELL, "–")
            assert found[letter].why.startswith(f"This needs a network {missing} skips")
            assert f"a network {missing} skips" in found[letter].says.lower()
        assert found["f"].verdict == AGREES and run.subject.title in found["f"].says


def test_the_hypothesis_is_about_skips_that_hand_channels_on() -> None:
    for names in (("plainnet34", "resnet34"), ("resnet50", "plainnet34")):
        found = verdicts(run_with(effect(13), effect(2, loss=0.0), names=names))["l"]
        assert (found.verdict, found.measured) == (CANNOT_TELL, "–")
        assert found.why.endswith(f"of the stem of {NETWORKS[names[0]].title}")


def test_the_network_with_skips_need_not_come_first() -> None:
    """What is said of networks with and without skips stays the same; the difference changes its sign."""
    first = verdicts(run_with(effect(13), effect(2, loss=0.0)))
    second = verdicts(run_with(effect(2, loss=0.0), effect(13), names=PAIR[::-1]))
    for letter in "gh":
        assert (first[letter].says, first[letter].verdict) == (second[letter].says, second[letter].verdict)
    assert first["g"].measured.startswith("+17%") and second["g"].measured.startswith("-17%")
    assert second["g"].measure == "Difference of the shares of channels: PlainNet34 minus ResNet34."
    assert first["h"].measured == second["h"].measured


CONTROLLED = ("resnet34", "resnet34-short", "plainnet34")


@pytest.mark.parametrize(("short", "verdict"), [(13, AGREES), (2, CANNOT_TELL), (0, CANNOT_TELL)])
def test_a_difference_that_is_gone_at_equal_accuracy_decides_nothing(short: int, verdict: str) -> None:
    effects = effect(13), effect(short, loss=float(short == 13)), effect(2, loss=0.0, spread=0.2)
    found = verdicts(run_with(*effects, names=CONTROLLED))
    assert found["g"].verdict == verdict
    assert f"at equal accuracy (ResNet34, short training, minus PlainNet34) {(short - 2) / 64:+.0%}" in (
        found["g"].measured
    )
    assert ("at equal accuracy the interval holds 0" in found["g"].why) == (verdict == CANNOT_TELL)
    assert found["h"].verdict == verdict
    assert "ΔL of ResNet34, short training, minus PlainNet34's" in found["h"].measured
    assert found["h"].why == "all 6 intervals lie above 0" or verdict == CANNOT_TELL
    assert found["f"].verdict == AGREES  # compares nothing


@pytest.mark.parametrize(("short", "verdict"), [(0.6, AGREES), (0.1, CANNOT_TELL), (-0.4, CANNOT_TELL)])
def test_features_are_kept_also_at_equal_accuracy(monkeypatch: pytest.MonkeyPatch, short: float, verdict: str) -> None:
    gains = dict(zip(CONTROLLED, (0.7, short, 0.1), strict=True))
    monkeypatch.setattr(sharing, "_kept", lambda run, name: around(gains[name]))
    found = claims._keeps([fake(*CONTROLLED)])
    assert found.verdict == verdict
    assert f"{short - 0.1:+.2f}" in found.measured.split("at equal accuracy")[1]
    assert ("at equal accuracy it is the other way round" in found.why) == (short < 0)


def test_of_three_networks_subject_and_contrast_are_compared() -> None:
    effects = effect(13), effect(60, loss=9.0), effect(2, loss=0.0, spread=0.2)
    found = verdicts(run_with(*effects, names=("resnet18", "resnet34", "plainnet18")))
    assert {claim.verdict for claim in found.values()} == {AGREES}
    assert found["g"].says == "ResNet18 has more of them than PlainNet18."
    assert "mean stimulus at conv. layer 5:" in found["l"].measure  # the last of layer1, counted in ResNet18


def test_a_bottleneck_keeps_no_channels_of_the_stem() -> None:
    run = fake("resnet50", "plainnet34")
    for found in (claims._keeps([run]), claims._resembles([run])):
        assert (found.verdict, found.measured) == (CANNOT_TELL, "–")
        assert found.why == "in ResNet50, layer1 has other channels than the stem"


# -- pictures ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("high", "verdict"), [(0.9, AGREES), (0.5, CANNOT_TELL), (0.1, DISAGREES)])
def test_diversity_and_centrality_have_a_sign(monkeypatch: pytest.MonkeyPatch, high: float, verdict: str) -> None:
    whole = fake().stimuli("resnet34")
    found = {layer: SimpleNamespace(**vars(each), layer=layer) for layer, each in whole.items()}
    monkeypatch.setattr(
        claims, "diversity", lambda images, each, side: around(high if each.layer == "layer1.2" else 0.5)
    )
    monkeypatch.setattr(claims, "centrality", lambda means: around(high - 0.5))
    run = fake()
    run.stimuli = lambda *_: found
    assert claims._diverse([run]).verdict == verdict
    assert claims._central([run]).verdict == verdict
    assert f"{1 - high:+.2f}" in claims._central([run]).measured  # single patches


@pytest.mark.parametrize(("resnet", "plain", "verdict"), [(0.7, 0.1, AGREES), (0.1, 0.7, DISAGREES)])
def test_what_is_kept_and_what_resembles(
    monkeypatch: pytest.MonkeyPatch, resnet: float, plain: float, verdict: str
) -> None:
    gains = {"resnet34": resnet, "plainnet34": plain}
    monkeypatch.setattr(sharing, "_kept", lambda run, name: around(gains[name]))
    kept = claims._keeps([fake()])
    assert kept.verdict == verdict
    assert f"ResNet34 {resnet:+.2f}, PlainNet34 {plain:+.2f}" in kept.measured
    turned = claims._keeps([fake(*PAIR[::-1])])
    assert (turned.says, turned.verdict) == (kept.says, verdict)
    monkeypatch.setattr(maximization, "own_maximization", lambda found, maxima, white: around(resnet - 0.4))
    assert claims._resembles([fake()]).verdict == verdict


@pytest.mark.parametrize(
    ("driven", "mean", "verdict"), [(20, 0, AGREES), (0, 20, DISAGREES), (5, 4, CANNOT_TELL), (4, 0, CANNOT_TELL)]
)
def test_opponency_of_maximization_beyond_chance(
    monkeypatch: pytest.MonkeyPatch, driven: int, mean: int, verdict: str
) -> None:
    def opponency(run: object, network: str, layer: str) -> dict[str, SimpleNamespace]:
        index = torch.where(torch.arange(26) < 24, 1.0, torch.nan)  # two channels never fire
        counts = {"mean": mean, "maximization": driven}
        return {
            kind: SimpleNamespace(colour_opponent=torch.arange(26) < count, index=index)
            for kind, count in counts.items()
        }

    monkeypatch.setattr(claims, "opponency", opponency)
    found = claims._opponency([fake()])
    assert found.verdict == verdict
    assert f"maximization {driven / 24:.0%}" in found.measured and "n = 24 channels" in found.measured


# -- tuning and higher layers ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("selective", "verdict"), [(12, AGREES), (1, CANNOT_TELL)])
def test_orientation_is_compared_with_a_network_of_its_own(selective: int, verdict: str) -> None:
    def orientation(name: str, layer: str, control: str | None = None, draw: int = 0) -> SimpleNamespace:
        chance = torch.linspace(0, 0.5, 24, dtype=torch.float64)
        return SimpleNamespace(selectivity=chance if control else chance + 0.6 * (torch.arange(24) < selective))

    assert claims._oriented([fake(orientation=orientation)]).verdict == verdict


@pytest.mark.parametrize(
    ("ours", "random", "verdict"), [(20, 2, AGREES), (2, 20, CANNOT_TELL), (0, 20, DISAGREES), (12, 12, CANNOT_TELL)]
)
def test_double_opponency_beyond_random_weights(ours: int, random: int, verdict: str) -> None:
    def colour(name: str, layer: str, control: str | None = None, draw: int = 0) -> SimpleNamespace:
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
    found = claims._fails([fake("resnet18", identification=lambda name, layer: scores)])
    assert found.verdict == verdict
    assert "in conv. layer 9 (0.5 is chance)" in found.measure  # of ResNet18


# -- the page ----------------------------------------------------------------------------------------------------------


def test_every_statement_of_a_real_run(smoke: Run) -> None:
    found = claims.gather([smoke])
    assert "".join(claim.letter for claim in found) == LETTERS
    for claim in found:
        assert claim.verdict in (AGREES, DISAGREES, CANNOT_TELL)
        assert claim.measured == "–" or "n = " in claim.measured
        assert claim.says.endswith((".", ").")) and claim.measure.endswith(".") and claim.why
    assert claims.gather([smoke]) == found
    said = claims.claims_answer(found).data
    listed = [letter for part in said.split("(")[1:] for letter in part.split(")")[0].split(", ")]
    assert sorted(listed) == list(LETTERS)


def test_tables_show_every_word_and_the_reference() -> None:
    stated = reference.kept().claims
    assert "".join(claim.letter for claim in stated) == LETTERS
    html = (
        claims.claims_table(stated, {"reference pair": stated[:3], "another": []}).data
        + claims.methods_table(stated).data
    )
    for claim in stated:
        for text in (claim.says, claim.why, claim.measure):
            assert text in html
    assert html.count("<td>–</td>") >= 9 + 12 and "<th>another</th>" in html
    assert "reference pair" not in claims.claims_table(stated).data
    odd = stated[0]._replace(measured="<img src=x>")
    assert "<img" not in claims.claims_table([odd], {"another": [odd]}).data
