"""The recipe, the trainer and what an interruption may not change."""

import copy
import dataclasses
import functools
import itertools
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rfviz.errors import RfvizError
from rfviz.images.data import Evaluation, ImagesInMemory
from rfviz.images.whitening import NONE, fit
from rfviz.kernels.responses import collect
from rfviz.nets import models
from rfviz.storage.files import load_tensors
from rfviz.training import state as training_state
from rfviz.training import trainer as training
from rfviz.training.augmentation import Augmentation, TrainingBatch
from rfviz.training.loading import MicroBatches, Plan
from rfviz.training.recipe import Recipe, Schedule, learning_rate
from rfviz.training.state import States
from rfviz.training.trainer import evaluate, train

torch.set_num_threads(1)  # also where a child process imports this module

SHORT = Recipe(epochs=4, batch_size=8, learning_rate=0.05, drop_every=2, crop=32, area=(0.5, 1.0))
HISTORY_KEYS = {
    "epoch", "learning_rate", "loss", "train_top1", "evaluation_loss", "evaluation_top1", "images_per_second",
}  # fmt: skip


def two_colours(count: int = 16, side: int = 32) -> ImagesInMemory:
    """Reddish noise against bluish noise, in turn."""
    generator = torch.Generator().manual_seed(0)
    images = []
    for i in range(count):
        image = torch.randint(0, 80, (3, side, side), generator=generator, dtype=torch.uint8)
        image[2 * (i % 2)] += 150
        images.append(image)
    return ImagesInMemory(images, [i % 2 for i in range(count)], ("red", "blue"))


def small_net(seed: int = 0) -> models.ResidualNet:
    torch.manual_seed(seed)
    return models.build("resnet18", 4, 2)


def run(net, recipe=SHORT, images=None, **options) -> list[dict]:
    """Train on the two colours and leave the measured speed out of the history."""
    images = images or two_colours()
    history = train(net, images, Evaluation(two_colours()), recipe, NONE, **options)
    return [{key: value for key, value in entry.items() if key != "images_per_second"} for entry in history]


def assert_same_weights(a: nn.Module, b: nn.Module) -> None:
    first, second = a.state_dict(), b.state_dict()
    assert first.keys() == second.keys()
    assert [name for name in first if not torch.equal(first[name], second[name])] == []


@pytest.fixture(scope="module")
def uninterrupted():
    net = small_net()
    return net, run(net)


# -- learning rate ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("steps_per_epoch", [1, 7])
def test_step_schedule_is_the_papers(steps_per_epoch):
    recipe = Recipe()
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.01)
    reference = torch.optim.lr_scheduler.StepLR(optimizer, step_size=30, gamma=0.1)
    for epoch in range(90):
        expected = optimizer.param_groups[0]["lr"]
        for step in range(steps_per_epoch):
            assert learning_rate(recipe, epoch * steps_per_epoch + step, steps_per_epoch) == pytest.approx(
                expected, rel=1e-12
            )
        optimizer.step()
        reference.step()
    rates = [learning_rate(recipe, epoch * steps_per_epoch, steps_per_epoch) for epoch in (0, 29, 30, 59, 60, 89)]
    assert rates == pytest.approx([1e-2, 1e-2, 1e-3, 1e-3, 1e-4, 1e-4], rel=1e-12)


def test_one_cycle_rises_then_falls_to_nearly_zero():
    recipe = Recipe(epochs=10, learning_rate=0.4, schedule="one-cycle")
    rates = [learning_rate(recipe, step, 20) for step in range(200)]
    top = rates.index(max(rates))
    assert rates[0] == pytest.approx(0.4 / 30)
    assert max(rates) == pytest.approx(0.4)
    assert top == 29  # 15 % of 200 steps
    assert all(a < b for a, b in itertools.pairwise(rates[: top + 1]))
    assert all(a > b for a, b in itertools.pairwise(rates[top + 1 :]))
    assert 0 < rates[-1] < 1e-3 * 0.4
    assert rates[30 + 85] == pytest.approx(0.2)  # half-way down


@pytest.mark.parametrize("schedule", get_args(Schedule))
@pytest.mark.parametrize("steps", [1, 2, 3])
def test_schedules_are_positive_for_very_short_trainings(schedule, steps):
    recipe = Recipe(epochs=steps, learning_rate=0.1, schedule=schedule)
    assert all(0 < learning_rate(recipe, step, 1) <= 0.1 for step in range(steps))


def test_the_recipe_is_read_without_torch():
    """The command line, which fills it in, starts at once."""
    command = "import sys, rfviz.training.recipe; sys.exit('torch' in sys.modules)"
    subprocess.run(
        [sys.executable, "-c", command], env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}, check=True
    )


