"""What is kept of a long run: numbers that come back as they were, sheets of pictures, and no photograph."""

import dataclasses
import json

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from reference import TINY

from rfviz.lab import results
from rfviz.lab.run import open_run
from rfviz.pages import claims, inactive, sharing
from rfviz.pages.evidence import reference
from rfviz.pages.evidence.reference import COLUMNS, Reference, sheet
from rfviz.pages.style import min_max, stretch
from rfviz.storage import places
from rfviz.training.recipe import Recipe

KEPT = places.repository() / "book" / "reference"


@pytest.fixture(scope="module", params=[1, pytest.param(2, marks=pytest.mark.thorough)])
def exported(request, smoke_runs, tmp_path_factory):
    """The replicas of a `smoke` run, and the folder that they were written to; two are of a very short one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RFVIZ_RUNS", str(smoke_runs if request.param == 1 else tmp_path_factory.mktemp("runs")))
        run = open_run("smoke", **({} if request.param == 1 else TINY))
        run.progress = False
        replicas = run.replicas(request.param)
        folder = tmp_path_factory.mktemp("reference") / "new"
        reference.export(replicas, folder, {"command": "rfviz reference here"})
        yield replicas, folder


def test_the_numbers_come_back_as_they_were(exported):
    replicas, folder = exported
    found = reference.load(folder)
    for name in ("resnet34", "plainnet34"):
        assert found.histories[name] == [results.history(run, name) for run in replicas]
        assert found.accuracies[name] == [results.accuracy(run, name) for run in replicas]
    expected = {name: [results.noise_effect(run, name) for run in replicas] for name in found.effects}
    assert inactive.table1(found.effects).equals(inactive.table1(expected))
    for name, effects in expected.items():
        for ours, theirs in zip(found.effects[name], effects, strict=True):
            assert dataclasses.replace(ours, effects={}) == dataclasses.replace(theirs, effects={})
            for row, effect in theirs.effects.items():
                assert torch.equal(ours.effects[row].loss, effect.loss)
                assert ours.effects[row].channels == effect.channels
                assert ours.effects[row].loss_interval == effect.loss_interval
                assert ours.effects[row].top1_interval == effect.top1_interval
    assert found.facts["made by"]["command"] == "rfviz reference here"
    assert found.chance == 1 / 4
    assert repr(found.claims) == repr(claims.gather(replicas))  # NaN is not equal to itself
    count = len(replicas)
    assert reference.conditions(found).data.endswith(f" {count} network{'s' * (count > 1)} of each kind.")


@pytest.mark.thorough
def test_pictures_of_an_earlier_export_go_when_the_new_ones_are_there(exported, tmp_path, monkeypatch):
    run = exported[0][0]
    (tmp_path / "resnet18-old.png").touch()
    (tmp_path / "mine.png").touch()
    monkeypatch.setattr(reference.Image.Image, "save", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        reference.export([run], tmp_path, {})
    assert {path.name for path in tmp_path.iterdir()} == {"resnet18-old.png", "mine.png"}  # nothing is lost
    monkeypatch.undo()
    reference.export([run], tmp_path, {})
    assert not (tmp_path / "resnet18-old.png").exists()
    assert len(list(tmp_path.glob("*.png"))) + len(list(tmp_path.glob("*.jpg"))) == 20 + 1


def test_numbers_go_without_pictures(exported, tmp_path):
    reference.export(exported[0], tmp_path, {}, numbers_only=True)
    assert {path.name for path in tmp_path.iterdir()} == {"reference.json", "exhibit.safetensors"}
    found, whole = reference.load(tmp_path), reference.load(exported[1])
    assert found.facts["networks"] == whole.facts["networks"] and repr(found.claims) == repr(whole.claims)


def test_the_sheets_show_every_channel_in_its_place(exported):
    replicas, folder = exported
    run = replicas[0]
    filters = run.net("plainnet34").conv1.weight.detach()
    shown = np.asarray(Image.open(folder / "plainnet34-conv1-filter.png"))
    step = (shown.shape[1] - 1) // COLUMNS
    for channel in (0, 7, 8, 19):
        row, column = divmod(channel, COLUMNS)
        cell = shown[row * step + 1 : (row + 1) * step, column * step + 1 : (column + 1) * step]
        scale = (step - 1) // 7
        expected = (min_max(filters[channel]).permute(1, 2, 0).numpy() * 255).round()
        assert np.array_equal(cell[scale // 2 :: scale, scale // 2 :: scale], expected)
    found = results.stimuli(run, "resnet34")["layer1.0"]
    shown = np.asarray(Image.open(folder / "resnet34-layer1.0-mean.png"))
    step = (shown.shape[1] - 1) // COLUMNS
    channel = int(found.positive_count.argmax())
    row, column = divmod(channel, COLUMNS)
    cell = shown[row * step + 1 : (row + 1) * step : 3, column * step + 1 : (column + 1) * step : 3]
    expected = (stretch(found.mean_deviation[channel])[0].permute(1, 2, 0).numpy() * 255).round()
    assert np.array_equal(cell, expected)


def test_a_mean_over_few_images_is_left_out(exported, monkeypatch):
    """It would show the photographs."""
    run = exported[0][0]
    found = results.stimuli(run, "resnet34")
    counts = found["maxpool"].positive_count.clone()
    counts[:3] = torch.tensor([0, 10 * 256 - 1, 10 * 256])  # 16 x 16 positions of ten images
    planted = {**found, "maxpool": dataclasses.replace(found["maxpool"], positive_count=counts)}
    monkeypatch.setattr(results, "stimuli", lambda *_: planted)
    sheets, left_out = reference.pictures(run, "resnet34")
    assert left_out["maxpool"] == (counts < 10 * 256).nonzero().flatten().tolist()
    assert {0, 1} <= set(left_out["maxpool"]) and 2 not in left_out["maxpool"]
    for what in ("mean", "strongest"):
        shown = sheets[f"maxpool-{what}.png"]
        step = (shown.shape[1] - 1) // COLUMNS
        for channel in range(20):
            row, column = divmod(channel, COLUMNS)
            cell = shown[row * step + 1 : (row + 1) * step, column * step + 1 : (column + 1) * step]
            assert (len(np.unique(cell)) == 1) == (channel in left_out["maxpool"])


def test_any_networks_are_named_with_their_rates():
    found = reference.kept()
    recipe = found.facts["recipes"]["resnet34"]
    rates = {"resnet18": 0.05, "resnet50": 0.01, "plainnet18": 0.02}
    facts = {
        **found.facts,
        "recipes": {name: {**recipe, "learning_rate": rate} for name, rate in rates.items()},
        "networks": dict.fromkeys(rates, found.facts["networks"]["resnet34"]),
    }
    several = Reference(facts, {}, {}, KEPT)
    said = reference.conditions(several).data
    assert f"{recipe['epochs']} epochs, batches of {recipe['batch_size']}, learning rate up to 0.05, weight" in said
    assert "ResNet50: learning rate up to 0.01. PlainNet18: learning rate up to 0.02. " in said
    assert "weights of ResNet50 (hashes)" in reference.how_made(several).facts
    one = Reference({**facts, "recipes": {"resnet18": recipe}}, {}, {}, KEPT)
    said = reference.conditions(one).data
    assert said.startswith("Trained on ") and "ResNet18:" not in said
    steps = facts["data"]["training images"] // recipe["batch_size"]
    assert f"D = {Recipe(**recipe).cumulative_decay(steps):.3g}." in said
    behind = Reference({**facts, "recipes": {"resnet18": recipe | {"frozen": "layer3"}}}, {}, {}, KEPT)
    assert reference.conditions(behind).data.startswith("What comes after layer3 was trained on ")


def test_what_is_kept_does_not_grow_stale():
    """It is evidence with its commit, not computed by the code of today."""
    made = reference.how_made(reference.kept())
    assert made.code == {}
    assert {"command", "commit", "weights of PlainNet34 (hashes)"} <= made.facts.keys()


def test_a_sheet_has_gaps_and_enlarges_small_pictures():
    shown = sheet([torch.zeros(3, 4, 4), None, torch.ones(3, 4, 4)] + [None] * 6)
    assert shown.dtype == np.uint8
    assert shown.shape[1] >= reference.WIDTH and shown.shape[2] == 3
    step = (shown.shape[1] - 1) // COLUMNS
    assert (shown.shape[0] - 1) // step == 2
    assert (shown[1:step, 1:step] == 0).all()
    assert (shown[1:step, step + 1 : 2 * step] == round(255 * reference.BACKGROUND)).all()
    assert (shown[1:step, 2 * step + 1 : 3 * step] == 255).all()


def test_what_is_kept_is_small_and_complete():
    files = sorted(KEPT.iterdir())
    assert sum(file.stat().st_size for file in files) < 5e6
    assert {file.suffix for file in files} == {".json", ".png", ".jpg", ".safetensors"}
    found = reference.kept()
    assert set(found.histories) == {"resnet34", "plainnet34"}
    facts = json.loads((KEPT / "reference.json").read_text())
    assert (facts["preset"], facts["width"], facts["data"]["classes"]) == ("caltech101", 64, 101)
    # At 64 px, a field of 59 px lies inside the image at one place: more would hardly be the strongest.
    assert facts["data"]["side"] == 64 and facts["strongest"] <= 0.11 * facts["data"]["held-out images"]
    for name, recipe in facts["recipes"].items():
        assert recipe["epochs"] == len(found.histories[name][0]) >= 20
    page = (KEPT.parent / "reference_run.md").read_text()
    for file in files:
        assert file.suffix not in (".png", ".jpg") or f"reference/{file.name}" in page  # every picture is shown


def test_what_other_pages_draw_comes_back_as_it_was(exported):
    replicas, folder = exported
    found, expected = reference.load(folder).exhibit, reference.exhibit(replicas)
    here = expected.inactive._replace(explored=None)  # the explorer does not have what is exported elsewhere
    for make in (inactive.kinds_table, inactive.kinds_answer, inactive.counted, inactive.dose_answer):
        ours, theirs = make(found.inactive), make(here)
        assert ours.equals(theirs) if isinstance(ours, pd.DataFrame) else ours.data == theirs.data
    assert inactive.why_table(found.inactive.why).equals(inactive.why_table(expected.inactive.why))
    shared = sharing.gather(replicas)
    for make in (sharing.readers_table, sharing.filled_table):
        assert make(found.sharing).equals(make(shared))
    assert sharing.ownership_answer(found.sharing).data == sharing.ownership_answer(shared).data
    assert sharing.predictions_table(found.sharing).data == sharing.predictions_table(shared).data
    assert found.table("selectivity").to_dict() == expected.table("selectivity").to_dict()
    assert found.answers == expected.answers and "**Answer.**" in found.answers["selectivity"]


def test_large_pictures_are_reduced():
    shown = sheet([torch.rand(3, 200, 200)] * 3)
    assert shown.shape[1] == COLUMNS * (reference.MOST + 1) + 1 or shown.shape[1] == 3 * (reference.MOST + 1) + 1


@pytest.mark.parametrize(
    ("side", "what"), [(11, "maxpool-mean.png"), (7, "conv1-filter.png"), (59, "layer1.2-maximization.jpg")]
)
def test_every_picture_of_a_kept_sheet_has_its_link(tmp_path, side, what):
    folder = tmp_path / "reference"
    folder.mkdir()
    images = [torch.full((3, side, side), channel / 32) for channel in range(16)]
    Image.fromarray(sheet(images)).save(folder / f"resnet34-{what}", quality=100)
    found = reference.links(folder / f"resnet34-{what}")
    layer = what.partition("-")[0].replace("conv1", "maxpool")
    assert [each.address for each in found] == [
        f"explorer.html#reference-resnet34/{layer}/{channel}" for channel in range(16)
    ]
    whole = np.asarray(Image.open(folder / f"resnet34-{what}")).astype(int)
    for channel, each in enumerate(found):
        left, top, width, height = np.multiply(each[:4], [*whole.shape[1::-1]] * 2).round().astype(int)
        inside = whole[top : top + height, left : left + width]
        assert inside.shape[0] % side == inside.shape[1] % side == 0
        assert abs(inside - round(255 * channel / 32)).max() <= 1 + 3 * what.endswith("jpg")


def test_only_sheets_that_the_explorer_has_are_linked(tmp_path):
    for name in ("reference/resnet34-layer2.3-mean.png", "pair/resnet34-maxpool-mean.png", "reference/preview.png"):
        assert reference.links(tmp_path / name) == []
    for name, explored in (("reference", "reference-"), ("evidence/pair", None), ("evidence/resnet18", "imagenet-")):
        run = reference.kept(name)
        assert run.explored == run.exhibit.inactive.explored == run.exhibit.sharing.explored == explored
