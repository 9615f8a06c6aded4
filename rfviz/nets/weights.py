"""Reading the weights of others and our own: files, addresses with a checksum, and what torchvision publishes.

Whatever the file, only tensors are read from it; no code in it is run.
"""

import hashlib
import logging
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from http.client import HTTPException
from pathlib import Path
from pickle import UnpicklingError
from typing import Any
from urllib.parse import unquote, urldefrag, urlparse

import torch

from rfviz import _torchvision_ops  # isort: skip  # noqa: F401  # torchvision may not load without it
import torchvision
from torch import Tensor
from torchvision.models import get_model_weights, list_models

from rfviz.errors import RfvizError, first_line, unknown
from rfviz.images.whitening import IMAGENET, Whitening
from rfviz.storage.files import load_tensors
from rfviz.storage.places import data_folder

_log = logging.getLogger(__name__)

SCHEMES = ("http", "https", "file")

UNDER = ("state_dict", "model", "model_state_dict", "params")
"""What training scripts put a state dict under."""

_IN_NAME = re.compile(r"-([0-9a-f]{8})\.pth$")
"""The beginning of the SHA-256 in a file's name, as in torchvision's ``resnet34-b627a593.pth``."""


@dataclass(frozen=True)
class Stored:
    """What a source of weights holds.

    Parameters
    ----------
    tensors : mapping from str to Tensor
        The state dict, as it stands there.
    origin : str
        What to call it in messages.
    whitening : Whitening, optional
        With which the network was trained, where that is known.
    classes : list of str, optional
        Names of the classes that it tells apart, where they are known.
    history : list of dict
        Of its training; see `rfviz.training.trainer.train`. Empty where it is unknown.
    """

    tensors: Mapping[str, Any]
    origin: str = "the state dict"
    whitening: Whitening | None = None
    classes: list[str] | None = None
    history: list[dict] = field(default_factory=list)


def read(source: str | Path | Mapping[str, Tensor], network: str = "resnet34") -> Stored:
    """Read weights.

    Parameters
    ----------
    source : path, address, mapping or str
        - a ``.safetensors`` file, such as a run of this package writes: it says what it was trained with as well;
        - any other file (``.pth``, ``.pt``, ``.model``) that `torch.save` has written and that holds a state dict;
        - the address of such a file, beginning with ``https://``, ``http://`` or ``file://``, and its checksum:
          ``ADDRESS#sha256=HEX``, or the first eight digits of it in the file's name as torchvision has them
          (``NAME-DIGITS.pth``). It is downloaded once;
        - a state dict;
        - ``"IMAGENET1K_V1"`` or another name under which torchvision publishes weights of `network`.
    network : str
        Which network published weights are wanted of; every other source says itself what it holds.

    Raises
    ------
    RfvizError
        If the weights are not there, are damaged, or do not have the checksum.
    """
    if isinstance(source, Mapping):
        return Stored(source)
    name = str(source)
    if re.fullmatch(r"IMAGENET1K_V\d+|DEFAULT", name):
        published = get_model_weights(network).__members__ if network in list_models(torchvision.models) else {}
        if name not in published:
            raise unknown(f"weights of {network}", name, [*published, "a file"])
        try:
            tensors = published[name].get_state_dict(check_hash=True)
        except (OSError, RuntimeError) as error:
            raise RfvizError(
                f"the weights {name!r} cannot be downloaded ({first_line(error)}): give a file that holds them."
            ) from error
        return Stored(tensors, name, IMAGENET)
    return _of_file(download(name) if is_address(name) else Path(source), name)