def test_cumulative_decay_of_the_papers_recipe_on_imagenet():
    """30 epochs at each of three learning rates: 1.7."""
    steps = 1_281_167 // 256
    expected = 30 * steps * (0.01 + 0.001 + 0.0001) * 1e-4 / (1 - 0.9)
    assert Recipe().cumulative_decay(steps) == pytest.approx(expected, rel=1e-12) == pytest.approx(1.7, abs=0.05)


@pytest.mark.parametrize("schedule", get_args(Schedule))
def test_cumulative_decay_is_what_shrinks_a_weight_without_gradient(schedule):
    recipe = Recipe(epochs=40, schedule=schedule, drop_every=15, weight_decay=0.03, momentum=0.8)
    weight = nn.Parameter(torch.ones(1, dtype=torch.float64))
    weight.grad = torch.zeros_like(weight)
    optimizer = torch.optim.SGD([weight], recipe.learning_rate, recipe.momentum, weight_decay=recipe.weight_decay)
    decay = 0.0
    for step in range(40 * 50):
        optimizer.param_groups[0]["lr"] = learning_rate(recipe, step, 50)
        decay += optimizer.param_groups[0]["lr"] * 0.03 / 0.2
        optimizer.step()
    assert recipe.cumulative_decay(50) == pytest.approx(decay, rel=1e-12)
    assert -weight.log().item() == pytest.approx(decay, rel=0.01)  # momentum begins at 0


# -- the update -------------------------------------------------------------------------------------------------------


class MeanColour(nn.Module):
    """Softmax regression on the mean colour: its gradient is easy to write down."""

    name = "mean colour"

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(3, 2)
        nn.init.constant_(self.fc.weight, 0.1)
        nn.init.constant_(self.fc.bias, -0.2)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(x.mean((2, 3)))


def test_steps_equal_a_hand_written_update():
    values = torch.tensor([[250, 10, 40], [20, 30, 200], [180, 90, 60], [0, 120, 255]], dtype=torch.uint8)
    labels = [0, 1, 0, 1]
    # images of one colour: no crop or flip changes them, and one batch holds them all, so their order does not count
    images = ImagesInMemory([v[:, None, None].expand(3, 8, 8).contiguous() for v in values], labels, ("a", "b"))
    recipe = Recipe(
        epochs=4, batch_size=4, learning_rate=0.5, momentum=0.8, weight_decay=0.3, drop_every=2, crop=8, distortion=0
    )
    whitening = fit(images.images)
    net = MeanColour()
    history = train(net, images, Evaluation(images), recipe, whitening)

    x = values.double() / 255
    x = (x - x.mean(0)) / x.std(0, unbiased=False)
    w = torch.full((2, 3), 0.1, dtype=torch.float64)
    b = torch.full((2,), -0.2, dtype=torch.float64)
    vw, vb = torch.zeros_like(w), torch.zeros_like(b)
    losses = []
    for rate in (0.5, 0.5, 0.05, 0.05):
        p = (x @ w.T + b).softmax(1)
        losses.append(-p[range(4), labels].log().mean().item())
        error = (p - F.one_hot(torch.tensor(labels), 2)) / 4
        vw = 0.8 * vw + error.T @ x + 0.3 * w
        vb = 0.8 * vb + error.sum(0) + 0.3 * b
        w, b = w - rate * vw, b - rate * vb
    assert torch.allclose(net.fc.weight.double(), w, rtol=0, atol=1e-6)
    assert torch.allclose(net.fc.bias.double(), b, rtol=0, atol=1e-6)
    assert [entry["loss"] for entry in history] == pytest.approx(losses, abs=1e-6)
    assert [entry["learning_rate"] for entry in history] == pytest.approx([0.5, 0.5, 0.05, 0.05])


def test_first_epoch_equals_torch_sgd_on_the_same_batches():
    """The real network, several steps: batch norm in training mode, batches in the order of the loader."""
    images, recipe = two_colours(12), Recipe(epochs=1, batch_size=4, learning_rate=0.05, crop=32)
    whitening = fit(images.images)
    net, reference = small_net(), small_net()
    history = train(net, images, Evaluation(images), recipe, whitening, seed=3)

    optimizer = torch.optim.SGD(reference.parameters(), 0.05, 0.9, weight_decay=1e-4)
    reference.to(memory_format=torch.channels_last)
    losses = []
    micro_batches, augmentation = MicroBatches(images, Augmentation(32), Plan(12, 4, 4, seed=3)), Augmentation(32)
    for step in range(3):
        batch = micro_batches[0, step, 0]
        optimizer.zero_grad()
        inputs = whitening(augmentation(batch)).contiguous(memory_format=torch.channels_last)
        loss = F.cross_entropy(reference(inputs), batch.labels)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    for value, expected in zip(net.state_dict().values(), reference.state_dict().values(), strict=True):
        torch.testing.assert_close(value, expected, rtol=1e-5, atol=1e-6)  # a sum over 4, or a mean times 4
    assert history[0]["loss"] == pytest.approx(sum(losses) / 3, rel=1e-6)


