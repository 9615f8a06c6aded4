"""Verdicts on the statements of the paper follow the numbers, whichever way they come out, in any networks."""

import json
from collections.abc import Callable
from types import SimpleNamespace

import pytest
import torch

from rfviz.kernels.noise import Effect, NoiseEffect
from rfviz.lab import results
from rfviz.lab.run import Run, open_run
from rfviz.nets.network import NETWORKS, accuracy_control, contrast
from rfviz.pages import claims, higher, maximization, orientation, sharing
from rfviz.pages.claims import Claim, Part
from rfviz.pages.evidence import reference
from rfviz.stats import AGREES, CANNOT_TELL, DISAGREES, NOTHING, Interval

LETTERS = "abcdefghijkl"
PAIR = ("resnet34", "plainnet34")
PLANTED = ("noise_effect", "pooling", "evidence", "stimuli", "diversity", "halves", "colour")


@pytest.fixture(autouse=True)
def planted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Results of a fake run are what it holds."""
    for name in PLANTED:

        def found(run: object, *arguments: object, name: str = name, real: object = getattr(results, name)) -> object:
            return real(run, *arguments) if isinstance(run, Run) else getattr(run, name)(*arguments)

        monkeypatch.setattr(results, name, found)


def fake(*names: str, seed: int = 0, **parts: object) -> SimpleNamespace:
    """A run of some networks that gives what is planted."""
    networks = [NETWORKS[name] for name in names or PAIR]
    common = {
        "networks": networks, "network": NETWORKS.get, "subject": networks[0], "contrast": contrast(networks),
        "accuracy_control": accuracy_control(networks), "seed": seed, "stored": lambda name: True, "stimuli": None,
        "labelled": True,
    }  # fmt: skip
    return SimpleNamespace(**{**common, **parts})


def three(make: Callable[[int], SimpleNamespace]) -> list[SimpleNamespace]:
    return [make(seed) for seed in range(3)]


def around(value: float, count: int = 24) -> torch.Tensor:
    return value + 0.1 * torch.linspace(-1, 1, count, dtype=torch.float64)


def between(low: float, high: float, n: int = 24) -> Interval:
    return Interval((low + high) / 2, low, high, n)


# -- the rule ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("low", "high", "limit", "expected", "verdict"),
    [
        (0.2, 0.4, 0.1, 1, AGREES), (0.05, 0.4, 0.1, 1, CANNOT_TELL), (0.01, 0.05, 0.1, 1, DISAGREES),
        (0.2, 0.4, 0.5, -1, AGREES), (0.4, 0.6, 0.5, -1, CANNOT_TELL), (0.6, 0.7, 0.5, -1, DISAGREES),
        (-0.4, -0.2, -0.1, -1, AGREES), (-0.05, 0.0, -0.1, -1, DISAGREES),
    ],
)  # fmt: skip
def test_a_part_lies_beyond_its_least_effect(
    low: float, high: float, limit: float, expected: int, verdict: str
) -> None:
    assert Part("it", between(low, high), limit, expected).verdict == verdict


@pytest.mark.parametrize(
    ("low", "high", "limit", "form", "said"),
    [
        (0.0986, 0.891, 0.1, "+.2f", "(+0.099 to +0.891, "), (0.1014, 0.891, 0.1, "+.2f", "(+0.101 to +0.891, "),
        (-0.09, 0.0013, 0.0, "+.0%", " -4.4 points (-9.0 to +0.1, "), (0.1, 0.891, 0.1, "+.2f", "(+0.10 to +0.89, "),
        (0.0999, 0.891, 0.1, "+.2f", "(+0.0999 to "), (-0.001, 0.891, 0.0, "+.2f", "(-0.001 to "),
        (0.12, 0.891, 0.1, "+.2f", "(+0.12 to +0.89, "), (0.0, 0.0, 0.0, "+.0%", " +0 points (+0 to +0, "),
    ],
)  # fmt: skip
def test_an_end_near_the_limit_does_not_read_like_it(low: float, high: float, limit: float, form: str, said: str):
    assert said in str(Part("it", between(low, high), limit, 1, form))


def test_all_parts_must_hold_and_those_that_decide_are_named() -> None:
    good, bad, wide = (Part(name, between(*ends)) for name, ends in
                       {"good": (1, 2), "bad": (-2, -1), "wide": (-1, 1)}.items())  # fmt: skip
    for parts, verdict, why in (
        ([good, good], AGREES, "the whole interval lies on the side"), ([good, wide], CANNOT_TELL, "undecided: wide"),
        ([good, wide, bad], DISAGREES, "other side of the least effect: bad"),
    ):  # fmt: skip
        claim = claims._claim("x", "It is so.", "How.", parts, "and beside")
        assert claim.verdict == verdict and why in claim.why
        assert claim.measured.endswith("; and beside") and all(part.name in claim.measured for part in parts)
        assert all(f"{part.name}: above 0.00" in claim.least for part in parts)


def test_a_claim_is_the_same_when_it_comes_back_from_json() -> None:
    parts = [Part("it", between(1, 2), 0.5, 1, ".0%", " octaves", 0.25), Part("that", between(-2, 1), form="+.3f")]
    claim = claims._claim("x", "It is so.", "How.", parts, "and beside")
    again = claims.claim_of(json.loads(json.dumps(claim._asdict())))
    assert again == claim
    assert str(again.parts[0]) == "it 150% (100% to 200%, n = 24 channels), random weights 25%"


# -- inactive channels -------------------------------------------------------------------------------------------------


def effect(inactive: int, channels: int = 64, loss: float = 1.0, spread: float = 0.1) -> NoiseEffect:
    values = loss + spread * torch.tensor([-1.0, -0.5, 0.0, 0.5, 1.0], dtype=torch.float64)
    interval = between(loss - 2 * spread, loss + 2 * spread)._replace(of="images")
    control = Effect((63,), values, values, interval, interval)
    effects = {"least_active": control, "random_active": control}
    if inactive:
        each = Effect(tuple(range(inactive)), values, values, interval, interval)
        effects |= {"inactive": each, "random_inactive": each}
    return NoiseEffect(tuple(range(inactive)), channels, 100, 1.0, 0.5, effects)


def run_with(
    *effects: NoiseEffect, strange: float = 0.5, cut: float = 0.2, names: tuple[str, ...] = PAIR, seed: int = 0
) -> SimpleNamespace:
    of_each = dict(zip(names, effects, strict=True))
    tested = torch.arange(64) < 13

    def pooling(name: str) -> SimpleNamespace:
        found = of_each[name]
        return SimpleNamespace(
            channels=found.channels, maximum=(torch.arange(found.channels) >= len(found.inactive)).float()
        )

    def evidence(name: str) -> SimpleNamespace:
        dose = SimpleNamespace(mean=lambda losses: claims.stats.mean(losses, "images"))
        outside = torch.linspace(0, 0.1, 64) + strange * tested
        return SimpleNamespace(
            inactive=len(of_each[name].inactive), strange=outside, tested=tested, dose=dose,
            cut=(around(cut), around(0.0)),
        )  # fmt: skip

    return fake(*names, seed=seed, noise_effect=of_each.get, pooling=pooling, evidence=evidence)


def verdicts(*runs: SimpleNamespace) -> dict[str, Claim]:
    measures = (claims._exist, claims._more, claims._harms, claims._hypothesis)
    return {claim.letter: claim for claim in (claims._measured(measure, runs) for measure in measures)}


def like_the_paper(seed: int, strange: float = 0.5, cut: float = 0.2) -> SimpleNamespace:
    effects = effect(13 + seed, loss=1 + seed / 9), effect(2, loss=0.0, spread=0.2)
    return run_with(*effects, strange=strange + seed / 99, cut=cut + seed / 99, seed=seed)


def test_networks_like_those_of_the_paper() -> None:
    found = verdicts(*three(like_the_paper))
    assert {letter: claim.verdict for letter, claim in found.items()} == dict.fromkeys("fghl", AGREES)
    assert "ΔL +1.111" in found["h"].measured and "ΔL minus PlainNet34's +1.111" in found["h"].measured
    assert found["g"].measured.startswith("share +19 points") and "n = 3 seeds" in found["g"].measured
    assert "n = 192 channels" in found["f"].measured
    assert "minus the same in matched active channels +0.210" in found["l"].measured


def test_without_labels_no_statement_on_the_loss_is_decided() -> None:
    runs = three(like_the_paper)
    for run in runs:
        run.labelled = False
    found = verdicts(*runs)
    assert {letter: claim.verdict for letter, claim in found.items()} == {
        "f": AGREES, "g": AGREES, "h": CANNOT_TELL, "l": CANNOT_TELL
    }  # fmt: skip
    assert "no labels that the networks know" in found["h"].why == found["l"].why


def test_a_comparison_takes_three_trainings() -> None:
    for runs in (three(like_the_paper)[:1], three(like_the_paper)[:2]):
        found = verdicts(*runs)
        assert {letter: claim.verdict for letter, claim in found.items()} == {
            "f": AGREES, "g": CANNOT_TELL, "h": CANNOT_TELL, "l": AGREES
        }  # fmt: skip
        trained = "one training" if len(runs) == 1 else "2 trainings"
        assert found["g"].why == f"{trained} of each network: a comparison of networks takes 3"
        assert "+1." in found["h"].measured  # what was measured is shown


def test_networks_that_show_the_opposite() -> None:
    found = verdicts(
        *three(
            lambda seed: run_with(
                effect(2, loss=-2.0 - seed / 9), effect(20 + seed), strange=-0.5 - seed / 99, cut=-0.2 - seed / 99
            )
        )
    )
    assert found["f"].verdict == AGREES  # there are some
    assert {found[letter].verdict for letter in "ghl"} == {DISAGREES}


def test_a_strange_feature_that_nobody_writes_does_not_bear_out_the_hypothesis() -> None:
    assert verdicts(like_the_paper(0, cut=0.0))["l"].verdict == CANNOT_TELL
    assert verdicts(like_the_paper(0, cut=-1.0))["l"].verdict == DISAGREES
    assert verdicts(like_the_paper(0, strange=0.1))["l"].verdict == CANNOT_TELL  # as strange as the others


def test_noise_that_changes_nothing_measurable() -> None:
    nothing = three(lambda seed: run_with(effect(13, loss=0.001 * (seed - 1)), effect(2, loss=0.0, spread=0.2)))
    assert verdicts(*nothing)["h"].verdict == DISAGREES  # less than the least effect
    assert verdicts(*three(lambda seed: run_with(effect(13, loss=seed - 1.0), effect(2, loss=0.0))))["h"].verdict == (
        CANNOT_TELL
    )


def test_a_network_without_any_is_disturbed_by_nothing() -> None:
    found = verdicts(*three(lambda seed: run_with(effect(13, loss=1 + seed / 9), effect(0))))["h"]
    assert found.verdict == AGREES and "ΔL minus PlainNet34's +1.111" in found.measured


@pytest.mark.parametrize(("channels", "verdict"), [(64, DISAGREES), (8, CANNOT_TELL)])
def test_no_inactive_channel_at_all(channels: int, verdict: str) -> None:
    found = verdicts(run_with(effect(0, channels), effect(0, channels)))
    assert found["f"].verdict == verdict
    assert {found[letter].verdict for letter in "ghl"} == {CANNOT_TELL}
    assert found["h"].measured == "–"


def test_a_training_that_could_not_lose_a_channel_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claims, "_decay", lambda run, network: 0.013)
    found = verdicts(run_with(effect(0), effect(0)))["f"]
    assert found.verdict == CANNOT_TELL and "D = 0.013 is too small" in found.why
    monkeypatch.setattr(claims, "_decay", lambda run, network: 6.0)
    assert verdicts(run_with(effect(0), effect(0)))["f"].verdict == DISAGREES


def test_runs_without_any_say_nothing_of_what_noise_in_them_does() -> None:
    found = verdicts(*three(like_the_paper), run_with(effect(0), effect(2), strange=-5.0))
    assert found["h"].verdict == found["l"].verdict == AGREES
    assert found["h"].measured.count("n = 3 seeds") == 4


# -- any networks ------------------------------------------------------------------------------------------------------


def test_a_network_without_another_to_compare_with(monkeypatch: pytest.MonkeyPatch) -> None:
    for names, missing in ((("resnet18",), "without"), (("plainnet34", "plainnet18"), "with")):
        run = run_with(*[effect(13)] * len(names), names=names)
        monkeypatch.setattr(sharing, "parts", lambda runs, name: sharing.Parts(*[between(0.1, 0.3)] * 6))
        found = {claim.letter: claim for claim in (claims._keeps([run]), *verdicts(run).values())}
        for letter in "cgh":
            assert found[letter].verdict == CANNOT_TELL
            assert f"This needs a network {missing} skips" in found[letter].why
            assert f"a network {missing} skips" in found[letter].says.lower()
        assert f"{run.subject.title}: pictures +0.20" in found["c"].measured  # what there is, is shown
        assert ("ΔL +1.000" in found["h"].measured) == run.subject.skips
        assert found["f"].verdict == AGREES and run.subject.title in found["f"].says


def test_the_hypothesis_is_about_skips_that_hand_channels_on() -> None:
    for names in (("plainnet34", "resnet34"), ("resnet50", "plainnet34")):
        found = verdicts(run_with(effect(13), effect(2, loss=0.0), names=names))["l"]
        assert (found.verdict, found.measured) == (CANNOT_TELL, "–")
        assert found.why.endswith(f"of the stem of {NETWORKS[names[0]].title}")


def test_the_network_with_skips_need_not_come_first() -> None:
    """What is said of networks with and without skips stays the same; the difference changes its sign."""
    effects = [effect(13, loss=1.1), effect(2, loss=0.0)]
    first = verdicts(*[run_with(*effects)] * 2, run_with(effect(14), effects[1]))
    second = verdicts(*[run_with(*effects[::-1], names=PAIR[::-1])] * 2,
                      run_with(effects[1], effect(14), names=PAIR[::-1]))  # fmt: skip
    for letter in "gh":
        assert (first[letter].says, first[letter].verdict) == (second[letter].says, second[letter].verdict)
        assert first[letter].verdict == AGREES
    assert first["g"].measured.startswith("share +18 points") and second["g"].measured.startswith("share -18 points")
    assert second["g"].measure == "Difference of the shares of channels: PlainNet34 minus ResNet34."
    assert first["h"].measured == second["h"].measured


CONTROLLED = ("resnet34", "resnet34-short", "plainnet34")


@pytest.mark.parametrize(("short", "verdict"), [(13, AGREES), (5, CANNOT_TELL), (0, DISAGREES)])
def test_a_difference_that_is_gone_at_equal_accuracy_is_none(short: int, verdict: str) -> None:
    def make(seed: int) -> SimpleNamespace:
        effects = effect(13 + seed), effect(short and short + seed), effect(2 + seed % 2, loss=0.0, spread=0.2)
        return run_with(*effects, names=CONTROLLED)

    found = verdicts(*three(make))
    assert found["g"].verdict == verdict
    assert "at equal accuracy" in found["g"].measured
    assert "ΔL of ResNet34, short training, minus PlainNet34's" in found["h"].measured
    assert found["f"].verdict == AGREES  # compares nothing


@pytest.mark.parametrize("bottleneck", ["resnet50"])
def test_a_bottleneck_keeps_no_channels_of_the_stem(bottleneck: str) -> None:
    found = claims._keeps([fake(bottleneck, "plainnet34")])
    assert (found.verdict, found.measured) == (CANNOT_TELL, "–")
    assert found.why == "in ResNet50, layer1 has other channels than the stem"


def test_of_three_networks_subject_and_contrast_are_compared() -> None:
    effects = effect(13), effect(60, loss=9.0), effect(2, loss=0.0, spread=0.2)
    found = verdicts(run_with(*effects, names=("resnet18", "resnet34", "plainnet18")))
    assert found["g"].says == "ResNet18 has more of them than PlainNet18."
    assert "mean stimulus at conv. layer 5, " in found["l"].measure  # the last of layer1, counted in ResNet18


# -- pictures ----------------------------------------------------------------------------------------------------------


def measured_pictures(
    monkeypatch: pytest.MonkeyPatch, diverse: dict[tuple[str, bool], float], centre: dict[bool, float], halves: float
) -> SimpleNamespace:
    """A run whose measures of pictures are planted, by layer and whether the weights are random."""

    def stimuli(name: str, control: str | None = None) -> dict[str, SimpleNamespace]:
        return {
            layer: SimpleNamespace(
                layer=layer, random=control is not None, receptive_field=SimpleNamespace(size=11),
                positive_count=torch.ones(24), mean_deviation=torch.full((24, 1), float(control is not None)),
            )
            for layer in NETWORKS[name].layers
        }  # fmt: skip

    def diversity(name: str, layer: str, size_of: str, control: str | None = None) -> torch.Tensor:
        assert size_of == ("maxpool" if ("maxpool", False) in diverse else layer)
        return around(diverse[layer, control is not None])

    monkeypatch.setattr(claims, "centrality", lambda means: around(centre[bool(means[0, 0])]))
    monkeypatch.setattr(claims, "reliability", lambda first, second: around(halves))
    half = SimpleNamespace(mean_deviation=None)
    return fake(stimuli=stimuli, diversity=diversity, halves=lambda name: [half, half])


@pytest.mark.parametrize(("high", "verdict"), [(0.87, AGREES), (0.55, CANNOT_TELL), (0.5, DISAGREES)])
def test_a_rise_in_diversity_has_that_of_random_weights_beside_it(
    monkeypatch: pytest.MonkeyPatch, high: float, verdict: str
) -> None:
    diverse = {("maxpool", False): 0.5, ("layer1.2", False): high, ("maxpool", True): 0.5, ("layer1.2", True): 0.8}
    found = claims._diverse([measured_pictures(monkeypatch, diverse, {}, 0)])
    assert found.verdict == verdict
    assert f"rise minus that with random weights: ResNet34 {high - 0.8:+.2f} (" in found.measured
    assert [part.random for part in found.parts] == pytest.approx([0.3, 0.3])


@pytest.mark.parametrize(
    ("single", "centre", "halves", "verdict"),
    [
        (0.2, 1.0, 0.9, AGREES), (0.8, 1.0, 0.9, DISAGREES), (0.2, 0.1, 0.9, DISAGREES), (0.2, 1.0, 0.2, DISAGREES),
        (0.2, 0.26, 0.9, CANNOT_TELL),
    ],
)  # fmt: skip
def test_a_feature_at_the_centre_is_reliable(
    monkeypatch: pytest.MonkeyPatch, single: float, centre: float, halves: float, verdict: str
) -> None:
    diverse = {("layer1.2", False): 1 - single, ("layer1.2", True): 0.75}
    found = claims._central([measured_pictures(monkeypatch, diverse, {False: centre, True: 0.4}, halves)])
    assert found.verdict == verdict and ", random weights +0.25; centre over rim" in found.measured
    assert f"centre over rim, minus random weights: {centre - 0.4:+.2f} (" in found.measured


@pytest.mark.parametrize(
    ("pictures", "responses", "short", "verdict"),
    [
        (0.6, 0.5, 0.4, AGREES), (-0.6, -0.5, -0.4, DISAGREES), (0.6, 0.0, 0.4, DISAGREES), (0.6, 0.5, 0.0, DISAGREES),
        (0.1, 0.5, 0.4, CANNOT_TELL),
    ],
)  # fmt: skip
def test_features_are_kept_by_pictures_and_by_responses_and_at_equal_accuracy(
    monkeypatch: pytest.MonkeyPatch, pictures: float, responses: float, short: float, verdict: str
) -> None:
    def keeps(value: float) -> Callable:
        def measured(runs: list, subject: object = None) -> Interval:
            middle = short if subject else value
            return between(middle - 0.05, middle + 0.05, len(runs))

        return measured

    monkeypatch.setattr(sharing, "keeps", keeps(pictures))
    monkeypatch.setattr(sharing, "keeps_responses", keeps(responses))
    parts = {
        "resnet34": sharing.Parts(*(NOTHING._replace(value=value) for value in (0.7, 0.3, 0.8, 0.5, 0.1, 0.4))),
        "plainnet34": sharing.Parts(*(NOTHING._replace(value=value) for value in (0.2, 0.1, 0.1, 0.0, 0.1, 0.1))),
    }
    monkeypatch.setattr(sharing, "parts", lambda runs, name: parts[name])
    found = claims._measured(claims._keeps, [fake(*CONTROLLED)] * 3)
    assert found.verdict == verdict
    assert ", random weights +0.20; " in found.measured and ", random weights +0.50; " in found.measured
    assert "learnt, by pictures: ResNet34 +0.40 (" in found.measured and "PlainNet34 +0.10 (" in found.measured
    assert "ResNet34 with its skips cut: responses +0.10" in found.measured
    assert claims._measured(claims._keeps, [fake(*CONTROLLED)]).verdict == CANNOT_TELL


@pytest.mark.parametrize(
    ("last", "clear", "verdict"),
    [(0.9, 0.9, AGREES), (0.5, 0.9, DISAGREES), (0.9, 0.5, DISAGREES), (0.7, 0.9, CANNOT_TELL)],
)
def test_pictures_resemble_each_other_in_every_layer_and_both_settings(
    monkeypatch: pytest.MonkeyPatch, last: float, clear: float, verdict: str
) -> None:
    def ranks(end: float) -> dict[str, Interval]:
        return {layer: between(each - 0.05, each + 0.05) for layer, each in
                zip(NETWORKS["resnet34"].figure_layers, (0.9, 0.85, end), strict=True)}  # fmt: skip

    found = {"maxima": ranks(last), "clear": ranks(clear), "random": ranks(0.6)}
    monkeypatch.setattr(maximization, "resemblance", lambda runs, name: found)
    claim = claims._resembles([fake()])
    assert claim.verdict == verdict and claim.least == "each above 0.7"
    assert ("conv. layer 7" in claim.why) == (verdict != AGREES)


@pytest.mark.parametrize(
    ("driven", "mean", "random", "verdict"),
    [
        (20, 0, 2, AGREES),
        (0, 20, 0, DISAGREES),
        (5, 4, 4, CANNOT_TELL),
        (20, 0, 20, CANNOT_TELL),
        (5, 0, 23, DISAGREES),
    ],
)
def test_another_hue_around_the_centre_counts_beyond_the_mean_and_random_weights(
    monkeypatch: pytest.MonkeyPatch, driven: int, mean: int, random: int, verdict: str
) -> None:
    def opponency(run: object, network: str, layer: str) -> dict[str, SimpleNamespace]:
        p = torch.where(torch.arange(26) < 24, 1.0, torch.nan)  # two channels never fire
        counts = {"mean": mean, "maximization": driven, "clear": 3, "random weights": random}
        shift = {"random weights": 12}
        return {
            kind: SimpleNamespace(
                hue_differs=((torch.arange(26) + shift.get(kind, 0)) % 24 < count) & (torch.arange(26) < 24),
                colour_opponent=torch.zeros(26, dtype=torch.bool), p=p,
            )
            for kind, count in counts.items()
        }  # fmt: skip

    monkeypatch.setattr(results, "opponency", opponency)
    found = claims._surround([fake()])
    assert found.verdict == verdict
    assert f"maximization {driven} (0 opponent)" in found.measured and "n = 24 channels" in found.measured


# -- tuning and higher layers ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("low", "verdict"), [(0.06, AGREES), (0.04, CANNOT_TELL), (-0.16, DISAGREES)])
def test_orientation_beyond_random_weights(monkeypatch: pytest.MonkeyPatch, low: float, verdict: str) -> None:
    monkeypatch.setattr(orientation, "selective_excess", lambda run, name: between(low, low + 0.2))
    assert claims._oriented([fake()]).verdict == verdict


@pytest.mark.parametrize(
    ("ours", "random", "verdict"), [(20, 2, AGREES), (0, 20, DISAGREES), (12, 12, CANNOT_TELL), (2, 2, CANNOT_TELL)]
)
def test_double_opponency_beyond_random_weights(ours: int, random: int, verdict: str) -> None:
    def tuning(name: str, layer: str, control: str | None = None, draw: int = 0) -> SimpleNamespace:
        count = random if control else ours
        rest = 22 - count
        names = ["double-opponent"] * count + ["achromatic"] * rest
        turn = 7 * ("conv1", "layer1.0", "layer1.2").index(layer)  # others in each layer
        return SimpleNamespace(classes=names[turn:] + names[:turn] + ["silent"] * 2)

    found = claims._double_opponent([fake(colour=tuning)])
    assert found.verdict == verdict
    assert f"{ours} among the first filters, {ours} in conv. layer 3, {ours} in conv. layer 7" in found.measured
    assert "n = 22 channels" in found.measured  # silent ones do not count


@pytest.mark.parametrize(
    ("contrast", "low", "lead", "verdict"),
    [
        (0.05, 0.5, 0.3, AGREES),
        (0.3, 0.5, 0.3, DISAGREES),
        (0.05, 0.5, 0.0, DISAGREES),
        (0.05, 0.0, 0.3, DISAGREES),  # even harder to read in the first pooling layer
        (0.1, 0.5, 0.3, CANNOT_TELL),
        (0.05, 0.5, 0.1, CANNOT_TELL),
        (0.05, 0.05, 0.3, CANNOT_TELL),
    ],
)
def test_high_layers_are_hard_to_grasp_where_little_is_to_be_seen_and_maximization_leads(
    monkeypatch: pytest.MonkeyPatch, contrast: float, low: float, lead: float, verdict: str
) -> None:
    def readability(run: object, name: str, layer: str) -> torch.Tensor:
        return (low if layer == "maxpool" else contrast) + 0.1 * around(0)

    monkeypatch.setattr(results, "readability", readability)
    monkeypatch.setattr(higher, "fits", lambda run, name, layer: True)
    monkeypatch.setattr(higher, "lead", lambda runs, name, layer: between(lead - 0.05, lead + 0.05))
    monkeypatch.setattr(higher, "score", lambda runs, name, layer, kind: between(0.6, 0.8))
    found = claims._fails([fake("resnet18")])
    assert found.verdict == verdict
    assert "conv. layer 5" in found.measured and "conv. layer 9" in found.measured  # of ResNet18


# -- the page ----------------------------------------------------------------------------------------------------------


def test_seeds_that_contradict_each_other_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    found = {0: (0.2, 0.4), 1: (-0.4, -0.2), 2: (-1.0, 1.0)}
    monkeypatch.setattr(orientation, "selective_excess", lambda run, name: between(*found[run.seed]))
    monkeypatch.setattr(claims, "_CLAIMS", {"i": claims._oriented})
    (claim,) = claims.gather([fake(seed=seed) for seed in range(3)])
    assert claim.why.endswith("single seeds contradict each other: 0 agrees, 1 disagrees, 2 cannot tell")
    found[1] = found[2]
    (claim,) = claims.gather([fake(seed=seed) for seed in range(3)])
    assert "contradict" not in claim.why


def test_every_statement_of_a_real_run(smoke: Run) -> None:
    found = claims.gather([smoke])
    assert "".join(claim.letter for claim in found) == LETTERS
    for claim in found:
        assert claim.verdict in (AGREES, DISAGREES, CANNOT_TELL)
        assert claim.measured == "–" or "n = " in claim.measured
        assert claim.says.endswith((".", ").")) and claim.measure.endswith(".") and claim.why and claim.least
    assert claims.gather([smoke]) == found
    said = claims.claims_answer({"this run": found, "the same": found}).data
    assert "statements: This run: agrees with " in said
    listed = [letter for part in said.split("(")[1:] for letter in part.split(")")[0].split(", ")]
    assert sorted(listed) == sorted(LETTERS * 2)


@pytest.mark.parametrize("name", ["reference", "evidence/pair", "evidence/resnet18"])
def test_least_effects_of_what_is_kept_are_told_as_now(name: str) -> None:
    for claim in reference.kept(name).claims:
        if claim.parts and claim.letter not in "df":  # (d) has one for all its parts, (f) takes one channel
            assert claim.least == "; ".join(dict.fromkeys(part.least for part in claim.parts))


@pytest.mark.thorough
def test_a_network_that_has_learnt_nothing_bears_out_no_statement_about_learning(
    tmp_path: object, monkeypatch: pytest.MonkeyPatch, smoke: Run
) -> None:
    """Random weights with batch norms that know the images, as the network of a run: another draw than its controls."""
    from safetensors.torch import save_file

    from rfviz.kernels import controls

    monkeypatch.setenv("RFVIZ_RUNS", str(tmp_path))
    files = {}
    for number, name in enumerate(PAIR):
        net = controls.calibrated(
            controls.random_weights(smoke.net(name), 100 + number), smoke.evaluation,
            preprocess=smoke.whitening(name),
        )  # fmt: skip
        files[name] = f"{tmp_path}/{name}.safetensors"
        save_file({key: value.contiguous() for key, value in net.state_dict().items()}, files[name])
    run = open_run("smoke", weights=files)
    run.progress = False
    for measure in (
        claims._surround, claims._oriented, claims._double_opponent, claims._exist,
        claims._hypothesis,
    ):  # fmt: skip
        found = measure([run])
        assert found.verdict != AGREES, found
