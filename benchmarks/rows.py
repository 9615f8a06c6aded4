"""The rows of the table: each function measures one piece of work against its floor or a peer."""

import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import measure, peers, training
from rfviz.images import photographs
from rfviz.kernels import maximization, responses
from rfviz.kernels.responses import passes
from rfviz.kernels.responses.cores import Cores
from rfviz.nets import models, receptive_field
from rfviz.nets.graph import ForwardPass
from rfviz.nets.network import NETWORKS
from rfviz.nets.precision import exact

SIDE, BATCH, TOP = 224, 32, 16
FIGURE_LAYERS, LAYERS = NETWORKS["resnet34"].figure_layers, NETWORKS["resnet34"].layers
DEEPEST = FIGURE_LAYERS[-1]
Row = dict[str, Any]


def network(channels_last: bool = False) -> nn.Module:
    torch.manual_seed(0)
    net = models.resnet34().eval()
    return net.to(memory_format=torch.channels_last) if channels_last else net


def crops(number: int, side: int = SIDE) -> Tensor:
    """Random crops of the photographs that come with scikit-image, `(N, 3, side, side)`."""
    from torchvision.transforms import v2

    source = photographs.load(side).train
    cut = v2.Compose([v2.RandomResizedCrop(side, (0.2, 1.0), antialias=True), v2.ToDtype(torch.float32, scale=True)])
    torch.manual_seed(0)
    return torch.stack([cut(source[i % len(source)][0]) for i in range(number)])


def floor(net: nn.Module, images: Tensor, layers: tuple[str, ...]) -> Callable[[], None]:
    forward = ForwardPass(net, layers)

    def run() -> None:
        with torch.inference_mode():
            for batch in images.split(BATCH):
                forward(batch)

    return run


def _pass(layers: tuple[str, ...], work: str, target: float, number: int, runs_: int, **options: Any) -> Iterator[Row]:
    images = crops(number)
    for channels_last in (False, True):
        net = network(channels_last)
        times = measure.in_turn(
            {
                "floor": floor(net, images, layers),
                "work": lambda net=net: responses.collect(net, images, layers, TOP, batch_size=BATCH, **options),
            },
            runs_,
        )
        yield {
            "work": work,
            "reference": f"forward pass cut at {layers[-1]}, nothing collected",
            "order": "channels last" if channels_last else "as torch builds it",
            "images": number,
            "target": f"<= {target}",
            **(found := measure.compared(times, "work", "floor")),
            "reached": found["ratio"] <= target,
            "peak_mb": measure.peak_mb(),
        }


def top_and_activity() -> Iterator[Row]:
    yield from _pass(FIGURE_LAYERS, "top 16 + activity, 3 layers", 1.15, 256, 7, mean_stimulus=False)


def mean_stimuli() -> Iterator[Row]:
    yield from _pass(FIGURE_LAYERS, "top 16 + activity + mean stimuli, 3 layers", 1.5, 256, 7)


def all_layers() -> Iterator[Row]:
    yield from _pass(LAYERS, "top 16 + activity, 17 layers", 1.15, 128, 5, mean_stimulus=False)


STAGES = {
    "Maps._look": "maxima, sums and octaves of the maps",
    "summed_patches.<locals>.<lambda>": "counts of the neurons that fire",
    "Phases.transform.<locals>.<lambda>": "Fourier transforms of the images",
    "summed_patches.<locals>.transform": "Fourier transforms of the neurons",
    "_product_back.<locals>.multiply": "products of the two, and the way back",
}
"""What is done on all cores at once, by the name of the function."""