# -- learning ---------------------------------------------------------------------------------------------------------


def test_learns_to_tell_two_colours_apart():
    recipe = Recipe(epochs=24, batch_size=16, learning_rate=0.05, schedule="one-cycle", crop=32, area=(0.5, 1.0))
    images = two_colours(32)
    history = train(small_net(), images, Evaluation(images), recipe, fit(images.images))
    assert history[-1]["loss"] < 0.7 * history[0]["loss"]
    assert history[-1]["train_top1"] > 0.8
    assert history[-1]["evaluation_top1"] == 1


def test_history_has_one_entry_per_epoch():
    recipe = Recipe(epochs=5, batch_size=4, learning_rate=0.02, drop_every=2, crop=8)
    history = train(MeanColour(), two_colours(10), Evaluation(two_colours(10)), recipe, NONE)
    assert [entry["epoch"] for entry in history] == [1, 2, 3, 4, 5]
    assert all(entry.keys() == HISTORY_KEYS for entry in history)
    rates = [entry["learning_rate"] for entry in history]
    assert rates == pytest.approx([2e-2, 2e-2, 2e-3, 2e-3, 2e-4])
    for entry in history:
        assert 0 <= entry["train_top1"] <= 1 and 0 <= entry["evaluation_top1"] <= 1
        assert entry["images_per_second"] > 0


def test_history_of_one_cycle_has_the_rate_of_each_epochs_last_step():
    recipe = Recipe(epochs=3, batch_size=4, learning_rate=0.02, schedule="one-cycle", crop=8)
    history = train(MeanColour(), two_colours(8), Evaluation(two_colours(8)), recipe, NONE)
    assert [entry["learning_rate"] for entry in history] == [learning_rate(recipe, step, 2) for step in (1, 3, 5)]


def test_history_notes_how_often_channels_of_a_watched_layer_fire(tiles):
    images, recipe = Evaluation(tiles.source, None, 48), Recipe(epochs=2, batch_size=8, crop=48)
    torch.manual_seed(0)
    net = models.resnet34(6, 4)
    history = train(net, tiles.source, images, recipe, NONE, watch="maxpool")
    expected = collect(net, images, ["maxpool"], mean_stimulus=False)["maxpool"].firing_rate
    assert history[-1]["firing_rate"] == expected.tolist()
    assert history[0]["firing_rate"] != history[1]["firing_rate"]
    assert all(entry.keys() == HISTORY_KEYS | {"firing_rate"} for entry in history)


def test_history_measures_the_evaluation_images():
    net, images = MeanColour(), Evaluation(two_colours(6))
    history = train(net, two_colours(8), images, Recipe(epochs=2, batch_size=4, crop=8), NONE)
    assert evaluate(net, images, NONE, 4) == (history[-1]["evaluation_loss"], history[-1]["evaluation_top1"])


def test_fewer_images_than_a_batch_are_one_batch():
    recipe = Recipe(epochs=2, batch_size=256, learning_rate=0.1, drop_every=1, crop=8)
    history = train(MeanColour(), two_colours(6), Evaluation(two_colours(6)), recipe, NONE)
    assert [entry["learning_rate"] for entry in history] == pytest.approx([0.1, 0.01])
    assert [entry["train_top1"] * 6 % 1 for entry in history] == pytest.approx([0, 0])


class Counting:
    """Passes a labelled set on and notes which images were asked for."""

    def __init__(self, images: ImagesInMemory):
        self.images, self.asked = images, []
        self.classes, self.labels, self.fingerprint = images.classes, images.labels, images.fingerprint

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        self.asked.append(index)
        return self.images[index]


def test_every_image_is_trained_on_repeats_times_per_epoch():
    images = Counting(two_colours(6))
    recipe = Recipe(epochs=2, batch_size=4, crop=8, repeats=2)
    train(MeanColour(), images, Evaluation(two_colours(6)), recipe, NONE)
    first, second = images.asked[:12], images.asked[12:]
    assert sorted(first) == sorted(second) == sorted([0, 1, 2, 3, 4, 5] * 2)
    assert first != second


