"""Presets: named descriptions of a whole run, from images to figures.

Read without torch, so that the command line knows them at once.
"""

import dataclasses
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from rfviz.errors import RfvizError, unknown
from rfviz.nets.network import NETWORKS, Network, network
from rfviz.training.recipe import Recipe

SOURCES = ("photographs", "caltech101", "imagenette", "imagenet", "folder")
"""Where images come from; ``"folder"`` reads `Preset.images`."""

Whitening = Literal["channel", "zca", "imagenet", "none"]
"""See `rfviz.images.whitening.fit`."""


@dataclass(frozen=True)
class Preset:
    """What a run does.

    Parameters
    ----------
    name, summary, where : str
        For people: what it is and what machine it wants.
    source : str
        One of `SOURCES`.
    width : int
        Channels of the stem of every network.
    recipes : dict from network to Recipe
        Of ResNet34 and PlainNet34; other networks take that of the one which has skips as they do.
    networks : tuple of str
        The networks of the run; the first is its subject (see `rfviz.lab.run.Run`).
    short_side : int or None
        Images are reduced to this short side, px, when they are read.
    evaluation_crop : int or None
        Side of the square that is cut from the centre of an evaluation image, px; None takes it whole.
    classes : int
        Number of photographs, for the source ``"photographs"``.
    tile : int
        Photographs only: side of the tiles that the stimuli are taken from, px; what is classified are held-out crops
        of the size of the training crops. Elsewhere one set of evaluation images serves both.
    whitening : {"channel", "zca", "imagenet", "none"}
    top_k : int
        Strongest stimuli that are kept of each channel.
    strongest : int
        Neurons per channel in the mean over the strongest.
    noise_seeds : int
        Repetitions of the noise experiment.
    disturbed_images : int
        Evaluation images, evenly spread, on which the loss is measured when one channel after the other is disturbed.
    picture_channels : int
        Channels of a layer, at most, whose pictures are tested as stimuli.
    maximization_steps : int
        Steps of activation maximization in the paper's setting.
    images : str or None
        Folder in place of the source: with ``train/`` and ``val/``, or with class folders and a `split`; any folder, if
        all networks come with weights.
    split : float or None
        Share of the images of each class that is put aside for evaluation (`rfviz.images.folders.split`).
    weights : dict from network to str
        Weights to read instead of training; see `rfviz.nets.weights.read`.
    strict : bool
        Refuse broken images in a folder instead of leaving them out.
    borders : bool
        Look for stimuli at the borders of the images, too; see `rfviz.kernels.responses.collect`.
    """

    name: str
    summary: str
    where: str
    source: str
    width: int
    recipes: dict[str, Recipe]
    networks: tuple[str, ...] = ("resnet34", "plainnet34")
    short_side: int | None = None
    evaluation_crop: int | None = None
    classes: int = 14
    tile: int = 128
    whitening: Whitening = "channel"
    top_k: int = 16
    strongest: int = 2560
    noise_seeds: int = 5
    disturbed_images: int = 256
    picture_channels: int = 24
    maximization_steps: int = 31
    images: str | None = None
    split: float | None = None
    weights: dict[str, str] = field(default_factory=dict)
    strict: bool = False
    borders: bool = False

    def __post_init__(self) -> None:
        if self.source not in SOURCES:
            raise unknown("image source", self.source, SOURCES)
        if self.whitening not in get_args(Whitening):
            raise unknown("whitening", self.whitening, get_args(Whitening))
        object.__setattr__(self, "networks", tuple(self.networks))  # JSON has lists only
        for name in self.networks:
            network(name)
        if not self.networks or len(set(self.networks)) < len(self.networks):
            raise RfvizError(f"networks is {list(self.networks)}: name at least one, each once.")
        for name in (each.name for each in dataclasses.fields(self) if each.type is int):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise RfvizError(f"{name} is {value!r}: it must be a whole number from 1 up.")
        for name in ("strict", "borders"):
            if not isinstance(getattr(self, name), bool):
                raise RfvizError(f"{name} is {getattr(self, name)!r}: it must be true or false.")
        if not isinstance(self.weights, dict) or not all(isinstance(file, str) for file in self.weights.values()):
            raise RfvizError(f"weights is {self.weights!r}: give files by model, such as resnet34=FILE.")
        for name in ("short_side", "evaluation_crop"):
            side = getattr(self, name)
            if side is not None and (not isinstance(side, int) or side < 1):
                raise RfvizError(f"{name} is {side!r}: it must be a whole number of px from 1 up, or None.")
        wrong = not isinstance(self.split, float) or not 0 < self.split < 1 or self.images is None
        if self.split is not None and wrong:
            raise RfvizError(
                f"split is {self.split!r}: it must be a share between 0 and 1, such as 0.2, of images in a folder."
            )
        if self.short_side is not None and (self.evaluation_crop or 0) > self.short_side:
            raise RfvizError(
                f"evaluation_crop is {self.evaluation_crop}: images with a short side of {self.short_side} px do not "
                "hold it. Lower it, or raise short_side."
            )
        least = max(each.channel for each in NETWORKS.values()) + 1
        if self.width < least:
            raise RfvizError(f"width is {self.width}: the paper's channels 18 and 19 need at least {least}.")
        for name in self.weights:
            if name not in self.networks:
                raise unknown("network", name, self.networks)

    @property
    def trains(self) -> list[str]:
        """The networks that are trained, wholly or from a layer on; the others come with weights."""
        return [name for name in self.networks if name not in self.weights or self.recipe(name).frozen is not None]

    @property
    def crop(self) -> int:
        """Side of a training crop, px."""
        return self.recipe(self.networks[0]).crop

    def recipe(self, name: str) -> Recipe:
        """Return how a network is trained."""
        return self.recipes.get(name) or self.recipes["resnet34" if network(name).skips else "plainnet34"]

    @property
    def members(self) -> list[Network]:
        """The networks as objects."""
        return [network(name) for name in self.networks]


