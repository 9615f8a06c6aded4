"""The trainer: stochastic gradient descent on cross-entropy, top to bottom in one function.

Training is deterministic for a seed on one machine, and an interruption changes nothing (`rfviz.training.state`).
Several processes share the micro-batches of each step and leave the network that one process would have made of the
same micro-batches, to rounding; the running statistics of batch norm are those of the first process.
"""

import contextlib
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel
from tqdm.auto import tqdm

from rfviz.errors import RfvizError, first_line
from rfviz.images.batches import batches
from rfviz.images.data import Evaluation, Labelled
from rfviz.images.whitening import Whitening
from rfviz.nets import models
from rfviz.nets.models import ResidualNet
from rfviz.nets.precision import exact, threads
from rfviz.training import distributed
from rfviz.training import state as training_state
from rfviz.training.augmentation import Augmentation
from rfviz.training.firing import firing, reading, shortfall
from rfviz.training.loading import MicroBatches, Plan, training_batches, usual_workers
from rfviz.training.recipe import Recipe, learning_rate
from rfviz.training.state import States

ONE_PIXEL = 32
"""Largest side of a training image, px, at which the last maps of the networks have a single position."""


def train(
    net: ResidualNet,
    images: Labelled,
    evaluation: Evaluation,
    recipe: Recipe,
    whitening: Whitening,
    *,
    seed: int = 0,
    workers: int | None = None,
    checkpoint: Path | None = None,
    checkpoint_every: float = 60.0,
    watch: str | None = None,
    progress: bool = False,
) -> list[dict]:
    """Train a network in place and leave it in evaluation mode.

    Parameters
    ----------
    net : ResidualNet
        On the device to train on.
    images, evaluation : Labelled, Evaluation
        `evaluation` is only measured, after every epoch.
    recipe : Recipe
        Of a part that it freezes, weights and statistics stay as they are.
    whitening : Whitening
    seed : int
        Of the order of the images and of their augmentation; the weights are the caller's.
    workers : int, optional
        Processes that load training images; as many as are useful by default. Changes the speed, never the result.
    checkpoint : Path, optional
        Prefix of the files that keep the state (`rfviz.training.state.States`). If there are any, training resumes
        from the last one.
    checkpoint_every : float
        Seconds between two states.
    watch : str, optional
        Name of a module, such as ``maxpool``: how often its channels fire for the evaluation images is also recorded.
    progress : bool
        Show a progress bar.

    Returns
    -------
    list of dict
        One entry per epoch: ``epoch``, ``learning_rate`` (of its last step), ``loss`` (mean training loss, nats),
        ``train_top1``, ``evaluation_loss``, ``evaluation_top1`` (shares), ``images_per_second`` (training only); where
        a layer is watched also ``firing_rate``, the share of its neurons with response > 0 for each channel.

    Raises
    ------
    RfvizError
        If there is only one class, the batch cannot be divided between the processes, the processes or their number do
        not fit the checkpoint, torch.compile does not work, or the loss is no longer finite.
    """
    if len(images.classes) < 2:
        raise RfvizError(f"training needs at least two classes, but there is only {list(images.classes)}.")
    device = next(net.parameters()).device
    rank, processes = distributed.world()
    recipe = recipe.for_images(len(images))
    plan = _plan(recipe, len(images) * recipe.repeats, seed, rank, processes)
    augmentation = Augmentation(recipe.crop, recipe.area, recipe.distortion, recipe.window)
    workers = usual_workers(images, device) if workers is None else workers

    net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    _begin(net, recipe.frozen)
    learning = [each for each in net.parameters() if each.requires_grad]
    optimizer = torch.optim.SGD(learning, recipe.learning_rate, recipe.momentum, weight_decay=recipe.weight_decay)
    states = States(checkpoint)
    history, step, elapsed = [], 0, 0.0
    sums = torch.zeros(3, dtype=torch.float64, device=device)  # loss, hits and images of this epoch and process
    if (saved := states.last()) is not None:
        so_far = training_state.restore(net, optimizer, saved[0])
        sums += so_far.to(device) * (rank == 0)
        history, step, elapsed, before = (saved[1][name] for name in ("history", "step", "elapsed", "micro_batch"))
        if before != plan.micro_batch:
            raise RfvizError(
                f"{checkpoint} was begun with micro-batches of {before} images, now they would have "
                f"{plan.micro_batch}: go on with as many processes as before, or set micro_batch to that."
            )
    if len({int(each["step"]) for each in distributed.gather({"step": torch.tensor(step)})}) > 1:
        raise RfvizError(f"the processes do not all see the same checkpoints {checkpoint}: give them one folder.")
    model = _shared(net, recipe.compile)

    end, written, began = recipe.epochs * plan.steps, time.monotonic(), time.perf_counter() - elapsed
    keys = plan.keys(step, recipe.epochs)
    loaded = training_batches(MicroBatches(images, augmentation, plan), keys, workers, device)
    lately = _arriving(sums[0])  # the losses up to the step before: read one step late, so that a GPU always has work
    began_at = step
    stem_read: contextlib.AbstractContextManager[list[Tensor]] = (
        reading(net, "bn1") if recipe.alive else contextlib.nullcontext([])
    )
    with (
        tqdm(
            total=end, initial=step, desc=f"training {net.name}", unit="step", disable=not progress or rank > 0
        ) as bar,
        exact(device),
        threads(recipe.threads),
        stem_read as stem,
    ):
        while step < end:
            rate = learning_rate(recipe, step, plan.steps)
            optimizer.param_groups[0]["lr"] = rate
            optimizer.zero_grad()
            for part in plan.parts:
                batch = next(loaded)
                inputs = whitening(augmentation(batch)).contiguous(memory_format=torch.channels_last)
                waits = isinstance(model, DistributedDataParallel) and part != plan.parts[-1]
                with model.no_sync() if waits else contextlib.nullcontext():
                    with torch.autocast(device.type, torch.bfloat16, enabled=recipe.precision == "bfloat16"):
                        logits = _logits(model, inputs, recipe.compile and step == began_at)
                    loss = F.cross_entropy(logits, batch.labels, reduction="sum")
                    penalty = recipe.alive * len(inputs) * shortfall(stem[0]) if stem else 0
                    # a mean over the batch: the gradients of the processes, which see a share each, are averaged
                    ((loss + penalty) * (processes / plan.batch_size)).backward()
                sums[0] += loss.detach()
                sums[1] += (logits.argmax(1) == batch.labels).sum()
                sums[2] += len(inputs)
            optimizer.step()
            step += 1
            bar.update()

            waiting = rank == 0 and step < end and time.monotonic() - written >= checkpoint_every
            broken, due = distributed.any_says([not math.isfinite(lately()), waiting])
            if broken:
                raise _not_finite(net, recipe, plan, step - 1, states)
            lately = _arriving(sums[0])
            ends = step % plan.steps == 0
            if not (ends or due):
                continue
            whole = torch.stack([each["sums"] for each in distributed.gather({"sums": sums})]).sum(0)
            seconds = time.perf_counter() - began
            for buffer in net.buffers() if processes > 1 else ():  # every process gets the statistics of the first
                torch.distributed.broadcast(buffer, 0)
            if not (whole.isfinite().all() and all(value.isfinite().all() for value in net.parameters())):
                raise _not_finite(net, recipe, plan, step, states)
            if ends:
                with firing(net, watch) if watch else contextlib.nullcontext() as rates:
                    measured = evaluate(net, evaluation, whitening, workers=workers)
                _begin(net, recipe.frozen)
                history.append(_entry(step // plan.steps, rate, whole, measured, seconds))
                if rates:
                    history[-1]["firing_rate"] = rates()
                bar.set_postfix(loss=f"{history[-1]['loss']:.3f}", top1=f"{measured[1]:.1%}")
                began = time.perf_counter()
                for each in (whole, sums):
                    each.zero_()
                lately = _arriving(sums[0])
            if due:
                if rank == 0:
                    values = {"history": history, "elapsed": 0.0 if ends else seconds, "micro_batch": plan.micro_batch}
                    states.save(step, training_state.collect(net, optimizer, whole), values)
                written = time.monotonic()
    net.eval().requires_grad_()
    return history


def evaluate(
    net: nn.Module, images: Evaluation, whitening: Whitening, batch_size: int = 64, workers: int = 0
) -> tuple[float, float]:
    """Return mean cross-entropy (nats) and top-1 accuracy (share) over all images, summed in float64.

    Several processes share the images, each of which counts once, and all get the answer.
    """
    net.eval()
    parameter = next(net.parameters())
    device = parameter.device
    labels = torch.tensor(list(images.labels))
    found = {"index": [torch.zeros(0, dtype=torch.int64)], "loss": [torch.zeros(0)], "hit": [torch.zeros(0)]}
    cuda = device.type == "cuda"
    with torch.inference_mode(), exact(device):
        for batch in batches(images, batch_size, workers=workers, share=distributed.world(), pin_memory=cuda):
            logits = net(whitening(batch.images.to(device, non_blocking=cuda)).to(parameter))
            wanted = labels[batch.index].to(device)
            found["index"].append(batch.index)
            found["loss"].append(F.cross_entropy(logits, wanted, reduction="none"))
            found["hit"].append((logits.argmax(1) == wanted).float())
    mine = {name: torch.cat([value.to(device) for value in values]) for name, values in found.items()}
    whole = distributed.gather(mine)
    losses, hits = torch.zeros(2, len(images), dtype=torch.float64)
    for part in whole:  # by number, so that the sum does not depend on who computed what
        losses[part["index"]], hits[part["index"]] = part["loss"].double(), part["hit"].double()
    return losses.mean().item(), hits.mean().item()


def _begin(net: nn.Module, frozen: str | None) -> None:
    """Put a network into training mode, but for a part that is frozen: its statistics stay, and it gets no gradient."""
    net.train()
    for _, part in models.frozen_part(net, frozen) if frozen else ():
        part.eval().requires_grad_(False)


def _shared(net: nn.Module, compiles: bool) -> Any:
    """Return the network as it is called in training: compiled, and averaging the gradients of several processes."""
    model = torch.compile(net) if compiles else net
    if distributed.world()[1] == 1:
        return model
    # By default, torch groups gradients differently from the second step on, and so sums them in another order: a
    # training that is resumed would not be the same to the bit. On GPUs it would not be anyway.
    cpu = next(net.parameters()).device.type == "cpu"
    return DistributedDataParallel(model, find_unused_parameters=cpu)


def _arriving(number: Tensor) -> Callable[[], float]:
    """Begin to copy a number to the host; the returned function waits for that copy only, and gives the number."""
    if number.device.type != "cuda":
        kept = number.clone()
        return lambda: kept.item()
    host, event = torch.empty((), dtype=number.dtype, pin_memory=True), torch.cuda.Event()
    host.copy_(number, non_blocking=True)
    event.record()

    def wait() -> float:
        event.synchronize()
        return host.item()

    return wait


def _logits(model: nn.Module, inputs: Tensor, compiles: bool) -> Tensor:
    try:
        return model(inputs).float()
    except RuntimeError as error:  # torch's errors of compilation, which happens at the first call, are of this kind
        if not compiles or isinstance(error, torch.OutOfMemoryError):
            raise
        raise RfvizError(f"torch.compile does not work here ({first_line(error)}): leave it out.") from error


def _plan(recipe: Recipe, visits: int, seed: int, rank: int, processes: int) -> Plan:
    batch = min(recipe.batch_size, visits)
    micro = min(recipe.micro_batch or -(-batch // processes), batch)
    plan = Plan(visits, batch, micro, seed, (rank, processes))
    if plan.micro_batches % processes:
        raise RfvizError(
            f"a batch of {batch} images in micro-batches of {micro} cannot be shared evenly by {processes} processes: "
            "choose batch_size and micro_batch so that each step has a multiple of them."
        )
    if recipe.crop <= ONE_PIXEL and 1 in (micro, batch % micro):
        raise RfvizError(
            f"a micro-batch would hold a single image, of which batch norm in the last layers sees a single value at "
            f"{recipe.crop} px: choose another micro_batch or batch_size."
        )
    return plan


def _entry(epoch: int, rate: float, sums: Tensor, measured: tuple[float, float], seconds: float) -> dict:
    loss, hits, seen = sums.tolist()
    return {
        "epoch": epoch,
        "learning_rate": rate,
        "loss": loss / seen,
        "train_top1": hits / seen,
        "evaluation_loss": measured[0],
        "evaluation_top1": measured[1],
        "images_per_second": seen / seconds,
    }


def _not_finite(net: ResidualNet, recipe: Recipe, plan: Plan, steps: int, states: States) -> RfvizError:
    rate = learning_rate(recipe, steps - 1, plan.steps)
    files = states.files()
    return RfvizError(
        f"the loss of {net.name} is not a finite number at step {steps} (epoch {(steps - 1) // plan.steps + 1}), at "
        f"learning rate {rate:.3g}: lower the learning rate. "
        + (f"The last good checkpoint is {files[-1]}." if files else "There is no checkpoint yet.")
    )