def test_bfloat16_keeps_weights_in_float32():
    recipe = dataclasses.replace(SHORT, epochs=1, batch_size=16)  # one step: later ones depend on rounding too much
    rough, exact = small_net(), small_net()
    losses = [
        run(net, dataclasses.replace(recipe, precision=precision))[0]["loss"]
        for net, precision in ((rough, "bfloat16"), (exact, "float32"))
    ]
    assert {value.dtype for value in rough.parameters()} == {torch.float32}
    assert not torch.equal(rough.conv1.weight, exact.conv1.weight)
    assert losses[0] != losses[1]
    assert losses[0] == pytest.approx(losses[1], rel=0.02)


# -- evaluation -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch_size", [1, 3, 10, 64])
def test_evaluate_equals_a_direct_computation(resnet, tiles, batch_size):
    images = ImagesInMemory([tiles.source[i][0] for i in range(0, 60, 6)], [i % 4 for i in range(10)], tiles.classes)
    counted = Counting(images)
    whitening = fit(images.images)
    loss, top1 = evaluate(resnet.train(), Evaluation(counted), whitening, batch_size)

    with torch.no_grad():
        logits = copy.deepcopy(resnet).double().eval()(whitening(torch.stack(images.images).double() / 255))
    labels = torch.tensor(images.labels)
    assert loss == pytest.approx((logits.logsumexp(1) - logits[range(10), labels]).mean().item(), rel=1e-6)
    assert top1 == (logits.argmax(1) == labels).double().mean().item()
    assert 0 < top1 < 1
    assert counted.asked == list(range(10))


def test_evaluate_changes_nothing(resnet, tiles):
    before = copy.deepcopy(resnet)
    evaluate(resnet.train(), Evaluation(tiles.source, None, 32), NONE)
    assert_same_weights(resnet, before)
    assert all(parameter.grad is None for parameter in resnet.parameters())


# -- chance -----------------------------------------------------------------------------------------------------------


def test_same_seed_same_weights(uninterrupted):
    net = small_net()
    torch.manual_seed(987)  # the caller's random numbers play no part
    history = run(net)
    assert_same_weights(net, uninterrupted[0])
    assert history == uninterrupted[1]


def test_workers_change_nothing(uninterrupted):
    net = small_net()
    history = run(net, workers=2)
    assert_same_weights(net, uninterrupted[0])
    assert history == uninterrupted[1]


def test_another_seed_gives_other_weights(uninterrupted):
    net = small_net()
    history = run(net, seed=1)
    assert not torch.equal(net.conv1.weight, uninterrupted[0].conv1.weight)
    assert history[0]["loss"] != uninterrupted[1][0]["loss"]


# -- interruption -----------------------------------------------------------------------------------------------------

STEPS = 2  # per epoch


class InterruptionError(Exception):
    """Stands for whatever may stop a training."""


class Stopping(Counting):
    """Does something when it has been asked for so many images."""

    def __init__(self, images: ImagesInMemory, after: int, stop):
        super().__init__(images)
        self.after, self.stop = after, stop

    def __getitem__(self, index):
        if len(self.asked) == self.after:
            self.stop()
        return super().__getitem__(index)


def interrupt():
    raise InterruptionError


def kill():
    os.kill(os.getpid(), signal.SIGKILL)


def stopped(steps: int, checkpoint: Path, every: float = 0) -> None:
    """Train and stop while the images of the step after so many are read."""
    images = Stopping(two_colours(), 8 * steps + 3, interrupt)
    with pytest.raises(InterruptionError):
        run(small_net(), images=images, checkpoint=checkpoint, checkpoint_every=every)


@pytest.mark.parametrize("steps", [3, 4, *(pytest.param(step, marks=pytest.mark.thorough) for step in (1, 2, 5, 6, 7))])
def test_interrupted_training_resumes_bit_equal(uninterrupted, tmp_path, steps):
    checkpoint = tmp_path / "net.checkpoint"
    stopped(steps, checkpoint)
    kept = sorted(path.name for path in tmp_path.iterdir())
    assert kept == [f"net.checkpoint.{step:08d}" for step in (steps - 1, steps) if step]

    images = Counting(two_colours())
    net = small_net(seed=5)  # its weights come from the checkpoint
    history = run(net, images=images, checkpoint=checkpoint)
    assert len(images.asked) == 8 * (4 * STEPS - steps)
    assert_same_weights(net, uninterrupted[0])
    assert history == uninterrupted[1]
    assert not net.training


def test_a_training_may_be_interrupted_again_and_again(uninterrupted, tmp_path):
    checkpoint = tmp_path / "net.checkpoint"
    for _ in range(4 * STEPS - 1):
        images = Stopping(two_colours(), 8, interrupt)  # one step further each time
        with pytest.raises(InterruptionError):
            run(small_net(), images=images, checkpoint=checkpoint, checkpoint_every=0)
    net = small_net()
    assert run(net, checkpoint=checkpoint) == uninterrupted[1]
    assert_same_weights(net, uninterrupted[0])


