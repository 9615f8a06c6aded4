"""Which images a run used: a table that anyone can open, beside its results."""

import csv
from collections.abc import Mapping
from pathlib import Path

from rfviz.images.data import NO_CLASS
from rfviz.images.folders import FolderImages
from rfviz.storage.files import atomic

COLUMNS = ("part", "class", "file", "status")
UNREAD = "used; not read before, so perhaps broken"


def write(parts: Mapping[str, FolderImages], path: Path) -> None:
    """Write a row for every image: its part, class and file, and whether it was used, repeats another, or was left out.

    Parameters
    ----------
    parts : mapping from str to FolderImages
        What is left of each part once its images are read. Where they are not kept in memory, nothing tells broken or
        repeated ones: they are listed as `UNREAD`.
    path : Path
        A CSV file, in which names are as they are on disk.

    Raises
    ------
    RfvizError
        If the file cannot be written.
    """
    same = repeated(parts)
    with atomic(path) as temporary, temporary.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file:
        table = csv.writer(file)
        table.writerow(COLUMNS)
        for of, part in parts.items():
            for name, label in zip(part.files, part.labels, strict=True):
                first = same.get(f"{of}/{name}")
                status = f"used; the same picture as {first}" if first else "used" if part.in_memory else UNREAD
                table.writerow([of, "" if label == NO_CLASS else part.classes[label], name, status])
            depth = max((name.count("/") + 1 for name in part.classes), default=1)
            for name, reason in part.left_out.items():
                table.writerow([of, "/".join(Path(name).parts[:-1][:depth]), name, f"left out: {reason}"])


def repeated(parts: Mapping[str, FolderImages]) -> dict[str, str]:
    """Return the images whose pixels are those of an earlier one, with the name of that one."""
    seen: dict[object, str] = {}
    found = {}
    for of, part in parts.items():
        for name, content in zip(part.files, part.contents, strict=True) if part.in_memory else ():
            full = f"{of}/{name}"
            if seen.setdefault(content, full) != full:
                found[full] = seen[content]
    return found
