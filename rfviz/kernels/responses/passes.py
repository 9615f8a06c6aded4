"""The loop behind `rfviz.kernels.responses.collect`: accumulators of every layer, in a pass that can stop and go on."""

import dataclasses
from collections.abc import Sized
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from rfviz.errors import RfvizError
from rfviz.images.batches import Batch, Images, batches, image_of, is_indexed
from rfviz.images.whitening import Whitening
from rfviz.kernels.responses.activity import Activity
from rfviz.kernels.responses.checkpoint import Checkpoint
from rfviz.kernels.responses.cores import Cores
from rfviz.kernels.responses.maps import Maps
from rfviz.kernels.responses.mean_stimulus import MeanStimulus
from rfviz.kernels.responses.patch_sums import Phases, Workspace
from rfviz.kernels.responses.top_stimuli import TopStimuli
from rfviz.nets import receptive_field
from rfviz.nets.graph import ForwardPass, in_channels, trace
from rfviz.nets.precision import exact
from rfviz.nets.receptive_field import ReceptiveField
from rfviz.storage.digests import digest, tensor_digest

STATE = 2
"""Of the tensors of a checkpoint: raised when a pass keeps others."""


@dataclass(frozen=True)
class Options:
    """Those arguments of `collect` that change the result."""

    layers: tuple[str, ...]
    top_k: int
    per_image: int | None
    mean_stimulus: bool
    strongest: int | None
    strongest_per_image: int | None
    neuron: tuple[int, int] | None
    borders: bool
    batch_size: int


class Layer:
    """The accumulators of one layer."""

    def __init__(self, name: str, field: ReceptiveField, options: Options):
        self.name, self.field, self.neuron, self.borders = name, field, options.neuron, options.borders
        self.activity = Activity()
        self.top = TopStimuli(options.top_k, options.per_image)
        patches = not field.is_whole_image  # which has no patches to average
        self.mean = MeanStimulus(field) if options.mean_stimulus and patches else None
        self.all = TopStimuli(options.strongest, options.strongest_per_image) if options.strongest and patches else None
        self.strongest = MeanStimulus(field) if options.strongest and patches else None
        self.patch = MeanStimulus(field) if self.mean or self.strongest else None
        self.competing = MeanStimulus(field) if self.mean or self.strongest else None

    @property
    def parts(self) -> dict[str, Any]:
        """The accumulators that were asked for, by name."""
        names = ("activity", "top", "mean", "all", "strongest", "patch", "competing")
        return {name: part for name in names if (part := getattr(self, name)) is not None}

    def update(self, index: Tensor, responses: Tensor, phases: Phases) -> None:
        """Take the responses `(N, C, h, w)` to the images with the numbers `index`, whose phases are given."""
        sides = zip(responses.shape[2:], phases.images.shape[2:], strict=True)
        rows, columns = (slice(0, side) if self.borders else self.field.whole(side, pixels) for side, pixels in sides)
        maps = Maps(responses, rows, columns, phases.cores)
        maps.refuse_not_finite(self.name, index)
        self.activity.update(maps)
        self.top.update(index, maps)
        if self.all is not None:
            self.all.update(index, maps)
        every = slice(0, responses.shape[2]), slice(0, responses.shape[3])
        if self.neuron is not None:
            responses = _only(responses, self.neuron, self.name)
            every = slice(self.neuron[0], self.neuron[0] + 1), slice(self.neuron[1], self.neuron[1] + 1)
        if self.mean is not None:
            self.mean.update(phases, responses)
        if self.patch is not None and self.competing is not None:
            self.patch.update_grid(phases, responses.shape, *every)
            self.competing.update_grid(phases, responses.shape, rows, columns)

    def result(self) -> dict[str, Any]:
        """Return the results, by the names of the fields of `rfviz.kernels.responses.LayerResponses`."""
        values, found, positions = self.top.result()
        mean, count = self.mean.result() if self.mean else (None, None)
        strongest, strongest_count = self.strongest.result() if self.strongest else (None, None)
        return dict(
            receptive_field=self.field,
            neuron_count=int(self.activity.state["neurons"]),
            top_values=values,
            top_images=found,
            top_positions=positions,
            mean_stimulus=mean,
            mean_count=count,
            strongest_stimulus=strongest,
            strongest_count=strongest_count,
            mean_patch=self.patch.result()[0][0] if self.patch else None,
            competing_patch=self.competing.result()[0][0] if self.competing else None,
            **self.activity.result(),
        )


