"""The page on training: pictures, recipes and curves as they are, and words that follow the numbers."""

import io
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from rfviz.images.data import Evaluation
from rfviz.lab.presets import PRESETS
from rfviz.nets.network import NETWORKS
from rfviz.pages import training as page
from rfviz.training.recipe import Recipe

ENTRY = {"epoch": 1, "loss": 1.0, "evaluation_loss": 1.2, "train_top1": 0.4, "evaluation_top1": 0.3}


def test_the_summary_says_where_stimuli_are_looked_for(tiles: Evaluation) -> None:
    def said(stimuli: Evaluation, evaluation: Evaluation = tiles) -> str:
        given = SimpleNamespace(name="smoke", summary="photographs")
        run: Any = SimpleNamespace(
            given=given, classes=tiles.classes, evaluation=evaluation, stimuli=stimuli, labelled=evaluation.labelled
        )
        return page.images_summary(page.Shown(run, {}, {}, {}, {})).data

    assert f"4 classes, {len(tiles):,} held-out images of 64 × 64 px" in said(tiles)
    assert "looked for in the same images." in said(tiles)
    assert f"Here that means {len(tiles)} images of 64" in said(tiles, tiles.unlabelled())
    assert f"looked for in {len(tiles)} held-out images of 32 × 32 px." in said(Evaluation(tiles.source, 32, 32))


def test_one_example_of_each_class(tiles: Evaluation) -> None:
    shown = [ax for ax in page.example_images(tiles).axes if ax.get_images()]
    assert [ax.get_title().replace("\n", " ") for ax in shown] == [name.replace("_", " ") for name in tiles.classes]


def test_of_images_without_classes_the_first_are_shown(tiles: Evaluation) -> None:
    shown = [ax for ax in page.example_images(tiles.unlabelled()).axes if ax.get_images()]
    assert len(shown) == min(28, len(tiles)) and not any(ax.get_title() for ax in shown)
    assert "cannot be told" in page.accuracy_answer({}).data


def test_class_names_are_text() -> None:
    figure = page.example_images(Evaluation(_Odd()))
    assert figure.axes[0].get_title() == "<b>$x^2$"
    figure._repr_png_()  # a formula would not parse


class _Odd:
    classes = ("<b>$x^2$", "other")
    labels = (0, 1)
    fingerprint = "odd"

    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return torch.zeros(3, 8, 8, dtype=torch.uint8), index


def test_recipes_stand_beside_the_papers() -> None:
    same = page.recipes_table({"resnet34": PRESETS["imagenet"].recipe("resnet34")}, {"resnet34": page.PAPER_STEPS})
    told = same["the paper"] != "not stated"
    assert (same["the paper"] == same["ResNet34"])[told].all()
    assert same.loc["learning rate", "the paper"] == "0.01"
    assert same.index[~told].tolist() == ["crop", "area", "distortion", "precision"]
    assert same.loc["cumulative decay D", "the paper"] == "1.7"
    recipes = {
        "resnet18": Recipe(2, 10, learning_rate=0.1, momentum=0.0, weight_decay=0.5, drop_every=1),
        "plainnet18": Recipe(schedule="one-cycle"),
    }
    table = page.recipes_table(recipes, {"resnet18": 3, "plainnet18": 3})
    assert table.columns.tolist() == ["the paper", "ResNet18", "PlainNet18"]
    assert table.loc["cumulative decay D", "ResNet18"] == "0.17"  # 0.5 * 3 * (0.1 + 0.01)
    assert table.loc["drop every"].tolist() == ["30", "1", "–"]


def test_curves_of_any_networks() -> None:
    histories = {name: [[ENTRY, {**ENTRY, "epoch": 2, "loss": 0.5}]] for name in ("resnet50", "plainnet34", "resnet18")}
    figure = page.training_curves(histories, chance=0.25)
    assert [ax.get_ylabel() for ax in figure.axes] == ["cross-entropy (nats)", "top-1 accuracy (%)"]
    assert np.asarray(Image.open(io.BytesIO(figure._repr_png_()))).shape[1] == 1152
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels[0] == "ResNet50, training" and labels[5:] == ["ResNet18, held-out", "chance"]


def test_curves_of_several_seeds_are_mean_and_range() -> None:
    replicas = [[{**ENTRY, "loss": loss}] for loss in (1.0, 2.0, 6.0)]
    loss = page.training_curves({"resnet34": replicas}, chance=0.25).axes[0]
    assert list(loss.lines[0].get_ydata()) == [3.0]
    band = loss.collections[0].get_datalim(loss.transData)
    assert (band.ymin, band.ymax) == (1, 6)


