"""What a training would take on this machine, from a short probe: steps, images, hours and memory."""

import dataclasses
import time
from collections.abc import Iterator
from dataclasses import dataclass

import psutil
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rfviz.errors import RfvizError
from rfviz.images import photographs
from rfviz.images.data import Evaluation, ImagesInMemory
from rfviz.images.whitening import NONE
from rfviz.lab import provenance, sources
from rfviz.lab.presets import Preset
from rfviz.nets import models
from rfviz.nets.network import Network
from rfviz.training import trainer

SIZES = {"caltech101": (6982, 1695, 101), "imagenette": (9469, 3925, 10), "imagenet": (1281167, 50000, 1000)}
"""Training images, evaluation images and classes of torchvision's data sets, divided as in `rfviz.lab.sources`."""

CPU_BATCH = 16
"""Images of a probe on a CPU, at most; on a GPU the whole micro-batch, as the speed depends on it."""

STEPS = {"cpu": 2, "cuda": 30}
"""Steps of a probe, after as many to warm up."""

GIB = 2**30


@dataclass(frozen=True)
class Speed:
    """What the probe of one network measured.

    Parameters
    ----------
    training, evaluation : float
        Images per second.
    fixed : int
        Bytes that the network takes whatever the micro-batch: weights, gradients and momentum.
    per_image : int
        Bytes that each image of a micro-batch adds: what the way back needs of the way there.
    """

    training: float
    evaluation: float
    fixed: int
    per_image: int


def set_size(preset: Preset) -> tuple[int, int, int]:
    """Return how many training images, evaluation images and classes a preset has; nothing is downloaded."""
    if preset.source == "folder":
        train, evaluation = sources.of_folder(preset)
        return len(train), len(evaluation), len(train.classes)
    if preset.source == "photographs":
        train, evaluation = photographs.load(preset.crop, preset.classes)
        return len(train), len(evaluation), preset.classes
    return SIZES[preset.source]


def probe(network: Network, preset: Preset, classes: int, device: torch.device, *, progress: bool = False) -> Speed:
    """Train a network on a few random images that are in memory already, with the trainer itself.

    Raises
    ------
    RfvizError
        If not even that fits into the memory of a GPU.
    """
    recipe = preset.recipe(network.name)
    size = min(recipe.micro_batch or recipe.batch_size, recipe.batch_size)
    if device.type == "cpu":
        size = min(size, CPU_BATCH)
    side = recipe.window or (preset.short_side or 4 * recipe.crop // 3)
    images = _random(size * STEPS[device.type], side, classes)
    held_out = Evaluation(_random(size, preset.evaluation_crop or recipe.crop, classes))
    short = dataclasses.replace(recipe, epochs=2, batch_size=size, micro_batch=None, repeats=1, learning_rate=1e-6)
    torch.manual_seed(0)
    net = models.build(network.name, preset.width, classes).to(device)
    try:
        history = trainer.train(net, images, held_out, short, NONE, progress=progress)
        began = time.perf_counter()
        trainer.evaluate(net, held_out, NONE)
        seconds = time.perf_counter() - began
        batch = torch.rand(2 * size, 3, recipe.crop, recipe.crop, device=device)
        few, many = (saved_bytes(net, part, recipe.precision) for part in (batch[:size], batch))
    except torch.OutOfMemoryError as error:
        raise RfvizError(
            f"{size} images at a time do not fit into the memory of {provenance.device_name(device)}: "
            f"give a smaller micro-batch, such as --set micro_batch={max(1, size // 4)}."
        ) from error
    weights = sum(value.numel() * value.element_size() for value in net.parameters())
    per_image = (many - few) // size  # minus what a pass keeps whatever the batch
    return Speed(history[-1]["images_per_second"], size / seconds, 3 * weights, per_image)


def saved_bytes(net: nn.Module, images: Tensor, precision: str = "float32") -> int:
    """Return how many bytes a forward pass keeps for the way back, besides the weights."""
    kept: dict[int, int] = {}
    weights = {value.untyped_storage().data_ptr() for value in net.parameters()}
    alive: list[Tensor] = []  # so that no address is used twice

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
            alive.append(tensor)
        return tensor

    net.train()
    with (
        torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor),
        torch.autocast(images.device.type, torch.bfloat16, enabled=precision == "bfloat16"),
    ):
        F.cross_entropy(net(images).float(), torch.zeros(len(images), dtype=torch.int64, device=images.device))
    return sum(kept.values())


def report(preset: Preset, device: torch.device | None = None, *, progress: bool = False) -> Iterator[str]:
    """Go through the lines of a report for people, as they are known.

    Parameters
    ----------
    preset : Preset
    device : torch.device, optional
        A CUDA GPU where there is one.
    progress : bool
        Show progress bars.
    """
    device = device or torch.device("cuda" if torch.cuda.is_available() else "cpu")
    train, held_out, classes = set_size(preset)
    yield (
        f"{preset.name}: {train:,} training images and {held_out:,} held-out images of {classes:,} classes; "
        f"networks of width {preset.width}, on {provenance.device_name(device)}"
    )
    total = 0.0
    for network in preset.members:
        recipe = preset.recipe(network.name)
        visits = train * recipe.repeats
        batch = min(recipe.batch_size, visits)
        steps = recipe.epochs * (visits // batch)
        speed = probe(network, preset, classes, device, progress=progress)
        hours = (steps * batch / speed.training + recipe.epochs * held_out / speed.evaluation) / 3600
        total += hours
        often = f" of {recipe.repeats} visits to each image" if recipe.repeats > 1 else ""
        together = min(recipe.micro_batch or batch, batch)
        needed, for_16 = (speed.fixed + images * speed.per_image for images in (together, 16))
        smaller = f"; with a smaller micro_batch less ({for_16 / GIB:.1f} GiB for 16)" if together > 16 else ""
        yield (
            f"{network.title}: {recipe.epochs} epochs{often}, {steps:,} steps of {batch}, "
            f"{steps * batch:,} images of {recipe.crop} px; {speed.training:,.1f} images/s in the probe: "
            f"about {duration(hours)}"
        )
        yield f"  memory: about {needed / GIB:.1f} GiB for {together} images at a time{smaller}"
        yield f"  states on disk: {2 * 2 * speed.fixed / 3 / GIB:.2f} GiB while it trains"
    yield (
        f"together: about {duration(total)} of training with one process, if reading the images keeps up (from a few "
        "steps, so a rough number; a machine with other work is slower)"
    )
    if device.type == "cuda":
        yield f"memory of this GPU: {torch.cuda.get_device_properties(device).total_memory / GIB:.0f} GiB"
    else:
        yield f"memory of this machine: {psutil.virtual_memory().total / GIB:.0f} GiB"


def duration(hours: float) -> str:
    """Return a duration in the unit that people would take."""
    if hours < 1 / 60:
        return f"{hours * 3600:.0f} s"
    if hours < 1:
        return f"{hours * 60:.0f} min"
    return f"{hours:.1f} h" if hours < 72 else f"{hours / 24:.0f} days"


def _random(count: int, side: int, classes: int) -> ImagesInMemory:
    generator = torch.Generator().manual_seed(0)
    images = [torch.randint(0, 256, (3, side, side), dtype=torch.uint8, generator=generator) for _ in range(count)]
    return ImagesInMemory(images, [i % classes for i in range(count)], [str(i) for i in range(classes)])