def test_interruption_during_evaluation_repeats_that_step(uninterrupted, tmp_path, monkeypatch):
    checkpoint = tmp_path / "net.checkpoint"
    calls = []

    def stops_third_time(*arguments, **options):
        calls.append(1)
        if len(calls) == 3:
            raise InterruptionError
        return evaluate(*arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(training, "evaluate", stops_third_time)
        with pytest.raises(InterruptionError):
            run(small_net(), checkpoint=checkpoint, checkpoint_every=0)
    net, images = small_net(), Counting(two_colours())
    assert run(net, images=images, checkpoint=checkpoint) == uninterrupted[1]
    assert len(images.asked) == 8 * 3
    assert_same_weights(net, uninterrupted[0])


def test_states_are_written_no_oftener_than_asked(tmp_path):
    stopped(3, tmp_path / "net.checkpoint", every=3600)
    assert list(tmp_path.iterdir()) == []


def test_a_training_that_ended_goes_no_further(uninterrupted, tmp_path):
    checkpoint = tmp_path / "net.checkpoint"
    stopped(3 * STEPS, checkpoint)
    net, images = small_net(), Counting(two_colours())
    history = run(net, dataclasses.replace(SHORT, epochs=3), images=images, checkpoint=checkpoint)
    assert history == uninterrupted[1][:3]
    assert images.asked == []
    assert not net.training


def test_killed_training_resumes_bit_equal(uninterrupted, tmp_path):
    checkpoint = tmp_path / "net.checkpoint"
    script = (
        "import sys, pathlib; from test_training import *; run(small_net(), "
        "images=Stopping(two_colours(), 43, kill), checkpoint=pathlib.Path(sys.argv[1]), checkpoint_every=0)"
    )
    path = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    ended = subprocess.run(
        [sys.executable, "-c", script, str(checkpoint)], env={**os.environ, "PYTHONPATH": path}, check=False
    )
    assert ended.returncode == -signal.SIGKILL
    net, images = small_net(seed=5), Counting(two_colours())
    history = run(net, images=images, checkpoint=checkpoint, workers=2)
    assert_same_weights(net, uninterrupted[0])
    assert history == uninterrupted[1]


@pytest.mark.parametrize("lost", ["momentum/", "sums"])
def test_resuming_needs_all_of_the_state(uninterrupted, tmp_path, monkeypatch, lost):
    """The tests above would notice a part of the state that is lost."""
    stopped(5, tmp_path / "net.checkpoint")

    def without(path, **options):
        tensors, info = load_tensors(path)
        return {k: torch.zeros_like(v) if k.startswith(lost) else v for k, v in tensors.items()}, info

    monkeypatch.setattr(training_state, "load_tensors", without)
    net = small_net()
    history = run(net, checkpoint=tmp_path / "net.checkpoint")
    assert history != uninterrupted[1]


def test_a_state_is_plain_safetensors_and_json(tmp_path):
    stopped(3, tmp_path / "net.checkpoint")
    saved, info = load_tensors(tmp_path / "net.checkpoint.00000003")
    net = small_net()
    assert saved.keys() == {f"weights/{n}" for n in net.state_dict()} | {
        f"momentum/{n}" for n, _ in net.named_parameters()
    } | {"sums"}
    assert info.keys() == {"step", "history", "elapsed", "micro_batch"}
    assert info["step"] == 3
    assert len(info["history"]) == 1


@pytest.mark.parametrize("damaged", [1, 2])
def test_a_damaged_state_is_passed_over(uninterrupted, tmp_path, damaged):
    checkpoint = tmp_path / "net.checkpoint"
    stopped(5, checkpoint)
    for path in sorted(tmp_path.iterdir())[-damaged:]:
        path.write_bytes(path.read_bytes()[:-100])
    net, images = small_net(), Counting(two_colours())
    assert run(net, images=images, checkpoint=checkpoint) == uninterrupted[1]
    assert len(images.asked) == 8 * (4 * STEPS - (4 if damaged == 1 else 0))
    assert_same_weights(net, uninterrupted[0])


def test_new_states_push_out_damaged_ones_of_later_steps(uninterrupted, tmp_path):
    checkpoint = tmp_path / "net.checkpoint"
    stopped(5, checkpoint)
    for path in tmp_path.iterdir():
        path.write_bytes(path.read_bytes()[:-100])
    stopped(3, checkpoint)  # from the start again
    assert [path.name[-1] for path in States(checkpoint).files()] == ["2", "3"]
    net = small_net(seed=5)
    assert run(net, checkpoint=checkpoint) == uninterrupted[1]
    assert_same_weights(net, uninterrupted[0])


def test_a_training_does_not_go_on_with_other_micro_batches(tmp_path):
    stopped(3, tmp_path / "net.checkpoint")
    recipe = dataclasses.replace(SHORT, micro_batch=4)
    with pytest.raises(RfvizError, match="was begun with micro-batches of 8 images, now they would have 4: go on with"):
        run(small_net(), recipe, checkpoint=tmp_path / "net.checkpoint")


# -- micro-batches ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("micro_batch", "precision"), [(4, "float32"), (3, "float32"), (4, "bfloat16")])
def test_gradients_of_micro_batches_are_summed(micro_batch, precision):
    """Equal to a hand-written accumulation, whose batch norm sees the micro-batches too."""
    images = two_colours(16)
    recipe = dataclasses.replace(SHORT, epochs=1, micro_batch=micro_batch, precision=precision)
    net, reference = small_net(), small_net().to(memory_format=torch.channels_last)
    train(net, images, Evaluation(images), recipe, NONE, seed=1)

    optimizer = torch.optim.SGD(reference.parameters(), 0.05, 0.9, weight_decay=1e-4)
    augmentation = Augmentation(32, (0.5, 1.0))
    whole = MicroBatches(images, augmentation, Plan(16, 8, 8, seed=1))
    for step in range(2):
        batch = whole[0, step, 0]
        inputs = augmentation(batch).contiguous(memory_format=torch.channels_last)
        optimizer.zero_grad()
        for x, y in zip(inputs.split(micro_batch), batch.labels.split(micro_batch), strict=True):
            with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
                logits = reference(x)
            (F.cross_entropy(logits.float(), y) * len(x) / 8).backward()
        optimizer.step()
    tolerance = 1e-5 if precision == "float32" else 1e-2
    for value, expected in zip(net.state_dict().values(), reference.state_dict().values(), strict=True):
        torch.testing.assert_close(value, expected, rtol=tolerance, atol=tolerance)


def test_without_batch_norm_micro_batches_change_nothing():
    images = two_colours(16)
    nets = [MeanColour(), MeanColour()]
    for net, micro_batch in zip(nets, (None, 3), strict=True):
        recipe = dataclasses.replace(SHORT, micro_batch=micro_batch)
        train(net, images, Evaluation(images), recipe, NONE)
    torch.testing.assert_close(nets[0].fc.weight, nets[1].fc.weight, rtol=1e-5, atol=1e-6)


# -- bad input --------------------------------------------------------------------------------------------------------


def test_loss_that_is_not_finite_is_an_error():
    recipe = Recipe(epochs=9, batch_size=10, learning_rate=1e38, momentum=0, crop=8)
    with pytest.raises(
        RfvizError, match=r"is not a finite number at step \d \(epoch \d\), at learning rate 1e\+38: lower"
    ):
        train(MeanColour(), two_colours(10), Evaluation(two_colours(10)), recipe, NONE)


@pytest.mark.parametrize("every", [0, 3600])
def test_loss_that_is_not_finite_names_step_learning_rate_and_checkpoint(tmp_path, every):
    class Breaks(MeanColour):
        steps = 0

        def forward(self, x):
            self.steps += self.training
            return super().forward(x) * (float("nan") if self.steps == 5 else 1)

    recipe = Recipe(epochs=9, batch_size=5, learning_rate=0.02, drop_every=1, crop=8)  # two steps per epoch
    checkpoint = tmp_path / "net.checkpoint"
    options = {"checkpoint": checkpoint, "checkpoint_every": every}
    with pytest.raises(RfvizError) as caught:
        train(Breaks(), two_colours(10), Evaluation(two_colours(10)), recipe, NONE, **options)
    assert "at step 5 (epoch 3), at learning rate 0.0002" in str(caught.value)
    assert "\n" not in str(caught.value)
    if every:
        assert str(caught.value).endswith("There is no checkpoint yet.")
    else:
        assert str(caught.value).endswith(f"The last good checkpoint is {checkpoint}.00000004.")
        assert load_tensors(States(checkpoint).files()[-1])[0]["weights/fc.weight"].isfinite().all()


@pytest.mark.parametrize("micro_batch", [1, 7])
def test_a_micro_batch_of_one_small_image_is_refused(micro_batch):
    recipe = dataclasses.replace(SHORT, micro_batch=micro_batch)
    with pytest.raises(RfvizError, match="a micro-batch would hold a single image"):
        run(small_net(), recipe)


def test_one_class_is_an_error():
    images = ImagesInMemory(two_colours().images, [0] * 16, ("red",))
    with pytest.raises(RfvizError, match=r"two classes.*red"):
        train(MeanColour(), images, Evaluation(images), SHORT, NONE)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *((name, value) for name in ("epochs", "batch_size", "drop_every", "crop", "repeats", "window")
          for value in (0, -1, 1.5, "two")),
        *(("learning_rate", value) for value in (0, -0.1, float("nan"), float("inf"))),
        *(("weight_decay", value) for value in (-1e-4, float("nan"))),
        *(("momentum", value) for value in (-0.1, 1.0, float("nan"))),
        *(("distortion", value) for value in (-0.1, float("nan"))),
        *(("area", value) for value in ((0.0, 1.0), (0.5, 0.4), (0.5, 1.5))),
        ("schedule", "cosine"),
        ("precision", "float16"),
    ],
)  # fmt: skip
def test_impossible_recipes_are_refused(name, value):
    with pytest.raises(RfvizError, match=name) as caught:
        Recipe(**{name: value})
    assert str(value) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "value", "right"), [("schedule", "onecycle", "one-cycle"), ("precision", "bfloat", "bfloat16")]
)
def test_nearest_right_name_is_offered(name, value, right):
    with pytest.raises(RfvizError, match=f"Did you mean '{right}'"):
        Recipe(**{name: value})