def _both(resnet: Recipe, **plain: Any) -> dict[str, Recipe]:
    return {"resnet34": resnet, "plainnet34": dataclasses.replace(resnet, **plain)}


# The cumulative decay of a short training is that of a long one, and the same for both networks of a preset: with the
# paper's weight decay, no channel of the stem would fall silent (see the page When channels fall silent).
_PHOTOGRAPHS = Recipe(
    epochs=24, batch_size=64, learning_rate=0.05, schedule="one-cycle", decay=6.0, crop=64, area=(0.4, 1.0),
    distortion=0.2, window=96, repeats=128, threads=1,
)  # fmt: skip

PRESETS = {
    preset.name: preset
    for preset in (
        Preset(
            name="smoke",
            summary="a few small crops of 4 photographs, 20 stem channels: shows that everything works, learns little",
            where="2 CPU cores, about a minute",
            source="photographs",
            width=20,
            classes=4,
            tile=64,
            strongest=32,
            disturbed_images=96,
            picture_channels=12,
            recipes=_both(
                dataclasses.replace(
                    _PHOTOGRAPHS,
                    epochs=4,
                    batch_size=32,
                    learning_rate=0.02,
                    decay=None,
                    crop=32,
                    window=48,
                    repeats=96,
                ),
                learning_rate=0.01,
            ),
        ),
        Preset(
            name="quick",
            summary="the 14 photographs bundled with scikit-image, each a class of its own, and 24 stem channels",
            where="2 CPU cores, a few minutes, no download",
            source="photographs",
            width=24,
            strongest=256,
            disturbed_images=56,
            picture_channels=12,
            recipes=_both(_PHOTOGRAPHS, epochs=36, batch_size=32, learning_rate=0.01),
        ),
        Preset(
            name="caltech101",
            summary="Caltech-101 at 128 px, full width",
            where="one GPU, minutes; CPU, hours",
            source="caltech101",
            width=64,
            short_side=128,
            evaluation_crop=128,
            recipes=_both(
                Recipe(epochs=90, batch_size=64, learning_rate=0.05, decay=6.0, schedule="one-cycle", crop=112),
                learning_rate=0.02,
            ),
        ),
        Preset(
            name="imagenette",
            summary="Imagenette (ten ImageNet classes), full width",
            where="one GPU, minutes",
            source="imagenette",
            width=64,
            short_side=256,
            evaluation_crop=224,
            recipes=_both(
                Recipe(epochs=60, batch_size=64, learning_rate=0.05, decay=6.0, schedule="one-cycle", crop=176),
                learning_rate=0.02,
            ),
        ),
        Preset(
            name="imagenet",
            summary="ImageNet with the paper's recipe, as far as it is stated",
            where="GPUs, days",
            source="imagenet",
            width=64,
            short_side=256,
            evaluation_crop=224,
            recipes=_both(Recipe()),
        ),
    )
}