def profile() -> Iterator[Row]:
    """Yield what a pass with mean stimuli spends its time on, and how many operations on numbers that takes."""
    images, net = crops(128), network()
    seconds, operations = Counter[str](), Counter[str]()
    counter = FlopCounterMode(display=False)

    class Watched(Cores):
        def each(self, work: Callable[[Any], Any], pieces: Iterable[Any]) -> list[Any]:
            stage = STAGES[work.__qualname__]
            began, counted = time.perf_counter(), counter.get_total_flops()
            found = super().each(work, pieces)
            seconds[stage] += time.perf_counter() - began
            operations[stage] += counter.get_total_flops() - counted
            return found

    def collect(some: Tensor) -> None:
        responses.collect(net, some, FIGURE_LAYERS, TOP, batch_size=BATCH)

    with mock.patch.object(passes, "Cores", Watched):
        threads = torch.get_num_threads()
        torch.set_num_threads(1)  # only what this thread does is counted
        with counter:
            collect(images[:BATCH])
        torch.set_num_threads(threads)
        square = torch.rand(2048, 2048)
        works = {"floor": floor(net, images, FIGURE_LAYERS), "work": lambda: collect(images)}
        works["product"] = lambda: square @ square
        measure.in_turn(works, 1)
        seconds.clear()
        times = measure.in_turn(works, 5)
    bare, whole, once = (statistics.mean(times[name]) for name in works)
    gflop = {stage: number / BATCH / 1e9 for stage, number in operations.items()}
    forward = counter.get_flop_counts()["Global"][torch.ops.aten.convolution] / BATCH / 1e9
    of_stages = {stage: seconds[stage] / 6 / len(images) for stage in STAGES.values()}  # in_turn begins with one more
    bare, whole = bare / len(images), whole / len(images)
    yield {"stage": "forward pass, nothing collected", "seconds": bare, "gflop": forward}
    for stage, spent in of_stages.items():
        yield {"stage": stage, "seconds": spent, "gflop": gflop[stage]}
    yield {"stage": "the whole pass", "seconds": whole, "gflop": None}
    yield {
        "stage": "for comparison: one product of two matrices of 2048 x 2048",
        "seconds": once,
        "gflop": 2 * 2.048**3,
    }


def floor_as_torch_comes() -> Iterator[Row]:
    """To be run with RFVIZ_KEEP_MEMORY=0: the same floor in a process whose memory is as usual."""
    images, net = crops(256), network()
    for layers in (FIGURE_LAYERS, LAYERS):
        part = images if layers == FIGURE_LAYERS else images[:128]
        times = measure.in_turn({"floor": floor(net, part, layers)}, 5)
        yield {"floor": layers[-1], "images": len(part), "seconds": statistics.median(times["floor"])}


def zennit() -> Iterator[Row]:
    peer = "zennit-crp (also runs a backward pass and class statistics)"
    yield _against(peer, lambda net, images: peers.zennit_crp(net, images, FIGURE_LAYERS, TOP, BATCH))


def captum() -> Iterator[Row]:
    peer = "captum's LayerActivation and torch.topk, layer by layer"
    yield _against(peer, lambda net, images: peers.captum_topk(net, images, FIGURE_LAYERS, TOP, BATCH))


def _against(peer: str, find: Callable[[nn.Module, Tensor], dict[str, Tensor]]) -> Row:
    """Compare a peer's lists of the strongest images with ours, and only then its time."""
    images, net = crops(64), network()

    def ours() -> dict[str, responses.LayerResponses]:
        return responses.collect(net, images, FIGURE_LAYERS, TOP, mean_stimulus=False, borders=True, batch_size=BATCH)

    def theirs() -> dict[str, Tensor]:
        return find(peers.without_inplace(network()), images)

    found, expected = ours(), theirs()
    channels = sum(_same_sets(found[layer], expected[layer]) for layer in FIGURE_LAYERS)
    times = measure.in_turn({"ours": ours, "theirs": theirs}, 3)
    return {**_faster(times, "top 16, 3 layers", peer), "same_lists_of_channels": channels}


def _same_sets(ours: responses.LayerResponses, theirs: Tensor) -> int:
    """Compare the lists of images of every channel, and return how many channels that are.

    Channels whose list reaches down to images in which they are silent are left out: those tie.
    """
    fires = (ours.top_values[:, -1] > 0).nonzero().flatten().tolist()
    for channel in fires:
        found, expected = ours.top_images[channel].tolist(), theirs[channel].tolist()
        if set(found) != set(expected):
            raise AssertionError(f"channel {channel}: {found} and {expected} differ")
    return len(fires)


def _faster(times: dict[str, list[float]], work: str, peer: str, target: float | None = None) -> Row:
    found = measure.compared(times, "theirs", "ours")
    return {
        "work": work,
        "reference": peer,
        "times_faster": found["ratio"],
        "ratios": found["ratios"],
        "seconds": found["reference_seconds"],
        "reference_seconds": found["seconds"],
        "runs": found["runs"],
        "peak_mb": measure.peak_mb(),
        **({"target": f">= {target:g} times faster", "reached": found["ratio"] >= target} if target else {}),
    }


