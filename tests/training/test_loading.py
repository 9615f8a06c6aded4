"""The plan of a training and its micro-batches against loops over single visits."""

import itertools
import random

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rfviz.images import photographs
from rfviz.images.data import Box, ImagesInMemory, Region, in_memory
from rfviz.training import loading
from rfviz.training.augmentation import DRAWS, Augmentation, TrainingBatch
from rfviz.training.loading import MicroBatches, Plan, training_batches, usual_workers

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
SIZES = {"astronaut": (60, 90), "chelsea": (41, 33), "coffee": (128, 50), "rocket": (24, 24), "camera": (70, 71)}
AUGMENTATION = Augmentation(20, area=(0.2, 1.0), window=64)


@pytest.fixture(scope="module")
def source() -> ImagesInMemory:
    """Five photographs, each of another size."""
    images = [photographs.photograph(name)[:, 100 : 100 + h, 90 : 90 + w] for name, (h, w) in SIZES.items()]
    return ImagesInMemory(images, [3, 0, 2, 4, 1], tuple(SIZES))


@st.composite
def plans(draw, processes: int = 1) -> list[Plan]:
    """Return the plans of all processes of one training."""
    images = draw(st.integers(1, 60))
    batch_size, micro_batch = draw(st.integers(1, images)), draw(st.integers(1, 70))
    seed = draw(st.integers(0, 2**31 - 1))
    return [Plan(images, batch_size, micro_batch, seed, (rank, processes)) for rank in range(processes)]


# --- the plan --------------------------------------------------------------------------------------------------------


@given(plans(), st.integers(0, 50))
def test_an_epoch_visits_nothing_twice_and_leaves_out_less_than_a_batch(plan, epoch):
    (plan,) = plan
    assert plan.steps == plan.images // plan.batch_size
    visits = [plan.visits(epoch, step) for step in range(plan.steps)]
    assert {len(part) for part in visits} == {plan.batch_size}
    seen = np.concatenate(visits).tolist()
    assert len(seen) == len(set(seen)) and set(seen) <= set(range(plan.images))
    assert plan.images - len(seen) < plan.batch_size


def epoch_of(plan: Plan, epoch: int) -> list[int]:
    return [visit for step in range(plan.steps) for visit in plan.visits(epoch, step).tolist()]


def test_an_epoch_is_a_permutation_that_depends_on_seed_and_epoch_alone():
    first = epoch_of(Plan(60, 10, 4, seed=5), 3)
    assert sorted(first) == list(range(60)) != first
    for same in (Plan(60, 10, 4, 5), Plan(60, 6, 4, 5), Plan(60, 60, 1, 5), Plan(60, 10, 4, 5, (1, 3))):
        for epoch in (4, 2):  # whichever came before
            epoch_of(same, epoch)
        assert epoch_of(same, 3) == first
    others = [epoch_of(Plan(60, 10, 4, seed), epoch) for seed, epoch in ((5, 2), (5, 4), (4, 3), (6, 3), (3, 5))]
    assert all(sorted(other) == sorted(first) for other in others)
    assert len({tuple(order) for order in (first, *others)}) == 6


def test_every_place_in_an_epoch_is_as_likely_as_any_other():
    epochs = np.array([epoch_of(Plan(10, 5, 5, 0), epoch) for epoch in range(2000)])
    counts = np.array([(epochs == visit).sum(0) for visit in range(10)])
    assert abs(counts - 200).max() < 5 * (2000 * 0.1 * 0.9) ** 0.5


@given(st.data(), st.integers(1, 6), st.integers(0, 5))
def test_micro_batches_of_all_processes_are_exactly_the_batch_in_order(data, processes, epoch):
    every = data.draw(plans(processes))
    plan = every[0]
    taken = {}
    for each in every:
        for part in each.parts:
            assert part not in taken
            taken[part] = each.rows(part)
    assert sorted(taken) == list(range(plan.micro_batches))
    sizes = [len(each.parts) for each in every]
    assert max(sizes) - min(sizes) <= (plan.micro_batches % processes > 0)
    for step in range(plan.steps):
        visits = plan.visits(epoch, step)
        together = [visit for part in sorted(taken) for visit in visits[taken[part]].tolist()]
        assert together == visits.tolist()
        lengths = [len(visits[taken[part]]) for part in sorted(taken)]
        assert all(length == plan.micro_batch for length in lengths[:-1])
        assert 0 < lengths[-1] <= plan.micro_batch


@given(st.data(), st.integers(1, 4), st.integers(0, 4))
def test_keys_go_on_exactly_where_they_left(data, processes, epochs):
    plan = data.draw(st.sampled_from(data.draw(plans(processes))))
    expected = [
        (epoch, step, part)
        for epoch in range(epochs) for step in range(plan.steps) for part in range(plan.micro_batches)
        if part % processes == plan.share[0]
    ]  # fmt: skip
    assert list(plan.keys(0, epochs)) == expected
    first = data.draw(st.integers(0, epochs * plan.steps))
    rest = [key for key in expected if key[0] * plan.steps + key[1] >= first]
    assert list(plan.keys(first, epochs)) == rest
    assert rest == expected[first * len(plan.parts) :]


