"""A run: a preset, a seed, and the folder in which everything computed for them is kept.

What is computed of a run are the results of `rfviz.lab.results`; they read the run, and what they read is what they
depend on (`rfviz.lab.result`). So a notebook may be executed as often as one likes.
"""

import contextlib
import dataclasses
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Subset
from tqdm.auto import tqdm

from rfviz.errors import RfvizError, check_channel, first_line, reraising, unknown
from rfviz.images import folders, image_list, whitening
from rfviz.images.data import Evaluation, Labelled, in_memory, labels_of
from rfviz.images.folders import FolderImages
from rfviz.images.whitening import Whitening
from rfviz.lab import presets, provenance, sources
from rfviz.lab.presets import Preset
from rfviz.lab.result import Reader, result, result_of_all_processes
from rfviz.nets import models, weights
from rfviz.nets.models import ResidualNet
from rfviz.nets.network import Network, accuracy_control, contrast
from rfviz.nets.weights import Stored
from rfviz.storage import places
from rfviz.storage.digests import digest, tensor_digest
from rfviz.storage.lock import locked
from rfviz.training import distributed, trainer
from rfviz.training.loading import usual_workers
from rfviz.training.recipe import Recipe

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
_MAY_BE_NONE = {"window", "short_side", "evaluation_crop", "threads"}  # elsewhere None means: as the preset has it


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


class _Noted:
    """A preset, of which every field that a result asks for is noted."""

    def __init__(self, run: "Run"):
        self._run = run

    def __getattr__(self, field: str) -> Any:
        self._run.note(f"preset {field}", self._run.current(f"preset {field}"))
        return getattr(self._run.given, field)


