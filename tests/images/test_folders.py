"""Folders of real photographs: every kind of image file, broken files, wrong folders, and the sources built on them."""

import hashlib
import io
import itertools
import os
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from rfviz.errors import RfvizError
from rfviz.images import folders, photographs
from rfviz.images.data import NO_CLASS, Box, Evaluation, Region, Split
from rfviz.images.folders import FolderImages
from rfviz.lab import presets, sources
from rfviz.training.augmentation import Augmentation, TrainingBatch

CLASSES = ("chelsea", "coffee", "rocket")


def picture(name: str, number: int, size: tuple[int, int] = (60, 48)) -> Image.Image:
    """Cut a small picture of `size` (width, height) out of a photograph."""
    array = photographs.photograph(name).permute(1, 2, 0).numpy()
    left, top = 40 * number, 30 + 17 * number
    return Image.fromarray(array).crop((left, top, left + size[0], top + size[1]))


@pytest.fixture
def root(tmp_path):
    """ImageNet's layout: 3 classes, 4 training and 2 validation images of each."""
    for part, numbers in (("train", range(4)), ("val", range(4, 6))):
        for name in CLASSES:
            (tmp_path / part / name).mkdir(parents=True)
            for number in numbers:
                picture(name, number).save(tmp_path / part / name / f"{number}.png")
    return tmp_path


def one(folder, name: str, content: bytes | None = None, **options) -> FolderImages:
    """Return the set of a single file."""
    if content is not None:
        (folder / name).write_bytes(content)
    return FolderImages(folder, [name], [0], ["only"], **options)


def load(root, *, strict: bool = False, **options) -> Split:
    return folders.read(folders.divided(root, **options), strict=strict)


def encoded(image: Image.Image, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def tensor(image: Image.Image) -> torch.Tensor:
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


# --- reading ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("listed", [load, folders.divided])
def test_both_parts_are_listed_and_read(root, listed):
    split = listed(root)
    for part, numbers in ((split.train, range(4)), (split.evaluation, range(4, 6))):
        assert part.classes == CLASSES
        expected = [(name, number) for name in CLASSES for number in numbers]
        assert len(part) == len(expected)
        assert part.skipped == []
        for i, (name, number) in enumerate(expected):
            image, label = part[i]
            assert (image.dtype, CLASSES[label], part.labels[i]) == (torch.uint8, name, label)
            assert torch.equal(image, tensor(picture(name, number)))


def test_labels_of_val_are_those_of_train_when_a_class_is_missing_from_it(root):
    for file in (root / "val" / "chelsea").iterdir():
        file.unlink()
    (root / "val" / "chelsea").rmdir()
    split = load(root)
    assert split.evaluation.classes == CLASSES
    assert split.evaluation.labels == [1, 1, 2, 2]
    assert torch.equal(split.evaluation[0][0], tensor(picture("coffee", 4)))


def test_files_of_other_kinds_are_not_images(root):
    (root / "train" / "chelsea" / "notes.txt").write_text("not an image")
    assert len(load(root).train) == 12


@pytest.mark.parametrize("by_text", [False, True])
def test_classes_may_be_called_anything(root, by_text, monkeypatch):
    if by_text:  # as Python orders paths from 3.12 on: names such as this come before the folder itself, "."
        monkeypatch.setattr(Path, "__lt__", lambda one, other: str(one) < str(other), raising=False)
    for part in ("train", "val"):
        (root / part / "chelsea").rename(root / part / "-1")
    train = load(root).train
    assert train.classes == ("-1", "coffee", "rocket")
    assert train.files == [f"{name}/{number}.png" for name in train.classes for number in range(4)]
    assert train.labels == [0] * 4 + [1] * 4 + [2] * 4


def test_a_folder_may_be_where_one_is_or_behind_a_link(root, tmp_path_factory, monkeypatch):
    expected = folders.everything(root).files
    link = tmp_path_factory.mktemp("elsewhere") / "link"
    link.symlink_to(root)
    monkeypatch.chdir(root)
    for where in (".", link):
        assert folders.everything(where).files == expected and len(expected) == 18
    monkeypatch.chdir(root / "train")
    assert len(folders.split(".", 0.5).train) == 6


def test_images_kept_in_memory_survive_their_files(root):
    kept = load(root).train
    first = kept[0][0].clone()
    for file in (root / "train" / "chelsea").iterdir():
        file.unlink()
    assert torch.equal(kept[0][0], first)


# --- every kind of image ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "kind", "options"),
    [
        ("a.png", "PNG", {}),
        ("a.bmp", "BMP", {}),
        ("a.ppm", "PPM", {}),
        ("a.tif", "TIFF", {}),
        ("a.webp", "WEBP", {"lossless": True}),
        ("a.PNG", "PNG", {}),
    ],
)
def test_lossless_files_come_back_exactly(name, kind, options, tmp_path):
    image = picture("coffee", 1)
    assert torch.equal(one(tmp_path, name, encoded(image, kind, **options))[0][0], tensor(image))


