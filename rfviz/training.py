"""The recipe and the trainer: stochastic gradient descent on cross-entropy, top to bottom in one function.

Training is deterministic for a seed on one machine, and an interruption changes nothing: a training image depends on
(seed, epoch, index) alone, the order of an epoch on (seed, epoch), the learning rate on the step, and everything else
that training carries along (weights, batch-norm statistics, momentum) is in the checkpoint of the last epoch.
"""

import math
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader
from tqdm.auto import tqdm

from rfviz.data import Augmented, Evaluation, Labelled, szegedy, training_batches
from rfviz.errors import RfvizError, unknown
from rfviz.files import load_tensors, save_tensors
from rfviz.models import Net34
from rfviz.precision import PRECISIONS
from rfviz.whitening import Whitening

SCHEDULES = ("step", "one-cycle")


@dataclass(frozen=True)
class Recipe:
    """How a network is trained. The defaults are the paper's.

    Parameters
    ----------
    epochs, batch_size : int
    learning_rate, momentum, weight_decay : float
        Of stochastic gradient descent.
    schedule : {"step", "one-cycle"}
        ``"step"`` divides the learning rate by 10 every `drop_every` epochs; ``"one-cycle"`` raises it to
        `learning_rate` over the first 15 % of all steps and lets it fall to nearly 0 along a cosine.
    drop_every : int
        Epochs, for ``"step"``.
    crop : int
        Side of a training image, px.
    area : (float, float)
        Share of the image that a training crop takes, smallest and largest.
    distortion : float
        Strength of the photometric distortion; see `rfviz.data.szegedy`.
    window : int, optional
        Side of the square of a large photograph that the augmentation starts from, px.
    repeats : int
        Visits to each image in one epoch; more than 1 where a few large photographs stand for a data set.
    precision : {"float32", "bfloat16"}
        ``"bfloat16"`` multiplies in bfloat16 and keeps weights and statistics in float32.
    """

    epochs: int = 90
    batch_size: int = 256
    learning_rate: float = 0.01
    momentum: float = 0.9
    weight_decay: float = 1e-4
    schedule: str = "step"
    drop_every: int = 30
    crop: int = 224
    area: tuple[float, float] = (0.08, 1.0)
    distortion: float = 0.4
    window: int | None = None
    repeats: int = 1
    precision: str = "float32"

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "drop_every", "crop", "repeats", "window"):
            value = getattr(self, name)
            if name == "window" and value is None:
                continue
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise RfvizError(f"{name} is {value!r}: it must be a whole number greater than 0.")
        for name in ("learning_rate", "momentum", "weight_decay", "distortion"):
            value = getattr(self, name)
            if not isinstance(value, (int, float)) or not 0 <= value < math.inf:
                raise RfvizError(f"{name} is {value!r}: it must be a number from 0 up.")
        if self.learning_rate == 0:
            raise RfvizError("learning_rate is 0: it must be a number greater than 0.")
        if self.momentum >= 1:
            raise RfvizError(f"momentum is {self.momentum}: it must be from 0 up and below 1.")
        try:
            smallest, largest = (float(share) for share in self.area)
        except (TypeError, ValueError):
            smallest = largest = math.nan
        if not 0 < smallest <= largest <= 1:
            raise RfvizError(f"area is {self.area}: it must be two shares of the image, smallest first, at most 1.")
        object.__setattr__(self, "area", (smallest, largest))  # JSON has lists only
        if self.schedule not in SCHEDULES:
            raise unknown("schedule", self.schedule, SCHEDULES)
        if self.precision not in PRECISIONS:
            raise unknown("precision", self.precision, PRECISIONS)