def patch_loop() -> Iterator[Row]:
    """On one small image, since the loop is slow; the kernel takes batches of the same image size."""
    layer, net = "layer1.0", network()
    images = crops(32, 64)
    values: list[Tensor] = []
    with torch.inference_mode():
        ForwardPass(net, [layer])(images[:1], lambda _, value: values.append(value.clone()))
    field = receptive_field.of(net, layer)
    ours = responses.collect(net, images[:1], [layer])[layer].mean_stimulus
    assert ours is not None
    torch.testing.assert_close(ours, peers.mean_by_loop(images[:1], values[0], field), rtol=0, atol=1e-5)
    loop = statistics.median(
        measure.seconds(lambda: peers.mean_by_loop(images[:1], values[0], field)) for _ in range(3)
    )
    works = {
        "without": lambda: responses.collect(net, images, [layer], mean_stimulus=False),
        "with": lambda: responses.collect(net, images, [layer]),
    }
    times = measure.in_turn(works, 7)
    extra = statistics.median(b - a for a, b in zip(times["without"], times["with"], strict=True)) / len(images)
    yield {
        "work": f"mean stimuli of {layer}, one image of 64 px",
        "reference": "a loop over patches",
        "times_faster": loop / extra,
        "seconds": extra,
        "reference_seconds": loop,
        "runs": 3,
        "peak_mb": measure.peak_mb(),
    }


def lucent() -> Iterator[Row]:
    net, theirs, ours = network(), 8, 64
    for layer, target in (("maxpool", 500), ("layer1.0", 150), ("layer1.2", 60)):
        times = measure.in_turn(
            {
                "ours": lambda layer=layer: maximization.maximize(net, layer, range(ours)),
                "theirs": lambda layer=layer: peers.lucent(  # its hooks are never removed: a fresh network each time
                    peers.without_inplace(network()), layer, range(theirs), steps=31
                ),
            },
            3,
        )
        each = {
            "ours": [seconds / ours for seconds in times["ours"]],
            "theirs": [seconds / theirs for seconds in times["theirs"]],
        }
        work = f"maximization of a neuron of {layer}, 31 steps"
        yield _faster(each, work, f"lucent, {theirs} neurons at a time, 224 px (ours: {ours} at a time)", target)


class Made(Dataset):
    """Images that are made when they are asked for and held by nobody."""

    def __init__(self, number: int):
        self.number = number

    def __len__(self) -> int:
        return self.number

    def __getitem__(self, index: int) -> Tensor:
        return torch.rand(3, SIDE, SIDE, generator=torch.Generator().manual_seed(index))


def memory_of(number: int) -> Iterator[Row]:
    responses.collect(network(True), Made(number), FIGURE_LAYERS, TOP, strongest=256)
    yield {"images": number, "peak_mb": measure.peak_mb()}


def memory_1000() -> Iterator[Row]:
    yield from memory_of(1_000)


def memory_10000() -> Iterator[Row]:
    yield from memory_of(10_000)


def gpu() -> Iterator[Row]:
    """The pass on a GPU, images already there."""
    if not torch.cuda.is_available():
        return
    net, images = network(True).cuda(), crops(512).cuda()
    forward = ForwardPass(net, FIGURE_LAYERS)

    def bare() -> None:
        with torch.inference_mode(), exact(images.device):
            for batch in images.split(256):
                forward(batch)
        torch.cuda.synchronize()

    def ours() -> None:
        responses.collect(net, images, FIGURE_LAYERS, TOP, mean_stimulus=False, batch_size=256)
        torch.cuda.synchronize()

    found = measure.compared(measure.in_turn({"ours": ours, "floor": bare}, 7), "ours", "floor")
    yield {
        "work": "top 16 + activity, 3 layers, GPU",
        "reference": f"forward pass cut at {DEEPEST}",
        "images": len(images),
        "target": "<= 1.176 (85 % of the throughput)",
        "reached": found["ratio"] <= 1 / 0.85,
        "peak_mb": torch.cuda.max_memory_allocated() / 2**20,
        **found,
    }


ROWS: dict[str, Callable[[], Iterator[Row]]] = {
    made.__name__: made
    for made in (
        floor_as_torch_comes, top_and_activity, mean_stimuli, all_layers, profile, zennit, captum, patch_loop, lucent,
        memory_1000, memory_10000, gpu, training.train_step, training.train_loader,
        training.train_gpu,
    )
}  # fmt: skip
