"""Images in folders: ``train/<class>/<image>`` and ``val/<class>/<image>``, the layout of ImageNet, or any other."""

import hashlib
import io
import logging
import math
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError
from PIL.JpegImagePlugin import JpegImageFile
from torch import Tensor

from rfviz import _torchvision_ops  # isort: skip  # noqa: F401  # torchvision may not load without it
from torchvision.datasets.folder import IMG_EXTENSIONS, find_classes, has_file_allowed_extension
from torchvision.transforms import v2
from tqdm.auto import tqdm

from rfviz.errors import RfvizError, first_line, one_line
from rfviz.images.batches import available_cores, eight_bits
from rfviz.images.data import NO_CLASS, Box, Region, Split, cut

_log = logging.getLogger(__name__)
_PARTS = ("train", "val")
_SIDECARS = ("thumbs.db", "desktop.ini", "__macosx")
"""What systems put beside images without being asked, in lower case; other such names begin with a dot."""
_OTHER_KIND = "of a kind that is not read"
_SEED = 0
"""Of the choice of images for evaluation, where a folder is split."""
_TURNED, _LAST_ROW_FIRST, _LAST_COLUMN_FIRST = (5, 6, 7, 8), (3, 4, 7, 8), (2, 3, 6, 7)
"""Orientations of EXIF that exchange height and width, and that put the last row or column (upright) first."""
_DARK = 16
"""Level of 256 that no pixel of an almost black image reaches: 12-bit numbers in a file of 16 bits do not."""
_SPARE = 3  # how much larger an image is before its last, careful reduction


class FolderImages:
    """Images in files, decoded when asked for.

    Parameters
    ----------
    root : Path
        Folder that the names in `files` are relative to.
    files : sequence of str
    labels : sequence of int
        Index of each file's class.
    classes : sequence of str
    short_side : int, optional
        Reduce images whose short side is longer to this many px right after decoding.
    finish : callable, optional
        What is done last to a decoded image, uint8 `(3, H, W)`.
    """

    def __init__(
        self,
        root: Path,
        files: Sequence[str],
        labels: Sequence[int],
        classes: Sequence[str],
        short_side: int | None = None,
        finish: Callable[[Tensor], Tensor] | None = None,
    ):
        self.finish = finish
        self.root, self.files, self.labels, self.classes = root, list(files), list(labels), tuple(classes)
        self.short_side = short_side
        self.left_out: dict[str, str] = {}
        self.in_memory = False
        self._kept: dict[int, Tensor] = {}
        self.contents = [_stamp(root / file) for file in self.files]

    @property
    def skipped(self) -> list[str]:
        """The files that were left out, and why."""
        return [f"{self.root.name}/{name}: {reason}" for name, reason in self.left_out.items()]

    @property
    def fingerprint(self) -> str:
        """Hash of every pixel once `load_all` has run, before that of names, sizes and times of change."""
        described = [self.files, self.contents, list(self.labels), self.classes, self.short_side]
        return hashlib.sha256(repr(described).encode()).hexdigest()[:16]

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        image = self._kept.get(index)
        if image is None:
            path = self.root / self.files[index]
            try:
                image = self._decode(path.read_bytes())
            except Exception as error:  # Pillow raises many types for damaged files, and does not know their names
                raise self._unreadable(path, error) from error
        return image, self.labels[index]

    def region(self, index: int, choose: Callable[[int, int], Box], side: int) -> Region:
        """Read a part of an image; see `rfviz.images.data.region`. JPEG is decoded no larger than needed.

        Raises
        ------
        RfvizError
            If the file cannot be read.
        """
        if index in self._kept or self.short_side is not None:
            return cut(self[index][0], choose)
        path = self.root / self.files[index]
        try:
            with Image.open(path) as opened:
                if isinstance(opened, JpegImageFile):  # nothing else can be decoded at a fraction of its size
                    return _drafted(opened, choose, side)
                return cut(_pixels(_upright(opened)), choose)
        except Exception as error:
            raise self._unreadable(path, error) from error

    @staticmethod
    def _unreadable(path: Path, error: Exception) -> RfvizError:
        return RfvizError(f"{path}: {_reason(error)}. Repair or remove it.")

    def _decode(self, content: bytes) -> Tensor:
        with Image.open(io.BytesIO(content)) as opened:
            if self.short_side is not None:
                # JPEG: decodes at a fraction of the size. Its last row and column then stand for less than a whole
                # pixel; with some pixels to spare for the reduction below, that shifts nothing one could see.
                opened.draft("RGB", (_SPARE * self.short_side, _SPARE * self.short_side))
            upright = _upright(opened)
        if self.short_side is not None and min(upright.size) > self.short_side:
            scale = self.short_side / min(upright.size)
            width, height = (max(1, round(side * scale)) for side in upright.size)
            upright = upright.resize((width, height), Image.Resampling.BICUBIC, reducing_gap=_SPARE)
        return _pixels(upright) if self.finish is None else self.finish(_pixels(upright))

    def load_all(self, *, strict: bool = False, progress: bool = False) -> None:
        """Decode every image once and keep it in memory; leave broken ones out of the set.

        The names and reasons of those left out are in `left_out`. The fingerprint becomes one of the contents.

        Raises
        ------
        RfvizError
            If an image is broken and `strict` is true, or if none is left.
        """
        good: list[int] = []
        hashes: list[object] = []
        total = len(self)

        def read(file: str) -> tuple[Tensor, str] | Exception:
            try:
                image = self._decode((self.root / file).read_bytes())
            except Exception as error:  # Pillow raises many types for damaged files
                return error
            return image, hashlib.sha256(image.numpy().tobytes() + repr(image.shape).encode()).hexdigest()

        with ThreadPoolExecutor(available_cores()) as pool:  # Pillow decodes without holding Python's lock
            found = pool.map(read, self.files)
            try:
                for index in tqdm(range(total), desc=f"reading {self.root.name}", unit="image", disable=not progress):
                    result = next(found)
                    if isinstance(result, Exception):
                        if strict:
                            raise RfvizError(
                                f"{self.root / self.files[index]}: {_reason(result)}. Repair or remove it, or leave "
                                "--strict out to skip it."
                            ) from result
                        self.left_out[self.files[index]] = _reason(result)
                        continue
                    self._kept[len(good)] = result[0]
                    good.append(index)
                    hashes.append(result[1])
            finally:
                pool.shutdown(cancel_futures=True)
        if not good:
            raise RfvizError(f"none of the {total} images in {self.root} can be read; the first: {self.skipped[0]}.")
        if self.skipped:
            _log.warning("rfviz: %d of %d images left out: %s", len(self.skipped), total, first_few(self.skipped))
        if dark := [self.files[index] for kept, index in enumerate(good) if self._kept[kept].max() < _DARK]:
            _log.warning(
                "rfviz: %d of %d images in %s are almost black, no value above %d of 255: %s. Of 16 bits the upper 8 "
                "are taken: multiply 12-bit numbers by 16 before.",
                len(dark), total, self.root, _DARK - 1, first_few(dark),
            )  # fmt: skip
        self.files = [self.files[index] for index in good]
        self.labels = [self.labels[index] for index in good]
        self.contents = hashes
        self.in_memory = True