def test_without_momentum_there_is_none_to_keep(tmp_path):
    recipe = dataclasses.replace(SHORT, momentum=0.0)
    whole = small_net()
    history = run(whole, recipe)
    images = Stopping(two_colours(), 8 * 3 + 3, interrupt)
    with pytest.raises(InterruptionError):
        run(small_net(), recipe, images, checkpoint=tmp_path / "c", checkpoint_every=0)
    net = small_net(seed=5)
    assert run(net, recipe, checkpoint=tmp_path / "c") == history
    assert_same_weights(net, whole)


def test_weights_that_overflow_are_never_kept(tmp_path):
    """The loss may still be finite when a step has made the weights infinite."""
    recipe = Recipe(epochs=9, batch_size=5, learning_rate=1e38, weight_decay=1.0, momentum=0, crop=8)
    options = {"checkpoint": tmp_path / "c", "checkpoint_every": 0}
    with pytest.raises(RfvizError, match="not a finite number"):
        train(MeanColour(), two_colours(10), Evaluation(two_colours(10)), recipe, NONE, **options)
    for path in States(tmp_path / "c").files():
        assert all(value.isfinite().all() for value in load_tensors(path)[0].values())


# -- torch.compile ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", ["eager", pytest.param("inductor", marks=pytest.mark.thorough)])
def test_a_compiled_network_learns_the_same_to_rounding(monkeypatch, backend):
    if backend == "inductor" and shutil.which("g++") is None:
        pytest.skip("torch.compile needs a C++ compiler on a CPU")
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend=backend))
    nets = [MeanColour(), MeanColour()]
    histories = [
        train(net, two_colours(), Evaluation(two_colours()), dataclasses.replace(SHORT, compile=compiled), NONE)
        for net, compiled in zip(nets, (False, True), strict=True)
    ]
    torch.testing.assert_close(nets[0].fc.weight, nets[1].fc.weight, rtol=1e-4, atol=1e-5)
    assert [entry["loss"] for entry in histories[1]] == pytest.approx(
        [entry["loss"] for entry in histories[0]], rel=1e-4
    )
    assert set(nets[1].state_dict()) == {"fc.weight", "fc.bias"}  # its own names, not those of the compiled module