def test_grey_images_have_three_equal_colours(tmp_path):
    grey = picture("coffee", 1).convert("L")
    image = one(tmp_path, "a.png", encoded(grey, "PNG"))[0][0]
    assert torch.equal(image, torch.from_numpy(np.array(grey)).expand(3, -1, -1))


def test_palette_images_show_their_colours(tmp_path):
    palette = picture("coffee", 1).quantize(32)
    assert palette.mode == "P"
    image = one(tmp_path, "a.png", encoded(palette, "PNG"))[0][0]
    table = np.array(palette.getpalette()).reshape(-1, 3)
    assert np.array_equal(image.permute(1, 2, 0), table[np.array(palette)])


def test_cmyk_images_are_turned_into_rgb(tmp_path):
    original = picture("coffee", 1)
    content = encoded(original.convert("CMYK"), "JPEG", quality=98, subsampling=0)
    assert Image.open(io.BytesIO(content)).mode == "CMYK"
    for short_side in (None, 48):
        image = one(tmp_path, "a.jpg", content, short_side=short_side)[0][0]
        assert image.shape == (3, 48, 60)
        assert (image.float() - tensor(original).float()).abs().mean() < 3


def test_transparent_images_lose_their_transparency(tmp_path):
    original = picture("coffee", 1)
    transparent = original.copy()
    transparent.putalpha(128)
    assert torch.equal(one(tmp_path, "a.png", encoded(transparent, "PNG"))[0][0], tensor(original))
    black_and_white = original.convert("1")
    assert set(one(tmp_path, "b.png", encoded(black_and_white, "PNG"))[0][0].unique().tolist()) == {0, 255}


@pytest.mark.parametrize(("name", "kind"), [("a.png", "PNG"), ("a.tif", "TIFF"), ("a.pgm", "PPM")])
def test_16_bit_images_keep_their_upper_byte(name, kind, tmp_path):
    upper, lower = np.arange(256).reshape(16, 16), np.arange(256).reshape(16, 16)[::-1] * 7 % 256
    values = (256 * upper + lower).astype(np.uint16)  # every level, over the whole range
    image = one(tmp_path, name, encoded(Image.fromarray(values), kind))[0][0]
    assert image.dtype == torch.uint8
    assert np.array_equal(image, np.broadcast_to(upper, (3, 16, 16)))


def test_numbers_of_which_nothing_tells_what_is_white_are_left_out_by_name(tmp_path, caplog):
    values = np.random.default_rng(0).random((16, 16))
    Image.fromarray(values.astype(np.float32)).save(tmp_path / "float.tif")
    Image.fromarray((255 * values).astype(np.int32)).save(tmp_path / "int32.tif")
    Image.fromarray((255 * values).astype(np.uint8)).save(tmp_path / "right.tif")
    images = folders.everything(tmp_path)
    images.load_all()
    assert images.files == ["right.tif"]
    assert [reason.partition(" (mode ")[2] for reason in images.left_out.values()] == [
        "F); save it with 8 or 16 bits", "I); save it with 8 or 16 bits",
    ]  # fmt: skip
    with pytest.raises(RfvizError, match=r"float\.tif: nothing tells which of its numbers is white"):
        one(tmp_path, "float.tif").region(0, lambda height, width: Box(0, 0, height, width), 8)


def test_twelve_bits_in_sixteen_are_said_to_be_almost_black(tmp_path, caplog):
    values = np.arange(4096, dtype=np.uint16).reshape(64, 64)
    for name, factor in (("dark.png", 1), ("right.png", 16)):
        Image.fromarray(values * factor).save(tmp_path / name)
    folders.everything(tmp_path).load_all()
    (said,) = caplog.messages
    assert said.startswith(f"rfviz: 1 of 2 images in {tmp_path} are almost black, no value above 15 of 255: dark.png. ")


def test_files_of_other_kinds_are_counted_in_any_folder(root, caplog):
    (root / "train" / "coffee" / "phone.heic").write_bytes(b"")
    folders.everything(root)
    assert caplog.messages == [f"rfviz: 1 file in {root} is of a kind that is not read: train/coffee/phone.heic"]