@settings(deadline=None)
@given(st.integers(0, 2**31 - 1), st.integers(0, 99), st.integers(0, 9999))
def test_random_numbers_depend_on_seed_epoch_and_step_alone(seed, epoch, step):
    draws = Plan(100, 8, 4, seed).draws(epoch, step)
    assert draws.shape == (8, DRAWS) and draws.dtype == np.float32
    assert draws.min() >= 0 and draws.max() < 1
    for same in (Plan(100, 8, 4, seed), Plan(64, 8, 4, seed), Plan(100, 8, 8, seed), Plan(100, 8, 2, seed, (1, 2))):
        same.draws(step, epoch)
        assert np.array_equal(same.draws(epoch, step), draws)
    for other in ((seed + 1, epoch, step), (seed, epoch + 1, step), (seed, epoch, step + 1)):
        same = Plan(100, 8, 4, other[0]).draws(*other[1:]) == draws
        assert same.mean() < 0.05


def test_random_numbers_are_uniform_and_independent():
    draws = np.concatenate([Plan(100, 50, 10, 1).draws(epoch, step) for epoch in range(10) for step in range(20)])
    assert abs(draws.mean(0) - 0.5).max() < 4.5 * (1 / 12 / len(draws)) ** 0.5
    correlation = np.corrcoef(draws.T) - np.eye(DRAWS)
    assert abs(correlation).max() < 4.5 / len(draws) ** 0.5
    assert abs(np.corrcoef(draws[:-1, 2], draws[1:, 2])[0, 1]) < 4.5 / len(draws) ** 0.5


# --- micro-batches ---------------------------------------------------------------------------------------------------


def slow(source, plan: Plan, epoch: int, step: int) -> tuple[list[torch.Tensor], list[int]]:
    """Return training images and labels of a step, from whole images, one at a time."""
    images, labels = [], []
    for visit, draws in zip(plan.visits(epoch, step), plan.draws(epoch, step), strict=True):
        image, label = source[int(visit) % len(source)]
        box = AUGMENTATION.box(draws.tolist(), *image.shape[1:])
        alone = TrainingBatch(image[None], torch.tensor([box]).float(), torch.from_numpy(draws)[None], torch.zeros(1))
        images.append(AUGMENTATION(alone)[0])
        labels.append(label)
    return images, labels