_RECIPE_FIELDS = {each.name for each in dataclasses.fields(Recipe)}
_PRESET_FIELDS = {each.name for each in dataclasses.fields(Preset)} - {"name", "summary", "where", "source", "recipes"}


def get(name: str, **overrides: Any) -> Preset:
    """Return a preset, with some of its values or of its recipes' values replaced.

    Parameters
    ----------
    name : str
        One of `PRESETS`.
    **overrides
        Fields of `Preset`, or of `Recipe`: for all networks alike (``epochs=2``), or for one
        (``**{"plainnet34.epochs": 2}``). ``images`` replaces the source: the folder's images are then reduced to the
        size of the preset's tiles, unless the preset says otherwise. With ``images`` and ``weights``, the networks are
        those with weights, unless ``networks`` says otherwise.

    Raises
    ------
    RfvizError
        If a name is unknown or a value impossible.
    """
    if name not in PRESETS:
        raise unknown("preset", name, PRESETS)
    preset = PRESETS[name]
    of_one: dict[str, dict[str, Any]] = {}
    for key in sorted(overrides):
        name_of, dot, option = key.rpartition(".")
        known = _RECIPE_FIELDS if dot else _RECIPE_FIELDS | _PRESET_FIELDS
        if option not in known:
            raise unknown("option of one network" if dot else "option", option, sorted(known))
        if dot:
            of_one.setdefault(network(name_of).name, {})[option] = overrides[key]
    changes = {key: value for key, value in overrides.items() if key in _PRESET_FIELDS}
    recipe_changes = {key: value for key, value in overrides.items() if key in _RECIPE_FIELDS}
    if changes.get("images") is not None:
        changes |= {"source": "folder", "summary": "images from a folder of the reader's own", "where": "this machine"}
        if preset.source == "photographs":  # many small images in place of a few large photographs
            side = changes.get("tile", preset.tile)
            crop = side * 3 // 4
            changes = {"short_side": side, "evaluation_crop": crop, **changes}
            # a few images make few steps, in which a large cumulative decay would leave nothing learnt
            few = {"window": None, "repeats": 1, "crop": crop, "batch_size": 32, "decay": None}
            recipe_changes = {**few, **recipe_changes}
        if isinstance(with_weights := changes.get("weights"), dict) and with_weights and "networks" not in changes:
            changes["networks"] = sorted(with_weights, key=[*preset.networks, *with_weights].index)
    if isinstance(changes.get("networks"), str):
        changes["networks"] = changes["networks"].replace(" ", "").split(",")
    recipes = {key: _replaced(recipe, recipe_changes) for key, recipe in preset.recipes.items()}
    changed = dataclasses.replace(preset, recipes=recipes, **changes)
    for name_of in of_one:
        if name_of not in changed.networks:
            raise unknown("network of this run", name_of, changed.networks)
    if of_one:  # every network gets a recipe of its own: nobody else takes over what one has
        recipes |= {key: _replaced(changed.recipe(key), of_one.get(key, {})) for key in changed.networks}
    return dataclasses.replace(changed, recipes=recipes)


def _replaced(recipe: Recipe, changes: dict[str, Any]) -> Recipe:
    """Return a recipe with some values replaced; a weight decay comes in place of a cumulative one."""
    return dataclasses.replace(recipe, **({"decay": None, **changes} if "weight_decay" in changes else changes))
