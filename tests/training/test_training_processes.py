"""Training by several processes: what one process would do with the same micro-batches, whatever interrupts them.

`torchrun` starts two processes once, which go through `everything` and write down what they find for the tests.
"""

import contextlib
import dataclasses
import faulthandler
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from test_training import Counting, InterruptionError, MeanColour, Stopping, interrupt, small_net, two_colours
from torch import nn
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

from rfviz.errors import RfvizError
from rfviz.images.data import Evaluation, ImagesInMemory
from rfviz.images.whitening import fit
from rfviz.storage.files import load_tensors, save_tensors
from rfviz.training import distributed
from rfviz.training.augmentation import Augmentation
from rfviz.training.loading import MicroBatches, Plan
from rfviz.training.recipe import Recipe
from rfviz.training.state import States
from rfviz.training.trainer import evaluate, train

torch.set_num_threads(1)  # also where a child process imports this module

PATIENCE = 120  # seconds, for what takes a few
SEED = 3
EPOCHS, STEPS = 3, 2  # steps per epoch
RECIPE = Recipe(epochs=EPOCHS, batch_size=16, learning_rate=0.02, drop_every=2, crop=64, area=(0.5, 1.0))
CASES = {
    "halves": RECIPE,  # 8 + 8 images
    "uneven halves": dataclasses.replace(RECIPE, batch_size=15),  # 8 + 7
    "two each": dataclasses.replace(RECIPE, micro_batch=4),  # 4 + 4 of each process
    "two each, the last short": dataclasses.replace(RECIPE, micro_batch=5),  # 5 + 5 and 5 + 1
}
INTERRUPTED = "two each"  # every process reads 8 images per step
KILLED_AFTER = 3  # steps: in the middle of the second epoch
BROKEN_AT = 3  # of 5 steps per epoch
COUNTS = (1, 2, 4, 5, 8, 13)  # of evaluation images, in batches of 4


def training_images() -> ImagesInMemory:
    return two_colours(40, 64)


def evaluation_images(count: int = 70) -> ImagesInMemory:
    """More than fit into one batch of the evaluation, some of them named wrongly."""
    images = two_colours(count)
    return ImagesInMemory(images.images, [(i % 2 + (i % 3 == 1)) % 2 for i in range(count)], images.classes)


def double_net() -> nn.Module:
    """The network of `small_net`, computed in float64: in float32, a few steps turn rounding into other weights."""
    net = small_net().double()
    net.register_forward_pre_hook(lambda _, inputs: (inputs[0].double(),))
    return net


def run(net, recipe: Recipe, images=None, **options) -> list[dict]:
    """Train and leave the measured speed out of the history."""
    images, whitening = images or training_images(), fit(training_images().images)
    history = train(net, images, Evaluation(evaluation_images()), recipe, whitening, seed=SEED, **options)
    return [{key: value for key, value in entry.items() if key != "images_per_second"} for entry in history]


# -- what every process does ------------------------------------------------------------------------------------------


class BreaksOnOne(MeanColour):
    """The loss of the second process is not a number in one step."""

    steps = 0

    def forward(self, x):
        self.steps += self.training
        broken = self.steps == BROKEN_AT and distributed.world()[0] == 1
        return super().forward(x) * (float("nan") if broken else 1)


def train_what_breaks(checkpoint: Path, every: float) -> None:
    recipe = Recipe(epochs=2, batch_size=8, learning_rate=0.02, crop=8)
    run(BreaksOnOne(), recipe, checkpoint=checkpoint, checkpoint_every=every)


def error_of(function, *arguments) -> list[str]:
    try:
        function(*arguments)
    except (RfvizError, RuntimeError) as error:
        return [type(error).__name__, str(error)]
    return ["none", ""]


class Sharing(MeanColour):
    """Notes which passes forward lie within `no_sync`, where torch decides whether gradients are shared."""

    def __init__(self):
        super().__init__()
        self.within, self.seen = False, []

    def forward(self, x):
        if self.training:
            self.seen.append(not self.within)
        return super().forward(x)


