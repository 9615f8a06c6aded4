"""A folder with every odd file that we know of: each is used or named, and a run comes to its end."""

import csv
import io
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from rfviz.errors import RfvizError
from rfviz.images import folders, image_list, photographs
from rfviz.lab import results
from rfviz.lab.run import open_run

pytestmark = pytest.mark.faults
CLASSES = ("chelsea", "coffee")


def picture(name: str = "coffee", left: int = 40, size: tuple[int, int] = (64, 64)) -> Image.Image:
    array = photographs.photograph(name).permute(1, 2, 0).numpy()
    return Image.fromarray(array).crop((left, 30, left + size[0], 30 + size[1]))


def encoded(image: Image.Image, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def bomb() -> bytes:
    """Return a PNG of 60,000 x 60,000 px in some hundred bytes: decoded, it would take 10 GB."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    )


def turned() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return encoded(picture(left=41), "JPEG", exif=exif)


def animated() -> bytes:
    return encoded(picture(left=42), "GIF", save_all=True, append_images=[picture(left=43)])


def numbers() -> bytes:
    return encoded(Image.fromarray(np.random.default_rng(0).random((64, 64), np.float32)), "TIFF")


def transparent() -> bytes:
    return encoded(picture(left=44).convert("P"), "PNG", transparency=3)


GOOD = {
    "cmyk.jpg": lambda: encoded(picture(left=45).convert("CMYK"), "JPEG"),
    "grey.png": lambda: encoded(picture(left=46).convert("L"), "PNG"),
    "16-bit.png": lambda: encoded(Image.fromarray(np.full((64, 64), 40_000, np.uint16)), "PNG"),
    "palette.png": transparent,
    "turned.jpg": turned,
    "animated.webp": lambda: encoded(picture(left=42), "WEBP", save_all=True, append_images=[picture(left=43)]),
    "wrong extension.jpg": lambda: encoded(picture(left=47), "PNG"),
    "wide.png": lambda: encoded(picture(left=48).resize((30_000, 64)), "PNG"),
    "ünïcödé 画像.png": lambda: encoded(picture(left=49), "PNG"),
    "new\nline.png": lambda: encoded(picture(left=50), "PNG"),
    "{name} <b>$(id)<b>.png": lambda: encoded(picture(left=51), "PNG"),
}
"""Files that are images, whatever they look like."""

BAD = {
    "truncated.png": lambda: encoded(picture(), "PNG")[:-300],
    "truncated.jpg": lambda: encoded(picture(), "JPEG")[:500],
    "empty.png": lambda: b"",
    "text.jpg": lambda: b"<html>404 not found</html>",
    "bomb.png": bomb,
    "numbers.tif": numbers,
    "bad\nname.png": lambda: b"no image",
}
"""Files that are none, or that would take the run down."""


@pytest.fixture
def folder(tmp_path) -> Path:
    """Two classes with six training images and two of validation each, and all of the above."""
    root = tmp_path / "images"
    for part, numbers in (("train", range(6)), ("val", range(6, 8))):
        for name in CLASSES:
            (root / part / name).mkdir(parents=True)
            for number in numbers:
                picture(name, 40 * number).save(root / part / name / f"{number}.png")
    for name, content in (GOOD | BAD).items():
        (root / "train" / "coffee" / name).write_bytes(content())
    (root / "val" / "coffee" / "again.png").write_bytes((root / "train" / "coffee" / "3.png").read_bytes())
    (root / "train" / "coffee" / "nowhere.png").symlink_to("nothing there.png")
    (root / "train" / "coffee" / "itself.png").symlink_to("itself.png")
    (root / "train" / "chelsea" / "loop").symlink_to("..")
    for name, other in (("chelsea", "coffee"), ("coffee", "chelsea")):  # a circle of two
        (root / "train" / name / f"to {other}").symlink_to(f"../{other}")
    (root / "train" / "coffee" / "animated.gif").write_bytes(animated())
    (root / "train" / "coffee" / "notes.txt").write_text("no image")
    (root / "train" / "coffee" / os.fsdecode(b"not utf-8 \xff.png")).write_bytes(encoded(picture(left=52), "PNG"))
    return root


LINKS = ("nowhere.png", "itself.png")
NOT_TEXT = os.fsdecode(b"not utf-8 \xff.png")


def test_every_file_is_used_or_named(folder, caplog):
    train = folders.read(folders.divided(folder, short_side=32)).train
    # what lies in the other class, one link away, is there under both; no circle is walked
    used = {name.removeprefix("coffee/") for name in train.files if name.startswith("coffee/") and name.count("/") == 1}
    assert sorted({name.rpartition("/")[0] for name in train.files}) == [
        "chelsea", "chelsea/to coffee", "coffee", "coffee/to chelsea",
    ]  # fmt: skip
    assert used == {*GOOD, NOT_TEXT, *(f"{i}.png" for i in range(6))}
    assert {name for name in train.left_out if name.startswith("coffee/")} == {
        f"coffee/{each}" for each in (*BAD, *LINKS)
    }
    looked, kinds, said = (record.getMessage() for record in caplog.records)
    assert looked.startswith(f"rfviz: 4 folders in {folder}/train are not looked into: ")
    assert "chelsea/loop (a link that leads back)" in looked
    assert kinds.startswith(f"rfviz: 4 files in {folder}/train are of a kind that is not read: ")
    assert "coffee/animated.gif; coffee/notes.txt" in kinds
    assert said.startswith(f"rfviz: {2 * (len(BAD) + len(LINKS))} of ")
    assert said.isprintable() and "; and 13 more" in said
    for i, name in enumerate(train.files):
        image, label = train[i]
        assert image.dtype == torch.uint8 and image.shape[0] == 3 and min(image.shape[1:]) == 32, name
        assert train.classes[label] == name.split("/")[0]


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_is_named(folder):
    path = folder / "train" / "coffee" / "0.png"
    path.chmod(0)
    assert "coffee/0.png" in folders.read(folders.divided(folder, short_side=32)).train.left_out


def test_images_of_one_pixel_are_images(tmp_path):
    for part in ("train", "val"):
        for name in CLASSES:
            (tmp_path / part / name).mkdir(parents=True)
            Image.new("RGB", (1, 1), (1, 2, 3)).save(tmp_path / part / name / "dot.png")
    image, _ = folders.read(folders.divided(tmp_path, short_side=32)).train[0]
    assert image.flatten().tolist() == [1, 2, 3]


def test_a_run_on_them_comes_to_its_end_and_lists_what_it_used(folder, tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("RFVIZ_RUNS", str(tmp_path / "runs"))
    options = {"epochs": 1, "tile": 48, "batch_size": 8, "disturbed_images": 4}
    run = open_run("smoke", images=str(folder), **options)
    run.progress = False
    found = results.stimuli(run, "resnet34")["maxpool"]
    assert found.image_count == 5 and found.strongest_stimulus.isfinite().all()
    (path,) = run.folder.glob("images-*.csv")
    assert path.stat().st_size
    with path.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == image_list.COLUMNS
    on_disk = {
        (part, name, f"{name}/{path.name}")
        for part in ("train", "val")
        for name in CLASSES
        for path in (folder / part / name).iterdir()
        if path.is_file() or (path.is_symlink() and not path.is_dir())
        if path.suffix not in (".gif", ".txt")
    }
    directly = [row for row in rows if row["file"].count("/") == 1]
    assert {(row["part"], row["class"], row["file"]) for row in directly} == on_disk and len(directly) == len(on_disk)
    rows = directly
    status = {f"{row['part']}/{row['file']}": row["status"] for row in rows}
    assert sum(each.startswith("left out: ") for each in status.values()) == len(BAD) + len(LINKS)
    assert status["val/coffee/again.png"] == "used; the same picture as train/chelsea/to coffee/3.png"
    (said,) = (record.getMessage() for record in caplog.records if "more than once" in record.getMessage())
    assert said.startswith("rfviz: 25 images are there more than once: train/")  # each one link away, and one in val


def test_ten_thousand_files_in_one_folder(tmp_path):
    content = encoded(picture(size=(8, 8)), "PNG")
    for part, count in (("train", 10_000), ("val", 2)):
        (tmp_path / part / "many").mkdir(parents=True)
        for i in range(count):
            (tmp_path / part / "many" / f"{i}.png").write_bytes(content if i % 1000 else b"broken")
    split = folders.read(folders.divided(tmp_path))
    assert (len(split.train), len(split.train.left_out)) == (9990, 10)
    assert len(image_list.repeated({"train": split.train, "val": split.evaluation})) == 9989 + 1
    assert split.train.files == sorted(split.train.files)


def test_with_strict_the_first_of_them_stops_the_run_in_one_line(folder):
    with pytest.raises(RfvizError, match=r"Repair or remove it, or leave --strict out"):
        folders.read(folders.divided(folder, short_side=32), strict=True)
