"""Presets: what they say, what may be changed, and what is refused."""

import dataclasses
import math
import subprocess
import sys
from typing import get_args

import pytest

from rfviz.errors import RfvizError, unknown
from rfviz.images import whitening
from rfviz.lab import presets
from rfviz.lab.presets import PRESETS, Preset
from rfviz.training.trainer import Recipe, learning_rate


def refused(match: str, name: str = "quick", **overrides) -> None:
    with pytest.raises(RfvizError, match=match) as caught:
        presets.get(name, **overrides)
    assert "\n" not in str(caught.value)


def test_the_presets():
    assert list(PRESETS) == ["smoke", "quick", "caltech101", "imagenette", "imagenet"]
    for name, preset in PRESETS.items():
        assert presets.get(name) == preset and preset.name == name
        assert set(preset.recipes) == {"resnet34", "plainnet34"}
        assert preset.width > max(each.channel for each in preset.members) == 19  # the paper's channels exist
        assert preset.top_k == 16 and preset.maximization_steps == 31 and preset.noise_seeds >= 5
        assert preset.crop == preset.recipes["resnet34"].crop == preset.recipes["plainnet34"].crop
    assert PRESETS["smoke"].width == 20
    assert PRESETS["quick"].width >= 24 and PRESETS["quick"].tile >= 128 and PRESETS["quick"].classes == 14
    assert all(PRESETS[name].width == 64 for name in ("caltech101", "imagenette", "imagenet"))


def test_imagenet_is_the_papers_recipe_to_the_letter():
    preset = presets.get("imagenet")
    for recipe in preset.recipes.values():
        assert (recipe.momentum, recipe.weight_decay, recipe.batch_size, recipe.epochs) == (0.9, 1e-4, 256, 90)
        assert (recipe.crop, recipe.area, recipe.repeats, recipe.window) == (224, (0.08, 1.0), 1, None)
        assert recipe.precision == "float32"
        rates = [learning_rate(recipe, step, 10) for step in range(900)]  # ten steps an epoch
        for epoch in range(90):
            expected = 0.01 if epoch < 30 else 0.001 if epoch < 60 else 0.0001
            assert all(math.isclose(rate, expected) for rate in rates[10 * epoch : 10 * epoch + 10])
    assert (preset.short_side, preset.evaluation_crop, preset.whitening) == (256, 224, "channel")


@pytest.mark.parametrize(
    ("name", "images", "least", "most"),
    [("quick", 14, 5, 17), ("caltech101", 6982, 5, 17), ("imagenette", 9469, 5, 17)],
)
def test_both_networks_decay_as_much_as_in_a_long_training(name, images, least, most):
    """From the scale of the paper's recipe, 1.7, to that of its authors' later one, 17."""
    decays = []
    for recipe in presets.get(name).recipes.values():
        decays.append(recipe.for_images(images).cumulative_decay(recipe.steps(images)))
    assert least <= decays[0] <= most and decays[1] == pytest.approx(decays[0], rel=0.01)


@pytest.mark.parametrize(
    ("name", "nearest"), [("quik", "quick"), ("imagenete", "imagenette"), ("Smoke", "smoke"), ("caltech", "caltech101")]
)
def test_an_unknown_preset_is_refused_with_the_nearest(name, nearest):
    refused(f"unknown preset '{name}'\\. Did you mean '{nearest}'\\? Choose from: smoke, quick", name)


@pytest.mark.parametrize(
    ("option", "nearest"),
    [("epoch", "epochs"), ("learning_rat", "learning_rate"), ("topk", "top_k"), ("image", "images"), ("wide", "width")],
)
def test_an_unknown_option_is_refused_with_the_nearest(option, nearest):
    refused(f"unknown option '{option}'\\. Did you mean '{nearest}'\\?", **{option: 1})


@pytest.mark.parametrize("option", ["summary", "where", "source", "recipes"])
def test_what_makes_a_preset_is_no_option(option):
    refused(f"unknown option '{option}'", **{option: "x"})


@pytest.mark.parametrize(
    ("option", "value"),
    [
        *(
            (option, 0)
            for option in (
                "width",
                "classes",
                "tile",
                "top_k",
                "strongest",
                "noise_seeds",
                "disturbed_images",
                "picture_channels",
            )
        ),
        *((option, -3) for option in ("width", "tile", "epochs", "batch_size", "crop", "drop_every", "repeats")),
        *((option, 0) for option in ("maximization_steps", "epochs", "batch_size", "learning_rate", "repeats")),
        ("width", 19),
        ("width", 32.0),
        ("epochs", 1.5),
        ("learning_rate", -0.1),
        ("learning_rate", math.nan),
        ("short_side", 0),
        ("short_side", 12.5),
        ("evaluation_crop", -1),
    ],
)
def test_impossible_values_are_refused(option, value):
    refused(rf"^{option} is {value}: ", **{option: value})