def passes_that_share() -> list[bool]:
    net, no_sync = Sharing(), DistributedDataParallel.no_sync

    @contextlib.contextmanager
    def noted(model):
        net.within = True
        with no_sync(model):
            yield
        net.within = False

    DistributedDataParallel.no_sync = noted
    run(net, dataclasses.replace(RECIPE, epochs=1, batch_size=18, micro_batch=3, crop=8))  # three of each process
    DistributedDataParallel.no_sync = no_sync
    return net.seen


def everything(folder: Path) -> None:
    found = {}
    try:
        with distributed.process_group():
            assert distributed.world()[1] == 2
            go_through_everything(folder, found)
            # the error leaves the group, which must not wait for a network that belongs to it
            train_what_breaks(folder / "between states.checkpoint", 3600)
    except RfvizError as error:
        if "broken" not in found:
            raise
        found["left with"] = str(error)
    assert distributed.world() == (0, 1)
    write(everything, folder, found)


def write(task, folder: Path, found: dict) -> None:
    (folder / f"{task.__name__}-{os.environ['RANK']}.json").write_text(json.dumps(found), encoding="utf-8")


def keep(folder: Path, found: dict, name: str, net: nn.Module, history: list[dict]) -> None:
    found[name] = {"history": history, "evaluates": not net.training}
    save_tensors(net.state_dict(), folder / f"{name}-{distributed.world()[0]}")


def resume(folder: Path, found: dict, name: str, checkpoint: Path) -> None:
    net, images = small_net(5 + distributed.world()[0]), Counting(training_images())  # the weights come from the state
    keep(folder, found, name, net, run(net, CASES[INTERRUPTED], images, checkpoint=checkpoint))
    found[name]["asked"] = len(images.asked)


def go_through_everything(folder: Path, found: dict) -> None:
    for case, recipe in CASES.items():
        net = double_net()
        keep(folder, found, case, net, run(net, recipe))

    net, recipe = small_net(), CASES[INTERRUPTED]
    keep(folder, found, "undisturbed", net, run(net, recipe))
    for count in COUNTS:
        counting = Counting(evaluation_images(count))
        measured = evaluate(net, Evaluation(counting), fit(training_images().images), 4)
        found[f"evaluation {count}"] = {"measured": measured, "asked": counting.asked}

    saved, save = [], States.save

    def save_and_tell(self, step, tensors, values):
        saved.append(step)
        save(self, step, tensors, values)

    States.save = save_and_tell
    for steps in range(1, EPOCHS * STEPS):
        checkpoint = folder / f"stopped-{steps}.checkpoint"
        with contextlib.suppress(InterruptionError):
            images = Stopping(training_images(), 8 * steps + 3, interrupt)
            # when a state is due, the first process says
            every = 3600 * distributed.world()[0]
            run(small_net(), recipe, images, checkpoint=checkpoint, checkpoint_every=every)
        distributed.barrier()  # the last state is written
        found[f"states {steps}"] = {"written": saved.copy(), "kept": [file.name for file in states_in(checkpoint)]}
        saved.clear()
        resume(folder, found, f"stopped {steps}", checkpoint)
    States.save = save

    found["refused"] = error_of(run, small_net(), dataclasses.replace(RECIPE, batch_size=9, micro_batch=3))
    found["shares"] = passes_that_share()
    found["broken"] = error_of(train_what_breaks, folder / "broken.checkpoint", 0)


def to_be_killed(folder: Path) -> None:
    """Train for some steps, tell, and wait."""

    def wait():
        (folder / f"waiting-{os.getpid()}").touch()
        signal.pause()

    with distributed.process_group():
        images = Stopping(training_images(), 8 * KILLED_AFTER + 3, wait)
        run(small_net(), CASES[INTERRUPTED], images, checkpoint=folder / "killed.checkpoint", checkpoint_every=0)


