"""A pass that was stopped anywhere goes on and ends as if nothing had happened."""

import multiprocessing
import random
import shutil
import signal
import time
from pathlib import Path

import pytest
import torch
from PIL import Image
from test_passes import LAYERS, assert_same_bits, pictures, small_net, tensors_of
from torch import Tensor, nn

from rfviz.errors import RfvizError
from rfviz.images.whitening import IMAGENET
from rfviz.kernels.responses import checkpoint as checkpoints
from rfviz.kernels.responses import collect
from rfviz.kernels.responses.checkpoint import Checkpoint
from rfviz.storage.files import load_tensors, save_tensors

torch.set_num_threads(1)  # also where a child process imports this module

CHILDREN = multiprocessing.get_context("forkserver")  # forks of a process that has imported all and has no threads
CHILDREN.set_forkserver_preload(["rfviz.kernels.responses", "rfviz.images.photographs", "pytest"])

OPTIONS = {"top_k": 5, "strongest": 400, "batch_size": 4, "checkpoint_every": 0}


class Counting:
    """Passes images on and notes which were asked for; calls something when it is asked for one more than `after`.

    The fingerprint stands for the images, so that none is asked for by what tells sets apart.
    """

    fingerprint = "counted"

    def __init__(self, images: list[Tensor], after: int = -1, then=None):
        self.images, self.asked, self.after, self.then = images, [], after, then

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Tensor:
        if len(self.asked) == self.after:
            self.then()
        self.asked.append(index)
        return self.images[index]


def place_of(path: Path) -> tuple[int, int] | None:
    """Stage and number of batches of a checkpoint, None where there is none."""
    if not path.exists():
        return None
    values = load_tensors(path)[1]["values"]
    return values["stage"], values["batches"]


def go_on(images, path: Path, net=None, **options) -> dict[str, Tensor]:
    images = Counting(images) if isinstance(images, list) else images
    return tensors_of(collect(net or small_net(), images, LAYERS, checkpoint=path, **{**OPTIONS, **options}))


def undisturbed(images, net=None, **options) -> dict[str, Tensor]:
    return go_on(images, None, net, **options)


@pytest.fixture
def versions(monkeypatch, tmp_path):
    """Copies of all checkpoints that are written."""
    kept = []

    def write_and_keep(self, tensors, values):
        write(self, tensors, values)
        kept.append(tmp_path / f"version-{len(kept)}")
        shutil.copy(self.path, kept[-1])

    write = Checkpoint.write
    monkeypatch.setattr(Checkpoint, "write", write_and_keep)
    return kept


# -- the file ---------------------------------------------------------------------------------------------------------


def test_state_comes_back(tmp_path):
    path = tmp_path / "new" / "folder" / "state"
    made_of = {"layers": ("a", "b"), "neuron": (1, 2), "weights": "abc", "none": None}
    tensors = {"a/b": torch.arange(3), "c": torch.rand(2, 3, dtype=torch.float64), "scalar": torch.tensor(4)}
    assert Checkpoint(path, made_of, 0).read() is None
    Checkpoint(path, made_of, 0).write({}, {"stage": 0})
    Checkpoint(path, made_of, 0).write(tensors, {"stage": 1, "batches": 7})
    found, values = Checkpoint(path, made_of, 99).read()
    assert_same_bits(found, tensors)
    assert values == {"stage": 1, "batches": 7}
    assert list(path.parent.iterdir()) == [path]
    Checkpoint(path, made_of, 0).remove()
    assert not path.exists()
    Checkpoint(path, made_of, 0).remove()


