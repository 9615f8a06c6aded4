"""What is kept in the repository says what the prose of the book says: each test fails when a number changes sides."""

import dataclasses
import itertools
import json
import re
import shlex
from statistics import fmean

import pytest
from PIL import Image

from rfviz.book.cli import RunOptions
from rfviz.lab import presets
from rfviz.nets.network import NETWORKS
from rfviz.pages import claims, inactive
from rfviz.pages.evidence import findings, reference, series
from rfviz.stats import AGREES, CANNOT_TELL, DISAGREES
from rfviz.storage import places
from rfviz.training.recipe import Recipe

BOOK = places.repository() / "book"
SILENT = (2, 4, 7, 9, 13, 36, 38, 48)
"""Channels of ResNet18 trained on ImageNet that never fire; measured on other photographs as well."""


@pytest.fixture(scope="module")
def imagenet() -> reference.Reference:
    return reference.kept("evidence/resnet18")


def test_what_is_kept_is_small_and_holds_no_photograph(imagenet: reference.Reference) -> None:
    files = [file for part in ("reference", "evidence") for file in (BOOK / part).rglob("*") if file.is_file()]
    assert sum(file.stat().st_size for file in files) < 8e6
    pictures = {file.name for file in files if file.suffix in (".png", ".jpg")}
    kinds = ("filter", "mean", "strongest", "maximization")  # made by the network, or averages over many patches
    assert all(name.rpartition("-")[2].partition(".")[0] in kinds for name in pictures)
    for file in files:
        if file.suffix in (".png", ".jpg"):
            with Image.open(file) as sheet:
                assert sheet.size[0] >= reference.WIDTH, file
    assert {file.suffix for file in files} == {".json", ".safetensors", ".png", ".jpg"}
    assert not re.search(r"[ =]/", imagenet.facts["made by"]["command"])  # no path of one machine


@pytest.mark.parametrize("name", ["reference", "evidence/pair", "evidence/resnet18"])
def test_the_command_that_is_kept_gives_these_recipes(name: str) -> None:
    facts = reference.kept(name).facts
    words = shlex.split(facts["made by"]["command"])
    given = [(option, value) for option, value in itertools.pairwise(words) if option.startswith("--")]
    one = {option.removeprefix("--"): value for option, value in given if option != "--set"}
    options = RunOptions(
        preset=one["preset"], networks=one["networks"], epochs=int(one["epochs"]),
        settings=tuple(value for option, value in given if option == "--set"),
    )  # fmt: skip
    preset = presets.get(one["preset"], **options.overrides)
    assert (facts["preset"], facts["width"]) == (one["preset"], preset.width)
    assert list(facts["recipes"]) == list(preset.networks)
    for network in preset.networks:
        expected = dataclasses.asdict(preset.recipe(network).for_images(facts["data"]["training images"]))
        assert json.loads(json.dumps(expected)) == facts["recipes"][network]
    assert len(facts["networks"][preset.networks[0]]) == int(one.get("seeds", 1))
    assert facts["made by"]["commit"]


def test_the_network_of_imagenet_is_what_its_page_says(imagenet: reference.Reference) -> None:
    facts = imagenet.facts
    assert list(facts["networks"]) == ["resnet18"] and facts["width"] == 64
    assert facts["recipes"]["resnet18"]["frozen"] == "layer3"
    assert facts["data"]["classes"] == 101 and facts["data"]["side"] == 128
    assert imagenet.accuracies["resnet18"][0] > 0.8
    for said in ("--networks resnet18", "--set frozen=layer3", "--weights resnet18="):
        assert said in facts["made by"]["command"]


def test_its_silent_channels_are_those_that_other_photographs_find(imagenet: reference.Reference) -> None:
    (effect,) = imagenet.effects["resnet18"]
    assert effect.inactive == SILENT and effect.channels == 64
    (silence,) = imagenet.exhibit.inactive.silences["resnet18"]
    assert silence.kinds.count("filter") >= 7 and not silence.reachable[list(SILENT)].any()  # no picture wakes them
    (evidence,) = imagenet.exhibit.evidence["resnet18"]
    behind = evidence.fires["layer1.0"][list(SILENT)]
    assert behind.min() > 0.1 and behind.max() < 0.95  # 0.20 to 0.87 over photographs of ImageNet's classes
    assert evidence.fires["maxpool"][list(SILENT)].max() == 0


def test_noise_in_them_matters_and_in_active_channels_matters_more(imagenet: reference.Reference) -> None:
    rows = ("random_inactive", "inactive", "random_active")
    one, every, active = (inactive.noise_change(imagenet.effects["resnet18"], row).value for row in rows)
    assert 0 < one < every < active
    noise = imagenet.exhibit.inactive.why["resnet18"].changes["noise"]
    assert noise["tested"].sign == 1
    assert imagenet.exhibit.inactive.why["resnet18"].changes["skip"]["difference"].sign == 0  # as the conclusion says


