"""The page on training: the images, the recipes beside the paper's, and what the networks have learnt."""

import dataclasses
import textwrap
from collections.abc import Mapping, Sequence
from statistics import fmean, stdev
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from IPython.display import Markdown
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from rfviz import stats
from rfviz.images.data import NO_CLASS, Evaluation
from rfviz.lab import results
from rfviz.lab.run import Run
from rfviz.nets.network import NETWORKS, Network
from rfviz.pages.style import GREY, BookFigure, listed, roles, show
from rfviz.stats import TRAININGS, Interval, few_trainings
from rfviz.training.recipe import Recipe

Histories = Mapping[str, Sequence[Sequence[Mapping[str, Any]]]]
"""By network, the history of each trained network of that name (see `rfviz.training.trainer.train`), one per seed."""

PAPER_STEPS = 1_281_167 // 256
"""Steps of the paper in one epoch: training images of ImageNet over its mini-batch."""


class Shown(NamedTuple):
    """What the page shows.

    Parameters
    ----------
    run : Run
        The first.
    recipes : dict from network to Recipe
        Of networks that are trained, or whose training is told.
    steps : dict from network to int
        Steps per epoch.
    histories : Histories
        Of networks whose training is told.
    accuracies : dict from network to list of float
        Top-1 accuracy on the evaluation images, a share, one per seed; empty where these have no labels.
    """

    run: Run
    recipes: Mapping[str, Recipe]
    steps: Mapping[str, int]
    histories: Histories
    accuracies: Mapping[str, Sequence[float]]

    @property
    def chance(self) -> float:
        """Top-1 accuracy of guessing, a share; 0 where the images have no labels."""
        return 1 / len(self.run.classes) if self.run.labelled else 0.0

    @property
    def example(self) -> tuple[str, Recipe, int]:
        """A recipe, whose it is, and its steps per epoch: the subject's, or the paper's where that was not trained."""
        subject = self.run.subject
        if subject.name in self.recipes:
            return subject.title, self.recipes[subject.name], self.steps[subject.name]
        return "the paper", Recipe(), PAPER_STEPS


def gather(runs: Sequence[Run]) -> Shown:
    """Return what the page shows of some runs that differ in their seed."""
    run = runs[0]
    names = [each.name for each in run.networks]
    histories = {name: [results.history(each, name) for each in runs] for name in names}
    trained = [name for name in names if name in run.given.trains or all(histories[name])]
    recipes = {name: run.recipe(name).for_images(len(run.train)) for name in trained}
    steps = {name: recipe.steps(len(run.train)) for name, recipe in recipes.items()}
    return Shown(
        run, recipes, steps, {name: found for name, found in histories.items() if all(found)},
        {name: [top1 for each in runs if (top1 := results.accuracy(each, name)) is not None] for name in names}
        if run.labelled
        else {},
    )  # fmt: skip


def images_summary(shown: Shown) -> Markdown:
    """Say which images the run uses."""
    evaluation, stimuli, labelled = shown.run.evaluation, shown.run.stimuli, shown.run.labelled
    height, width = evaluation[0][0].shape[1:]
    tile = stimuli[0][0].shape
    return Markdown(
        f"The preset `{shown.run.given.name}` uses {shown.run.given.summary}. Here that means "
        + (f"{len(shown.run.classes)} classes, {len(evaluation):,} held-out" if labelled else f"{len(evaluation):,}")
        + f" images of {height} × {width} px that are classified. The preferred "
        + (
            "stimuli are looked for in the same images."
            if stimuli.unlabelled().fingerprint == evaluation.unlabelled().fingerprint
            else f"stimuli are looked for in {len(stimuli):,} held-out images of {tile[1]} × {tile[2]} px."
        )
        + " None of these is used in training here."
    )