def _drafted(opened: JpegImageFile, choose: Callable[[int, int], Box], side: int) -> Region:
    """Decode a JPEG at 1, 1/2, 1/4 or 1/8 of its size, and cut out the part."""
    orientation = opened.getexif().get(ExifTags.Base.Orientation, 1)
    width, height = reversed(opened.size) if orientation in _TURNED else opened.size
    box = choose(height, width)
    reduction = max(1, min(box.height, box.width) / side)
    stored = opened.size
    drafted = opened.draft("RGB", (math.ceil(stored[0] / reduction), math.ceil(stored[1] / reduction)))
    scale = 1 if drafted is None else round(stored[0] / drafted[1][2])
    pixels = _pixels(_upright(opened))
    # The last row and column of a draft may stand for less than a whole pixel; upright, they may be the first.
    top = pixels.shape[1] - height / scale if orientation in _LAST_ROW_FIRST else 0
    left = pixels.shape[2] - width / scale if orientation in _LAST_COLUMN_FIRST else 0
    part = Box(top + box.top / scale, left + box.left / scale, box.height / scale, box.width / scale)
    return cut(pixels, lambda height, width: part)


def _upright(image: Image.Image) -> Image.Image:
    """Turn a photograph as its camera was held, and make it RGB."""
    if image.mode == "F" or (image.mode == "I" and image.format == "TIFF"):  # other formats say what is white
        raise RfvizError(f"nothing tells which of its numbers is white (mode {image.mode}); save it with 8 or 16 bits")
    return eight_bits(ImageOps.exif_transpose(image)).convert("RGB")


def _pixels(image: Image.Image) -> Tensor:
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()


def _stamp(path: Path) -> object:
    try:
        status = path.stat()
    except OSError:
        return None  # a link to nowhere: it is refused or left out when it is read
    return status.st_size, status.st_mtime_ns


def _reason(error: Exception) -> str:
    """Say why an image cannot be read; Pillow's own words for a file of another kind name an object in memory."""
    return "not an image" if isinstance(error, UnidentifiedImageError) else first_line(error)


