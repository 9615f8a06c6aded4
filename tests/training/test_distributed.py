"""Several processes share a pass and find what one process finds."""

import functools
import itertools
import multiprocessing.connection
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from test_checkpoint import CHILDREN, Counting, load_images, place_of, save_images
from test_passes import LAYERS, assert_same_bits, pictures, same_bits, small_net, tensors_of
from torch import Tensor

from rfviz.errors import RfvizError
from rfviz.kernels.responses import collect, passes
from rfviz.kernels.responses.checkpoint import Checkpoint
from rfviz.storage.files import load_tensors, save_tensors
from rfviz.training import distributed

torch.set_num_threads(1)  # also where a child process imports this module


# -- processes --------------------------------------------------------------------------------------------------------


def _member(rank: int, processes: int, meeting: Path, function, arguments: tuple) -> None:
    dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=processes)
    try:
        function(*arguments)
    finally:
        dist.destroy_process_group()


def start(processes: int, folder: Path, function, *arguments) -> list:
    """Start processes of a group that call a function of this module."""
    meeting = folder / f"meeting-{len(list(folder.glob('meeting-*')))}"
    members = [
        CHILDREN.Process(target=_member, args=(rank, processes, meeting, function, arguments))
        for rank in range(processes)
    ]
    for member in members:
        member.start()
    return members


def kill(members: list) -> None:
    for member in members:
        member.kill()
    for member in members:
        member.join()


def together(processes: int, folder: Path, function, *arguments) -> None:
    """Call a function in every process of a group; fail if one of them fails."""
    members = start(processes, folder, function, *arguments)
    waiting = {member.sentinel for member in members}
    while waiting:
        ended = multiprocessing.connection.wait(waiting, timeout=120)
        waiting -= set(ended)
        if not ended or any(member.exitcode for member in members):
            kill(members)
            pytest.fail(f"{function.__name__}: exit codes {[member.exitcode for member in members]}", pytrace=False)


def rank() -> int:
    return distributed.world()[0]


# -- without a group --------------------------------------------------------------------------------------------------


def test_one_process_alone():
    assert distributed.world() == (0, 1)
    assert distributed.barrier() is None
    weight = torch.rand(3, 4, requires_grad=True)
    (held,) = distributed.gather({"a": weight.T, "b": torch.tensor(3)})
    assert torch.equal(held["a"], weight.T) and held["a"].is_contiguous() and not held["a"].requires_grad
    assert held["b"].item() == 3
    assert distributed.gather({}) == [{}]
    assert distributed.first_says(True) is True and distributed.first_says(False) is False
    assert distributed.any_says([True, False]) == [True, False]


@pytest.mark.parametrize("size", [None, "1"])
def test_without_torchrun_no_group_is_made(monkeypatch, size):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    if size:
        monkeypatch.setenv("WORLD_SIZE", size)
    with distributed.process_group():
        assert not dist.is_initialized()
        assert distributed.world() == (0, 1)
    assert not dist.is_initialized()


# -- gather -----------------------------------------------------------------------------------------------------------


def belongings(of: int) -> dict[str, Tensor]:
    """What process `of` holds: names, numbers, shapes and types differ."""
    generator = torch.Generator().manual_seed(of)
    if of == 1:
        return {}
    held = {
        "double": torch.randn(of + 1, 3, 2 * of + 1, generator=generator, dtype=torch.float64),
        "bfloat16": torch.randn(5, generator=generator).bfloat16(),
        "number": torch.tensor(10**15 + of),
        "flags": torch.rand(4, 3 + of, generator=generator) > 0.5,
        "nothing": torch.zeros(0, 3, of),
        "special": torch.tensor([torch.nan, torch.inf, -0.0]),
        f"only {of}": torch.arange(of),
    }
    held["turned"] = held["double"].mT[1:]
    held["every second"] = held["double"][:, ::2]
    return held


def gather_belongings() -> None:
    with torch.inference_mode():
        mine = belongings(rank())
    gathered, empty = distributed.gather(mine), distributed.gather({})
    processes = distributed.world()[1]
    assert empty == [{}] * processes
    assert len(gathered) == processes
    for of, held in enumerate(gathered):
        assert_same_bits(held, belongings(of))
    large = distributed.gather({"large": torch.full((100_000 * (2 - rank() % 2),), rank())})
    assert [(len(held["large"]), int(held["large"].amax())) for held in large] == [
        (100_000 * (2 - of % 2), of) for of in range(processes)
    ]
    gathered[0]["number"] += 1  # what came is one's own


@pytest.mark.parametrize("processes", [2, 3])
def test_gather_returns_what_every_process_holds(tmp_path, processes):
    together(processes, tmp_path, gather_belongings)


