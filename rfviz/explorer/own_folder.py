"""Networks of one's own as a folder of files: every layer drawn, the page, and what a terminal says of it."""

import glob
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from tqdm.auto import tqdm

from rfviz.explorer import static
from rfviz.explorer.own import NetSource, collect, own_layer, size_of_means, stands_alone
from rfviz.images import whitening
from rfviz.lab import forks
from rfviz.nets import graph
from rfviz.nets.receptive_field import WHOLE_IMAGE
from rfviz.storage.digests import digest


def explorer_page(source: NetSource) -> bytes:
    """Return the page of the explorer of one's own networks: which they are, and what they were shown."""
    names = " and ".join(source.nets)
    without = [f"{row['model']}, {row['key']} ({why})" for row in _rows(source) if (why := _not_maximized(source, row))]
    missing = f" Without maximization images: {'; '.join(without)}." if without else ""
    left_out = len(source.image_folder.left_out) if source.image_folder else 0
    counted = f"{len(source.images):,} images{f' ({left_out:,} left out)' if left_out else ''}"
    return static.page(
        f"What the channels of {names} respond to",
        f"Measured on {counted}, {_normalised(source)}. Channels that never fire stand by themselves.{missing}",
    )


def _normalised(source: NetSource) -> str:
    """Say what the networks got of the images."""
    usual = ((whitening.NONE, "not normalised"), (whitening.IMAGENET, "normalised as for ImageNet"))
    told = {
        name: next(
            (words for other, words in usual if each.to_json() == other.to_json()),
            "normalised by means and deviations of its own",
        )
        for name, each in source.preprocess.items()
    }
    alike = len(set(told.values())) == 1
    return next(iter(told.values())) if alike else "; ".join(f"for {name} {each}" for name, each in told.items())


def _rows(source: NetSource) -> list[dict[str, Any]]:
    return source.manifest()["layers"]


def _not_maximized(source: NetSource, row: Mapping[str, Any]) -> str:
    """Say why a layer has no maximization images; nothing where it has."""
    drawn = source.drawn(row["model"], row["key"]).facts["columns"]
    if "maximization" in {column["key"] for column in drawn}:
        return ""
    if stands_alone(source.nets[row["model"]], row["key"]):
        return "too many pixels"
    return "none of its neurons stands alone; maximize(..., canvas=...) shows them whole images"


def save(source: NetSource, folder: str | Path, *, progress: bool = False, wait: bool = True) -> Path:
    """Write the explorer as a folder of files that opens without a server, and return its page.

    Parameters
    ----------
    source : NetSource
    folder : path
        Results are kept in ``results`` inside if the source keeps them there; the page needs only the other files.
    progress : bool
        Show a progress bar.
    wait : bool
        If interrupted, wait for the layers that are being drawn; else the process must do nothing else, but end.

    Raises
    ------
    RfvizError
        If a file cannot be written.
    """
    folder = Path(folder).expanduser()
    _draw_all(source, progress, wait)
    static.write(source, folder, {"index.html": explorer_page(source)}, progress)
    return folder / "index.html"


AT_ONCE = 2
"""Layers that are drawn at the same time: what is done for one of them seldom keeps more than a core busy."""


def _draw_all(source: NetSource, progress: bool, wait: bool) -> None:
    """Draw every layer that is not kept, after one pass of the images through each network for all of them."""
    waiting = [(row["model"], row["key"]) for row in _rows(source)]
    waiting = [each for each in waiting if own_layer.find(source, each) is None]
    waiting.sort(key=lambda each: -source.known(*each)[1].field.size)  # what takes longest goes first
    # a GPU has one setting for all threads, and what is in training mode is set to evaluation and back by each
    modules = [module for net in source.nets.values() for module in net.modules()]
    alone = any(module.training for module in modules) or any(
        next(net.parameters()).is_cuda for net in source.nets.values()
    )
    threads = torch.get_num_threads()
    of_each = max(1, threads // AT_ONCE)
    with tqdm(total=len(waiting), desc="layers", unit="layer", disable=not progress) as bar:
        for model, layers in _together(source, waiting):
            checkpoint = source.results / f"pass-{model}-{digest(layers)[:8]}.checkpoint"
            if len(layers) > 1:
                found = collect(source, model, layers, checkpoint)
                source.collected |= {(model, layer): each for layer, each in found.items()}
            pool = ThreadPoolExecutor(1 if alone else AT_ONCE, initializer=torch.set_num_threads, initargs=(of_each,))
            with graph.remembering([source.nets[model]]):
                try:
                    for _ in forks.results([pool.submit(source.drawn, model, layer) for layer in layers]):
                        bar.update()
                finally:
                    pool.shutdown(wait=wait, cancel_futures=True)
                    torch.set_num_threads(threads)
            for file in source.results.glob(f"{glob.escape(checkpoint.name)}*"):
                file.unlink(missing_ok=True)


TOGETHER = 2**31
"""Bytes that the means of layers which are collected together may take."""


def _together(source: NetSource, waiting: Sequence[tuple[str, str]]) -> list[tuple[str, list[str]]]:
    """Return which layers go into one pass: of one network, all with means or all without, and not too large."""
    groups: list[tuple[str, list[str]]] = []
    before, room = None, 0
    for model, layer in sorted(waiting, key=lambda each: (each[0], size_of_means(source, *each) > 0)):
        size = size_of_means(source, model, layer)
        if (model, size > 0) != before or size > room:
            groups.append((model, []))
            before, room = (model, size > 0), TOGETHER
        groups[-1][1].append(layer)
        room -= size
    return groups


NAMED = 20
"""Silent channels of a layer that are named at most; the page shows them all."""


def summary(source: NetSource) -> list[str]:
    """Return a line per layer: its channels, its receptive field, and which of them are silent."""
    lines = []
    for row in _rows(source):
        facts = source.drawn(row["model"], row["key"]).facts
        silent = [str(number) for number, channel in enumerate(facts["channels"]) if not channel["fires"]]
        verb = "never fires" if len(silent) == 1 else "never fire"
        first = ", ".join(silent[:NAMED]) + (", ..." if len(silent) > NAMED else "")
        named = f"{len(silent)} {verb}: {first}" if silent else "all fire"
        extent = "whole image" if facts["field"]["how"] == WHOLE_IMAGE else f"field of {row['size']} px"
        why = _not_maximized(source, row)
        line = f"{row['model']}, {row['key']}: {row['channels']} channels, {extent}; {named}"
        lines.append(f"{line}; not maximized: {why}" if why else line)
    return lines