def test_a_file_in_the_place_of_a_folder_is_told_as_such(root):
    with pytest.raises(RfvizError, match=r"0\.png' is a file: give the folder that it lies in"):
        folders.everything(root / "train" / "coffee" / "0.png")


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
@pytest.mark.parametrize(
    ("orientation", "stored"),
    [
        (1, lambda upright: upright),
        (2, lambda upright: upright.transpose(Image.Transpose.FLIP_LEFT_RIGHT)),
        (3, lambda upright: upright.transpose(Image.Transpose.ROTATE_180)),
        (4, lambda upright: upright.transpose(Image.Transpose.FLIP_TOP_BOTTOM)),
        (5, lambda upright: upright.transpose(Image.Transpose.TRANSPOSE)),
        (6, lambda upright: upright.transpose(Image.Transpose.ROTATE_90)),
        (7, lambda upright: upright.transpose(Image.Transpose.TRANSVERSE)),
        (8, lambda upright: upright.transpose(Image.Transpose.ROTATE_270)),
    ],
)
def test_images_are_turned_upright(orientation, stored, kind, tmp_path):
    """A camera stores what its sensor saw, and in EXIF how it was held."""
    upright = picture("rocket", 3, (64, 48))
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"quality": 98, "subsampling": 0} if kind == "JPEG" else {}
    image = one(tmp_path, "a.jpg", encoded(stored(upright), kind, exif=exif, **options))[0][0]
    assert image.shape == (3, 48, 64)
    assert (image.float() - tensor(upright).float()).abs().mean() < (3 if kind == "JPEG" else 1e-9)


# --- reduction -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a.png", "a.jpg"])
@pytest.mark.parametrize(("size", "expected"), [((400, 200), (32, 64)), ((200, 400), (64, 32)), ((290, 260), (32, 36))])
def test_large_images_are_reduced_to_the_short_side(name, size, expected, tmp_path):
    picture("coffee", 0, size).save(tmp_path / name)
    image = one(tmp_path, name, short_side=32)[0][0]
    assert tuple(image.shape[1:]) == expected
    plain = tensor(Image.open(tmp_path / name).resize(expected[::-1], Image.Resampling.BICUBIC))
    # A JPEG is decoded at a fraction of its size; neither that nor the reduction in two steps may shift it.
    assert (image.float() - plain.float()).abs().mean() < 1


def test_small_images_stay(tmp_path):
    original = picture("coffee", 0, (40, 30))
    image = one(tmp_path, "a.png", encoded(original, "PNG"), short_side=32)[0][0]
    assert torch.equal(image, tensor(original))


def test_rotated_images_are_reduced_upright(tmp_path):
    upright = picture("rocket", 0, (160, 320))
    exif = Image.Exif()
    exif[0x0112] = 6
    content = encoded(upright.transpose(Image.Transpose.ROTATE_90), "JPEG", quality=98, exif=exif)
    image = one(tmp_path, "a.jpg", content, short_side=40)[0][0]
    assert image.shape == (3, 80, 40)
    plain = tensor(upright.resize((40, 80), Image.Resampling.BICUBIC))
    assert (image.float() - plain.float()).abs().mean() < 1.5


# --- broken files ----------------------------------------------------------------------------------------------------


