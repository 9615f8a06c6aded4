"""How a network is trained: the numbers of the recipe, and the learning rate of every step."""

import dataclasses
import math
from dataclasses import dataclass
from typing import Literal, get_args

from rfviz.errors import RfvizError, unknown

Schedule = Literal["step", "one-cycle"]
Precision = Literal["float32", "bfloat16"]

PARTS = ("conv1", "layer1", "layer2", "layer3", "layer4")
"""Where the frozen part of a network may end."""


@dataclass(frozen=True)
class Recipe:
    """How a network is trained. The defaults are the paper's.

    Parameters
    ----------
    epochs : int
    batch_size : int
        Images per step of the optimizer.
    micro_batch : int, optional
        Images that go through the network together; their gradients are summed until they make up a batch, so that
        any batch fits into any memory. Batch norm sees the micro-batch, not the batch. The default is the whole batch,
        divided by the number of processes.
    learning_rate, momentum, weight_decay : float
        Of stochastic gradient descent.
    decay : float, optional
        Cumulative decay D of the whole training (`Recipe.cumulative_decay`), in place of a weight decay: that follows
        from it and from the number of steps (`Recipe.for_images`).
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
        Strength of the photometric distortion; see `rfviz.training.augmentation`.
    window : int, optional
        Side of the square of a large photograph that the augmentation starts from, px.
    repeats : int
        Visits to each image in one epoch; more than 1 where a few large photographs stand for a data set.
    precision : {"float32", "bfloat16"}
        ``"bfloat16"`` multiplies in bfloat16 and keeps weights and statistics in float32.
    compile : bool
        Let `torch.compile` fuse the operations: faster on GPUs, and rounded differently.
    alive : float
        Weight of the penalty `rfviz.training.firing.shortfall`, which keeps every channel of the stem firing.
    frozen : str, optional
        Name of a module, such as ``layer3``: it and everything before it keeps the weights that were given, and only
        what comes after is trained.
    threads : int, optional
        Of a CPU, however many it has, in training and, if all networks of a run have the same, in every result: sums
        are rounded in another order with another number, and a training makes large differences of small ones. None
        takes as many as there are.

    Raises
    ------
    RfvizError
        If a value is impossible.
    """

    epochs: int = 90
    batch_size: int = 256
    micro_batch: int | None = None
    learning_rate: float = 0.01
    momentum: float = 0.9
    weight_decay: float = 1e-4
    decay: float | None = None
    schedule: Schedule = "step"
    drop_every: int = 30
    crop: int = 224
    area: tuple[float, float] = (0.08, 1.0)
    distortion: float = 0.4
    window: int | None = None
    repeats: int = 1
    precision: Precision = "float32"
    compile: bool = False
    alive: float = 0.0
    frozen: str | None = None
    threads: int | None = None

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "micro_batch", "drop_every", "crop", "repeats", "window", "threads"):
            value = getattr(self, name)
            if name in ("window", "micro_batch", "threads") and value is None:
                continue
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise RfvizError(f"{name} is {value!r}: it must be a whole number greater than 0.")
        for name in ("learning_rate", "momentum", "weight_decay", "distortion", "alive"):
            value = getattr(self, name)
            if not isinstance(value, (int, float)) or not 0 <= value < math.inf:
                raise RfvizError(f"{name} is {value!r}: it must be a number from 0 up.")
        if self.decay is not None and (not isinstance(self.decay, (int, float)) or not 0 <= self.decay < math.inf):
            raise RfvizError(f"decay is {self.decay!r}: it must be a number from 0 up.")
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
        if self.frozen not in (None, *PARTS):
            raise unknown("frozen part", self.frozen, PARTS)
        if not isinstance(self.compile, bool):
            raise RfvizError(f"compile is {self.compile!r}: it must be true or false.")
        for name, choices in (("schedule", get_args(Schedule)), ("precision", get_args(Precision))):
            if getattr(self, name) not in choices:
                raise unknown(name, getattr(self, name), choices)

    def steps(self, images: int) -> int:
        """Return the steps in one epoch over so many images: whole batches."""
        visits = images * self.repeats
        return visits // min(self.batch_size, visits)

    def for_images(self, images: int) -> "Recipe":
        """Return the recipe for a training on so many images: with the weight decay that makes the cumulative one."""
        if self.decay is None:
            return self
        of_one = dataclasses.replace(self, weight_decay=1.0).cumulative_decay(self.steps(images))
        return dataclasses.replace(self, weight_decay=self.decay / of_one)

    def cumulative_decay(self, steps_per_epoch: int) -> float:
        """Return D = sum over all steps of learning rate * weight decay / (1 - momentum).

        exp(-D) is what is left at the end of a weight that no gradient holds.
        """
        rates = (learning_rate(self, step, steps_per_epoch) for step in range(self.epochs * steps_per_epoch))
        return math.fsum(rates) * self.weight_decay / (1 - self.momentum)


def learning_rate(recipe: Recipe, step: int, steps_per_epoch: int) -> float:
    """Return the learning rate of a step, counted from 0 over all epochs."""
    if recipe.schedule == "step":
        return recipe.learning_rate * 0.1 ** (step // (recipe.drop_every * steps_per_epoch))
    steps = recipe.epochs * steps_per_epoch
    rise = max(1, round(0.15 * steps))
    if step < rise:
        return recipe.learning_rate * (step + 1) / rise
    return recipe.learning_rate * (0.5 + 0.5 * math.cos(math.pi * (step - rise) / (steps - rise)))