class Run(Reader):
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
        super().__init__(folder / "results")
        self._identity = [seed, dataclasses.asdict(preset)]
        self.given, self._seed, self.folder, self.progress = preset, seed, folder, progress
        self.device = device or torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.workers = workers
        threads = {preset.recipe(name).threads for name in preset.networks}
        if self.device.type == "cpu" and len(threads) == 1:
            (self.threads,) = threads
        self._nets: dict[str, ResidualNet] = {}
        self.controls: dict[tuple[str, str, int], ResidualNet] = {}
        """The control network that was used last."""
        self._stored: dict[str, Stored | None] = {}
        self._beginnings: dict[str, Stored] = {}
        self._digests: dict[str, str] = {}

    def told(self, kind: str, name: str, *, compute: bool) -> str | None:
        """See `rfviz.lab.result.Reader`."""
        if not compute and kind in ("network", "whitening") and self._is_to_be_computed(kind, name):
            return None
        if kind == "network" and name not in self._digests:
            self._digests[name] = tensor_digest(self.net(name).state_dict())
        of_kind = {
            "preset": lambda: digest(getattr(self.given, name, None)),
            "described": lambda: digest(dataclasses.asdict(self._described(name))),
            "recipe": lambda: digest(dataclasses.asdict(self.given.recipe(name))),
            "seed": lambda: str(self._seed),
            "device": lambda: self.device.type,
            "images": lambda: self._part(name).fingerprint,
            "network": lambda: self._digests[name],
            "whitening": lambda: digest(self.whitening(name).to_json()),
            "beginning": lambda: self._beginning_digest(name),
        }
        return of_kind[kind]() if kind in of_kind else None

    def _is_to_be_computed(self, kind: str, network: str) -> bool:
        """Tell whether weights or a whitening can only be told after a training, or a look at all training images."""
        if kind == "network":
            return self.is_to_be_trained(network)
        stored = self._told(network)
        return (stored is None or stored.whitening is None) and data_whitening.find(self, (), compute=False) is None

    def is_to_be_trained(self, network: str) -> bool:
        """Tell whether a network of the run is not there yet."""
        return self.stored(network) is None and trained.find(self, (network,), compute=False) is None

    @property
    def preset(self) -> Preset:
        """The preset."""
        return cast(Preset, _Noted(self)) if self._frames and self._frames[-1] is not None else self.given

    @property
    def seed(self) -> int:
        """The seed."""
        self.read("seed")
        return self._seed

    @property
    def identity(self) -> list[Any]:
        """See `rfviz.lab.result.Reader`."""
        return self._identity

    def recipe(self, network: str) -> Recipe:
        """Return how a network is trained."""
        self.read(f"recipe {network}")
        return self.given.recipe(network)

    @cached_property
    def images(self) -> sources.Images:
        """Training, evaluation and stimulus images; see `labelled` for the labels of those of evaluation."""
        found = self._loaded
        return found if self.labelled else found._replace(evaluation=found.evaluation.unlabelled())

    @cached_property
    def labelled(self) -> bool:
        """Whether the images have classes that the networks tell apart. If not, what needs labels is left out.

        Raises
        ------
        RfvizError
            If some networks do not and another is to be trained on them.
        """
        reasons = {name: reason for name in self.given.networks if (reason := self._unlike(name))}
        trained = [name for name in self.given.trains if name not in reasons]
        if reasons and trained:
            (name, reason), *_ = reasons.items()
            raise RfvizError(
                f"{reason}, on which {self._described(trained[0]).title} is to be trained: give images of the same "
                f"classes, or --networks {name} to look at that network without labels."
            )
        if reasons:
            _log.warning(
                "rfviz: labels are not used, and the output takes the place of the loss: %s",
                "; ".join(dict.fromkeys(reasons.values())),
            )
        return not reasons

    def _unlike(self, network: str) -> str | None:
        """Say why the labels of the images are none of the classes of a network whose weights were given, if so."""
        stored = self.stored(network)
        if stored is None:
            return None
        classes = self._loaded.train.classes
        told = self._net_of(network, stored).fc.out_features
        if labels_of(self._loaded.evaluation) is None:
            return "some or all images lie in no class folder"
        if stored.classes is not None and list(stored.classes) != list(classes):
            return (
                f"{stored.origin} was trained on the classes {', '.join(stored.classes[:5])}, ..., the images have "
                f"{', '.join(classes[:5])}, ..."
            )
        if told != len(classes):
            return f"{stored.origin} tells {told} classes apart, but the images have {len(classes)}"
        return None

    @cached_property
    def _loaded(self) -> sources.Images:
        """What `images` are, with the labels that they came with."""
        with distributed.first_of_machine():  # it downloads and unpacks, the others find everything there
            loaded = sources.load(self.given)
        if self.given.trains and len(loaded.train.classes) < 2:
            raise RfvizError(
                f"{self.given.images or self.given.source} has only the class {loaded.train.classes[0]!r}: training "
                "needs at least two."
            )
        self._list(loaded)
        return loaded

    def _list(self, loaded: sources.Images) -> None:
        """Keep which images these are, and say how many of them are twice the same."""
        both = {"train": loaded.train, "val": loaded.evaluation.source}
        if loaded.train is loaded.evaluation.source:
            both = {"all": loaded.train}
        parts = {name: part for name, part in both.items() if isinstance(part, FolderImages)}
        path = self.folder / f"images-{digest([[part.fingerprint, part.left_out] for part in parts.values()])}.csv"
        if not parts or path.exists() or distributed.world()[0] > 0:
            return
        # a folder that is only read says so when a result is to be kept
        with contextlib.suppress(RfvizError), locked(self.folder, path.name):
            image_list.write(parts, path)
        same = image_list.repeated(parts)
        if same:
            named = folders.first_few([f"{name} is {first}" for name, first in same.items()])
            _log.warning("rfviz: %d images are there more than once: %s", len(same), named)

    def _images(self, part: str) -> Any:
        self.read(f"images {part}")
        self.read(f"code {Evaluation.__module__}")
        return self._part(part)

    def _part(self, part: str) -> Any:
        """Return some of the images; whether networks know their classes matters to those of evaluation alone."""
        return getattr(self.images if part == "evaluation" else self._loaded, part)

    @property
    def train(self) -> Labelled:
        """The training images."""
        return self._images("train")

    @property
    def evaluation(self) -> Evaluation:
        """The images that are classified: top-1, inactive channels and Table 1; see `labelled`."""
        return self._images("evaluation")

    @property
    def stimuli(self) -> Evaluation:
        """The images that preferred stimuli are looked for in."""
        return self._images("stimuli")

    @property
    def classes(self) -> Sequence[str]:
        """Names of the classes."""
        return self.train.classes

    def net(self, network: str) -> ResidualNet:
        """Return a network of the run, in evaluation mode: trained now, or read from the run or from given weights."""
        if network not in self._nets:
            stored = self.stored(network)
            with self.reading(None):  # what counts is the weights, whoever asks for them first
                net = models.load(stored or trained(self, network).weights, self._described(network))
            # On CPUs as on GPUs, convolutions are fastest with the channels last in memory.
            self._nets[network] = net.to(self.device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.read(f"network {network}")
        self.read(f"code {models.__name__}")
        return self._nets[network]

    def whitening(self, network: str) -> Whitening:
        """Return the whitening that goes with the weights of a network."""
        stored = self._told(network)
        self.read(f"whitening {network}")
        self.read(f"code {whitening.__name__}")
        with self.reading(None):  # noted above, whether it was given or comes from the images
            return (stored and stored.whitening) or Whitening.from_json(data_whitening(self))

    # -- networks ------------------------------------------------------------------------------------------------------

    @property
    def networks(self) -> list[Network]:
        """The networks of the run."""
        return self.given.members

    def network(self, name: str) -> Network:
        """Return the description of a network of the run.

        Raises
        ------
        RfvizError
            If the run has no such network.
        """
        self.read(f"described {name}")
        return self._described(name)

    def _described(self, name: str) -> Network:
        if name not in self.given.networks:
            raise unknown("network", name, self.given.networks)
        return next(each for each in self.networks if each.name == name)

    @property
    def subject(self) -> Network:
        """The network that the pages are about: the first."""
        return self.networks[0]

    @property
    def contrast(self) -> Network | None:
        """The first network that differs from the subject in having skips or not, if there is one."""
        return contrast(self.networks)

    @property
    def accuracy_control(self) -> Network | None:
        """The control for the accuracy of the subject, if there is one."""
        return accuracy_control(self.networks)

    def stored(self, network: str) -> Stored | None:
        """Return the weights that were given for a network, if any, after making sure that they fit it.

        Raises
        ------
        RfvizError
            If the run has no such network, or they do not.
        """
        self._described(network)
        if network not in self._stored:
            given = self.given.weights.get(network)
            to_be_trained = given is None or self.given.recipe(network).frozen
            self._stored[network] = None if to_be_trained else self._fitting(network, str(given))
        return self._stored[network]

    def beginning(self, network: str) -> Stored | None:
        """Return the weights that a training begins with and keeps in part (`Recipe.frozen`), if there are such."""
        if self.given.recipe(network).frozen is None:
            return None
        given = self.given.weights.get(network)
        if given is None:
            raise RfvizError(
                f"frozen is {self.given.recipe(network).frozen!r}, but no weights of {self._described(network).title} "
                f"were given: give a file that holds them, such as --weights {network}=FILE."
            )
        if network not in self._beginnings:
            self._beginnings[network] = weights.read(given, network)
        self.read(f"beginning {network}")
        return self._beginnings[network]

    def _beginning_digest(self, network: str) -> str | None:
        begins = self.beginning(network)
        if begins is None:
            return None
        return tensor_digest({name: each for name, each in begins.tensors.items() if isinstance(each, Tensor)})

    def check_weights(self) -> None:
        """Look at all weights that were given: a wrong file is refused before another network is trained."""
        for network in self.networks:
            self._told(network.name)
        _ = self.labelled

    def _told(self, network: str) -> Stored | None:
        """Return what was given for a network, to take as it is or to begin with."""
        return self.stored(network) or self.beginning(network)

    def _fitting(self, network: str, given: str) -> Stored:
        stored = weights.read(given, network)
        net = self._net_of(network, stored)
        if net.name != network:
            raise RfvizError(
                f"{given} holds a {net.network.title}, but was given as {self._described(network).title}: write "
                f"--weights {net.name}={given}."
            )
        if not isinstance(net.fc, torch.nn.Linear):
            raise RfvizError(
                f"{given} holds no classifier (fc), which Table 1 needs: rfviz explore rfviz:{network} FOLDER "
                f"--weights {given} shows what needs none."
            )
        return stored

    def _net_of(self, network: str, stored: Stored) -> ResidualNet:
        described = self._described(network)
        return models.load(stored, described if described.plain_stages else None)

    def alone(self, network: str) -> "Run":
        """Return this run without its other networks; what it computes of the one is this run's, and kept with it."""
        weights = {name: file for name, file in self.given.weights.items() if name == network}
        preset = dataclasses.replace(self.given, networks=(network,), weights=weights)
        run = Run(preset, self._seed, self.folder, self.device, self.progress, self.workers)
        run._identity, run.threads = self._identity, self.threads
        run.__dict__ |= {"_loaded": self._loaded}  # read once
        return run

    def replicas(self, seeds: int) -> list["Run"]:
        """Return this run and others that differ in nothing but the seed: `seeds` of them, with consecutive seeds.

        Raises
        ------
        RfvizError
            If `seeds` is not a whole number from 1 up, or is more than 1 although weights were given.
        """
        if not isinstance(seeds, int) or isinstance(seeds, bool) or seeds < 1:
            raise RfvizError(f"seeds is {seeds!r}: it must be a whole number from 1 up.")
        if seeds > 1 and any(self.stored(each.name) for each in self.networks):
            raise RfvizError(f"seeds is {seeds}, but weights were given: networks that are not trained have no seed.")
        others = [
            Run(self.given, self._seed + i, self.folder, self.device, self.progress, self.workers)
            for i in range(1, seeds)
        ]
        for other in others:
            other.__dict__ |= {"_loaded": self._loaded, "images": self.images, "labelled": self.labelled}  # read once
        return [self, *others]

    def loaders(self, images: Any) -> int:
        """Return how many processes load images."""
        return usual_workers(images, self.device) if self.workers is None else self.workers

    def channels(self, channels: int | str | Sequence[int] | None = None) -> dict[str, int]:
        """Return the channel of each network that a notebook's parameter `channels` names, after looking for it.

        Parameters
        ----------
        channels : int, str, sequence of int, or None
            One channel for all networks, or one for each, also as text such as ``"18,19"``; None takes those that the
            paper shows. Nothing is trained to find out whether they exist.

        Raises
        ------
        RfvizError
            If it is anything else, or a network has no such channel.
        """
        names, shown = [each.name for each in self.networks], [each.channel for each in self.networks]
        given: Any = shown if channels in (None, "") else channels
        try:
            if isinstance(given, str):
                given = [int(part) for part in given.strip("[]() ").split(",")]
            numbers = [int(given)] if isinstance(given, int) else [int(number) for number in given]
        except (TypeError, ValueError):
            numbers = []
        if len(numbers) not in (1, len(names)):
            titles, example = " and ".join(each.title for each in self.networks), ",".join(map(str, shown))
            raise RfvizError(
                f"channels is {channels!r}: give one channel number"
                + (f", or {len(names)} such as {example} for {titles}." if len(names) > 1 else ".")
            )
        found = dict(zip(names, numbers * (len(names) // len(numbers)), strict=True))
        for name, channel in found.items():
            check_channel(channel, self.net(name).conv1.out_channels if self.stored(name) else self.given.width)
        return found

    def provenance(self) -> dict[str, Any]:
        """Return what the results of this run were made with, for people."""
        parts = (self.images.train, self.images.evaluation.source)
        skipped = dict.fromkeys(name for part in parts for name in getattr(part, "skipped", []))
        return {
            "preset": self.given.name,
            "seed": self._seed,
            "parameters": ", ".join(_differences(self.given)) or "those of the preset",
            **{f"weights of {each.title} (hash)": self.current(f"network {each.name}") for each in self.networks},
            **{
                f"{each.title} up to {self.given.recipe(each.name).frozen} comes from": f"{begins.origin} "
                f"({self._beginning_digest(each.name)})"
                for each in self.networks
                if (begins := self.beginning(each.name))
            },
            **{
                f"{each.title} was trained on": trained(self, each.name).trained_on
                for each in self.networks
                if not self.stored(each.name)
            },
            "training images (hash)": self.images.train.fingerprint,
            "evaluation images (hash)": f"{self.images.evaluation.fingerprint}, {len(self.images.evaluation)} images",
            "images left out": f"{len(skipped)}: {folders.first_few([*skipped])}" if skipped else "none",
            **provenance.environment(self.device),
        }


_DESCRIPTION = {"recipes", "summary", "where", "source"}  # told elsewhere, or follows from the rest


def _differences(preset: Preset) -> list[str]:
    """Say in what a preset differs from the one of its name."""
    before = presets.PRESETS[preset.name]
    usual, given = dataclasses.asdict(before), dataclasses.asdict(preset)
    changes = [f"{key} = {value!r}" for key, value in given.items() if key not in _DESCRIPTION and value != usual[key]]
    for network, recipe in given["recipes"].items():
        of_kind = dataclasses.asdict(before.recipe(network))
        changes += [f"{network} {key} = {value!r}" for key, value in recipe.items() if value != of_kind[key]]
    return changes


@result
def data_whitening(run: Run) -> dict[str, list]:
    """Return the whitening that the training images give, as `rfviz.images.whitening.Whitening.to_json` has it."""
    train, kind = run.train, run.preset.whitening
    chosen = range(0, len(train), -(-len(train) // WHITENING_IMAGES))
    part: Any = Subset(train, chosen)  # type: ignore[arg-type]  # has what torch's Dataset needs
    loader: DataLoader = DataLoader(part, batch_size=None, num_workers=run.loaders(train))
    shown = tqdm(reraising(loader), "whitening", len(chosen), disable=not run.progress or in_memory(train))
    return whitening.fit((image for image, _ in shown), kind).to_json()


@dataclass(frozen=True)
class Trained:
    """What a training leaves.

    Parameters
    ----------
    weights : dict from str to Tensor
        The state dict.
    history : list of dict
        One entry per epoch; see `rfviz.training.trainer.train`.
    whitening : dict
        With which it was trained, as `rfviz.images.whitening.Whitening.to_json` has it.
    classes : list of str
        That it tells apart.
    processes : int
        That shared the training.
    trained_on : str
        Device.
    """

    weights: dict[str, Tensor]
    history: list[dict]
    whitening: dict[str, list]
    classes: list[str]
    processes: int
    trained_on: str


@result_of_all_processes
def trained(run: Run, network: str) -> Trained:
    """Train a network of the run."""
    recipe, beginning = run.recipe(network), run.beginning(network)
    white = (beginning and beginning.whitening and beginning.whitening.to_json()) or data_whitening(run)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(run.seed)
        net = models.build(network, run.preset.width, len(run.classes))
    if beginning is not None and recipe.frozen is not None:
        models.take_over(net, beginning, recipe.frozen)
    run.read("device")
    history = trainer.train(
        net.to(run.device), run.train, run.evaluation, recipe, Whitening.from_json(white), seed=run.seed,
        workers=run.workers, watch="maxpool", progress=run.progress, checkpoint=run.scratch(),
    )  # fmt: skip
    made_by = distributed.world()[1], provenance.device_name(run.device, recipe.threads)
    return Trained(net.state_dict(), history, white, list(run.classes), *made_by)