def step_of(source, plans: list[Plan], epoch: int, step: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return a step as several processes prepare it, put together in order."""
    parts = {part: MicroBatches(source, AUGMENTATION, plan)[epoch, step, part] for plan in plans for part in plan.parts}
    ordered = [parts[part] for part in sorted(parts)]
    return torch.cat([AUGMENTATION(part) for part in ordered]), torch.cat([part.labels for part in ordered])


def assert_same_images(a, b) -> None:
    torch.testing.assert_close(a, b, rtol=0, atol=1e-5)


@pytest.mark.parametrize("micro_batch", [1, 3, 4, 10, 99])
@pytest.mark.parametrize("processes", [1, 2, 3])
def test_training_images_are_those_of_a_slow_loop_however_they_are_divided(source, micro_batch, processes):
    plans = [Plan(25, 10, micro_batch, 3, (rank, processes)) for rank in range(processes)]
    for epoch, step in itertools.product(range(2), range(2)):
        images, labels = slow(source, plans[0], epoch, step)
        got, got_labels = step_of(source, plans, epoch, step)
        assert_same_images(got, torch.stack(images))
        assert got_labels.tolist() == labels


def test_a_micro_batch_holds_pixels_boxes_random_numbers_and_labels(source):
    plan = Plan(25, 10, 4, 3)
    batch = MicroBatches(source, AUGMENTATION, plan)[1, 0, 2]  # the last, short one
    assert batch.pixels.dtype == torch.uint8 and batch.pixels.shape[:2] == (2, 3)
    assert batch.boxes.dtype == torch.float32 and batch.boxes.shape == (2, 4)
    assert batch.labels.dtype == torch.int64
    assert np.array_equal(batch.draws, plan.draws(1, 0)[8:])
    chosen = [int(visit) % 5 for visit in plan.visits(1, 0)[8:]]
    assert batch.labels.tolist() == [source.labels[index] for index in chosen]
    # no more than the boxes, each in the upper left corner
    boxes = [
        Box(*AUGMENTATION.box(draws.tolist(), *source.images[index].shape[1:]))
        for index, draws in zip(chosen, batch.draws, strict=True)
    ]
    assert batch.pixels.shape[2:] == (max(box.height for box in boxes), max(box.width for box in boxes))
    for pixels, placed, index, box in zip(batch.pixels, batch.boxes, chosen, boxes, strict=True):
        assert placed.tolist() == [0, 0, box.height, box.width]
        part = source.images[index][:, box.top : box.top + box.height, box.left : box.left + box.width]
        assert torch.equal(pixels[:, : box.height, : box.width], part)


@pytest.mark.parametrize("repeats", [1, 2, 7])
def test_every_image_is_visited_as_often_as_it_is_repeated(source, repeats):
    plan = Plan(5 * repeats, 5, 2, 0)
    batches = MicroBatches(source, AUGMENTATION, plan)
    labels = torch.cat([batches[key].labels for key in plan.keys(0, 1)])
    assert labels.bincount().tolist() == [repeats] * 5


def test_visits_to_the_same_image_differ(source):
    one = ImagesInMemory(source.images[:1], [0], ["one"])
    images, _ = step_of(one, [Plan(20, 20, 20, 0)], 0, 0)
    again, _ = step_of(one, [Plan(20, 20, 20, 0)], 1, 0)
    for a, b in itertools.combinations([*images, *again], 2):
        assert not torch.allclose(a, b, atol=1e-3)


class Halved:
    """A source that reads every other pixel, and only of parts."""

    def __init__(self, source):
        self.source, self.labels, self.classes, self.fingerprint = source, source.labels, source.classes, "halved"
        self.asked = []

    def __len__(self):
        return len(self.source)

    def __getitem__(self, index):
        raise AssertionError("nobody needs the whole image")

    def region(self, index, choose, side):
        image = self.source[index][0]
        box = choose(*image.shape[1:])
        self.asked.append((index, box, side))
        return Region(image[:, ::2, ::2], Box(*(length / 2 for length in box)))


def test_a_source_may_read_parts_in_its_own_way(source):
    halved, plan = Halved(source), Plan(5, 5, 5, 0)
    batch = MicroBatches(halved, AUGMENTATION, plan)[0, 0, 0]
    expected = [
        (visit, AUGMENTATION.box(draws.tolist(), *source.images[visit].shape[1:]), 20)
        for visit, draws in zip(plan.visits(0, 0).tolist(), plan.draws(0, 0), strict=True)
    ]
    assert halved.asked == expected
    for pixels, box, (index, whole, _) in zip(batch.pixels, batch.boxes, expected, strict=True):
        half = source.images[index][:, ::2, ::2]
        assert torch.equal(pixels[:, : half.shape[1], : half.shape[2]], half)
        assert box.tolist() == [length / 2 for length in whole]


# --- workers ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def prepared(source) -> MicroBatches:
    return MicroBatches(source, AUGMENTATION, Plan(25, 10, 4, 3, (0, 2)))


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_workers_change_neither_batches_nor_their_order(prepared, workers):
    keys = list(prepared.plan.keys(1, 3))
    found = list(training_batches(prepared, iter(keys), workers, CPU))
    assert len(keys) == len(found) == 10
    for key, batch in zip(keys, found, strict=True):
        assert isinstance(batch, TrainingBatch)
        for got, expected in zip(batch, prepared[key], strict=True):
            assert got.dtype == expected.dtype and got.device == CPU
            assert torch.equal(got, expected)


@pytest.mark.parametrize("workers", [0, 2])
def test_global_random_states_are_untouched(prepared, workers):
    torch.manual_seed(99)
    np.random.seed(99)  # noqa: NPY002  # the global state is what this is about
    random.seed(99)
    before = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()  # noqa: NPY002
    assert len(list(training_batches(prepared, prepared.plan.keys(0, 1), workers, CPU))) == 4
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (np.random.get_state()[1] == before[1]).all()  # noqa: NPY002
    assert random.getstate() == before[2]


def test_global_random_states_are_not_asked(prepared):
    first = [prepared[key] for key in prepared.plan.keys(0, 1)]
    torch.manual_seed(1)
    np.random.seed(1)  # noqa: NPY002
    random.seed(1)
    for batch, key in zip(first, prepared.plan.keys(0, 1), strict=True):
        assert all(torch.equal(a, b) for a, b in zip(batch, prepared[key], strict=True))


class Read:
    def __init__(self, in_memory: bool):
        self.in_memory = in_memory


@pytest.mark.parametrize(
    ("cores", "processes", "device", "kept", "workers"),
    [
        (8, 1, CPU, True, 0),  # they would take cores from the network
        (8, 4, CPU, True, 0),
        (8, 1, CPU, False, 4),
        (8, 2, CPU, False, 2),
        (1, 1, CPU, False, 1),
        (2, 4, CPU, False, 1),
        (8, 1, CUDA, True, 2),
        (1, 1, CUDA, True, 1),
        (8, 8, CUDA, True, 1),
        (8, 1, CUDA, False, 8),
        (64, 1, CUDA, False, 16),
        (64, 8, CUDA, False, 8),
        (4, 8, CUDA, False, 1),
    ],
)
def test_usual_workers(cores, processes, device, kept, workers, monkeypatch):
    monkeypatch.setattr(loading, "available_cores", lambda: cores)
    monkeypatch.setattr(loading, "processes_here", lambda: processes)
    assert usual_workers(Read(kept), device) == workers


def test_images_in_memory_need_no_workers_on_the_cpu(source):
    assert in_memory(source) and usual_workers(source, CPU) == 0
    assert in_memory([1, 2])  # says nothing
    assert not in_memory(Read(False))
    assert usual_workers(Read(False), CPU) >= 1