def test_noise_in_them_harms_by_the_skip_and_what_the_blocks_write_there_is_missed(
    imagenet: reference.Reference,
) -> None:
    why = imagenet.exhibit.inactive.why["resnet18"]
    assert why.paths.sign == 1 and why.changes["convolutions"]["tested"].sign == 0
    assert why.changes["cut"]["tested"].sign == why.changes["cut"]["difference"].sign == 1
    read = imagenet.exhibit.read["resnet18"]["layer1.0.conv1"]
    assert read[list(SILENT)].max() < 0.01  # of the mean: the convolutions of the first block do not look at them


def test_the_findings_of_the_first_page() -> None:
    found = findings.gather(series.kept(), *map(reference.kept, ("evidence/pair", "evidence/resnet18", "reference")))
    assert [[verdict for verdict, _ in each.found] for each in found] == [
        [AGREES], 3 * [CANNOT_TELL], [CANNOT_TELL], [AGREES, AGREES], [AGREES, DISAGREES], [DISAGREES]
    ]  # fmt: skip
    assert "ResNet18 trained on ImageNet: 8 of 64" in found[0].found[0][1]
    assert "alone it does neither more nor less" in found[2].found[0][1]
    assert found[1].found[1][1].endswith("11 against 10")


def test_channels_fall_silent_by_decay_and_not_without() -> None:
    shown = series.kept()
    for network in shown.networks:
        for decay in (0.01, 0.5):
            assert not any(each["inactive"] for each in shown.of(network, decay)), (network, decay)
        assert series.first_silent(shown, network) <= 6
        assert not any(each["inactive"] for each in shown.of(network, 6.0, alive=True))


def test_the_default_networks_lose_channels_with_every_seed_and_have_learnt() -> None:
    """The trainings of the series with the cumulative decay of the preset are those of the default book."""
    found = series.kept().of("resnet34", 6.0)
    assert [each["seed"] for each in found] == [0, 1, 2]
    assert all(each["inactive"] >= 2 and each["top1"] >= 0.75 for each in found)


def test_verdicts_of_the_network_of_imagenet(imagenet: reference.Reference) -> None:
    verdicts = {claim.letter: claim.verdict for claim in imagenet.claims}
    assert len(verdicts) == len(claims.gather.__globals__["_CLAIMS"])
    assert verdicts["f"] == AGREES


# -- the reference pair ------------------------------------------------------------------------------------------------

LEARNT = 0.45
"""Least top-1 accuracy of PlainNet34."""

MATCHED = 0.05
"""Most that the accuracy of the control may differ from it, on average over seeds."""


@pytest.fixture(scope="module")
def pair() -> reference.Reference:
    return reference.kept("evidence/pair")


def test_the_pair_has_learnt_and_its_control_matches(pair: reference.Reference) -> None:
    resnet, plain, short = (pair.accuracies[name] for name in ("resnet34", "plainnet34", "resnet34-short"))
    assert list(pair.accuracies) == ["resnet34", "plainnet34", "resnet34-short"]
    assert min(len(each) for each in (resnet, plain, short)) >= 3
    assert min(plain) >= LEARNT and min(resnet) > max(short)
    assert abs(fmean(short) - fmean(plain)) <= MATCHED


def test_the_pair_is_trained_as_its_page_says(pair: reference.Reference) -> None:
    recipes = {name: Recipe(**each) for name, each in pair.facts["recipes"].items()}
    images = pair.facts["data"]["training images"]
    decays = [each.cumulative_decay(each.steps(images)) for each in recipes.values()]
    assert min(decays) >= 4 and decays == pytest.approx([decays[0]] * 3)
    resnet, plain, short = recipes.values()
    assert plain.epochs > resnet.epochs > short.epochs and plain.batch_size < resnet.batch_size
    assert {each.crop for each in recipes.values()} == {pair.facts["data"]["side"]}  # measured as trained
    assert pair.facts["width"] == 32 and pair.facts["data"]["classes"] == 101
    assert not re.search(r"[ =]/", pair.facts["made by"]["command"])


def test_channels_fall_silent_in_every_resnet34_of_the_pair(pair: reference.Reference) -> None:
    counts = {name: [len(each.inactive) for each in effects] for name, effects in pair.effects.items()}
    assert min(counts["resnet34"]) >= 1 and min(counts["resnet34-short"]) >= 1
    more, at_equal_accuracy = (
        inactive.more_inactive(pair.effects, NETWORKS[name], NETWORKS["plainnet34"])
        for name in ("resnet34", "resnet34-short")
    )
    assert more.sign == 1 and at_equal_accuracy.value > 0 and at_equal_accuracy.sign == 0
    for name in ("resnet34", "resnet34-short"):  # more in as many active channels, in every network
        silent, active = (inactive.noise_change(pair.effects[name], row).value for row in ("inactive", "random_active"))
        assert 0 < silent < active


def test_verdicts_of_the_pair(pair: reference.Reference) -> None:
    verdicts = {claim.letter: claim.verdict for claim in pair.claims}
    assert verdicts["f"] == AGREES
    assert verdicts["g"] == CANNOT_TELL  # ResNet34 has more, but not beyond doubt at equal accuracy
    assert "at equal accuracy" in next(claim.measured for claim in pair.claims if claim.letter == "g")
