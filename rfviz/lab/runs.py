"""A run: a preset, a seed, and the folder in which everything computed for them is kept.

Every method computes its result when it is first asked for and reads it from the folder ever after; see `rfviz.lab.store`
for what makes it compute anew. So a notebook may be executed as often as one likes.
"""

import contextlib
import dataclasses
import logging
import os
import time
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Subset
from tqdm.auto import tqdm

from rfviz.errors import RfvizError, check_channel, first_line, plainly, unknown
from rfviz.images import folders, image_list, whitening
from rfviz.images.data import Evaluation
from rfviz.images.folders import FolderImages
from rfviz.images.whitening import Whitening
from rfviz.kernels import (
    calibration,
    controls,
    effective_field,
    identification,
    inactivity,
    interventions,
    maximization,
    noise_dose,
    responses,
    silence,
    stream,
    tuning,
)
from rfviz.kernels.inactivity import Effect, NoiseEffect
from rfviz.kernels.maximization import Maximization
from rfviz.kernels.responses import LayerResponses
from rfviz.kernels.responses.checkpoint import remove_damaged
from rfviz.kernels.tuning import gabor, hue
from rfviz.lab import presets, provenance, sources
from rfviz.lab.presets import EXPLORER_LAYERS, FIGURE_LAYERS, Preset
from rfviz.lab.run_higher import HigherLayerResults
from rfviz.lab.run_sharing import SharingResults
from rfviz.lab.run_tuning import TuningResults
from rfviz.lab.store import Result, Store, source_digest
from rfviz.nets import models, weights
from rfviz.nets.models import ARCHITECTURES, Net34
from rfviz.nets.receptive_field import ReceptiveField
from rfviz.nets.weights import Stored
from rfviz.storage import places
from rfviz.storage.digests import digest, tensor_digest
from rfviz.storage.lock import alone
from rfviz.training import distributed
from rfviz.training import trainer as training
from rfviz.training.loading import in_memory, usual_workers
from rfviz.training.state import States

_log = logging.getLogger(__name__)


def root() -> Path:
    """Return the folder of all runs: ``RFVIZ_RUNS``, or ``runs/`` in the repository whatever the current folder."""
    return Path(os.environ.get("RFVIZ_RUNS") or places.repository() / "runs").resolve()


def open_run(preset: str = "quick", seed: int = 0, **overrides: Any) -> "Run":
    """Open the run of a preset.

    Parameters
    ----------
    preset : str
        One of `rfviz.lab.presets.PRESETS`.
    seed : int
        Of the initial weights, the order and augmentation of training images, and the noise.
    **overrides
        Values to replace; see `rfviz.lab.presets.get`. A run with overrides has a folder of its own.

    Raises
    ------
    RfvizError
        If the preset, an option or a value is wrong.
    """
    if not isinstance(seed, int) or isinstance(seed, bool) or seed < 0:
        raise RfvizError(f"seed is {seed!r}: it must be a whole number from 0 up.")
    overrides = {
        key: value
        for key, value in overrides.items()
        if (key in _MAY_BE_NONE or value is not None) and not (key in _PATHS and value in ("", {}))
    }
    for key in _PATHS & overrides.keys():
        overrides[key] = _absolute(overrides[key])
    found = presets.get(preset, **overrides)
    name = f"{preset}-{digest(overrides)[:6]}" if overrides else preset
    return Run(found, seed, root() / name)


WHITENING_IMAGES = 10_000
"""Images that the whitening is computed from, at most: spread evenly over the training images."""

_PATHS = {"images", "weights"}
_MAY_BE_NONE = {"window", "short_side", "evaluation_crop"}  # elsewhere None means: as the preset has it