@pytest.mark.parametrize(
    ("option", "value", "match"),
    [
        ("whitening", "zac", r"unknown whitening 'zac'\. Did you mean 'zca'\?"),
        ("schedule", "onecycle", r"unknown schedule 'onecycle'\. Did you mean 'one-cycle'\?"),
        ("precision", "bfloat", r"unknown precision 'bfloat'\. Did you mean 'bfloat16'\?"),
        ("weights", {"resnet43": "w.pth"}, r"unknown network 'resnet43'\. Did you mean 'resnet34'\?"),
    ],
)
def test_unknown_values_are_refused_with_the_nearest(option, value, match):
    refused(match, **{option: value})


def test_a_crop_that_the_images_do_not_hold_is_refused():
    """It would be filled up with black."""
    refused("evaluation_crop is 224: images with a short side of 128 px do not hold it", "imagenette", short_side=128)
    assert presets.get("imagenette", short_side=128, evaluation_crop=128).evaluation_crop == 128


def test_an_unknown_source_is_refused():
    with pytest.raises(RfvizError, match=r"unknown image source 'imagnet'\. Did you mean 'imagenet'\?"):
        dataclasses.replace(presets.get("quick"), source="imagnet")


def test_options_of_a_preset_are_replaced():
    preset = presets.get("quick", width=32, whitening="zca", top_k=4, weights={"resnet34": "w.pth"})
    expected = dataclasses.replace(
        presets.get("quick"), width=32, whitening="zca", top_k=4, weights={"resnet34": "w.pth"}
    )
    assert preset == expected
    assert preset != presets.get("quick")


def test_options_of_a_recipe_are_replaced_in_both_and_the_rest_stays():
    before = presets.get("quick")
    assert before.recipes["resnet34"] != before.recipes["plainnet34"]  # the plain net learns at a lower rate
    after = presets.get("quick", epochs=2, crop=48)
    for architecture, recipe in after.recipes.items():
        assert recipe == dataclasses.replace(before.recipes[architecture], epochs=2, crop=48)
    assert dataclasses.replace(after, recipes=before.recipes) == before
    assert after.crop == 48
    assert {recipe.learning_rate for recipe in presets.get("quick", learning_rate=0.5).recipes.values()} == {0.5}


def test_every_field_of_a_recipe_and_a_preset_can_be_replaced():
    values = {
        "epochs": 3, "batch_size": 7, "learning_rate": 0.3, "momentum": 0.5, "weight_decay": 0.1, "schedule": "step",
        "drop_every": 2, "crop": 40, "area": (0.5, 0.9), "distortion": 0.1, "window": 50, "repeats": 2,
        "precision": "bfloat16", "micro_batch": 4, "compile": True, "decay": 2.0, "alive": 0.1, "frozen": "layer2",
        "threads": 3,
    }  # fmt: skip
    assert set(values) == {field.name for field in dataclasses.fields(Recipe)}
    assert presets.get("quick", **values).recipes == {"resnet34": Recipe(**values), "plainnet34": Recipe(**values)}
    more = {
        "width": 30, "short_side": 50, "evaluation_crop": 40, "classes": 3, "tile": 64, "whitening": "none", "top_k": 3,
        "strongest": 9, "noise_seeds": 2, "disturbed_images": 30, "picture_channels": 5,
        "maximization_steps": 5, "weights": {}, "strict": True, "borders": True,
            "networks": ("plainnet34", "resnet18"),
    }  # fmt: skip
    fixed = {"name", "summary", "where", "source", "recipes"}
    assert set(more) == {field.name for field in dataclasses.fields(Preset)} - fixed - {"images", "split"}
    preset = presets.get("quick", **more)
    assert {name: getattr(preset, name) for name in more} == more


def test_a_weight_decay_takes_the_place_of_the_presets_cumulative_decay():
    changed = presets.get("quick", weight_decay=0.1).recipes.values()
    assert {(each.weight_decay, each.decay) for each in changed} == {(0.1, None)}
    assert {each.decay for each in presets.get("quick", decay=2.0).recipes.values()} == {2.0}
    assert {each.decay for each in presets.get("imagenet").recipes.values()} == {None}