class Pass:
    """A pass under way: the accumulators of all layers, and how far it has come.

    It has two stages. The first runs the network over all images. The second, where the mean over the strongest
    neurons is asked for, looks again at the images in which those are.
    """

    def __init__(self, net: nn.Module, images: Images, preprocess: Whitening, options: Options):
        self.net, self.images, self.preprocess, self.options = net, images, preprocess, options
        self.forward = ForwardPass(net, options.layers)
        fields = receptive_field.known(net, options.layers)
        self.layers = {layer: Layer(layer, fields[layer].field, options) for layer in options.layers}
        self.parameter = next(net.parameters())
        self.stage = 0
        self.batches = 0  # of this stage, that have been seen
        self.count = 0  # images
        self.workspace = Workspace()
        self.cores = Cores()

    def respond(self, batch: Batch) -> None:
        """First stage: update everything with the responses to a batch."""
        images = batch.images.to(self.parameter.device, non_blocking=True)
        phases = Phases(images, self.workspace, self.cores)

        def read(layer: str, response: Tensor) -> None:
            self.layers[layer].update(batch.index, response, phases)

        with exact(self.parameter.device):
            self.forward(self.preprocess(images).to(self.parameter.dtype), read)
        self.count += len(images)

    def sum_strongest(self, batch: Batch) -> None:
        """Second stage: sum the patches of those of the strongest neurons that are in a batch."""
        images = batch.images.to(self.parameter.device, non_blocking=True)
        # Few patches make a mean here, and at borders fewer still: in float64, which costs little without the network.
        phases = Phases(images.double(), self.workspace, self.cores)
        for name, (values, found, positions) in self.strongest.items():
            layer = self.layers[name]
            start, stride = layer.field.start, layer.field.stride
            # As large for every batch, and at least as large as the layer's maps without the neurons that see nothing
            # of the image: what is not chosen does not matter.
            grid = [
                max(-(-pixels // stride), min(last + 1, (pixels - 1 - start) // stride + 1))
                for pixels, last in zip(images.shape[2:], positions.amax((0, 1)).tolist(), strict=True)
            ]
            slot = torch.searchsorted(batch.index, found).clamp_(max=len(batch.index) - 1)
            here = (batch.index[slot] == found) & (values > 0) & (positions < torch.tensor(grid)).all(2)
            channel, _ = here.nonzero(as_tuple=True)
            y, x = positions[here].unbind(1)
            chosen = torch.zeros(len(images), len(values), *grid, dtype=torch.bool)
            chosen[slot[here], channel, y, x] = True
            assert layer.strongest is not None
            layer.strongest.update(phases, chosen.to(images.device))

    def needed(self) -> list[int] | None:
        """Return the images that the stage looks at; None for all."""
        if self.stage == 0:
            return None
        self.strongest = {name: layer.all.result() for name, layer in self.layers.items() if layer.all is not None}
        chosen = [found[values > 0] for values, found, _ in self.strongest.values()]
        if not chosen:
            return [0]
        return torch.cat(chosen).unique().tolist() or [0]  # where no neuron fires, one image: it gives empty sums

    def run(self, checkpoint: Checkpoint | None, workers: int, progress: bool) -> dict[str, dict[str, Any]]:
        """Go through what is left of the stages, and return what `Layer.result` says of each layer."""
        if checkpoint is not None:
            self.resume(checkpoint)
        while self.stage < (2 if self.options.strongest else 1):
            indices = self.needed()
            total = (
                len(indices) if indices is not None else len(self.images) if isinstance(self.images, Sized) else None
            )
            left = batches(
                self.images, self.options.batch_size, workers=workers, indices=indices, skip=self.batches,
                pin_memory=self.parameter.device.type == "cuda", colours=in_channels(self.net),
            )  # fmt: skip
            bar = tqdm(
                desc=("responses", "mean of the strongest")[self.stage], unit="image", total=total,
                initial=min(self.batches * self.options.batch_size, total or 0), disable=not progress,
            )  # fmt: skip
            with bar, torch.inference_mode(), self.cores:
                for batch in left:
                    (self.respond, self.sum_strongest)[self.stage](batch)
                    self.batches += batch.complete
                    bar.update(len(batch.images))
                    if checkpoint is not None and batch.complete and checkpoint.due:
                        checkpoint.write(self.tensors(), self.place())
            self.stage, self.batches = self.stage + 1, 0
            if checkpoint is not None:
                checkpoint.write(self.tensors(), self.place())
        return {name: {"image_count": self.count, **layer.result()} for name, layer in self.layers.items()}

    def tensors(self) -> dict[str, Tensor]:
        """Return the state of every accumulator."""
        return {
            f"{layer}/{name}/{key}": tensor
            for layer, of_layer in self.layers.items()
            for name, part in of_layer.parts.items()
            for key, tensor in part.state_dict().items()
        }

    def place(self) -> dict[str, int]:
        """Return how far the pass has come."""
        return {"stage": self.stage, "batches": self.batches, "count": self.count}

    def resume(self, checkpoint: Checkpoint) -> None:
        """Go on from a checkpoint, if there is one."""
        found = checkpoint.read()
        if found is None:
            return
        tensors, place = found
        self.stage, self.batches, self.count = place["stage"], place["batches"], place["count"]
        for layer, of_layer in self.layers.items():
            for name, part in of_layer.parts.items():
                start = f"{layer}/{name}/"
                part.load_state_dict(
                    {key.removeprefix(start): value for key, value in tensors.items() if key.startswith(start)}
                )


def made_of(net: nn.Module, images: Images, preprocess: Whitening, options: Options) -> dict[str, Any]:
    """Return what a pass depends on, as JSON values: its checkpoint tells it from others by them."""
    seen: Any = getattr(images, "fingerprint", None)
    if seen is None and is_indexed(images):
        count = len(images)  # type: ignore[arg-type]
        # Of what may have to be read, a few images; all of a tensor.
        step = 1 if isinstance(images, Tensor) else count // 9 + 1
        some = {*range(0, count, step), *range(count)[-1:]}
        seen = [count, tensor_digest({str(number): image_of(images[number]) for number in some})]  # type: ignore[index]
    elif seen is None and isinstance(images, Sized):
        seen = len(images)
    return {
        "state": STATE,
        "weights": tensor_digest(net.state_dict()),
        "architecture": digest(str(trace(net))),  # modules with their options, and the pass through them
        "images": seen,
        "whitening": preprocess.to_json() if isinstance(preprocess, Whitening) else None,
        **dataclasses.asdict(options),
    }


def _only(responses: Tensor, neuron: tuple[int, int], layer: str) -> Tensor:
    """Leave one neuron of each channel and put the others to 0."""
    y, x = neuron
    height, width = responses.shape[-2:]
    if not (0 <= y < height and 0 <= x < width):
        raise RfvizError(f"neuron {neuron} is outside the {height} x {width} feature map of layer {layer!r}.")
    only = torch.zeros_like(responses)
    only[..., y, x] = responses[..., y, x]
    return only