def ended(*top1: float) -> list[list[dict]]:
    return [[{"loss": 1.0, "train_top1": t / 2, "evaluation_loss": 2 * t, "evaluation_top1": t}] for t in top1]


def test_training_summary_follows_the_numbers() -> None:
    one = page.training_summary({"resnet34": ended(0.5)}, chance=0.1).data
    assert "ResNet34 ends with 50.0% top-1 accuracy on held-out images (25.0% on augmented training images)" in one
    assert "cross-entropy of 1.00 nats." in one
    assert one.endswith("Chance is 10.0%.")
    several = page.training_summary({"plainnet34": ended(0.4, 0.6)}, chance=0.1).data
    assert "PlainNet34 ends with 50.0 ± 14.1 % top-1" in several
    assert "(2 networks, mean ± standard deviation)" in several
    assert "no history" in page.training_summary({}, chance=0.1).data


@pytest.mark.parametrize("plain_first", [False, True])
def test_the_answer_follows_an_interval_over_seeds(plain_first: bool) -> None:
    def said(resnet: list[float], plain: list[float]) -> str:
        accuracies = {"resnet34": resnet, "plainnet34": plain}
        return page.accuracy_answer(dict(sorted(accuracies.items(), reverse=not plain_first))).data

    assert "is +20.0 points; what skips do to that is undecided (one training of each" in said([0.6], [0.4])
    assert "undecided (2 trainings of each network" in said([0.6, 0.61], [0.4, 0.4])
    assert "With skips, the networks classify better than without (" in said([0.6, 0.61, 0.62], [0.4, 0.4, 0.4])
    assert "With skips, the networks classify worse than without" in said([0.4, 0.4, 0.4], [0.6, 0.61, 0.62])
    text = said([0.6, 0.5, 0.3], [0.4, 0.4, 0.4])
    assert "undecided, as the interval holds 0: ResNet34 minus PlainNet34 is, in points, +6.7 (-31.3 to +44.6" in text
    assert "undecided" in said([0.5, 0.5], [0.5, 0.5])


def test_without_networks_that_differ_in_their_skips_there_is_no_comparison() -> None:
    one = page.accuracy_answer({"resnet18": [0.5]}).data
    assert one.startswith("**Answer.** ResNet18 classifies 50.0% of the held-out images correctly. It takes a network")
    three = page.accuracy_answer({"resnet50": [0.5], "resnet18": [0.4], "plainnet18": [0.1]}).data
    assert "ResNet50 classifies 50.0%, ResNet18 classifies 40.0% and PlainNet18 classifies 10.0% of" in three
    assert "ResNet50 minus PlainNet18 is +40.0 points" in three


def test_the_legend_of_three_networks_stays_in_the_figure() -> None:
    names = ("resnet34", "plainnet34", "resnet34-short")
    figure = page.training_curves({name: [[ENTRY, {**ENTRY, "epoch": 2}]] for name in names}, chance=0.25)
    figure._repr_png_()
    (legend,) = figure.legends
    box = legend.get_window_extent()
    assert box.x0 >= 0 and box.x1 <= figure.bbox.width


# -- in short ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("resnet", "plain", "weak"),
    [
        ([0.782], [0.178], "PlainNet34 has"), ([0.782], [0.53], ""), ([0.782, 0.8], [0.1, 0.2], "PlainNet34 has"),
        ([0.08], [0.0715], "ResNet34 and PlainNet34 have"), ([0.3], [0.25], ""),
    ],
)  # fmt: skip
def test_networks_that_have_hardly_learnt_are_named(resnet: list[float], plain: list[float], weak: str) -> None:
    """Beside others that have learnt, and by themselves."""
    run: Any = SimpleNamespace(labelled=True, classes=range(14), networks=[])
    said = page.in_short(page.Shown(run, {}, {}, {}, {"resnet34": resnet, "plainnet34": plain}))
    first, second = (page._percent(each) for each in (resnet, plain))
    assert said.startswith(f"ResNet34 ({first}) and PlainNet34 ({second}); in brackets the top-1 accuracy")
    them = "them" if weak.endswith("have") else "it"
    more = f" {weak} hardly learnt: what is found in {them} says little." if weak else ""
    assert said.endswith(f"7.1% by chance.{more}")


def test_without_labels_it_is_said_which_networks_there_are() -> None:
    run: Any = SimpleNamespace(labelled=False, networks=[NETWORKS["resnet34"], NETWORKS["plainnet34"]])
    found = page.in_short(page.Shown(run, {}, {}, {}, {}))
    assert found == "ResNet34 and PlainNet34, with weights that were given."