def test_compilation_that_fails_is_said_in_one_line(monkeypatch):
    class Fails(nn.Module):
        def __init__(self, net):
            super().__init__()
            self.net = net

        def forward(self, x):
            raise RuntimeError("no compiler\nand many lines more")

    monkeypatch.setattr(torch, "compile", Fails)
    recipe = dataclasses.replace(SHORT, compile=True)
    with pytest.raises(RfvizError, match=r"^torch\.compile does not work here \(no compiler\): leave it out\.$"):
        train(MeanColour(), two_colours(), Evaluation(two_colours()), recipe, NONE)


# -- frozen parts, channels kept firing, threads -----------------------------------------------------------------------


@pytest.mark.parametrize(("frozen", "learning"), [("layer3", {"layer4", "fc"}), ("conv1", {"layer1", "layer4", "fc"})])
def test_a_frozen_part_stays_as_it_was(frozen, learning):
    net = small_net()
    before = copy.deepcopy(net.state_dict())
    run(net, dataclasses.replace(SHORT, frozen=frozen, epochs=1))
    changed = {
        name.partition(".")[0] for name, value in net.state_dict().items() if not torch.equal(value, before[name])
    }
    order = ["conv1", "bn1", "layer1", "layer2", "layer3", "layer4", "fc"]
    assert changed == set(order[max(order.index(frozen), 1) + 1 :]) >= learning
    assert all(each.requires_grad for each in net.parameters())