def _absolute(value: Any) -> Any:
    """Make paths, also those in a mapping, absolute text; the name of published weights is no path and stays."""
    if isinstance(value, Mapping):
        return {key: _absolute(each) for key, each in value.items()}
    if not isinstance(value, (str, os.PathLike)):
        return value
    try:
        path = Path(value).expanduser()
        return str(path.resolve()) if path.exists() else os.fspath(value)
    except (OSError, RuntimeError, ValueError) as error:  # no such user after ~, a null byte, a name too long
        raise RfvizError(f"{os.fspath(value)!r} is no path ({first_line(error)}): give a folder or file.") from error


def parse_channels(channels: int | str | Sequence[int]) -> dict[str, int]:
    """Return the channel of each network from what a notebook's parameter `channels` may hold.

    Parameters
    ----------
    channels : int, sequence of two ints, or str
        One channel for both networks, or ResNet34's and PlainNet34's, also as text such as ``"18,19"``.

    Raises
    ------
    RfvizError
        If it is anything else.
    """
    given = channels
    try:
        if isinstance(given, str):
            given = [int(part) for part in given.strip("[]() ").split(",")]
        numbers = [int(given)] if isinstance(given, int) else [int(number) for number in given]
    except (TypeError, ValueError):
        numbers = []
    if len(numbers) not in (1, len(ARCHITECTURES)):
        raise RfvizError(
            f"channels is {channels!r}: give one channel number, or two such as 18,19 for ResNet34 and PlainNet34."
        )
    return dict(zip(ARCHITECTURES, numbers * (len(ARCHITECTURES) // len(numbers)), strict=True))


KERNELS = (
    calibration, controls, effective_field, gabor, hue, identification, inactivity, interventions, maximization,
    noise_dose, responses, silence, stream, training, tuning, whitening,
)  # fmt: skip
"""The modules that make the results of a run."""

SHOWN_BY = (
    "rfviz.kernels.claim_measures",
    "rfviz.pages.claims",
    "rfviz.pages.colour_figures",
    "rfviz.pages.colour_structure_tables",
    "rfviz.pages.figures",
    "rfviz.pages.higher_layer_figures",
    "rfviz.pages.higher_layer_tables",
    "rfviz.intervals",
    "rfviz.pages.noise_tables",
    "rfviz.pages.predictions",
    "rfviz.pages.sharing_tables",
    "rfviz.pages.silence_figures",
    "rfviz.pages.silence_tables",
    "rfviz.pages.stream_figures",
    "rfviz.pages.stream_tables",
    "rfviz.pages.tables",
    "rfviz.pages.tuning_figures",
    "rfviz.pages.tuning_tables",
    "rfviz.verdicts",
    "rfviz.explorer.sources",
)
"""The modules that make pictures, tables and words of results."""


class Run(TuningResults, SharingResults, HigherLayerResults):
    """Everything that a preset and a seed lead to.

    Parameters
    ----------
    preset : Preset
    seed : int
    folder : Path
        Results are kept in ``folder / "results"``.
    device : torch.device, optional
        A CUDA GPU where there is one.
    progress : bool
        Show progress bars.
    workers : int, optional
        Processes that load images; as many as are useful by default. Changes the speed, never a result.
    """

    def __init__(
        self,
        preset: Preset,
        seed: int,
        folder: Path,
        device: torch.device | None = None,
        progress: bool = True,
        workers: int | None = None,
    ):
        self.preset, self.seed, self.folder, self.progress = preset, seed, folder, progress
        self.device = device or torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.store = Store(folder / "results")
        # of the code as it was loaded, not as it may be edited while this runs
        self.code = {kernel.__name__: source_digest(kernel.__name__) for kernel in KERNELS}
        self._page_code = {module: source_digest(module) for module in SHOWN_BY}
        self.workers = workers
        self._nets: dict[str, Net34] = {}
        self._given: dict[str, Stored] = {}

    def replicas(self, seeds: int) -> list["Run"]:
        """Return this run and others that differ in nothing but the seed: `seeds` of them, with consecutive seeds.

        Raises
        ------
        RfvizError
            If `seeds` is not a whole number from 1 up, or is more than 1 although weights were given.
        """
        if not isinstance(seeds, int) or isinstance(seeds, bool) or seeds < 1:
            raise RfvizError(f"seeds is {seeds!r}: it must be a whole number from 1 up.")
        if seeds > 1 and self.preset.weights:
            raise RfvizError(f"seeds is {seeds}, but weights were given: networks that are not trained have no seed.")
        others = [
            Run(self.preset, self.seed + i, self.folder, self.device, self.progress, self.workers)
            for i in range(1, seeds)
        ]
        for other in others:
            other.__dict__["images"] = self.images  # read once
        return [self, *others]

    @cached_property
    def images(self) -> sources.Images:
        """Training, evaluation and stimulus images."""
        with distributed.first_of_machine():  # it downloads and unpacks, the others find everything there
            loaded = sources.load(self.preset)
        if len(loaded.train.classes) < 2:
            raise RfvizError(
                f"{self.preset.images or self.preset.source} has only the class {loaded.train.classes[0]!r}: training "
                "needs at least two."
            )
        self._list(loaded)
        return loaded

    def _list(self, loaded: sources.Images) -> None:
        """Keep which images these are, and say how many of them are twice the same."""
        both = {"train": loaded.train, "val": loaded.evaluation.source}
        parts = {name: part for name, part in both.items() if isinstance(part, FolderImages)}
        path = self.folder / f"images-{digest([[part.fingerprint, part.left_out] for part in parts.values()])}.csv"
        if not parts or path.exists() or distributed.world()[0] > 0:
            return
        # a folder that is only read says so when a result is to be kept
        with contextlib.suppress(RfvizError), alone(self.folder, path.name):
            image_list.write(parts, path)
        same = image_list.repeated(parts)
        if same:
            named = folders.some([f"{name} is {first}" for name, first in same.items()])
            _log.warning("rfviz: %d images are there more than once: %s", len(same), named)

    @property
    def classes(self) -> Sequence[str]:
        """Names of the classes."""
        return self.images.train.classes

    @cached_property
    def data_whitening(self) -> Whitening:
        """The whitening that the training images give."""
        train = self.images.train
        chosen = range(0, len(train), -(-len(train) // WHITENING_IMAGES))

        def compute() -> Result:
            part: Any = Subset(train, chosen)  # type: ignore[arg-type]  # has what torch's Dataset needs
            loader: DataLoader = DataLoader(part, batch_size=None, num_workers=self._workers(train))
            shown = tqdm(plainly(loader), "whitening", len(chosen), disable=not self.progress or in_memory(train))
            return {}, whitening.fit((image for image, _ in shown), self.preset.whitening).to_json()

        made_of = {"data": train.fingerprint, "images": len(chosen), "kind": self.preset.whitening}
        return Whitening.from_json(self.store.get("whitening", whitening, made_of, compute)[1])

    def _workers(self, images: Any) -> int:
        return usual_workers(images, self.device) if self.workers is None else self.workers

    def _training_made_of(self, architecture: str) -> dict[str, Any]:
        if architecture not in ARCHITECTURES:
            raise unknown("model", architecture, ARCHITECTURES)
        return {
            "architecture": architecture,
            "width": self.preset.width,
            "classes": list(self.classes),
            "train": self.images.train.fingerprint,
            "evaluation": self.images.evaluation.fingerprint,
            "whitening": self.data_whitening.to_json(),
            "recipe": dataclasses.asdict(self.preset.recipes[architecture]),
            "seed": self.seed,
            "device": self.device.type,
        }

    def weights_path(self, architecture: str) -> Path:
        """Return the file of the weights that this run trains, whether or not it is there yet."""
        return self.store.path(f"weights-{architecture}", training, self._training_made_of(architecture))

    def _trained(self, architecture: str) -> Result:
        checkpoint = self.weights_path(architecture).with_suffix(".checkpoint")

        def compute() -> Result:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(self.seed)
                net = models.build(architecture, self.preset.width, len(self.classes))
            history = training.train(
                net.to(self.device), self.images.train, self.images.evaluation, self.preset.recipes[architecture],
                self.data_whitening, seed=self.seed, workers=self.workers, checkpoint=checkpoint,
                watch="maxpool", progress=self.progress,
            )  # fmt: skip
            made = {"processes": distributed.world()[1], "trained on": provenance.device_name(self.device)}
            return net.state_dict(), {"history": history, "whitening": self.data_whitening.to_json(), **made}

        made_of = self._training_made_of(architecture)
        result = self.store.get(f"weights-{architecture}", training, made_of, compute, together=True)
        States(checkpoint).remove()
        return result

    def _stored(self, architecture: str) -> Stored | None:
        """Return the weights that were given for a network, if any, after making sure that they fit it."""
        if architecture not in ARCHITECTURES:
            raise unknown("model", architecture, ARCHITECTURES)
        given = self.preset.weights.get(architecture)
        if given is None:
            return None
        if architecture not in self._given:
            stored = weights.read(given)
            net = models.load(stored)
            if net.name != architecture:
                raise RfvizError(
                    f"{given} holds a {models.PAPER_ARCHITECTURES[net.name]}, but was given as "
                    f"{models.PAPER_ARCHITECTURES[architecture]}."
                )
            if stored.classes is not None and list(stored.classes) != list(self.classes):
                raise RfvizError(
                    f"{given} was trained on the classes {', '.join(stored.classes[:5])}, ..., the images have "
                    f"{', '.join(self.classes[:5])}, ...: give images of the same classes."
                )
            if net.fc.out_features != len(self.classes):
                raise RfvizError(
                    f"{given} tells {net.fc.out_features} classes apart, but the images have {len(self.classes)}: "
                    "give images of the classes that it was trained on."
                )
            self._given[architecture] = stored
        return self._given[architecture]

    def net(self, architecture: str) -> Net34:
        """Return the trained network, in evaluation mode: trained now, or read from the run or from given weights."""
        if architecture not in self._nets:
            net = models.load(self._stored(architecture) or self._trained(architecture)[0])
            # On CPUs as on GPUs, convolutions are fastest with the channels last in memory.
            self._nets[architecture] = net.to(self.device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return self._nets[architecture]

    def history(self, architecture: str) -> list[dict]:
        """Return the history of training, one entry per epoch; empty where weights were given that do not tell it."""
        stored = self._stored(architecture)
        return self._trained(architecture)[1]["history"] if stored is None else stored.history

    def whitening(self, architecture: str) -> Whitening:
        """Return the whitening that goes with the weights of a network."""
        stored = self._stored(architecture)
        return (stored and stored.whitening) or self.data_whitening

    def made_of(self, architecture: str, **parameters: Any) -> dict[str, Any]:
        """Return what a result of a network depends on, for the key under which it is kept."""
        return {
            "weights": tensor_digest(self.net(architecture).state_dict()),
            "whitening": self.whitening(architecture).to_json(),
            **parameters,
        }

    def responses(self, architecture: str, layers: Sequence[str] = FIGURE_LAYERS) -> dict[str, LayerResponses]:
        """Return what the channels of some layers respond to, over the stimulus images."""
        # One pass serves the figures and the explorer.
        together = EXPLORER_LAYERS if set(layers) <= set(EXPLORER_LAYERS) else layers
        options = {"top_k": self.preset.top_k, "strongest": self.preset.strongest}
        found = self.collected(f"responses-{architecture}", architecture, self.images.stimuli, together, **options)
        return {layer: found[layer] for layer in layers}

    def pooling_responses(self, architecture: str) -> LayerResponses:
        """Return the activity of the first pooling layer over the evaluation images, in which inactivity is defined."""
        options = {"top_k": 1, "mean_stimulus": False}
        images = self.images.evaluation
        return self.collected(f"pooling-{architecture}", architecture, images, ["maxpool"], **options)["maxpool"]

    def collected(
        self, name: str, architecture: str, images: Evaluation, layers: Sequence[str], **options: Any
    ) -> dict[str, LayerResponses]:
        """Return what a pass over some images finds, with the options of `rfviz.kernels.responses.collect`."""
        net, white = self.net(architecture), self.whitening(architecture)
        options["precision"] = self.preset.analysis_precision
        made_of = self.made_of(architecture, layers=list(layers), images=images.fingerprint, **options)
        checkpoint = self.store.path(name, responses, made_of).with_suffix(".checkpoint")

        def compute() -> Result:
            with distributed.first_of_machine():
                remove_damaged(checkpoint)
            return _pack_responses(
                responses.collect(
                    net, images, layers, preprocess=white, checkpoint=checkpoint, progress=self.progress,
                    workers=self._workers(images.source), **options,
                )
            )  # fmt: skip

        tensors, values = self.store.get(name, responses, made_of, compute, together=True)
        for file in checkpoint.parent.glob(f"{checkpoint.name}*"):  # one of each process
            file.unlink(missing_ok=True)
        return _unpack_responses(tensors, values)

    def maximization(self, architecture: str, layer: str) -> Maximization:
        """Return the activation maximization of every channel of a layer, from the zero image."""
        options: dict[str, Any] = {"steps": self.preset.maximization_steps}

        def compute() -> Result:
            found = maximization.maximize(self.net(architecture), layer, progress=self.progress, **options)
            return {"images": found.images, "activations": found.activations}, {}

        tensors, _ = self.store.get(
            f"maximization-{architecture}-{layer}",
            maximization,
            self.made_of(architecture, layer=layer, **options),
            compute,
        )
        return Maximization(**tensors)

    def maximizations(self, architecture: str) -> dict[str, Maximization]:
        """Return the activation maximization of the layers that the paper shows."""
        return {layer: self.maximization(architecture, layer) for layer in FIGURE_LAYERS}

    def noise_effect(self, architecture: str) -> NoiseEffect:
        """Return the noise experiment of Table 1, on the evaluation images."""
        seeds = [self.seed * self.preset.noise_seeds + i for i in range(self.preset.noise_seeds)]
        net, images, white = self.net(architecture), self.images.evaluation, self.whitening(architecture)
        pooled = self.pooling_responses(architecture)  # not in compute, which one of several processes runs alone

        def compute() -> Result:
            found = inactivity.noise_effect(net, images, pooled, seeds=seeds, preprocess=white, progress=self.progress)
            tensors: dict[str, Tensor] = {}
            for row, effect in found.effects.items():
                tensors |= {f"{row}/loss": effect.loss, f"{row}/top1": effect.top1}
            values = {**dataclasses.asdict(found), "effects": {row: e.channels for row, e in found.effects.items()}}
            return tensors, values

        tensors, values = self.store.get(
            f"noise-{architecture}",
            inactivity,
            self.made_of(architecture, seeds=seeds, images=images.fingerprint, labels=list(images.labels)),
            compute,
        )
        effects = {
            row: Effect(tuple(channels), tensors[f"{row}/loss"], tensors[f"{row}/top1"])
            for row, channels in values.pop("effects").items()
        }
        return NoiseEffect(inactive=tuple(values.pop("inactive")), effects=effects, **values)

    def accuracy(self, architecture: str) -> float:
        """Return the top-1 accuracy on the evaluation images, a share."""
        if architecture not in self.preset.weights:
            return self.history(architecture)[-1]["evaluation_top1"]
        images = self.images.evaluation
        _, values = self.store.get(
            f"accuracy-{architecture}",
            training,
            self.made_of(architecture, images=images.fingerprint, labels=list(images.labels)),
            lambda: (
                {},
                {
                    "top1": training.evaluate(
                        self.net(architecture),
                        images,
                        self.whitening(architecture),
                        workers=self._workers(images.source),
                    )[1]
                },
            ),
            together=True,
        )
        return values["top1"]

    def channels(self, channels: int | str | Sequence[int]) -> dict[str, int]:
        """Return the channel of each network, as `parse_channels` reads it, after making sure that it exists."""
        chosen = parse_channels(channels)
        for architecture, channel in chosen.items():
            self.check_channel(architecture, "maxpool", channel)
        return chosen

    def check_channel(self, architecture: str, layer: str, channel: int) -> None:
        """Raise RfvizError unless a layer of a network has the channel; nothing is trained to find out."""
        if architecture in self.preset.weights:
            net = self.net(architecture)
        else:
            net = models.build(architecture, self.preset.width, 2)
        table = {row.name: row for row in models.layers(net)}
        if layer not in table:
            raise unknown("layer", layer, table)
        check_channel(channel, table[layer].channels)

    def how_made(self, seeds: int = 1) -> provenance.HowMade:
        """Return the folded table "How this page was made" for the end of a notebook that shows so many seeds."""
        seconds = time.monotonic() - provenance.STARTED
        more = {"seed": f"{self.seed} to {self.seed + seeds - 1}; the hashes are of the first"} if seeds > 1 else {}
        return provenance.HowMade(
            {
                **self.provenance(),
                **more,
                "duration": f"{seconds:.0f} s for this page; results that were there are read",
            },
            self.code | self._page_code,
        )

    def provenance(self) -> dict[str, Any]:
        """Return what the results of this run were made with, for people."""
        parts = (self.images.train, self.images.evaluation.source)
        skipped = [name for part in parts for name in getattr(part, "skipped", [])]
        return {
            "preset": self.preset.name,
            "seed": self.seed,
            "parameters": ", ".join(_differences(self.preset)) or "those of the preset",
            **{
                f"weights of {models.PAPER_ARCHITECTURES[name]} (hash)": tensor_digest(self.net(name).state_dict())
                for name in ARCHITECTURES
            },
            **{
                f"{models.PAPER_ARCHITECTURES[name]} was trained on": self._trained(name)[1].get(
                    "trained on", "unknown"
                )
                for name in ARCHITECTURES
                if name not in self.preset.weights
            },
            "training images (hash)": self.images.train.fingerprint,
            "evaluation images (hash)": f"{self.images.evaluation.fingerprint}, {len(self.images.evaluation)} images",
            "images left out": f"{len(skipped)}: {folders.some(skipped)}" if skipped else "none",
            **provenance.environment(self.device),
        }


_DESCRIPTION = {"recipes", "summary", "where", "source"}  # told elsewhere, or follows from the rest


def _differences(preset: Preset) -> list[str]:
    """Say in what a preset differs from the one of its name."""
    usual = dataclasses.asdict(presets.PRESETS[preset.name])
    given = dataclasses.asdict(preset)
    changes = [f"{key} = {value!r}" for key, value in given.items() if key not in _DESCRIPTION and value != usual[key]]
    for architecture, recipe in given["recipes"].items():
        before = usual["recipes"][architecture]
        changes += [f"{architecture} {key} = {value!r}" for key, value in recipe.items() if value != before[key]]
    return changes


def _pack_responses(found: dict[str, LayerResponses]) -> Result:
    tensors: dict[str, Tensor] = {}
    values: dict[str, Any] = {}
    for layer, result in found.items():
        fields = {each.name: getattr(result, each.name) for each in dataclasses.fields(result)}
        values[layer] = {
            "receptive_field": dataclasses.asdict(fields.pop("receptive_field")),
            **{name: fields.pop(name) for name in ("image_count", "neuron_count")},
        }
        tensors |= {f"{layer}/{name}": value for name, value in fields.items() if value is not None}
    return tensors, values


def _unpack_responses(tensors: dict[str, Tensor], values: dict[str, Any]) -> dict[str, LayerResponses]:
    found = {}
    for layer, numbers in values.items():
        fields: dict[str, Any] = {**numbers, "receptive_field": ReceptiveField(**numbers["receptive_field"])}
        for key, value in tensors.items():
            if key.startswith(f"{layer}/"):
                fields[key.removeprefix(f"{layer}/")] = value
        found[layer] = LayerResponses(**fields)
    return found