def unprefixed(
    stored: Stored, known: Callable[[Mapping[str, Any]], bool], names: Collection[str], *, say: bool = True
) -> dict[str, Any]:
    """Return tensors under the names that a network has: wrappers such as ``torch.compile`` put something before them.

    What stands before is taken off if it stands before all names, or before those of a whole network; it is said which.

    Parameters
    ----------
    stored : Stored
    known : callable
        Tells whether tensors are those of a whole network, or of one without its classifier.
    names : collection of str
        Some that the network has: what stands before one of them may be a prefix.
    say : bool
        Say what was taken off.
    """
    tensors = {str(key): value for key, value in stored.tensors.items()}
    prefixes = dict.fromkeys(  # in the order of the file
        key.removesuffix(name) for name in names for key in tensors if key == name or key.endswith(f".{name}")
    )
    for prefix in sorted(prefixes, key=len):
        inner = {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
        if known(inner):
            if prefix and say:
                left = f" ({len(tensors) - len(inner)} others are left out)" if len(inner) < len(tensors) else ""
                _log.warning("rfviz: %s: %r is taken off the names of its weights%s.", stored.origin, prefix, left)
            return inner
    return tensors


def is_address(source: str) -> bool:
    """Tell whether a source of weights is the address of a file, such as ``https://...``."""
    return re.match(r"[A-Za-z][A-Za-z0-9+.-]+://", source) is not None


def download(address: str) -> Path:
    """Return the file of an address, from `rfviz.storage.places.data_folder` where it is there already.

    Raises
    ------
    RfvizError
        If there is no checksum, it does not fit, or the file cannot be had.
    """
    url, fragment = urldefrag(address)
    parts = urlparse(url)
    if parts.scheme.lower() not in SCHEMES:
        raise RfvizError(f"{address} cannot be read: give a file or an address that begins with https:// or http://.")
    name = Path(unquote(parts.path)).name
    given = re.fullmatch(r"sha256=([0-9a-fA-F]{64})", fragment)
    in_name = _IN_NAME.search(name)
    if not given and fragment:
        raise RfvizError(f"{address}: what follows # must be sha256= and the 64 digits that 'sha256sum' prints.")
    if not given and not in_name:
        raise RfvizError(
            f"{address} has no checksum: add #sha256= and the 64 digits that 'sha256sum' prints for the file."
        )
    wanted = given[1].lower() if given else in_name[1]  # type: ignore[index]
    path = data_folder() / "weights" / f"{wanted[:16]}-{name}"
    if not (path.is_file() and _sha256(path).startswith(wanted)):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(url, str(path), hash_prefix=wanted)
        except RuntimeError as error:  # torch's words for a wrong checksum
            raise RfvizError(
                f"{url} does not have the SHA-256 {wanted}: the file is damaged, or another one."
            ) from error
        except (OSError, ValueError, HTTPException) as error:
            raise RfvizError(
                f"{url} cannot be downloaded to {path.parent} ({first_line(error)}): give a file that holds the "
                "weights, or another folder in RFVIZ_DATA."
            ) from error
    return path


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


HISTORY = ("epoch", "learning_rate", "loss", "train_top1", "evaluation_loss", "evaluation_top1")
"""What each epoch of a history must tell, as a number; see `rfviz.training.trainer.train`."""


def _check_told(classes: object, history: object) -> None:
    """Raise ValueError unless what a file tells of its training has the form that pages can show."""
    if classes is not None and not (isinstance(classes, list) and all(isinstance(each, str) for each in classes)):
        raise ValueError("its classes are not a list of names")
    if not isinstance(history, list) or not all(
        isinstance(epoch, dict) and all(isinstance(epoch.get(key), (int, float)) for key in HISTORY)
        for epoch in history
    ):
        raise ValueError(f"its history does not give {', '.join(HISTORY)} of every epoch")


def _of_file(path: Path, name: str) -> Stored:
    if not path.is_file():
        raise RfvizError(
            f"there is no weights file {name!r}: give a file, an address, 'IMAGENET1K_V1', or 'random' for a "
            "network by name."
        )
    try:
        if path.suffix == ".safetensors":
            tensors, info = load_tensors(path)
            told = info.get("values", {})  # what a run keeps beside the weights that it has trained
            white, classes, history = told.get("whitening"), told.get("classes"), told.get("history", [])
            _check_told(classes, history)
            tensors = {key.removeprefix("weights/"): value for key, value in tensors.items()}
            return Stored(tensors, name, Whitening.from_json(white) if white else None, classes, history)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except UnpicklingError as error:  # torch's own words advise to read it all the same
        raise RfvizError(
            f"{name} cannot be read as weights (it is damaged, or would run code, as a whole network does): save the "
            f"state dict alone. If you trust the file: net = torch.load({str(path)!r}, weights_only=False); "
            "torch.save(net.state_dict(), 'weights.pth')"
        ) from error
    except Exception as error:  # damaged files fail in many ways; to the user they all mean one thing
        if "TorchScript" in str(error):
            raise RfvizError(
                f"{name} is a TorchScript archive: save its state_dict, torch.save(torch.jit.load({str(path)!r})"
                ".state_dict(), 'weights.pth')"
            ) from error
        reason = first_line(error) if any(map(str.isalpha, first_line(error))) else "torch has not written it"
        raise RfvizError(f"{name} cannot be read as weights ({reason}).") from error
    for name_of_weights in UNDER:
        if isinstance(state, Mapping) and isinstance(state.get(name_of_weights), Mapping):
            state = state[name_of_weights]
    if not isinstance(state, Mapping):
        raise RfvizError(f"{name} does not hold a state dict but a {type(state).__name__}.")
    return Stored(state, name)