def go_on(folder: Path) -> None:
    found = {}
    with distributed.process_group():
        resume(folder, found, "killed", folder / "killed.checkpoint")
    write(go_on, folder, found)


def states_in(checkpoint: Path) -> list[Path]:
    return sorted(checkpoint.parent.glob(f"{checkpoint.name}*"))


# -- the two processes ------------------------------------------------------------------------------------------------


def torchrun(task, folder: Path) -> subprocess.Popen:
    """Start two processes for a function of this module; what they say goes into a file."""
    path = os.pathsep.join([str(Path(distributed.__file__).parents[2]), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    with (folder / "said.txt").open("w", encoding="utf-8") as said:
        return subprocess.Popen(
            [*command, __file__, task.__name__, str(folder)],
            env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}, stdout=said, stderr=said,
        )  # fmt: skip


def what_both_find(task, folder: Path) -> list[dict]:
    ended = torchrun(task, folder).wait()
    assert ended == 0, (folder / "said.txt").read_text(encoding="utf-8")
    return [json.loads((folder / f"{task.__name__}-{rank}.json").read_text(encoding="utf-8")) for rank in range(2)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Where the processes write."""
    return tmp_path_factory.mktemp("processes")


@pytest.fixture(scope="module")
def found(folder) -> list[dict]:
    """What each process found."""
    return what_both_find(everything, folder)


def assert_same_bits(folder: Path, name: str, other: str) -> None:
    a, b = (load_tensors(folder / file)[0] for file in (name, other))
    assert a.keys() == b.keys()
    assert [key for key in a if not torch.equal(a[key], b[key])] == []


# -- one process instead of two ---------------------------------------------------------------------------------------


def part_of(recipe: Recipe) -> int:
    """Images that go through the network together."""
    return recipe.micro_batch or (recipe.batch_size + 1) // 2


def by_hand(recipe: Recipe) -> tuple[nn.Module, list[tuple[float, float]]]:
    """Return the network, and loss and top-1 of every epoch: gradients of two shares summed, statistics of the first.

    Parts 0, 2, ... of a batch are those of the first process.
    """
    images, size, part = training_images(), recipe.batch_size, part_of(recipe)
    net, whitening = double_net(), fit(images.images)
    augmentation = Augmentation(recipe.crop, recipe.area, recipe.distortion)
    whole, parts = (MicroBatches(images, augmentation, Plan(40, size, each, SEED)) for each in (size, part))
    momenta = {name: torch.zeros_like(weight) for name, weight in net.named_parameters()}
    epochs = []
    for epoch in range(EPOCHS):
        losses, hits = [], []
        rate = recipe.learning_rate * 0.1 ** (epoch // 2)
        for step in range(STEPS):
            net.zero_grad()
            for number, draws in enumerate(whole[epoch, step, 0].draws.split(part)):
                batch = parts[epoch, step, number]
                assert torch.equal(batch.draws, draws)
                statistics = {name: value.clone() for name, value in net.named_buffers()}
                logits = net(whitening(augmentation(batch))).float()  # as always
                every = F.cross_entropy(logits, batch.labels, reduction="none")
                (every.sum() / size).backward()
                losses += every.tolist()
                hits += (logits.argmax(1) == batch.labels).tolist()
                if number % 2 == 1:  # the second process keeps its statistics to itself
                    for name, value in net.named_buffers():
                        value.copy_(statistics[name])
            with torch.no_grad():
                for name, weight in net.named_parameters():
                    momenta[name] = 0.9 * momenta[name] + weight.grad + 1e-4 * weight
                    weight -= rate * momenta[name]
        assert len(losses) == STEPS * size
        epochs.append((sum(losses) / len(losses), sum(hits) / len(hits)))
    return net, epochs


@pytest.mark.parametrize("case", CASES)
def test_two_processes_train_what_one_trains_that_sums_their_gradients(folder, found, case):
    expected, epochs = by_hand(CASES[case])
    weights = load_tensors(folder / f"{case}-0")[0]
    assert weights.keys() == expected.state_dict().keys()
    for name, value in expected.state_dict().items():
        torch.testing.assert_close(weights[name], value, rtol=1e-7, atol=1e-7, msg=lambda m, name=name: f"{name}: {m}")
    history = found[0][case]["history"]
    assert [entry["loss"] for entry in history] == pytest.approx([loss for loss, _ in epochs], abs=1e-6)
    assert [entry["train_top1"] for entry in history] == pytest.approx([top1 for _, top1 in epochs], abs=1e-6)
    assert not torch.equal(weights["conv1.weight"], small_net().conv1.weight)


@pytest.mark.parametrize("case", CASES)
def test_the_history_is_that_of_one_process_with_the_same_micro_batches(found, case):
    recipe = CASES[case]
    history = run(double_net(), dataclasses.replace(recipe, micro_batch=part_of(recipe)))
    shared = found[0][case]["history"]
    assert len(shared) == len(history) == EPOCHS
    for entry, expected in zip(shared, history, strict=True):
        assert entry.keys() == expected.keys()
        for name in ("epoch", "learning_rate", "loss", "train_top1"):
            assert entry[name] == pytest.approx(expected[name], abs=1e-6)


@pytest.mark.parametrize("name", [*CASES, "undisturbed", "stopped 3"])
def test_both_processes_end_with_the_same(folder, found, name):
    """The same history, and the same weights and statistics to the last bit."""
    assert found[0][name]["history"] == found[1][name]["history"]
    assert_same_bits(folder, f"{name}-0", f"{name}-1")
    assert found[0][name]["evaluates"] and found[1][name]["evaluates"]


# -- evaluation -------------------------------------------------------------------------------------------------------


def measured_directly(weights: dict, count: int) -> tuple[float, float]:
    net, images = small_net().double().eval(), evaluation_images(count)
    net.load_state_dict(weights)
    whitening = fit(training_images().images)
    losses, hits = [], []
    with torch.no_grad():
        for image, label in zip(images.images, images.labels, strict=True):
            (logits,) = net(whitening(image[None].double() / 255))
            losses.append((logits.logsumexp(0) - logits[label]).item())
            hits.append(logits.argmax().item() == label)
    return sum(losses) / count, sum(hits) / count


@pytest.mark.parametrize("count", COUNTS)
def test_evaluation_counts_every_image_once(folder, found, count):
    results = [each[f"evaluation {count}"] for each in found]
    assert results[0]["measured"] == results[1]["measured"]
    loss, top1 = measured_directly(load_tensors(folder / "undisturbed-0")[0], count)
    assert results[0]["measured"] == [pytest.approx(loss, rel=1e-5), pytest.approx(top1, rel=1e-12)]
    batches = [list(range(count))[begin : begin + 4] for begin in range(0, count, 4)]
    for rank in range(2):
        assert results[rank]["asked"] == [index for batch in batches[rank::2] for index in batch]


@pytest.mark.parametrize("case", CASES)
def test_the_history_measures_the_network_of_the_first_process(folder, found, case):
    last = found[0][case]["history"][-1]
    loss, top1 = measured_directly(load_tensors(folder / f"{case}-0")[0], 70)
    assert last["evaluation_loss"] == pytest.approx(loss, rel=1e-5)
    assert last["evaluation_top1"] == pytest.approx(top1, rel=1e-12)
    assert 0 < top1 < 1


# -- interruption -----------------------------------------------------------------------------------------------------

NEVER_MIND_SUMS = {"rel": 1e-12}  # the first process goes on from the sums of both


def assert_undisturbed(folder: Path, found: list[dict], resumed: list[dict], name: str, steps: int) -> None:
    for rank in range(2):
        assert_same_bits(folder, f"{name}-{rank}", f"undisturbed-{rank}")
        history, expected = resumed[rank][name]["history"], found[rank]["undisturbed"]["history"]
        assert history == [pytest.approx(entry, **NEVER_MIND_SUMS) for entry in expected]
        assert resumed[rank][name]["asked"] == 8 * (EPOCHS * STEPS - steps)


@pytest.mark.parametrize("steps", range(1, EPOCHS * STEPS))
def test_interrupted_processes_resume_bit_equal(folder, found, steps):
    assert_undisturbed(folder, found, found, f"stopped {steps}", steps)


@pytest.mark.parametrize("steps", range(1, EPOCHS * STEPS))
def test_only_the_first_process_writes_states_and_two_are_kept(found, steps):
    first, second = (each[f"states {steps}"] for each in found)
    assert first["written"] == list(range(1, steps + 1))
    assert second["written"] == []
    kept = [f"stopped-{steps}.checkpoint.{step:08d}" for step in (steps - 1, steps) if step]
    assert first["kept"] == second["kept"] == kept


@pytest.mark.thorough
def test_killed_processes_resume_bit_equal(folder, found):
    started, begun = torchrun(to_be_killed, folder), time.monotonic()
    while len(waiting := list(folder.glob("waiting-*"))) < 2 and started.poll() is None:
        assert time.monotonic() - begun < PATIENCE
        time.sleep(0.05)
    for path in waiting:
        os.kill(int(path.name.removeprefix("waiting-")), signal.SIGKILL)
    assert started.wait() == 1
    states = [file.name for file in states_in(folder / "killed.checkpoint")]
    assert states == [f"killed.checkpoint.{step:08d}" for step in (KILLED_AFTER - 1, KILLED_AFTER)]
    assert_undisturbed(folder, found, what_both_find(go_on, folder), "killed", KILLED_AFTER)


# -- refusals ---------------------------------------------------------------------------------------------------------


def test_processes_share_gradients_once_per_step(found):
    """The pass forward of every micro-batch but the last lies within `no_sync`."""
    assert [each["shares"] for each in found] == [[False, False, True] * STEPS] * 2


def test_a_batch_that_cannot_be_shared_evenly_is_refused(found):
    for kind, message in (each["refused"] for each in found):
        assert kind == "RfvizError"
        assert message.startswith(
            "a batch of 9 images in micro-batches of 3 cannot be shared evenly by 2 processes: choose batch_size"
        )
        assert "\n" not in message


def test_a_loss_that_is_not_finite_on_one_process_ends_both(folder, found):
    """Both say so where a state is due, and the state is not written."""
    checkpoint = folder / "broken.checkpoint"
    for kind, message in (each["broken"] for each in found):
        assert kind == "RfvizError"
        assert f"is not a finite number at step {BROKEN_AT} (epoch 1), at learning rate 0.02: lower" in message
        assert message.endswith(f"The last good checkpoint is {checkpoint}.{BROKEN_AT - 1:08d}.")
        assert "\n" not in message
    assert [file.suffix for file in states_in(checkpoint)] == [f".{step:08d}" for step in (1, 2)]
    for file in states_in(checkpoint):
        assert all(value.isfinite().all() for value in load_tensors(file)[0].values())


def test_between_states_a_loss_that_is_not_finite_on_one_process_ends_both_too(folder, found):
    for message in (each["left with"] for each in found):
        assert f"is not a finite number at step {BROKEN_AT} (epoch 1)" in message
        assert message.endswith("There is no checkpoint yet.")
    assert states_in(folder / "between states.checkpoint") == []


if __name__ == "__main__":
    faulthandler.dump_traceback_later(PATIENCE, exit=True)  # nobody waits for ever
    tasks = (everything, to_be_killed, go_on)
    {task.__name__: task for task in tasks}[sys.argv[1]](Path(sys.argv[2]))