def example_images(images: Evaluation, columns: int = 7) -> Figure:
    """Draw Fig. S2: one example image of each class; the first images where they have none."""
    first_of: dict[int, int] = {}
    for index, label in enumerate(images.labels):
        first_of.setdefault(index if label == NO_CLASS else label, index)
    shown = [first_of[label] for label in sorted(first_of)][: 4 * columns]
    rows = -(-len(shown) // columns)
    figure = BookFigure(1.25 * rows)
    for ax in (grid := figure.subplots(rows, columns, squeeze=False)).flat:
        show(ax, None)
    for ax, index in zip(grid.flat, shown, strict=False):
        image, label = images[index]
        show(ax, image)
        if label != NO_CLASS:
            words = [
                f"{word[:11]}…" if len(word) > 12 else word for word in images.classes[label].replace("_", " ").split()
            ]
            name = textwrap.fill(" ".join(words), 12, max_lines=2, placeholder="…")
            ax.set_title(name, parse_math=False)
    return figure


NOT_STATED = ("crop", "area", "distortion", "precision", "compile")
"""What the paper leaves open; of crops and distortion it says that they are as in Szegedy et al."""


def recipes_table(recipes: Mapping[str, Recipe], steps: Mapping[str, int]) -> pd.DataFrame:
    """Return the training recipes of networks beside the paper's, one row per value, as text.

    Parameters
    ----------
    recipes : dict from network to Recipe
    steps : dict from network to int
        Steps per epoch.
    """
    columns = {NETWORKS[name].title: _values(recipe, steps[name]) for name, recipe in recipes.items()}
    paper = _values(Recipe(), PAPER_STEPS) | dict.fromkeys(NOT_STATED, "not stated")
    table = pd.DataFrame({"the paper": paper, **columns})
    table = table[~table.isin(["–", "0", "no", "not stated"]).all(axis=1)]  # what no recipe makes use of
    return table.rename(index=lambda name: "cumulative decay D" if name == "decay" else name.replace("_", " "))


def _values(recipe: Recipe, steps_per_epoch: int) -> dict[str, str]:
    values = dataclasses.asdict(recipe)
    if recipe.schedule != "step":
        values["drop_every"] = None
    values["decay"] = float(f"{recipe.cumulative_decay(steps_per_epoch):.2g}")
    return {name: _short(value) for name, value in values.items()}


def _short(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, tuple):
        return " to ".join(f"{each:g}" for each in value)
    if value is None:
        return "–"
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def training_curves(histories: Histories, chance: float) -> Figure:
    """Draw Fig. S3: loss and top-1 accuracy of training and held-out images, epoch by epoch.

    Several histories of a network, one per seed, are drawn as their mean and the range from least to largest.
    """
    figure = BookFigure(2.9)
    panels = figure.subplots(1, 2)
    for ax, (what, unit, scale) in zip(panels, (("loss", "nats", 1), ("top1", "%", 100)), strict=True):
        for name, replicas in histories.items():
            network = NETWORKS[name]
            epochs = [entry["epoch"] for entry in replicas[0]]
            for part, style in ((what if what == "loss" else "train_top1", "--"), (f"evaluation_{what}", "-")):
                values = scale * np.array([[entry[part] for entry in history] for history in replicas])
                ax.plot(
                    epochs, values.mean(0), style, color=network.colour,
                    label=f"{network.title}, {'training' if style == '--' else 'held-out'}",
                )  # fmt: skip
                if len(replicas) > 1:
                    ax.fill_between(epochs, values.min(0), values.max(0), color=network.colour, alpha=0.2, linewidth=0)
        ax.set(xlabel="epoch", ylabel=f"{'cross-entropy' if what == 'loss' else 'top-1 accuracy'} ({unit})")
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    panels[0].set_yscale("log")
    panels[1].axhline(100 * chance, color=GREY, linewidth=1, linestyle=":", label="chance")
    panels[1].set_ylim(0, 100)
    figure.legend(*panels[1].get_legend_handles_labels(), loc="outside lower center", ncols=2, frameon=False)
    return figure


def training_summary(histories: Histories, chance: float) -> Markdown:
    """Say how training ended."""
    sentences = []
    for name, replicas in histories.items():
        last = {key: [history[-1][key] for history in replicas] for key in replicas[0][-1]}
        count = f" ({len(replicas)} networks, mean ± standard deviation)" if len(replicas) > 1 else ""
        sentences.append(
            f"{NETWORKS[name].title} ends with {_percent(last['evaluation_top1'])} top-1 accuracy on held-out images "
            f"({_percent(last['train_top1'])} on augmented training images), at a held-out cross-entropy of "
            f"{stats.number(fmean(last['evaluation_loss']), '.2f')} nats{count}."
        )
    sentences = sentences or ["All networks came with their weights, so there is no history to show."]
    return Markdown(" ".join([*sentences, *([f"Chance is {chance:.1%}."] if chance else [])]))


def _percent(values: Sequence[float]) -> str:
    if len(values) == 1:
        return f"{values[0]:.1%}"
    return f"{100 * fmean(values):.1f} ± {100 * stdev(values):.1f} %"


HARDLY, LITTLE = 0.25, 0.1
"""Accuracy above chance, over that of the best network of a run and over that of one which is always right, below which
a network has hardly learnt."""


def hardly_learnt(accuracies: Mapping[str, Sequence[float]], chance: float) -> list[str]:
    """Return which networks have hardly learnt, by their accuracies, one per training, and that of guessing."""
    above = {name: fmean(found) - chance for name, found in accuracies.items()}
    least = max(HARDLY * max(above.values()), LITTLE * (1 - chance))
    return [name for name, found in above.items() if found < least]


def in_short(shown: Shown) -> str:
    """Say which networks there are and how well they classify; a network that has hardly learnt is named as such."""
    if not shown.accuracies:
        return f"{listed([each.title for each in shown.run.networks])}, with weights that were given."
    titles = {name: NETWORKS[name].title for name in shown.accuracies}
    weak = [titles[name] for name in hardly_learnt(shown.accuracies, shown.chance)]
    told = listed([f"{titles[name]} ({_percent(found)})" for name, found in shown.accuracies.items()])
    said = f"{told}; in brackets the top-1 accuracy on held-out images, {shown.chance:.1%} by chance."
    if weak:
        has, them = ("has", "it") if len(weak) == 1 else ("have", "them")
        said += f" {listed(weak)} {has} hardly learnt: what is found in {them} says little."
    return said


def accuracy_answer(accuracies: Mapping[str, Sequence[float]]) -> Markdown:
    """Say what skips do to top-1 accuracies, one per seed; only several trainings can tell.

    The first network is compared with the first that differs from it in having skips or not.
    """
    if not accuracies:
        return Markdown("**Answer.** The images have no labels that the networks know: accuracy cannot be told.")
    each = [f"{NETWORKS[name].title} classifies {_percent(found)}" for name, found in accuracies.items()]
    answer = f"**Answer.** {listed(each)} of the held-out images correctly."
    first, other, controlled = roles([NETWORKS[name] for name in accuracies])[1:]
    if other is None:
        return Markdown(f"{answer} It takes a network that differs in its skips to tell what they do to that.")

    def gap_between(one: Network, two: Network) -> Interval:
        pairs = zip(accuracies[one.name], accuracies[two.name], strict=True)
        return stats.mean([100 * (ours - theirs) for ours, theirs in pairs], "seeds")

    skips, plain = (first, other) if first.skips else (other, first)
    gap = gap_between(skips, plain)
    difference = f"{skips.title} minus {plain.title} is"
    if gap.n < TRAININGS:
        few = few_trainings(gap.n)
        return Markdown(f"{answer} {difference} {gap.value:+.1f} points; what skips do to that is undecided ({few}).")
    words = {
        1: "With skips, the networks classify better than without (their recipes may differ, too)",
        -1: "With skips, the networks classify worse than without (their recipes may differ, too)",
        0: f"What skips do to that is undecided, as {stats.because(gap)}",
    }
    said = f"{answer} {words[gap.sign]}: {difference}, in points, {gap:+.1f}."
    if controlled:
        said += f" {controlled.title}, minus {other.title} is {gap_between(controlled, other):+.1f}."
    return Markdown(said)