def train(
    net: Net34,
    images: Labelled,
    evaluation: Evaluation,
    recipe: Recipe,
    whitening: Whitening,
    *,
    seed: int = 0,
    workers: int = 0,
    checkpoint: Path | None = None,
    progress: bool = False,
) -> list[dict]:
    """Train a network in place and leave it in evaluation mode.

    Parameters
    ----------
    net : Net34
        On the device to train on.
    images, evaluation : Labelled, Evaluation
        `evaluation` is only measured, after every epoch.
    recipe : Recipe
    whitening : Whitening
    seed : int
        Of the order of the images and of their augmentation; the weights are the caller's.
    workers : int
        Processes that load training images. Changes the speed, never the result.
    checkpoint : Path, optional
        Written after every epoch; where the file exists, training goes on from it.
    progress : bool
        Show a progress bar.

    Returns
    -------
    list of dict
        One entry per epoch: ``epoch``, ``learning_rate`` (of its last step), ``loss`` (mean training loss, nats),
        ``train_top1``, ``evaluation_loss``, ``evaluation_top1`` (shares), ``images_per_second`` (training only).

    Raises
    ------
    RfvizError
        If there is only one class, or the loss is no longer finite.
    """
    if len(images.classes) < 2:
        raise RfvizError(f"training needs at least two classes, but there is only {list(images.classes)}.")
    device = next(net.parameters()).device
    batch_size = min(recipe.batch_size, len(images) * recipe.repeats)
    samples = Augmented(
        images, szegedy(recipe.crop, recipe.area, recipe.distortion, recipe.window), seed, recipe.repeats
    )
    steps_per_epoch = len(training_batches(samples, batch_size, 0))
    optimizer = torch.optim.SGD(
        net.parameters(), recipe.learning_rate, recipe.momentum, weight_decay=recipe.weight_decay
    )
    net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    history = _resume(net, optimizer, checkpoint)

    with tqdm(
        total=recipe.epochs * steps_per_epoch,
        initial=len(history) * steps_per_epoch,
        desc=f"training {net.name}",
        unit="step",
        disable=not progress,
    ) as bar:
        for epoch in range(len(history), recipe.epochs):
            net.train()
            total, hits, seen, began = 0.0, 0, 0, time.perf_counter()
            for step, (batch, labels) in enumerate(training_batches(samples, batch_size, epoch, workers)):
                rate = learning_rate(recipe, epoch * steps_per_epoch + step, steps_per_epoch)
                for group in optimizer.param_groups:
                    group["lr"] = rate
                batch = whitening(batch.to(device)).contiguous(memory_format=torch.channels_last)
                labels = labels.to(device)
                with torch.autocast(device.type, torch.bfloat16, enabled=recipe.precision == "bfloat16"):
                    logits = net(batch)
                loss = F.cross_entropy(logits.float(), labels)
                if not loss.isfinite():
                    raise RfvizError(
                        f"the loss of {net.name} is {loss.item()} in epoch {epoch + 1} at learning rate "
                        f"{rate:.3g}: lower the learning rate."
                    )
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                total += loss.item() * len(batch)
                hits += int((logits.argmax(1) == labels).sum())
                seen += len(batch)
                bar.update()
            seconds = time.perf_counter() - began
            evaluation_loss, evaluation_top1 = evaluate(net, evaluation, whitening, batch_size)
            history.append(
                {
                    "epoch": epoch + 1,
                    "learning_rate": rate,
                    "loss": total / seen,
                    "train_top1": hits / seen,
                    "evaluation_loss": evaluation_loss,
                    "evaluation_top1": evaluation_top1,
                    "images_per_second": seen / seconds,
                }
            )
            bar.set_postfix(loss=f"{total / seen:.3f}", top1=f"{evaluation_top1:.1%}")
            if checkpoint is not None and epoch + 1 < recipe.epochs:
                _save(net, optimizer, history, checkpoint)
    net.eval()
    return history


def evaluate(net: nn.Module, images: Evaluation, whitening: Whitening, batch_size: int = 64) -> tuple[float, float]:
    """Return mean cross-entropy (nats) and top-1 accuracy (share) over all images, summed in float64."""
    net.eval()
    device = next(net.parameters()).device
    total, hits = torch.zeros((), dtype=torch.float64), 0
    with torch.inference_mode():
        for batch, labels in DataLoader(images, batch_size):
            logits, labels = net(whitening(batch.to(device))), labels.to(device)
            total += F.cross_entropy(logits, labels, reduction="none").double().sum().cpu()
            hits += int((logits.argmax(1) == labels).sum())
    return total.item() / len(images), hits / len(images)


def learning_rate(recipe: Recipe, step: int, steps_per_epoch: int) -> float:
    """Return the learning rate of a step, counted from 0 over all epochs."""
    if recipe.schedule == "step":
        return recipe.learning_rate * 0.1 ** (step // (recipe.drop_every * steps_per_epoch))
    steps = recipe.epochs * steps_per_epoch
    rise = max(1, round(0.15 * steps))
    if step < rise:
        return recipe.learning_rate * (step + 1) / rise
    return recipe.learning_rate * (0.5 + 0.5 * math.cos(math.pi * (step - rise) / (steps - rise)))


def _save(net: nn.Module, optimizer: torch.optim.SGD, history: list[dict], path: Path) -> None:
    weights = {f"weights/{name}": value for name, value in net.state_dict().items()}
    momenta = {
        f"momentum/{name}": optimizer.state[parameter]["momentum_buffer"] for name, parameter in net.named_parameters()
    }
    save_tensors({**weights, **momenta}, path, {"history": history})


def _resume(net: nn.Module, optimizer: torch.optim.SGD, path: Path | None) -> list[dict]:
    if path is None or not path.exists():
        return []
    try:
        saved, info = load_tensors(path)
    except SafetensorError:
        return []  # damaged: train from the start
    net.load_state_dict(
        {key.removeprefix("weights/"): value for key, value in saved.items() if key.startswith("weights/")}
    )
    for name, parameter in net.named_parameters():
        # empty_like keeps the memory format, on which the order of floating-point sums may depend
        optimizer.state[parameter]["momentum_buffer"] = torch.empty_like(parameter).copy_(saved[f"momentum/{name}"])
    return info["history"]