def test_options_of_the_recipe_of_one_network_are_its_own():
    names = ["resnet34", "plainnet34", "resnet34-short", "resnet18"]
    found = presets.get("quick", networks=names, epochs=9, **{"resnet34-short.epochs": 3, "resnet34.decay": 1.0})
    assert {name: found.recipe(name).epochs for name in names} == dict.fromkeys(names, 9) | {"resnet34-short": 3}
    assert {name: found.recipe(name).decay for name in names} == dict.fromkeys(names, 6.0) | {"resnet34": 1.0}
    fixed = presets.get("quick", **{"plainnet34.weight_decay": 0.5}).recipe("plainnet34")
    assert (fixed.decay, fixed.weight_decay) == (None, 0.5)
    with pytest.raises(RfvizError, match="unknown network 'resnet43'"):
        presets.get("quick", **{"resnet43.epochs": 3})
    for option in ("epoch", "width"):  # the width is the same for all
        with pytest.raises(RfvizError, match=f"unknown option of one network '{option}'") as error:
            presets.get("quick", **{f"resnet34.{option}": 3})
        assert "picture_channels" not in str(error.value)
    with pytest.raises(RfvizError, match="unknown network of this run 'resnet18'"):
        presets.get("quick", **{"resnet18.epochs": 3})


def test_the_presets_themselves_are_never_changed():
    before = {name: dataclasses.asdict(preset) for name, preset in PRESETS.items()}
    presets.get("quick", epochs=1, width=99, weights={"resnet34": "w.pth"})
    presets.get("smoke", images="folder", batch_size=3)
    assert {name: dataclasses.asdict(preset) for name, preset in PRESETS.items()} == before


def test_a_folder_takes_the_place_of_the_source():
    preset = presets.get("quick", images="pictures")
    assert (preset.source, preset.images) == ("folder", "pictures")
    # Many small images in place of a few large photographs.
    assert (preset.short_side, preset.evaluation_crop) == (128, 96)
    for recipe in preset.recipes.values():
        assert (recipe.window, recipe.repeats, recipe.crop, recipe.decay) == (None, 1, 96, None)
    assert presets.get("quick", images=None) == presets.get("quick")


def test_a_folder_keeps_what_is_asked_for():
    preset = presets.get("quick", images="pictures", short_side=64, evaluation_crop=64, crop=56, batch_size=8)
    assert (preset.short_side, preset.evaluation_crop, preset.crop) == (64, 64, 56)
    assert preset.recipes["plainnet34"].batch_size == 8
    small = presets.get("quick", images="pictures", tile=64)
    assert (small.short_side, small.evaluation_crop, small.crop) == (64, 48, 48)
    large = presets.get("imagenette", images="pictures")
    assert (large.source, large.short_side, large.evaluation_crop, large.crop) == ("folder", 256, 224, 176)


def test_the_error_for_an_unknown_name():
    assert str(unknown("fruit", "aple", ["pear", "apple"])) == (
        "unknown fruit 'aple'. Did you mean 'apple'? Choose from: pear, apple."
    )
    assert str(unknown("fruit", "xyz", ["pear", "apple"])) == "unknown fruit 'xyz'. Choose from: pear, apple."
    many = str(unknown("number", "x", [f"n{i}" for i in range(30)]))
    assert many.endswith("n18, n19 and 10 more.") and "n20" not in many


def test_the_kinds_of_whitening_are_those_that_can_be_fitted():
    assert get_args(presets.Whitening) == whitening.KINDS


@pytest.mark.parametrize("names", [[], ["resnet34", "resnet34"]])
def test_networks_that_are_none_or_twice_the_same_are_refused(names):
    refused("networks is .*: name at least one, each once", networks=names)


def test_other_networks_take_the_recipe_of_their_kind():
    preset = presets.get("quick", networks="resnet18, plainnet18")
    assert [each.title for each in preset.members] == ["ResNet18", "PlainNet18"]
    assert preset.recipe("resnet18") == preset.recipes["resnet34"]
    assert preset.recipe("plainnet18") == preset.recipes["plainnet34"]
    refused("unknown network 'resnet43'. Did you mean 'resnet34'", networks=["resnet43"])
    refused("unknown network 'resnet34'.*resnet18", networks=["resnet18"], weights={"resnet34": "w.pth"})


def test_presets_are_read_without_torch():
    script = "import sys; from rfviz.lab import presets; print(sorted({'torch', 'numpy'} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