def divided(root: str | Path, *, short_side: int | None = None) -> Split:
    """List the images in ``train/`` and ``val/`` of a folder.

    Parameters
    ----------
    root : path
    short_side : int, optional
        Reduce larger images to this short side, px.

    Raises
    ------
    RfvizError
        If the folder, ``train/``, ``val/`` or images in them are missing, or ``val/`` has a class of its own.
    """
    root = _existing(root)
    for part in _PARTS:
        if not (root / part).is_dir():
            raise RfvizError(
                f"{root} has no folder {part!r}: images must lie in {root}/train/<class>/ and {root}/val/<class>/. Or "
                f"let --split 0.2 take a fifth of those in {root}/<class>/ for evaluation, or give weights of every "
                "network: what needs no labels takes any folder."
            )
    train, evaluation = (_list(root / part, short_side) for part in _PARTS)
    unknown = sorted(set(evaluation.classes) - set(train.classes))
    if unknown:
        raise RfvizError(f"{root}/val has the class {unknown[0]!r}, which {root}/train has not.")
    evaluation.labels = [train.classes.index(evaluation.classes[label]) for label in evaluation.labels]
    evaluation.classes = train.classes
    return Split(train, evaluation)


def has_parts(root: str | Path) -> bool:
    """Tell whether a folder has ``train/`` or ``val/`` in it."""
    return any((Path(root) / part).is_dir() for part in _PARTS)


def split(root: str | Path, share: float, *, short_side: int | None = None) -> Split:
    """List the images in ``<class>/`` folders, and put a part of those of each class aside for evaluation.

    Which ones depends on nothing but the names of the files, so it is the same whenever and wherever they are read.

    Parameters
    ----------
    root : path
    share : float
        Of the images of each class, rounded, but at least one and not all.
    short_side : int, optional
        As for `divided`.

    Raises
    ------
    RfvizError
        If the folder or images in it are missing, it is split already, `share` is not between 0 and 1, or a class has
        only one image.
    """
    root = _existing(root)
    if has_parts(root):
        raise RfvizError(f"{root} has folders train/ or val/ in it, so it is split already: leave --split out.")
    if not 0 < share < 1:
        raise RfvizError(f"split is {share}: it must be a share between 0 and 1, such as 0.2.")
    listed = _list(root, short_side)
    aside: list[int] = []
    for label, name in enumerate(listed.classes):
        files = [number for number, each in enumerate(listed.labels) if each == label]
        if len(files) == 1:
            raise RfvizError(f"{root / name} has one image: to be split, a class must have at least two.")
        count = min(max(1, round(share * len(files))), len(files) - 1)
        aside += [files[number] for number in np.random.default_rng(_SEED).permutation(len(files))[:count]]
    parts = []
    for chosen in (sorted({*range(len(listed))} - {*aside}), sorted(aside)):
        of_part = [listed.files[i] for i in chosen], [listed.labels[i] for i in chosen]
        parts.append(FolderImages(root, *of_part, listed.classes, short_side))
    return Split(*parts)


def unsplit(root: str | Path, *, short_side: int | None = None) -> Split:
    """List `everything` in a folder for evaluation; the same images stand in the place of those for training."""
    images = everything(root, short_side=short_side)
    return Split(images, images)


def everything(
    root: str | Path, *, short_side: int | None = None, finish: Callable[[Tensor], Tensor] | None = None
) -> FolderImages:
    """List every image in a folder and the folders in it.

    What folder an image lies in counts as its class; images that lie in `root` itself have none.

    Parameters
    ----------
    root : path
    short_side, finish
        See `FolderImages`.

    Raises
    ------
    RfvizError
        If there is no such folder, or no image in it.
    """
    root = _existing(root)
    found = [str(parent / name) for parent, names in _walk(root) for name in names]
    files = sorted(name for name in found if _is_image(name))
    _warn([name for name in found if not _is_image(name)], "file", root, _OTHER_KIND)
    if not files:
        raise RfvizError(f"{root} holds no images ({', '.join(IMG_EXTENSIONS)}).")
    of_files = [str(Path(file).parent) for file in files]
    classes = sorted(set(of_files) - {"."})
    labels = [classes.index(name) if name in classes else NO_CLASS for name in of_files]
    return FolderImages(root, files, labels, classes, short_side, finish)


def read(found: Split, *, strict: bool = False, progress: bool = False) -> Split:
    """Read the images of both parts, listed above, and return them; see `FolderImages.load_all`."""
    for images in dict.fromkeys(found):
        assert isinstance(images, FolderImages)
        images.load_all(strict=strict, progress=progress)
    return found