def ask_the_first() -> None:
    assert distributed.first_says(rank() == 0) is True
    assert distributed.first_says(rank() != 0) is False
    assert distributed.any_says([rank() == 0, rank() == 1, False]) == [True, True, False]


def test_the_first_process_decides_for_all(tmp_path):
    together(3, tmp_path, ask_the_first)


def meet(folder: Path) -> None:
    if rank() == 1:
        time.sleep(0.3)
        (folder / "here").touch()
    distributed.barrier()
    assert (folder / "here").exists()
    os.environ["WORLD_SIZE"] = "2"
    with distributed.process_group():
        assert distributed.world() == (rank(), 2)
    assert dist.is_initialized()  # whoever made the group ends it


def test_barrier_waits_and_a_group_that_exists_is_kept(tmp_path):
    together(2, tmp_path, meet, tmp_path)


# -- a pass in shares -------------------------------------------------------------------------------------------------


def images_of(kind: str):
    if kind == "stream":
        return iter(torch.stack(pictures(13)).split([3, 1, 4, 2, 3]))
    if kind == "tensor":
        return torch.stack(pictures(13))
    if kind == "two batches":
        return pictures(5)
    if kind == "one batch":
        return pictures(2, mixed=True)
    if kind == "double":
        return [image.double() for image in pictures(13, mixed=True)]
    return pictures(13, mixed=kind == "mixed")


def net_of(kind: str):
    net = small_net()
    net.bn1.bias.data[2] = -1e6  # a silent channel
    if kind == "silent":
        net.bn1.bias.data[:] = -1e6
    return net.double() if kind == "double" else net


CASES = {
    "data set": ("data set", "", {"strongest": 300}),
    "tensor, every neuron": ("tensor", "", {"strongest": 300, "per_image": None}),
    "without the strongest": ("data set", "", {"top_k": 40}),
    "mixed sizes": ("mixed", "", {"strongest": 300}),
    "mixed sizes, few strongest": ("mixed", "", {"strongest": 2, "mean_stimulus": False}),
    "double": ("double", "double", {"strongest": 300}),  # sums that are rounded: their order shows
    "one neuron": ("mixed", "", {"strongest": 2, "neuron": (0, 1)}),
    "stream": ("stream", "", {}),
    "fewer batches than processes": ("one batch", "", {"strongest": 300}),
    "a batch too few": ("two batches", "", {"strongest": 300}),
    "a silent layer": ("mixed", "silent", {"strongest": 300}),
    "only a silent layer": ("mixed", "silent", {"strongest": 300, "layers": ["maxpool"]}),
    "bfloat16": ("data set", "", {"strongest": 300, "precision": "bfloat16"}),
    "with checkpoints": ("mixed", "", {"strongest": 300, "checkpoint_every": 0}),
}


def pass_of(case: str, folder: Path | None = None) -> dict[str, Tensor]:
    images, net, options = CASES[case]
    options = {"layers": LAYERS, "batch_size": 4, **options}
    if folder is not None and case == "with checkpoints":
        options["checkpoint"] = folder / "checkpoint"
    return tensors_of(collect(net_of(net), images_of(images), **options))


def share_passes(folder: Path) -> None:
    for case in CASES:
        save_tensors(pass_of(case, folder), folder / f"{case} {rank()}")


@pytest.fixture(scope="module")
def one_process():
    """What one process finds."""
    return functools.cache(pass_of)


