"""Which images a run used: a table that anyone can open, beside its results."""

import csv
from collections.abc import Sequence
from pathlib import Path

from rfviz.files import written_whole
from rfviz.folders import FolderImages

COLUMNS = ("part", "class", "file", "status")


def write(parts: Sequence[FolderImages], path: Path) -> None:
    """Write a row for every image: its part, class and file, and whether it was used, repeats another, or was left out.

    Parameters
    ----------
    parts : sequence of FolderImages
        What is left of each part once its images are read. Only images that were kept in memory are compared.
    path : Path
        A CSV file, in which names are as they are on disk.

    Raises
    ------
    RfvizError
        If the file cannot be written.
    """
    same = repeated(parts)
    with (
        written_whole(path) as temporary,
        temporary.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file,
    ):
        table = csv.writer(file)
        table.writerow(COLUMNS)
        for part in parts:
            for name, label in zip(part.files, part.labels, strict=True):
                first = same.get(f"{part.root.name}/{name}")
                status = f"used; the same picture as {first}" if first else "used"
                table.writerow([part.root.name, part.classes[label], name, status])
            for name, reason in part.left_out.items():
                table.writerow([part.root.name, Path(name).parts[0], name, f"left out: {reason}"])


def repeated(parts: Sequence[FolderImages]) -> dict[str, str]:
    """Return the images whose pixels are those of an earlier one, with the name of that one."""
    seen: dict[object, str] = {}
    found = {}
    for part in parts:
        for name, content in zip(part.files, part.contents, strict=True) if part.in_memory else ():
            full = f"{part.root.name}/{name}"
            if seen.setdefault(content, full) != full:
                found[full] = seen[content]
    return found