def _existing(root: str | Path) -> Path:
    root = Path(root).expanduser()
    if root.is_file():
        raise RfvizError(f"{str(root)!r} is a file: give the folder that it lies in.")
    if not root.is_dir():
        raise RfvizError(f"there is no image folder {str(root)!r}.")
    return root


def _is_sidecar(name: str) -> bool:
    return name.startswith(".") or name.lower() in _SIDECARS


def _is_image(name: str) -> bool:
    return has_file_allowed_extension(name, IMG_EXTENSIONS)


def photographs(
    root: str | Path, resize: int, crop: int, *, colours: int = 3, strict: bool = False, progress: bool = False
) -> FolderImages:
    """Read `everything` in a folder, cut to squares of one size, and keep it in memory.

    Parameters
    ----------
    root : path
    resize, crop : int
        Short side that an image is resized to, px, and side of the square that is then cut from its middle, as
        torchvision does before a network sees it.
    colours : {3, 1}
        RGB or grey.
    strict, progress : bool
        Refuse broken images instead of leaving them out; show a progress bar.

    Raises
    ------
    RfvizError
        If there is no such folder, or no image in it can be read.
    """
    if colours not in (1, 3) or not 1 <= crop <= resize:
        raise RfvizError(
            f"images of a folder are RGB or grey, not of {colours} channels, and cut ({crop} px) to no more than they "
            f"are resized to ({resize} px): give a tensor (N, {colours}, H, W) otherwise."
        )
    steps = [v2.Resize(resize, antialias=True), v2.CenterCrop(crop)] + ([v2.Grayscale()] if colours == 1 else [])
    images = everything(root, finish=v2.Compose(steps))
    images.load_all(strict=strict, progress=progress)
    return images


def first_few(names: Sequence[str], at_most: int = 5) -> str:
    """Return the first few of many names in one line."""
    return one_line("; ".join(names[:at_most]) + (f"; and {len(names) - at_most} more" if len(names) > at_most else ""))


def _list(folder: Path, short_side: int | None) -> FolderImages:
    try:
        classes = [name for name in find_classes(folder)[0] if not _is_sidecar(name)]
    except FileNotFoundError as error:
        raise RfvizError(f"{folder} holds no class folders: images must lie in {folder}/<class>/.") from error
    files: list[str] = []
    labels: list[int] = []
    others: list[str] = []
    for parent, names in _walk(folder)[1:]:  # the first is the folder itself: what lies there is in no class
        here = [str(parent / name) for name in names if _is_image(name)]
        files += here
        labels += [classes.index(parent.parts[0])] * len(here)
        others += [str(parent / name) for name in names if not _is_image(name)]
    _warn(others, "file", folder, _OTHER_KIND)
    if not files:
        raise RfvizError(f"{folder} holds no images ({', '.join(IMG_EXTENSIONS)}) in class folders.")
    _warn([name for n, name in enumerate(classes) if n not in set(labels)], "class folder", folder, "without an image")
    return FolderImages(folder, files, labels, classes, short_side)


def _warn(names: Sequence[str], kind: str, root: Path, told: str) -> None:
    """Count and name some files or folders in one line, if there are any."""
    if names:
        verb, kind = ("is", kind) if len(names) == 1 else ("are", f"{kind}s")
        _log.warning("rfviz: %d %s in %s %s %s: %s", len(names), kind, root, verb, told, first_few(names))


def _walk(root: Path) -> list[tuple[Path, list[str]]]:
    """Return a folder and those in it, relative to it and in order, with the names of their files; follow no circle.

    A link is not followed to a folder that the walk has come through, or to one above it: it would never end, or find
    everything once more under another class.
    """
    found: list[tuple[Path, list[str]]] = []
    through: dict[Path, tuple[Path, ...]] = {root: (root.resolve(),)}
    unfollowed: list[str] = []

    def refused(error: OSError) -> None:
        unfollowed.append(f"{Path(error.filename).relative_to(root)} ({error.strerror})")

    for parent, folders, files in os.walk(root, followlinks=True, onerror=refused):
        chain = through.pop(Path(parent))
        folders[:] = [name for name in folders if not _is_sidecar(name)]
        for name in list(folders):
            path = Path(parent, name)
            target = path.resolve()
            if path.is_symlink() and any(each.is_relative_to(target) for each in chain):
                folders.remove(name)
                unfollowed.append(f"{path.relative_to(root)} (a link that leads back)")
            else:
                through[path] = (*chain, target)
        found.append((Path(parent).relative_to(root), sorted(name for name in files if not _is_sidecar(name))))
    _warn(sorted(unfollowed), "folder", root, "not looked into")
    return sorted(found, key=lambda each: each[0].parts)  # paths themselves are ordered in other ways elsewhere