def assert_same_but_for_sums(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    """Lists, counts, histograms and maxima to the bit; means within 1e-6."""
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        if name.rsplit("/")[-1] in ("mean", "mean_stimulus", "strongest_stimulus"):
            torch.testing.assert_close(found[name], tensor, rtol=1e-6, atol=1e-6, msg=name)
        else:
            assert same_bits(found[name], tensor), name


@pytest.mark.parametrize("processes", [2, 3])
def test_every_process_finds_what_one_process_finds(tmp_path, one_process, processes):
    together(processes, tmp_path, share_passes, tmp_path)
    for case in CASES:
        found = [load_tensors(tmp_path / f"{case} {of}")[0] for of in range(processes)]
        assert_same_but_for_sums(found[0], one_process(case))
        for other in found[1:]:
            assert_same_bits(other, found[0])
        assert found[0]["maxpool/image_count"] == {"one batch": 2, "two batches": 5}.get(CASES[case][0], 13)


def test_the_cases_are_what_they_say(one_process):
    assert not one_process("a silent layer")["maxpool/positive_count"].any()
    assert one_process("a silent layer")["layer1.0/positive_count"].any()
    assert one_process("data set")["maxpool/positive_count"][2] == 0
    assert (one_process("without the strongest")["maxpool/top_images"] == -1).any()


def share_work(folder: Path) -> None:
    rank, processes = distributed.world()
    for case, strongest in (("first", None), ("both", 4000)):
        counting = Counting(pictures(13))
        collect(small_net(), counting, LAYERS, batch_size=3, strongest=strongest)
        mine = [i for begin in range(3 * rank, 13, 3 * processes) for i in range(begin, min(begin + 3, 13))]
        assert counting.asked == mine * (1 if case == "first" else 2)
    (folder / f"ended-{rank}").touch()


@pytest.mark.parametrize("processes", [2, 3])
def test_no_process_looks_at_the_images_of_another(tmp_path, processes):
    together(processes, tmp_path, share_work, tmp_path)
    assert len(list(tmp_path.glob("ended-*"))) == processes


# -- torchrun ---------------------------------------------------------------------------------------------------------

SCRIPT = """
import sys
from pathlib import Path
from test_distributed import *

folder = Path(sys.argv[1])
assert not dist.is_initialized()
try:
    with distributed.process_group():
        rank, processes = distributed.world()
        assert processes == 2
        save_tensors(pass_of("mixed sizes"), folder / f"mixed sizes {rank}")
        save_tensors(pass_of("with checkpoints", folder), folder / f"with checkpoints {rank}")
        distributed.barrier()
        raise KeyError
except KeyError:
    (folder / f"left {rank} {dist.is_initialized()}").touch()
"""


def test_torchrun(tmp_path, one_process):
    (tmp_path / "script.py").write_text(SCRIPT, encoding="utf-8")
    path = os.pathsep.join([str(Path(__file__).parent), str(Path(distributed.__file__).parents[1]), *sys.path])
    ended = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone",
         str(tmp_path / "script.py"), str(tmp_path)],
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}, check=False, capture_output=True, text=True,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    for case in ("mixed sizes", "with checkpoints"):
        found = [load_tensors(tmp_path / f"{case} {rank}")[0] for rank in range(2)]
        assert_same_but_for_sums(found[0], one_process(case))
        assert_same_bits(found[1], found[0])
    names = {path.name for path in tmp_path.iterdir()}
    assert {"left 0 False", "left 1 False", "checkpoint-1-of-2", "checkpoint-2-of-2"} <= names
    assert "checkpoint" not in names


# -- checkpoints of several processes ---------------------------------------------------------------------------------

OPTIONS = {"top_k": 5, "strongest": 100, "batch_size": 2, "checkpoint_every": 0}


def own(folder: Path) -> Path:
    """The checkpoint of this process."""
    rank, processes = distributed.world()
    return folder / f"checkpoint-{rank + 1}-of-{processes}"


def keep_versions(folder: Path) -> None:
    """Go through the pass, and copy every checkpoint as it is written."""

    def write_and_keep(self, tensors, values):
        write(self, tensors, values)
        assert self.path == own(folder)
        shutil.copy(self.path, folder / f"version-{rank()}-{values['stage']}-{values['batches']}")

    write, Checkpoint.write = Checkpoint.write, write_and_keep
    images = load_images(folder)
    found = collect(small_net(), images, LAYERS[:2], checkpoint=folder / "checkpoint", **OPTIONS)
    save_tensors(tensors_of(found), folder / f"result-{rank()}")


def go_on_from_versions(folder: Path, combinations: list[tuple[Path | None, ...]]) -> None:
    """Put combinations of checkpoints in place, go on from them."""
    images, net = load_images(folder), small_net()
    expected = load_tensors(folder / "result-0")[0]
    for combination in combinations:
        own(folder).unlink(missing_ok=True)
        if combination[rank()] is not None:
            shutil.copy(combination[rank()], own(folder))
        stages = [place_of(version)[0] if version else 0 for version in combination]
        counting = Counting(images)
        found = collect(net, counting, LAYERS[:2], checkpoint=folder / "checkpoint", **OPTIONS)
        assert_same_bits(tensors_of(found), expected)
        if max(stages) == 2:
            assert counting.asked == []  # whoever has ended knows everything
        else:
            assert place_of(own(folder)) == (2, 0)
        if max(stages) == 1:  # only the second look is left
            done = place_of(combination[rank()])[1] if stages[rank()] == 1 else 0
            assert len(counting.asked) <= len(images) // distributed.world()[1] + 2 - 2 * done