def test_it_is_time_to_write_when_so_many_seconds_have_passed(tmp_path, monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(checkpoints.time, "monotonic", lambda: now[0])
    checkpoint = Checkpoint(tmp_path / "state", {}, 60)
    for seconds, due in ((0, False), (59, False), (60, True), (500, True)):
        now[0] = 1000.0 + seconds
        assert checkpoint.due == due
    checkpoint.write({}, {})
    for seconds, due in ((0, False), (59, False), (60, True)):
        now[0] = 1500.0 + seconds
        assert checkpoint.due == due
    assert Checkpoint(tmp_path / "state", {}, 0).due


def test_a_failed_writing_leaves_the_last_state(tmp_path, monkeypatch):
    checkpoint = Checkpoint(tmp_path / "state", {}, 0)
    checkpoint.write({"a": torch.arange(3)}, {"stage": 0})

    def fails(*arguments, **options):
        raise OSError("no space")

    with monkeypatch.context() as patch:
        patch.setattr("rfviz.storage.files.save_file", fails)
        with pytest.raises(RfvizError, match="no space"):
            checkpoint.write({"a": torch.arange(4)}, {"stage": 1})
    tensors, values = checkpoint.read()
    assert tensors["a"].tolist() == [0, 1, 2] and values == {"stage": 0}


@pytest.mark.parametrize(
    ("now", "differ"),
    [
        ({"a": 1, "b": [1, 2]}, None),
        ({"b": (1, 2), "a": 1}, None),
        ({"a": 2, "b": [1, 2]}, "other a"),
        ({"a": 2, "b": [2, 1]}, "other a, b"),
        ({"a": 1}, "other b"),
        ({"a": 1, "b": [1, 2], "c": 0}, "other c"),
    ],
)
def test_the_state_of_something_else_is_refused(tmp_path, now, differ):
    path = tmp_path / "state"
    Checkpoint(path, {"a": 1, "b": (1, 2)}, 0).write({}, {"stage": 1})
    if differ is None:
        assert Checkpoint(path, now, 0).read() == ({}, {"stage": 1})
    else:
        with pytest.raises(RfvizError) as error:
            Checkpoint(path, now, 0).read()
        assert str(error.value).startswith(f"the checkpoint {path} belongs to another pass ({differ}): ")
        assert "\n" not in str(error.value)


def test_a_truncated_file_is_refused(tmp_path):
    path = tmp_path / "state"
    Checkpoint(path, {"a": 1}, 0).write({"x": torch.arange(9), "y": torch.ones(2)}, {"stage": 1})
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(RfvizError) as error:
            Checkpoint(path, {"a": 1}, 0).read()
        assert str(error.value) == f"the checkpoint {path} is damaged: remove it to begin anew, or choose another file."


@pytest.mark.parametrize("content", [b"", b"garbage", b"\xff" * 64, bytes(64), b'{"made_of": 1}', b"\x80\x04pickle"])
def test_garbage_is_refused(tmp_path, content):
    path = tmp_path / "state"
    path.write_bytes(content)
    with pytest.raises(RfvizError) as error:
        go_on(pictures(3), path)
    assert str(error.value) == f"the checkpoint {path} is damaged: remove it to begin anew, or choose another file."
    assert path.read_bytes() == content


def test_a_file_of_tensors_that_is_no_checkpoint_is_refused(tmp_path):
    path = tmp_path / "weights"
    save_tensors(small_net().state_dict(), path, {"architecture": "resnet34"})
    before = path.read_bytes()
    with pytest.raises(RfvizError, match="is damaged"):
        go_on(pictures(3), path)
    assert path.read_bytes() == before


def test_a_folder_is_refused(tmp_path):
    with pytest.raises(RfvizError) as error:
        go_on(pictures(3), tmp_path)
    assert str(error.value).startswith(f"the checkpoint {tmp_path} cannot be read (")
    assert "\n" not in str(error.value)


# -- where a pass may go on -------------------------------------------------------------------------------------------

KINDS = {
    "usual": {},
    "mixed sizes": {"mixed": True},
    "mixed sizes, every neuron": {"mixed": True, "per_image": None, "batch_size": 3},
    "one batch": {"mixed": True, "batch_size": 64},
    "without the strongest": {"strongest": None},
    "few strongest": {"mean_stimulus": False, "strongest": 3},
    "one neuron": {"neuron": (1, 2)},
    "double": {"mixed": True, "double": True},  # sums that are rounded: their order shows
    "whitened": {"preprocess": IMAGENET},
}


@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=() if kind == "double" else pytest.mark.thorough) for kind in KINDS]
)
def test_a_pass_goes_on_from_each_of_its_checkpoints(tmp_path, versions, kind):
    """The same to the bit, and no image that was seen before is looked at again."""
    options = dict(KINDS[kind])
    images, net = pictures(13, mixed=options.pop("mixed", False)), small_net()
    if options.pop("double", False):
        images, net = [image.double() for image in images], net.double()
    expected = undisturbed(images, net, **options)
    assert not versions
    path = tmp_path / "checkpoint"
    assert_same_bits(go_on(images, path, net, **options), expected)  # writing changes nothing
    places = [place_of(version) for version in versions]
    size, stages = options.get("batch_size", 4), 1 if options.get("strongest", 1) is None else 2
    assert sorted(places) == places and len(set(places)) == len(places)
    assert [batches for stage, batches in places if stage == 0] == list(range(1, -(-13 // size) + 1))
    assert places[-1] == (stages, 0)

    second_look = sorted({i for name, found in expected_strongest(net, images, options) for i in found})
    for version, (stage, batches) in zip(list(versions), places, strict=True):
        shutil.copy(version, path)
        counting = Counting(images)
        assert_same_bits(go_on(counting, path, net, **options, checkpoint_every=3600), expected)
        left = {
            0: [*range(13)[size * batches :], *second_look],
            1: second_look[size * batches :] if stages == 2 else [],
            2: [],
        }[stage]
        assert counting.asked == left
        assert place_of(path) == (stages, 0)


def expected_strongest(net, images, options):
    """Per layer, the images in which the strongest neurons are: the top list of a pass over every neuron says it."""
    strongest = options.get("strongest", OPTIONS["strongest"])
    if strongest is None:
        return
    found = collect(
        net, images, LAYERS, strongest, per_image=None, mean_stimulus=False,
        **{key: options[key] for key in ("preprocess",) if key in options},
        batch_size=options.get("batch_size", 4),
    )  # fmt: skip
    for layer, of_layer in found.items():
        yield layer, of_layer.top_images[of_layer.top_values > 0].tolist()


def test_the_checkpoints_of_a_pass_can_be_written_now_and_then(tmp_path, versions, monkeypatch):
    """Ten seconds per batch of the first stage: the rest is quick. And always at the end of a stage."""
    now = [0.0]
    monkeypatch.setattr(checkpoints.time, "monotonic", lambda: now[0])

    class Slow(Counting):
        def __getitem__(self, index):
            now[0] += 2.5 if len(self.asked) < 24 else 0
            return super().__getitem__(index)

    go_on(Slow(pictures(24)), tmp_path / "c", checkpoint_every=30)
    assert [place_of(version) for version in versions] == [(0, 3), (0, 6), (1, 0), (2, 0)]


def test_only_the_ends_of_the_stages_are_written_where_all_is_quick(tmp_path, versions):
    go_on(pictures(6), tmp_path / "c", checkpoint_every=3600)
    assert [place_of(version) for version in versions] == [(1, 0), (2, 0)]


def test_the_size_of_a_checkpoint_does_not_depend_on_the_number_of_images(tmp_path, versions):
    for count in (8, 40):
        go_on(pictures(count), tmp_path / f"checkpoint of {count}")
    sizes = {}
    for version in versions:
        stage, batches = place_of(version)
        sizes.setdefault((stage, batches > 0), set()).add(version.stat().st_size // 1000)  # the place has more digits
    assert {len(found) for found in sizes.values()} == {1}


@pytest.mark.parametrize("bad", [5, *(pytest.param(bad, marks=pytest.mark.thorough) for bad in (0, 12))])
@pytest.mark.parametrize("stage", [0, 1])
@pytest.mark.parametrize("mixed", [pytest.param(False, marks=pytest.mark.thorough), True])
def test_an_image_that_could_not_be_loaded_stops_a_pass_that_then_goes_on(tmp_path, bad, stage, mixed):
    images, path = pictures(13, mixed=mixed), tmp_path / "checkpoint"
    expected = undisturbed(images, strongest=4000)  # the second stage looks at every image

    class FailsOnce(Counting):
        def __getitem__(self, index):
            if index == bad and self.asked.count(bad) == stage and not failed:
                failed.append(index)
                raise OSError(f"picture {index} cannot be loaded")
            return super().__getitem__(index)

    failed = []
    with pytest.raises(OSError, match=f"picture {bad} cannot"):
        go_on(FailsOnce(images), path, strongest=4000)
    first = bad // 4  # its batch, of 4 images
    assert place_of(path) == ((stage, first) if stage or first else None)
    again = Counting(images)
    assert_same_bits(go_on(again, path, strongest=4000), expected)
    assert again.asked == [*range(13)[4 * first :], *(range(13) if stage == 0 else [])]


@pytest.mark.parametrize(
    "bad", [pytest.param(bad, marks=() if bad in (0, 5, 12) else pytest.mark.thorough) for bad in range(13)]
)
def test_a_response_that_is_not_finite_stops_a_pass_that_then_goes_on(tmp_path, bad):
    """In the middle of a batch whose first images, of another size, were already looked at."""
    images, path = pictures(13, mixed=True), tmp_path / "checkpoint"
    expected = undisturbed(images)
    spoiled = list(images)
    spoiled[bad] = images[bad] * torch.nan
    with pytest.raises(RfvizError, match=f"^image {bad}: "):
        go_on(spoiled, path)
    assert place_of(path) == ((0, bad // 4) if bad >= 4 else None)
    assert_same_bits(go_on(images, path), expected)


@pytest.mark.parametrize(
    "stopped",
    [pytest.param(stopped, marks=() if stopped in (0, 3, 5) else pytest.mark.thorough) for stopped in range(6)],
)
def test_a_stream_goes_on(tmp_path, stopped):
    """It passes by from its beginning, but the network does not see again what it saw."""
    images, path = torch.stack(pictures(13)), tmp_path / "checkpoint"
    parts = images.split([3, 1, 4, 2, 3])

    def stream(fails: bool):
        for number, part in enumerate(parts):
            if fails and number == stopped:
                raise OSError("the line is dead")
            yield (part, "labels") if number % 2 else part
        if fails and stopped == 5:
            raise OSError("the line is dead")

    expected = undisturbed(stream(False), strongest=None)
    with pytest.raises(OSError, match="the line is dead"):
        go_on(stream(True), path, strongest=None)
    assert place_of(path) == ((0, stopped) if stopped else None)
    net, seen = small_net(), []
    net.conv1.register_forward_hook(lambda module, args, output: seen.append(len(output)))
    assert_same_bits(go_on(stream(False), path, net, strongest=None), expected)
    assert seen == [3, 1, 4, 2, 3][stopped:]
    assert_same_bits(go_on(stream(False), path, net, strongest=None), expected)
    assert len(seen) == 5 - stopped


@pytest.mark.parametrize("strongest", [None, 400])
def test_nothing_is_done_where_the_pass_has_ended(tmp_path, strongest):
    images, path = Counting(pictures(6)), tmp_path / "checkpoint"
    net, seen = small_net(), []
    net.conv1.register_forward_hook(lambda module, args, output: seen.append(1))
    expected = go_on(images, path, net, strongest=strongest)
    assert len(seen) == 2 and len(images.asked) == (6 if strongest is None else 12)
    before = path.read_bytes(), path.stat().st_mtime_ns
    images.asked.clear()
    for _ in range(2):
        assert_same_bits(go_on(images, path, net, strongest=strongest), expected)
    assert len(seen) == 2 and images.asked == []
    assert (path.read_bytes(), path.stat().st_mtime_ns) == before


def test_workers_and_progress_bars_may_change_on_the_way(tmp_path, versions, capsys):
    images = pictures(13)
    expected, path = undisturbed(images), tmp_path / "checkpoint"
    go_on(images, path)
    for version in (versions[1], versions[5]):
        shutil.copy(version, path)
        assert_same_bits(go_on(images, path, workers=2, progress=True), expected)
    assert "8/13" in capsys.readouterr().err  # the bar begins where the pass goes on


# -- another pass -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def two_checkpoints(tmp_path_factory) -> tuple[Path, Path]:
    """Of a pass over six images: after its first batch and at its end."""
    folder = tmp_path_factory.mktemp("checkpoints")
    images, net, seen = torch.stack(pictures(6)), small_net(), []

    def stop_at_the_second(module, args):
        seen.append(args)
        if len(seen) > 1:
            raise OSError("stopped")

    net.conv1.register_forward_pre_hook(stop_at_the_second)
    with pytest.raises(OSError, match="stopped"):
        go_on(images, folder / "begun", net)
    go_on(images, folder / "ended")
    return folder / "begun", folder / "ended"


class Named(Counting):
    """A data set with a fingerprint."""

    fingerprint = "these"


class OtherNamed(Counting):
    fingerprint = "those"


@pytest.mark.parametrize(
    ("change", "differ"),
    [
        ({"net": 1}, "weights"),
        ({"net": "double"}, "weights"),
        ({"net": "statistics"}, "weights"),
        ({"layers": LAYERS[:2]}, "layers"),
        ({"layers": LAYERS[::-1]}, "layers"),
        ({"batch_size": 3}, "batch_size"),
        ({"top_k": 6}, "top_k"),
        ({"per_image": None}, "per_image"),
        ({"mean_stimulus": False}, "mean_stimulus"),
        ({"strongest": 401}, "strongest"),
        ({"strongest": None}, "strongest"),
        ({"neuron": (0, 1)}, "neuron"),
        ({"preprocess": IMAGENET}, "whitening"),
        ({"batch_size": 3, "top_k": 6}, "batch_size, top_k"),
        ({"images": lambda tensor: tensor[:-1]}, "images"),
        ({"images": lambda tensor: tensor.flip(0)}, "images"),
        ({"images": lambda tensor: tensor.flip(3)}, "images"),
        ({"images": lambda tensor: tensor[:, :, 1:]}, "images"),
        ({"images": lambda tensor: torch.cat([tensor[:1] + 1e-3, tensor[1:]])}, "images"),
        ({"images": lambda tensor: torch.cat([tensor[:-1], tensor[-1:] + 1e-3])}, "images"),
        ({"images": lambda tensor: Named(list(tensor))}, "images"),
    ],
)
@pytest.mark.parametrize("ended", [False, pytest.param(True, marks=pytest.mark.thorough)])
def test_the_checkpoint_of_another_pass_is_refused(tmp_path, two_checkpoints, change, differ, ended):
    images, path = torch.stack(pictures(6)), tmp_path / "checkpoint"
    shutil.copy(two_checkpoints[ended], path)
    before = path.read_bytes()
    options = dict(change)
    net = small_net(1 if options.get("net") == 1 else 0)
    if options.get("net") == "double":
        net.double()
    if options.pop("net", None) == "statistics":
        net.layer1[0].bn1.running_mean += 1e-3
    other = options.pop("images", lambda tensor: tensor)(images)
    with pytest.raises(RfvizError) as error:
        collect(net, other, options.pop("layers", LAYERS), checkpoint=path, **{**OPTIONS, **options})
    message = str(error.value)
    assert message.startswith(f"the checkpoint {path} belongs to another pass (other {differ}): ")
    assert "\n" not in message
    assert path.read_bytes() == before


def test_data_sets_are_told_apart_by_their_fingerprint(tmp_path):
    images, path = pictures(6), tmp_path / "checkpoint"
    go_on(Named(images), path)
    go_on(Named(images), path)
    for other in (OtherNamed(images), images):
        with pytest.raises(RfvizError, match=r"\(other images\)"):
            go_on(other, path)


def as_pictures(images):
    return [Image.fromarray((255 * image).byte().permute(1, 2, 0).numpy()) for image in images]


@pytest.mark.parametrize(
    ("given", "change"),
    [
        (torch.stack, lambda images: [*images[:2], images[2] / 2, *images[3:]]),  # of a tensor any pixel counts
        (list, lambda images: images[:-1]),
        (list, lambda images: [image / 2 for image in images]),
        (list, lambda images: [images[0] / 2, *images[1:]]),
        (list, lambda images: [*images[:-1], images[-1] / 2]),
        (list, lambda images: [image[:, 1:] for image in images]),
        (as_pictures, lambda images: [image / 2 for image in images]),
    ],
)
def test_images_without_a_fingerprint_are_told_apart_by_what_they_are(tmp_path, given, change):
    images, path = pictures(30), tmp_path / "checkpoint"
    for _ in range(2):
        collect(small_net(), given(images), LAYERS[:1], checkpoint=path)
    with pytest.raises(RfvizError, match=r"\(other images\)"):
        collect(small_net(), given(change(images)), LAYERS[:1], checkpoint=path)


def test_networks_of_the_same_weights_are_told_apart_by_what_they_do(tmp_path):
    class Net(nn.Module):
        def __init__(self, stride=1, slope=1):
            super().__init__()
            torch.manual_seed(0)
            self.conv, self.slope = nn.Conv2d(3, 4, 3, stride=stride), slope

        def forward(self, x):
            return self.conv(x * self.slope)

    path = tmp_path / "checkpoint"
    for _ in range(2):
        collect(Net(), pictures(3), "conv", checkpoint=path)
    for other in (Net(stride=2), Net(slope=2)):
        with pytest.raises(RfvizError, match=r"\(other architecture\)"):
            collect(other, pictures(3), "conv", checkpoint=path)


def test_an_unusable_checkpoint_is_discarded_where_that_is_asked_for(tmp_path, two_checkpoints, caplog):
    images, path = torch.stack(pictures(6)), tmp_path / "checkpoint"
    expected = undisturbed(images)
    (tmp_path / "damaged").write_bytes(two_checkpoints[0].read_bytes()[:-1])
    go_on(images, tmp_path / "another", small_net(1))
    for unusable, reason in (("damaged", "is damaged"), ("another", "belongs to another pass (other weights)")):
        shutil.copy(tmp_path / unusable, path)
        caplog.clear()
        assert_same_bits(go_on(images, path, discard_unusable=True), expected)
        assert caplog.messages == [f"rfviz: the checkpoint {path} {reason}: the pass begins anew."]
        assert place_of(path) == (2, 0)
    shutil.copy(two_checkpoints[0], path)  # of this pass
    caplog.clear()
    counting = Counting(list(images))
    with pytest.raises(RfvizError, match=r"\(other images\)"):  # a list is not the tensor
        go_on(counting, path)
    assert_same_bits(go_on(images, path, discard_unusable=True), expected)
    assert not caplog.messages
    with pytest.raises(RfvizError, match="cannot be read"):
        go_on(images, tmp_path, discard_unusable=True)


# -- killed -----------------------------------------------------------------------------------------------------------


def save_images(images: list[Tensor], folder: Path) -> None:
    save_tensors({f"{i:03}": image for i, image in enumerate(images)}, folder / "images")


def load_images(folder: Path) -> list[Tensor]:
    return [image for _, image in sorted(load_tensors(folder / "images")[0].items())]


def pass_to_file(folder: Path, after: int, told) -> None:
    """In a child process: go on with the pass, tell when one more than so many images are asked for, write the end."""
    images = Counting(load_images(folder), after, lambda: told.send("now"))
    save_tensors(go_on(images, folder / "checkpoint"), folder / "result")


def killed(target, arguments: tuple, after: int, delay: float) -> bool:
    """Run a target of that kind and SIGKILL it so many seconds after it told; return False if it ended before."""
    hears, told = CHILDREN.Pipe(duplex=False)
    process = CHILDREN.Process(target=target, args=(*arguments, after, told))
    process.start()
    told.close()
    assert hears.poll(120)
    try:
        hears.recv()
        time.sleep(delay)
        process.kill()
    except EOFError:
        pass
    process.join(120)
    assert process.exitcode in (0, -signal.SIGKILL)
    return process.exitcode != 0


@pytest.mark.parametrize(
    ("seed", "mixed", "wanted"),
    [(1, True, 3), *(pytest.param(*each, 10, marks=pytest.mark.thorough) for each in ((0, False), (1, True)))],
)
def test_killed_at_any_moment_a_pass_ends_with_the_same_bytes(tmp_path, mixed, seed, wanted):
    images = pictures(24, mixed=mixed)
    save_tensors(undisturbed(images), tmp_path / "expected")
    expected = (tmp_path / "expected").read_bytes()
    save_images(images, tmp_path)
    moments, places, kills = random.Random(seed), [], 0  # noqa: S311
    path, result = tmp_path / "checkpoint", tmp_path / "result"
    while kills < wanted:
        if killed(pass_to_file, (tmp_path,), moments.randint(1, 7), moments.uniform(0, 0.02)):
            kills += 1
            places.append(place_of(path))
            assert not result.exists()
        else:  # the pass had ended: begin another one
            assert result.read_bytes() == expected
            result.unlink()
            path.unlink()
    if wanted == 10:
        assert {0, 1} <= {place[0] for place in places if place is not None}
    assert len(set(places)) > 0.4 * wanted
    assert not killed(pass_to_file, (tmp_path,), -1, 0)
    assert result.read_bytes() == expected