def test_training_behind_a_frozen_part_is_training_on_what_it_gives(monkeypatch):
    """The slow way: the front once, in evaluation mode, and plain gradient descent of the rest on its responses."""
    recipe = dataclasses.replace(SHORT, frozen="layer3", epochs=1, momentum=0.0, weight_decay=0.0, batch_size=16)
    net, slow = small_net(), small_net().eval()
    monkeypatch.setattr(training, "Augmentation", lambda *_: lambda batch: batch.pixels / 255)
    monkeypatch.setattr(training, "MicroBatches", lambda images, _, plan: InTurn(images))
    run(net, recipe)
    images = torch.stack([two_colours()[i][0] for i in range(16)]) / 255
    with torch.no_grad():
        front = slow.layer3(slow.layer2(slow.layer1(slow.maxpool(slow.relu(slow.bn1(slow.conv1(images)))))))
    slow.layer4.train()
    logits = slow.fc(slow.layer4(front).mean((2, 3)))
    F.cross_entropy(logits, torch.tensor(two_colours().labels)).backward()
    with torch.no_grad():
        for parameter in (*slow.layer4.parameters(), *slow.fc.parameters()):
            parameter -= recipe.learning_rate * parameter.grad
    for name, value in slow.state_dict().items():
        torch.testing.assert_close(net.state_dict()[name], value, rtol=1e-4, atol=1e-6)


class InTurn(torch.utils.data.Dataset):
    """All images, in their order, as one batch."""

    def __init__(self, images):
        self.images = images

    def __getitem__(self, key):
        pixels = torch.stack([self.images[i][0] for i in range(len(self.images))])
        boxes, draws = torch.zeros(len(pixels), 4), torch.zeros(len(pixels), 1)
        return TrainingBatch(pixels, boxes, draws, torch.tensor(self.images.labels))


def silent_in_channel_0() -> models.ResidualNet:
    net = small_net()
    with torch.no_grad():
        net.bn1.weight[0], net.bn1.bias[0] = 0.0, -0.1
    return net


@pytest.mark.parametrize(("alive", "fires"), [(0.0, False), (1.0, True)])
def test_the_penalty_wakes_a_silent_channel(alive, fires):
    history = run(silent_in_channel_0(), dataclasses.replace(SHORT, alive=alive), watch="maxpool")
    assert (history[-1]["firing_rate"][0] > 0) == fires


def test_a_training_with_a_number_of_threads_has_them_and_gives_them_back(monkeypatch):
    seen = []
    monkeypatch.setattr(training, "evaluate", lambda *_, **__: (seen.append(torch.get_num_threads()), (0.0, 0.0))[1])
    before = torch.get_num_threads()
    run(small_net(), dataclasses.replace(SHORT, epochs=1, threads=before + 2))
    assert seen == [before + 2] and torch.get_num_threads() == before


@pytest.mark.parametrize(("images", "repeats", "batch"), [(16, 1, 8), (100, 3, 7), (5, 1, 64)])
def test_a_cumulative_decay_is_met_whatever_the_number_of_images(images, repeats, batch):
    recipe = Recipe(epochs=6, batch_size=batch, repeats=repeats, schedule="one-cycle", decay=3.5)
    found = recipe.for_images(images)
    assert found.cumulative_decay(found.steps(images)) == pytest.approx(3.5)
    assert dataclasses.replace(found, weight_decay=recipe.weight_decay) == recipe
    assert found.for_images(images) == found and Recipe().for_images(images) == Recipe()


def test_a_cumulative_decay_is_trained_with_its_weight_decay():
    asked, given = small_net(), small_net()
    recipe = dataclasses.replace(SHORT, decay=2.0)
    run(asked, recipe)
    run(given, dataclasses.replace(SHORT, weight_decay=recipe.for_images(16).weight_decay))
    assert_same_weights(asked, given)


@pytest.mark.parametrize(
    ("value", "match"),
    [
        ({"frozen": "layer5"}, "unknown frozen part 'layer5'"),
        ({"decay": -1.0}, "decay is -1.0: it must be a number from 0 up"),
        ({"alive": -1.0}, "alive is -1.0: it must be a number from 0 up"),
        ({"threads": 0}, "threads is 0: it must be a whole number greater than 0"),
    ],
)
def test_impossible_options_are_refused(value, match):
    with pytest.raises(RfvizError, match=match):
        Recipe(**value)