@pytest.mark.parametrize("processes", [2, 3])
def test_processes_go_on_from_any_checkpoints_of_theirs(tmp_path, processes):
    """Also where one has lost its own, or was killed before it could write the end of a stage."""
    images = pictures(7, mixed=True)
    save_images(images, tmp_path)
    together(processes, tmp_path, keep_versions, tmp_path)
    results = [load_tensors(tmp_path / f"result-{of}")[0] for of in range(processes)]
    assert_same_but_for_sums(results[0], tensors_of(collect(small_net(), images, LAYERS[:2], **OPTIONS)))
    for other in results[1:]:
        assert_same_bits(other, results[0])
    versions = [[None, *sorted(tmp_path.glob(f"version-{of}-*"))] for of in range(processes)]
    assert all({place_of(version)[0] for version in found[1:]} == {0, 1, 2} for found in versions)
    combinations = list(itertools.product(*versions))
    if processes == 3:
        combinations = random.Random(0).sample(combinations, 60)  # noqa: S311
    together(processes, tmp_path, go_on_from_versions, tmp_path, combinations)


def write_slowly(folder: Path) -> None:
    """The last process takes its time to write; the first looks at the other's checkpoint whenever it may."""
    last = distributed.world()[1] - 1
    other = folder / f"checkpoint-{last + 1}-of-{last + 1}"

    def slow(self, tensors, values):
        if rank() == last and values["batches"] == 0:
            time.sleep(0.3)
        write(self, tensors, values)

    def look(self, batch):
        if rank() == 0:
            seen.append(place_of(other))
        look_again(self, batch)

    write, Checkpoint.write = Checkpoint.write, slow
    look_again, passes.Pass.look_again = passes.Pass.look_again, look
    seen = []
    collect(small_net(), load_images(folder), LAYERS[:2], checkpoint=folder / "checkpoint", **OPTIONS)
    seen.append(place_of(other))
    if rank() == 0:
        stages = [stage for stage, _ in seen]
        assert len(stages) > 2 and stages[-1] == 2 and set(stages[:-1]) == {1}, stages


@pytest.mark.parametrize("processes", [2, 3])
def test_no_process_goes_on_before_all_have_written_the_end_of_a_stage(tmp_path, processes):
    save_images(pictures(9), tmp_path)
    together(processes, tmp_path, write_slowly, tmp_path)


def ask_for_another(folder: Path) -> None:
    counting = Counting(load_images(folder))
    with pytest.raises(RfvizError) as error:
        collect(small_net(1), counting, LAYERS[:2], checkpoint=folder / "checkpoint", **OPTIONS)
    assert str(error.value).startswith(f"the checkpoint {own(folder)} belongs to another pass (other weights): ")
    assert counting.asked == []


def test_the_checkpoints_of_another_pass_are_refused(tmp_path):
    save_images(pictures(4), tmp_path)
    together(2, tmp_path, keep_versions, tmp_path)
    together(2, tmp_path, ask_for_another, tmp_path)


def share_to_file(folder: Path, after: int = -1, who: int = 0, told=None) -> None:
    images = load_images(folder)
    if rank() == who and told is not None:
        images = Counting(images, after, lambda: told.send("now"))
    else:
        images = Counting(images)
    found = collect(small_net(), images, LAYERS[:2], checkpoint=folder / "checkpoint", **OPTIONS)
    save_tensors(tensors_of(found), folder / f"result-{rank()}")


@pytest.mark.parametrize(("processes", "mixed"), [(2, False), (3, True)])
def test_all_killed_at_ten_moments_they_end_with_the_same_bytes(tmp_path, processes, mixed):
    save_images(pictures(28, mixed=mixed), tmp_path)
    together(processes, tmp_path, share_to_file, tmp_path)
    files = {of: tmp_path / f"checkpoint-{of + 1}-of-{processes}" for of in range(processes)}
    results = [tmp_path / f"result-{of}" for of in range(processes)]
    expected = results[0].read_bytes()

    def begin_anew():
        for path in (*results, *files.values()):
            path.unlink(missing_ok=True)

    begin_anew()
    moments, stages, kills = random.Random(processes), set(), 0  # noqa: S311
    while kills < 10:
        who, after, delay = moments.randrange(processes), moments.randint(1, 4), moments.uniform(0, 0.03)
        hears, told = CHILDREN.Pipe(duplex=False)
        members = start(processes, tmp_path, share_to_file, tmp_path, after, who, told)
        told.close()
        assert hears.poll(120)
        try:
            hears.recv()
            time.sleep(delay)
        except EOFError:
            pass  # that process had no more so many images before it
        kill(members)
        killed = [member.exitcode for member in members]
        assert set(killed) <= {0, -signal.SIGKILL}
        if set(killed) == {-signal.SIGKILL}:
            kills += 1
            stages |= {place_of(path)[0] for path in files.values() if path.exists()}
        if all(path.exists() for path in results):
            assert {path.read_bytes() for path in results} == {expected}
            begin_anew()
    assert {0, 1} <= stages
    together(processes, tmp_path, share_to_file, tmp_path)
    assert {path.read_bytes() for path in results} == {expected}