def spoil(root) -> list[str]:
    """Put four broken images among the good ones, first, last and in between."""
    good = (root / "train" / "coffee" / "1.png").read_bytes()
    broken = {
        "train/chelsea/0.png": good[: len(good) // 2],
        "train/coffee/2.png": b"",
        "train/rocket/9.jpg": b"<html>404 not found</html>",
        "val/coffee/4.png": good[:-40],
    }
    for name, content in broken.items():
        (root / name).write_bytes(content)
    return list(broken)


def test_broken_images_are_left_out_named_and_counted(root, caplog):
    spoil(root)
    split = load(root)
    assert [record.getMessage().split(":")[1] for record in caplog.records] == [
        " 3 of 13 images left out",
        " 1 of 6 images left out",
    ]
    assert "chelsea/0.png" in caplog.records[0].getMessage()
    assert (len(split.train), len(split.evaluation)) == (10, 5)
    for part, names in (
        (split.train, ["chelsea/0.png", "coffee/2.png", "rocket/9.jpg"]),
        (split.evaluation, ["coffee/4.png"]),
    ):
        assert len(part.skipped) == len(names)
        for reason, name in zip(part.skipped, names, strict=True):
            assert reason.startswith(f"{part.root.name}/{name}: ") and len(reason) > len(f"{part.root.name}/{name}: ")
            assert "0x" not in reason  # no object in memory, which would be another one every time
            assert "\n" not in reason
    # The others keep their pixels, labels and names.
    expected = (
        [("chelsea", i) for i in (1, 2, 3)] + [("coffee", i) for i in (0, 1, 3)] + [("rocket", i) for i in range(4)]
    )
    assert split.train.files == [f"{name}/{number}.png" for name, number in expected]
    assert [CLASSES[label] for label in split.train.labels] == [name for name, _ in expected]
    for i, (name, number) in enumerate(expected):
        image, label = split.train[i]
        assert torch.equal(image, tensor(picture(name, number))) and CLASSES[label] == name


def test_broken_images_are_refused_when_strict(root):
    load(root, strict=True)  # all is well so far
    spoil(root)
    with pytest.raises(RfvizError, match=r"chelsea.0\.png: .*Repair or remove it, or leave --strict out") as caught:
        load(root, strict=True)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("i", [0, 6])
def test_a_broken_image_that_is_read_later_is_named_then(i, root):
    spoil(root)
    images = folders.divided(root).train
    assert torch.equal(images[1][0], tensor(picture("chelsea", 1)))
    with pytest.raises(RfvizError, match=r"(chelsea.0|coffee.2)\.png: .*Repair or remove it") as caught:
        images[i]
    assert "\n" not in str(caught.value)


def test_a_part_without_a_single_good_image_is_refused(root):
    for file in (root / "val").rglob("*.png"):
        file.write_bytes(b"no image")
    with pytest.raises(RfvizError, match=r"none of the 6 images in .*val can be read; the first: .*chelsea.4\.png"):
        load(root)


# --- wrong folders ---------------------------------------------------------------------------------------------------


def refused(root, match: str) -> None:
    with pytest.raises(RfvizError, match=match) as caught:
        load(root)
    assert "\n" not in str(caught.value)


def test_a_missing_folder_is_refused(tmp_path):
    refused(tmp_path / "none", "there is no image folder '.*none'")


@pytest.mark.parametrize("part", ["train", "val"])
def test_a_missing_part_is_refused(root, part):
    (root / part).rename(root / "other")
    refused(root, f"has no folder '{part}': images must lie in .*/train/<class>/ and .*/val/<class>/")


@pytest.mark.parametrize("part", ["train", "val"])
def test_a_part_without_class_folders_is_refused(root, part):
    (root / part).rename(root / "other")
    (root / part).mkdir()
    picture("coffee", 0).save(root / part / "loose.png")
    refused(root, f"{part} holds no class folders")


def test_empty_class_folders_are_refused(root):
    (root / "train").rename(root / "other")
    for name in CLASSES:
        (root / "train" / name).mkdir(parents=True)
    refused(root, r"train holds no images \(\.jpg, .*\) in class folders")


def test_a_class_that_training_does_not_know_is_refused(root):
    (root / "val" / "rocket").rename(root / "val" / "submarine")
    refused(root, "val has the class 'submarine', which .*train has not")


def test_sidecars_of_systems_are_no_images(root, caplog):
    """Nor a reason for `strict` to refuse, whichever way a folder is read."""
    for folder in (root, root / "train", root / "train" / "coffee", root / "val" / "rocket"):
        for name in ("._0.png", ".DS_Store", "Thumbs.db", "desktop.ini", "Desktop.INI"):
            (folder / name).write_bytes(b"Mac OS X")
        (folder / ".thumbnails").mkdir()
        (folder / ".thumbnails" / "0.png").write_bytes(b"small")
    (root / "train" / "__MACOSX" / "coffee").mkdir(parents=True)
    (root / "train" / "__MACOSX" / "coffee" / "._1.png").write_bytes(b"Mac OS X")
    train, evaluation = load(root, strict=True)
    assert train.classes == CLASSES and (len(train), len(evaluation)) == (12, 6)
    assert len(folders.read(folders.unsplit(root), strict=True).train) == 18
    assert not caplog.messages


def test_an_empty_class_folder_is_named(root, caplog):
    (root / "train" / "submarine").mkdir()
    load(root)
    assert [message for message in caplog.messages if message.endswith("is without an image: submarine")]


# --- any folder, and folders that are split here ---------------------------------------------------------------------


def test_any_folder_is_read_with_what_it_lies_in_as_class(root):
    picture("coffee", 1).save(root / "loose.png")
    found = folders.everything(root, short_side=20)
    assert len(found) == 19 and found.labels[found.files.index("loose.png")] == NO_CLASS
    assert found.classes == tuple(f"{part}/{name}" for part in ("train", "val") for name in CLASSES)
    for file, label in zip(found.files, found.labels, strict=True):
        assert ("" if label == NO_CLASS else found.classes[label]) == os.path.dirname(file)
    assert found[0][0].shape == (3, 20, 25)


@pytest.mark.parametrize(("share", "aside"), [(0.01, 1), (0.25, 1), (0.5, 2), (0.99, 3)])
def test_a_split_puts_a_part_of_each_class_aside(root, share, aside):
    found = folders.split(root / "train", share)
    train, evaluation = (set(part.files) for part in found)
    assert not train & evaluation and len(train | evaluation) == 12
    for label in range(3):
        assert list(found.evaluation.labels).count(label) == aside
        assert list(found.train.labels).count(label) == 4 - aside
    again = folders.split(root / "train", share)
    assert again.evaluation.files == found.evaluation.files
    assert found.train.classes == found.evaluation.classes == CLASSES


def test_a_split_that_cannot_be_is_refused(root):
    with pytest.raises(RfvizError, match="split already: leave --split out"):
        folders.split(root, 0.2)
    with pytest.raises(RfvizError, match="split is 20: it must be a share between 0 and 1"):
        folders.split(root / "train", 20)
    for path in sorted((root / "train" / "coffee").iterdir())[1:]:
        path.unlink()
    with pytest.raises(RfvizError, match="coffee has one image"):
        folders.split(root / "train", 0.2)


# --- fingerprints ----------------------------------------------------------------------------------------------------


def test_the_fingerprint_follows_the_content(root):
    def prints(**options):
        split = load(root, **options)
        return split.train.fingerprint, split.evaluation.fingerprint

    first = prints()
    assert prints() == first
    assert first[0] != first[1]
    assert prints(short_side=32)[0] != first[0]

    file = root / "train" / "coffee" / "1.png"
    good = file.read_bytes()
    file.write_bytes(encoded(picture("coffee", 2), "PNG"))
    changed = prints()
    assert changed[0] != first[0] and changed[1] == first[1]
    file.write_bytes(good)
    assert prints() == first

    # The last of one class becomes the first of the next: the same images in the same order, one with another label.
    (root / "train" / "coffee" / "3.png").rename(root / "train" / "rocket" / "-.png")
    assert prints()[0] != first[0]


def test_the_fingerprint_of_files_that_are_not_read_follows_names_and_sizes(root):
    def prints():
        return folders.divided(root).train.fingerprint

    first = prints()
    assert prints() == first
    file = root / "train" / "coffee" / "1.png"
    file.write_bytes(file.read_bytes() + b"\0")
    longer = prints()
    assert longer != first
    file.rename(file.with_name("1b.png"))
    assert prints() not in (first, longer)


def test_a_skipped_image_changes_the_fingerprint(root):
    first = load(root).train.fingerprint
    (root / "train" / "coffee" / "1.png").write_bytes(b"broken")
    assert load(root).train.fingerprint != first


# --- sources ---------------------------------------------------------------------------------------------------------


def test_a_folder_is_a_source(root):
    images = sources.load(presets.get("quick", images=str(root), tile=40))
    assert len(images.train) == 12 and images.train[0][0].shape == (3, 40, 50)
    assert images.stimuli is images.evaluation
    assert images.evaluation[0][0].shape == (3, 30, 30)
    assert images.evaluation.classes == CLASSES


def test_a_folder_can_be_strict(root):
    spoil(root)
    assert len(sources.load(presets.get("quick", images=str(root))).train) == 10
    with pytest.raises(RfvizError, match="Repair or remove it"):
        sources.load(presets.get("quick", images=str(root), strict=True))


def test_a_folder_in_place_of_imagenet_is_not_decoded_at_once(root):
    spoil(root)
    train = sources.load(presets.get("imagenet", images=str(root))).train
    assert len(train) == 13 and train.skipped == []


def test_photographs_are_a_source():
    images = sources.load(presets.get("smoke"))
    split = photographs.load(64, 4)
    assert images.train.fingerprint == split.train.fingerprint
    assert images.stimuli.fingerprint == Evaluation(split.evaluation).fingerprint
    assert {images.evaluation[i][0].shape for i in range(len(images.evaluation))} == {(3, 32, 32)}
    assert {images.stimuli[i][0].shape for i in range(len(images.stimuli))} == {(3, 64, 64)}
    assert sorted(set(images.evaluation.labels)) == sorted(set(images.stimuli.labels)) == [0, 1, 2, 3]


def test_caltech101_is_read_from_torchvisions_layout(tmp_path, monkeypatch):
    folder = tmp_path / "caltech101" / "101_ObjectCategories"
    for name in (*CLASSES, "BACKGROUND_Google"):
        (folder / name).mkdir(parents=True)
        for number in range(1, 12 if name == "coffee" else 7):
            shown = "coffee" if name == "BACKGROUND_Google" else name
            picture(shown, number % 7).save(folder / name / f"image_{number:04d}.jpg", quality=98, subsampling=0)
    monkeypatch.setenv("RFVIZ_DATA", str(tmp_path))
    images = sources.load(presets.get("caltech101", short_side=40, evaluation_crop=36))
    assert tuple(images.train.classes) == tuple(images.evaluation.classes) == CLASSES
    # Every fifth image of a class, by its number, is for evaluation.
    assert list(images.train.labels) == [0] * 5 + [1] * 9 + [2] * 5
    assert list(images.evaluation.labels) == [0, 1, 1, 2]
    held_out, trained = images.evaluation.source.files, images.train.files
    assert held_out == [f"{name}/image_{number:04d}.jpg" for name, number in
                        (("chelsea", 5), ("coffee", 5), ("coffee", 10), ("rocket", 5))]  # fmt: skip
    assert set(held_out).isdisjoint(trained) and len(set(trained)) == 19
    assert images.train[5][0].shape == (3, 40, 50)
    expected = tensor(picture("coffee", 1).resize((50, 40), Image.Resampling.BICUBIC))
    assert (images.train[5][0].float() - expected.float()).abs().mean() < 3
    assert images.evaluation[1][0].shape == (3, 36, 36)


@pytest.mark.parametrize("name", ["imagenet", "imagenette", "caltech101"])
def test_a_data_set_that_cannot_be_had_is_refused(name, tmp_path, monkeypatch):
    def unreachable(*args, **options):
        raise OSError("no route to host")

    for dataset in ("Caltech101", "Imagenette", "ImageNet"):
        monkeypatch.setattr(sources.datasets, dataset, unreachable)
    monkeypatch.setenv("RFVIZ_DATA", str(tmp_path))
    with pytest.raises(
        RfvizError, match=rf"{name} cannot be had in .*no route to host.*RFVIZ_DATA.*--images"
    ) as caught:
        sources.load(presets.get(name))
    assert "\n" not in str(caught.value)


def test_imagenet_says_what_is_missing(tmp_path, monkeypatch):
    monkeypatch.setenv("RFVIZ_DATA", str(tmp_path))
    with pytest.raises(RfvizError, match=r"imagenet cannot be had in .*ILSVRC2012_devkit"):
        sources.load(presets.get("imagenet"))


def test_a_link_to_nowhere_is_left_out_like_a_broken_image(root):
    (root / "train" / "coffee" / "9.png").symlink_to(root / "nowhere.png")
    assert [reason.split(":")[0] for reason in load(root).train.skipped] == ["train/coffee/9.png"]
    with pytest.raises(RfvizError, match=r"9\.png"):
        load(root, strict=True)


# --- parts of images -------------------------------------------------------------------------------------------------

STORED = {
    1: lambda upright: upright,
    2: lambda upright: upright.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
    3: lambda upright: upright.transpose(Image.Transpose.ROTATE_180),
    4: lambda upright: upright.transpose(Image.Transpose.FLIP_TOP_BOTTOM),
    5: lambda upright: upright.transpose(Image.Transpose.TRANSPOSE),
    6: lambda upright: upright.transpose(Image.Transpose.ROTATE_90),
    7: lambda upright: upright.transpose(Image.Transpose.TRANSVERSE),
    8: lambda upright: upright.transpose(Image.Transpose.ROTATE_270),
}
"""What a camera stores, by orientation."""


def smooth(width: int, height: int) -> Image.Image:
    """Enlarge a piece of a photograph so far that it holds nothing that a reduced JPEG could lose."""
    return picture("coffee", 2, (50, 40)).resize((width, height), Image.Resampling.BICUBIC)


def held(image: Image.Image, orientation: int, kind: str) -> bytes:
    """Return a file as a camera writes that was held in one of eight ways."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"quality": 95, "subsampling": 0} if kind == "JPEG" else {}
    return encoded(STORED.get(orientation, STORED[1])(image), kind, exif=exif, **options)


def read_region(images: FolderImages, box: Box, side: int, size: tuple[int, int]) -> Region:
    """Read a part of the only image, of which height and width are expected to be asked for once."""
    asked = []

    def choose(height, width):
        asked.append((height, width))
        return box

    found = images.region(0, choose, side)
    assert asked == [size]
    height, width = found.pixels.shape[1:]
    top, left = found.box[:2]
    # no more pixels than the box touches, all of them
    assert 0 <= top < 1 and height - 1 < top + found.box.height < height + 1e-6
    assert 0 <= left < 1 and width - 1 < left + found.box.width < width + 1e-6
    return found


def levels(pixels: torch.Tensor, box: Box, side: int) -> torch.Tensor:
    """Return the training image that a box of an image gives, in levels from 0 to 255."""
    whole = TrainingBatch(pixels[None], torch.tensor([box]).float(), torch.empty(0), torch.empty(0))
    return 255 * Augmentation(side).resize(whole, torch.tensor([False]))[0]


def assert_as_from_the_whole(images: FolderImages, found: Region, box: Box, side: int) -> None:
    difference = (levels(*found, side) - levels(images[0][0], box, side)).abs()
    assert difference.mean() < 0.5 and difference.max() < 5


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
@pytest.mark.parametrize("box", [Box(0, 0, 48, 60), Box(5, 7, 30, 20), Box(40, 52, 8, 8), Box(0, 59, 1, 1)])
def test_a_region_is_that_of_the_whole_image_where_every_pixel_is_needed(box, kind, tmp_path):
    images = one(tmp_path, "a.jpg", encoded(picture("coffee", 1), kind))
    for side in (32, 64):
        found = read_region(images, box, side, (48, 60))
        whole = images[0][0][:, box.top : box.top + box.height, box.left : box.left + box.width]
        assert torch.equal(found.pixels, whole)
        assert found.box == (0, 0, box.height, box.width)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_regions_are_upright(orientation, kind, tmp_path):
    upright, box = picture("rocket", 3, (64, 48)), Box(3, 30, 20, 33)
    images = one(tmp_path, "a.jpg", held(upright, orientation, kind))
    found = read_region(images, box, 20, (48, 64))
    assert torch.equal(found.pixels, images[0][0][:, 3:23, 30:63])
    if kind == "PNG":
        assert torch.equal(found.pixels, tensor(upright)[:, 3:23, 30:63])


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
@pytest.mark.parametrize("orientation", [0, 9, 77])
def test_orientations_that_do_not_exist_turn_nothing(orientation, kind, tmp_path):
    images = one(tmp_path, "a.jpg", held(picture("rocket", 3, (64, 48)), orientation, kind))
    assert images[0][0].shape == (3, 48, 64)
    found = read_region(images, Box(3, 30, 20, 33), 20, (48, 64))
    assert torch.equal(found.pixels, images[0][0][:, 3:23, 30:63])


LARGE = {
    "all": lambda height, width: Box(0, 0, height, width),
    "upper left": lambda height, width: Box(0, 0, height // 2, width // 3),
    "lower right": lambda height, width: Box(height - height // 2, width - width // 2, height // 2, width // 2),
    "upper right": lambda height, width: Box(0, width - 400, 400, 400),
    "middle": lambda height, width: Box(height // 3, width // 4, height // 3, width // 2),
}


@pytest.mark.parametrize("size", [(1200, 1600), (1201, 1607), (807, 1001)])
@pytest.mark.parametrize("part", LARGE)
def test_a_region_of_a_large_jpeg_is_decoded_small_and_shows_the_same(part, size, tmp_path):
    images = one(tmp_path, "a.jpg", held(smooth(*size[::-1]), 1, "JPEG"))
    box = LARGE[part](*size)
    for side in (32, 50, 100, 130):
        found = read_region(images, box, side, size)
        reduction = min(box.height, box.width) / side
        scale = max(scale for scale in (1, 2, 4, 8) if scale <= max(1, 0.98 * reduction))  # or just not
        assert found.pixels[0].numel() <= (box.height / scale + 2) * (box.width / scale + 2)
        if scale > 1:
            assert found.pixels.shape[1] < box.height and found.pixels.shape[2] < box.width
        assert_as_from_the_whole(images, found, box, side)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_region_of_a_large_jpeg_is_upright(orientation, tmp_path):
    for size in ((800, 1000), (801, 1005)):
        images = one(tmp_path, "a.jpg", held(smooth(*size[::-1]), orientation, "JPEG"))
        for box in (Box(0, 0, 400, 320), Box(size[0] - 350, size[1] - 500, 350, 500), Box(0, 0, *size)):
            found = read_region(images, box, 38, size)
            assert found.pixels.shape[1] <= box.height // 8 + 2
            assert_as_from_the_whole(images, found, box, 38)


@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_a_region_of_a_large_jpeg_of_other_colours_is_rgb(mode, tmp_path):
    content = encoded(smooth(800, 640).convert(mode), "JPEG", quality=95, subsampling=0)
    images, box = one(tmp_path, "a.jpg", content), Box(40, 80, 560, 640)
    found = read_region(images, box, 40, (640, 800))
    assert found.pixels.shape == (3, 70, 80)
    assert_as_from_the_whole(images, found, box, 40)


@settings(deadline=None, max_examples=40)
@given(st.data(), st.integers(1, 200))
def test_a_region_never_has_less_resolution_than_it_needs(large, data, side):
    height, width = 803, 1007
    top, left = data.draw(st.integers(0, height - 1)), data.draw(st.integers(0, width - 1))
    box = Box(top, left, data.draw(st.integers(1, height - top)), data.draw(st.integers(1, width - left)))
    found = read_region(large, box, side, (height, width))
    assert found.box.height >= min(side, box.height) - 1e-6
    assert found.box.width >= min(side, box.width) - 1e-6


@pytest.fixture(scope="module")
def large(tmp_path_factory) -> FolderImages:
    return one(tmp_path_factory.mktemp("large"), "a.jpg", held(smooth(1007, 803), 1, "JPEG"))


def test_png_files_are_decoded_whole(tmp_path):
    images = one(tmp_path, "a.png", encoded(smooth(800, 640), "PNG"))
    found = read_region(images, Box(40, 80, 560, 640), 40, (640, 800))
    assert torch.equal(found.pixels, images[0][0][:, 40:600, 80:720])


@pytest.mark.parametrize("how", ["kept", "reduced"])
def test_a_region_of_a_kept_or_reduced_image_is_cut_out_of_that(how, tmp_path):
    images = one(tmp_path, "a.jpg", held(smooth(800, 640), 6, "JPEG"), short_side=64 if how == "reduced" else None)
    if how == "kept":
        images.load_all()
        (tmp_path / "a.jpg").unlink()
    size = (64, 80) if how == "reduced" else (640, 800)
    found = read_region(images, Box(10, 20, 40, 50), 10, size)
    assert torch.equal(found.pixels, images[0][0][:, 10:50, 20:70])


def test_a_region_needs_no_load(root):
    images = folders.divided(root).train
    for i, (name, number) in enumerate((name, number) for name in CLASSES for number in range(4)):
        found = images.region(i, lambda height, width: Box(5, 6, 30, 40), 20)
        assert torch.equal(found.pixels, tensor(picture(name, number))[:, 5:35, 6:46])


@pytest.mark.parametrize("damage", ["cut short", "empty", "another kind", "missing"])
@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_a_region_of_a_damaged_file_is_refused_in_one_line(kind, damage, tmp_path):
    whole = encoded(smooth(400, 300), kind)
    content = {"cut short": whole[: len(whole) // 2], "empty": b"", "another kind": b"<html>404</html>"}
    (tmp_path / "a.jpg").write_bytes(content.get(damage, whole))
    images = one(tmp_path, "a.jpg")
    if damage == "missing":
        (tmp_path / "a.jpg").unlink()
    with pytest.raises(RfvizError, match=r"a\.jpg: .*Repair or remove it") as caught:
        images.region(0, lambda height, width: Box(0, 0, height, width), 100)
    assert "\n" not in str(caught.value) and "0x" not in str(caught.value)


# --- reading at once -------------------------------------------------------------------------------------------------


def test_images_are_in_memory_once_all_are_loaded(root):
    images = folders.divided(root).train
    assert images.in_memory is False
    images[3]
    assert images.in_memory is False
    images.load_all()
    assert images.in_memory is True
    assert [images.in_memory for images in load(root)] == [True, True]


def test_images_that_cannot_be_loaded_are_not_in_memory(root):
    spoil(root)
    images = folders.divided(root).train
    with pytest.raises(RfvizError):
        images.load_all(strict=True)
    assert images.in_memory is False


def out_of_order(monkeypatch, cores: int) -> None:
    """Let several threads decode, of which those with earlier files take longer."""
    decode, sizes = FolderImages._decode, itertools.count()

    def late(self, content):
        time.sleep(max(0.0, 0.1 - 0.03 * next(sizes)))
        return decode(self, content)

    monkeypatch.setattr(folders, "available_cores", lambda: cores)
    monkeypatch.setattr(FolderImages, "_decode", late)


@pytest.mark.parametrize("short_side", [None, 32])
@pytest.mark.parametrize("cores", [1, 2, 5])
def test_loading_at_once_is_a_slow_loop_over_the_files(cores, short_side, root, monkeypatch):
    spoil(root)
    listed = folders.divided(root, short_side=short_side).train
    files, labels, skipped, images, hashes = [], [], [], [], []
    for i, file in enumerate(listed.files):
        try:
            image, label = listed[i]
        except RfvizError as error:
            reason = str(error).removeprefix(f"{root / 'train' / file}: ").removesuffix(". Repair or remove it.")
            skipped.append(f"train/{file}: {reason}")
            continue
        files.append(file)
        labels.append(label)
        images.append(image)
        hashes.append(hashlib.sha256(image.numpy().tobytes() + repr(image.shape).encode()).hexdigest())
    assert len(skipped) == 3 and len(images) == 10

    out_of_order(monkeypatch, cores)
    listed.load_all()
    assert (listed.files, listed.labels, listed.skipped) == (files, labels, skipped)
    assert len(listed) == 10
    for i, (image, label) in enumerate(zip(images, labels, strict=True)):
        assert torch.equal(listed[i][0], image) and listed[i][1] == label
    described = repr([files, hashes, labels, CLASSES, short_side])
    assert listed.fingerprint == hashlib.sha256(described.encode()).hexdigest()[:16]


def test_strict_names_the_first_broken_file_whichever_thread_is_first(root, monkeypatch):
    spoil(root)
    images = folders.divided(root).train
    out_of_order(monkeypatch, 5)
    with pytest.raises(RfvizError, match=r"chelsea.0\.png: .*Repair or remove it, or leave --strict out"):
        images.load_all(strict=True)
