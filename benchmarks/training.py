"""Rows of training: the trainer against the bare step, and against the usual way of loading images."""

import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader

from rfviz import _torchvision_ops  # isort: skip  # noqa: F401  # torchvision may not load without it
from torchvision import datasets, transforms

from benchmarks import measure
from rfviz.images import folders, photographs
from rfviz.images.data import Evaluation, ImagesInMemory, Labelled
from rfviz.images.whitening import IMAGENET
from rfviz.nets import models
from rfviz.training import trainer as training
from rfviz.training.recipe import Recipe

CLASSES, BATCH, STEPS, RUNS = 14, 64, 8, 5
Row = dict[str, Any]


def network(device: str = "cpu") -> models.ResidualNet:
    torch.manual_seed(0)
    return models.resnet34(64, CLASSES).to(device)


def photographs_of(side: int, count: int) -> ImagesInMemory:
    """Random pieces of the photographs that come with scikit-image, `side` x `side * 4/3` px."""
    source = photographs.load(side).train
    generator = np.random.default_rng(0)
    images = []
    for i in range(count):
        whole = source[i % CLASSES][0]
        height, width = min(side, whole.shape[1]), min(side * 4 // 3, whole.shape[2])
        top, left = (int(generator.integers(a - b + 1)) for a, b in zip(whole.shape[1:], (height, width), strict=True))
        images.append(whole[:, top : top + height, left : left + width].contiguous())
    return ImagesInMemory(images, [i % CLASSES for i in range(count)], photographs.CLASSES)


def bare(net: nn.Module, inputs: Tensor, labels: Tensor, precision: str, steps: int) -> float:
    """Images per second of the step alone, on one batch that lies in memory, whitened."""
    net.train().to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(net.parameters(), 0.01, 0.9, weight_decay=1e-4)

    def step() -> None:
        optimizer.zero_grad()
        with torch.autocast(inputs.device.type, torch.bfloat16, enabled=precision == "bfloat16"):
            logits = net(inputs)
        F.cross_entropy(logits.float(), labels).backward()
        optimizer.step()

    return rate(step, steps, len(inputs), inputs.device)


def rate(step: Callable[[], None], steps: int, images: int, device: torch.device) -> float:
    synchronize(device)
    began = time.perf_counter()
    for _ in range(steps):
        step()
    synchronize(device)
    return steps * images / (time.perf_counter() - began)


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def ours(images: Labelled, recipe: Recipe, device: str = "cpu", workers: int | None = None) -> float:
    """Images per second of the second epoch of the trainer."""
    held_out = Evaluation(ImagesInMemory([images[0][0]], [0], images.classes), recipe.crop, recipe.crop)
    history = training.train(network(device), images, held_out, recipe, IMAGENET, workers=workers)
    return history[-1]["images_per_second"]


def in_turn(works: dict[str, Callable[[], float]], runs: int) -> dict[str, Any]:
    """Run the works in turn; return median rates, and the median, smallest and largest ratio of first to second."""
    found: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(runs):
        for name, work in works.items():
            found[name].append(1 / work())
    work, reference = works
    compared = measure.compared(found, work, reference)
    return {
        "images_per_second": 1 / compared["seconds"],
        "reference_images_per_second": 1 / compared["reference_seconds"],
        "share": 1 / compared["ratio"],
        "shares": [1 / ratio for ratio in reversed(compared["ratios"])],
        "runs": runs,
    }


def _against_the_step(
    side: int, crop: int, batch: int, steps: int, precision: str, target: float, device: str, workers: int | None = None
) -> Row:
    recipe = Recipe(epochs=2, batch_size=batch, crop=crop, precision=precision)
    images = photographs_of(side, steps * batch)
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(batch, 3, crop, crop, generator=generator).to(device, memory_format=torch.channels_last)
    labels = torch.arange(batch, device=device) % CLASSES
    net = network(device)
    bare(net, inputs, labels, precision, 2)
    found = in_turn(
        {
            "ours": lambda: ours(images, recipe, device, workers),
            "step": lambda: bare(net, inputs, labels, precision, steps),
        },
        RUNS,
    )
    return {
        "work": f"training, {crop} px, {precision}, images in memory",
        "reference": "the bare step on one batch",
        "batch": batch,
        "target": f">= {target:.0%}",
        "reached": found["share"] >= target,
        "peak_mb": torch.cuda.max_memory_allocated() / 2**20 if device == "cuda" else measure.peak_mb(),
        **found,
    }


def train_step() -> Iterator[Row]:
    for precision in ("float32", "bfloat16"):
        yield _against_the_step(128, 112, BATCH, STEPS, precision, 0.95, "cpu")


def train_gpu() -> Iterator[Row]:
    """Full width at 224 px, as the presets for ImageNet do it."""
    if torch.cuda.is_available():
        yield _against_the_step(256, 224, 256, 30, "bfloat16", 0.90, "cuda")


def train_loader() -> Iterator[Row]:
    """Against torchvision's classification reference: ImageFolder, its transforms in Pillow, workers, normalisation."""
    recipe = Recipe(epochs=2, batch_size=BATCH, crop=112)
    with tempfile.TemporaryDirectory() as folder:
        for part in ("train", "val"):
            source = photographs_of(256, STEPS * BATCH if part == "train" else CLASSES)
            for i in range(len(source)):
                image, label = source[i]
                path = Path(folder, part, f"{label:02d}", f"{i:04d}.jpg")
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(image.permute(1, 2, 0).numpy()).save(path, quality=90)
        peer_images = datasets.ImageFolder(
            f"{folder}/train",
            transforms.Compose(
                [
                    transforms.RandomResizedCrop(recipe.crop),
                    transforms.RandomHorizontalFlip(),
                    transforms.ColorJitter(*3 * (recipe.distortion,)),
                    transforms.ToTensor(),
                    transforms.Normalize(IMAGENET.mean.tolist(), (1 / IMAGENET.matrix.diagonal()).tolist()),
                ]
            ),
        )

        def peer() -> float:
            """Images per second of a second epoch, with two workers that are there already."""
            net = network().train().to(memory_format=torch.channels_last)
            optimizer = torch.optim.SGD(net.parameters(), recipe.learning_rate, 0.9, weight_decay=1e-4)
            loader = DataLoader(
                peer_images, BATCH, shuffle=True, num_workers=2, persistent_workers=True, drop_last=True
            )
            for _ in range(2):
                began = time.perf_counter()
                for inputs, labels in loader:
                    optimizer.zero_grad()
                    F.cross_entropy(net(inputs.contiguous(memory_format=torch.channels_last)), labels).backward()
                    optimizer.step()
                seconds = time.perf_counter() - began
            return STEPS * BATCH / seconds

        began = time.perf_counter()
        kept = folders.read(folders.divided(folder, short_side=128)).train
        reading = (time.perf_counter() - began) / (len(kept) + CLASSES)
        found = in_turn({"ours": lambda: ours(kept, recipe), "peer": peer}, RUNS)
        yield {
            "work": "training, 112 px, float32, JPEG files of 256 px",
            "reference": "torchvision's ImageFolder and transforms, 2 workers",
            "batch": BATCH,
            "times_faster": found["share"],
            "reading_ms": 1000 * reading,
            "peak_mb": measure.peak_mb(),
            **found,
        }
        read_each_time = folders.divided(folder).train
        found = in_turn({"ours": lambda: ours(read_each_time, recipe, workers=2), "peer": peer}, RUNS)
        yield {
            "work": "the same, files read anew each epoch, 2 workers",
            "reference": "torchvision's ImageFolder and transforms, 2 workers",
            "batch": BATCH,
            "times_faster": found["share"],
            "peak_mb": measure.peak_mb(),
            **found,
        }
