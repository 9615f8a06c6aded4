"""Where the images of a preset come from: the bundled photographs, a folder, or a data set that torchvision knows."""

from pathlib import Path
from typing import NamedTuple

from rfviz import _torchvision_ops  # isort: skip  # noqa: F401  # torchvision may not load without it
from torchvision import datasets

from rfviz.errors import RfvizError, first_line
from rfviz.images import folders, photographs
from rfviz.images.data import Evaluation, Labelled, Split
from rfviz.images.folders import FolderImages
from rfviz.lab.presets import Preset
from rfviz.storage.places import data_folder


def caltech101(root: Path, short_side: int | None) -> Split:
    """Read Caltech-101 through torchvision; it has no split: every fifth image of a class is for evaluation."""
    listed = datasets.Caltech101(root, download=True)
    folder = Path(listed.root) / "101_ObjectCategories"
    files = [
        f"{listed.categories[label]}/image_{number:04d}.jpg"
        for number, label in zip(listed.index, listed.y, strict=True)
    ]
    parts = []
    for is_part in (lambda number: number % 5 != 0, lambda number: number % 5 == 0):
        chosen = [i for i, number in enumerate(listed.index) if is_part(number)]
        parts.append(
            FolderImages(
                folder, [files[i] for i in chosen], [listed.y[i] for i in chosen], listed.categories, short_side
            )
        )
        parts[-1].load_all(progress=True)
    return Split(parts[0], parts[1])


def imagenette(root: Path, short_side: int | None) -> Split:
    """Read Imagenette (320 px) through torchvision."""
    listed = [
        datasets.Imagenette(root, split=part, size="320px", download=not (root / "imagenette2-320").exists())
        for part in ("train", "val")
    ]
    found = folders.read(folders.divided(root / "imagenette2-320", short_side=short_side), progress=True)
    for images in (found.train, found.evaluation):
        assert isinstance(images, FolderImages)
        images.classes = tuple(names[0] for names in listed[0].classes)  # words in place of numbers of WordNet
    return found


def imagenet(root: Path) -> Split:
    """Read ImageNet through torchvision, which unpacks the archives in `root`; images are read when needed."""
    parts = []
    for part in ("train", "val"):
        listed = datasets.ImageNet(str(root), split=part)
        folder = Path(listed.split_folder)
        files = [str(Path(path).relative_to(folder)) for path, _ in listed.samples]
        classes = [names[0] for names in listed.classes]
        parts.append(FolderImages(folder, files, [label for _, label in listed.samples], classes))
    return Split(parts[0], parts[1])


class Images(NamedTuple):
    """What a run works on; where something is trained, training shares no pixel with the other two."""

    train: Labelled
    """Where nothing is trained and a folder is not split, those of evaluation."""
    evaluation: Evaluation
    """Classified: top-1, inactive channels and Table 1."""
    stimuli: Evaluation
    """Where the preferred stimuli are looked for."""


def load(preset: Preset) -> Images:
    """Return the images of a preset.

    Raises
    ------
    RfvizError
        If the images are not there.
    """
    if preset.source == "photographs":
        train, tiles = photographs.load(preset.tile, preset.classes)
        crops = photographs.load(preset.crop, preset.classes).evaluation
        _check_size("crop", preset.crop, crops)
        for name, recipe in preset.recipes.items():
            _check_size(f"window of {name}", recipe.window or recipe.crop, train)
        return Images(train, Evaluation(crops), Evaluation(tiles))
    train, held_out = _split(preset)
    evaluation = Evaluation(held_out, preset.short_side, preset.evaluation_crop)
    return Images(train, evaluation, evaluation)


def _check_size(what: str, side: int, images: Labelled) -> None:
    smallest = min(min(images[i][0].shape[1:]) for i in range(len(images)))
    if smallest < side:
        raise RfvizError(f"{what} is {side}: the smallest photograph has {smallest} px for it. Lower it.")


def of_folder(preset: Preset, short_side: int | None = None) -> Split:
    """List the folder of a reader as the preset says: split as it is, here, or not at all."""
    root = str(preset.images)
    if preset.split is not None:
        return folders.split(root, preset.split, short_side=short_side)
    listed = folders.divided if preset.trains or folders.has_parts(root) else folders.unsplit
    return listed(root, short_side=short_side)


def _split(preset: Preset) -> Split:
    if preset.source == "folder":
        if preset.name == "imagenet":  # too large to be decoded before it is used; crops are cut from whole images
            return of_folder(preset)
        return folders.read(of_folder(preset, preset.short_side), strict=preset.strict, progress=True)
    try:
        if preset.source == "caltech101":
            return caltech101(data_folder(), preset.short_side)
        if preset.source == "imagenette":
            return imagenette(data_folder(), preset.short_side)
        return imagenet(data_folder() / "imagenet")
    except (OSError, RuntimeError) as error:
        raise RfvizError(
            f"{preset.source} cannot be had in {data_folder()} ({first_line(error)}): set RFVIZ_DATA to the "
            "folder that holds it, or give --images FOLDER with train/ and val/ in it."
        ) from error
