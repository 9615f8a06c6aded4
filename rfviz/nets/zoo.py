"""Networks of one's own and of others: found by name, with what their weights expect of images.

==========================  ==============================================================================
``torchvision:resnet18``    a network of torchvision
``timm:resnet10t``          a network of timm, where that is installed
``rfviz:plainnet34``        one of `rfviz.nets.network.NETWORKS`
``mine.py:build``           what a function in a file of one's own returns: **this runs the code of the file**
==========================  ==============================================================================
"""

import importlib.util
import logging
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from rfviz import _torchvision_ops  # isort: skip  # noqa: F401  # torchvision may not load without it
import torchvision
from torchvision.models import get_model, get_model_weights, list_models

from rfviz.errors import RfvizError, first_line, one_line, unknown
from rfviz.images import whitening
from rfviz.images.whitening import Whitening
from rfviz.nets import graph, models, weights
from rfviz.nets.network import NETWORKS

_log = logging.getLogger(__name__)

RANDOM = "random"
"""In place of weights: those that a network begins with, from a fixed seed."""


@dataclass(frozen=True)
class Loaded:
    """A network, in evaluation mode.

    Parameters
    ----------
    net : nn.Module
    name : str
        What to call it, without ``/&#%``.
    preprocess : Whitening, optional
        What its weights expect images to be normalised with, where that is known.
    resize, crop : int, optional
        Short side that its weights expect images to be resized to, and side of the square that is cut from the middle.
    random : bool
        Whether its weights are random: nothing was trained to expect images of any kind.
    """

    net: nn.Module
    name: str
    preprocess: Whitening | None = None
    resize: int | None = None
    crop: int | None = None
    random: bool = False


def load(address: str, source: str | None = None) -> Loaded:
    """Return a network by name.

    Parameters
    ----------
    address : str
        See the module's docstring.
    source : str, optional
        Weights: a file or address (`rfviz.nets.weights.read`), the name of published ones, or ``"random"``. By default
        those that torchvision or timm publish; of a file of one's own, what its function returns, and never random.

    Raises
    ------
    RfvizError
        If there is no such network, or its weights cannot be had or do not fit.
    """
    kind, _, name = address.partition(":")
    kinds: dict[str, Callable[[str, str | None], Loaded]] = {"torchvision": _torchvision, "timm": _timm, "rfviz": _ours}
    file, _, function = address.rpartition(":")
    with graph.seeded(0):  # weights that are not read are the same the next time
        if kind in kinds and name:
            loaded = kinds[kind](name, source)
        elif file.endswith(".py"):
            loaded = _of_file(Path(file).expanduser(), function, source)
        else:
            raise RfvizError(
                f"{address!r} is no network: write torchvision:NAME such as torchvision:resnet18, timm:NAME, "
                "rfviz:NAME, or FILE.py:FUNCTION."
            )
    graph.unwrapped(loaded.net).eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # usually the faster order
    return loaded


def built(address: str) -> nn.Module:
    """Return a network by name without the weights that are published: random ones, or those of the reader's function.

    Raises
    ------
    RfvizError
        If there is no such network.
    """
    return load(address, None if address.rpartition(":")[0].endswith(".py") else RANDOM).net


def _torchvision(name: str, source: str | None) -> Loaded:
    known = list_models(torchvision.models)
    if name not in known:
        raise unknown("network of torchvision", name, known)
    published = get_model_weights(name)
    if source == RANDOM:
        return Loaded(_built(name), f"{name}-random", random=True)
    if source not in (None, *published.__members__):
        stored = weights.read(str(source), name)
        return Loaded(_filled(lambda classes: _built(name, classes), stored), name, stored.whitening)
    chosen: Any = published[source or "DEFAULT"]
    try:
        net = get_model(name, weights=chosen)
    except (OSError, RuntimeError) as error:
        raise RfvizError(
            f"the weights {chosen.name} of {name} cannot be downloaded ({first_line(error)}): give a file that holds "
            "them as weights, or 'random'."
        ) from error
    expected = chosen.transforms()
    return Loaded(net, name, whitening.of(expected), expected.resize_size[0], expected.crop_size[0])


def _built(name: str, classes: int = 1000) -> nn.Module:
    heavy = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
    return get_model(name, weights=None, num_classes=classes, **heavy)


def _timm(name: str, source: str | None) -> Loaded:
    try:
        import timm
    except ImportError as error:
        raise RfvizError(f"timm:{name} needs timm, which is not installed: pip install timm.") from error
    if name not in timm.list_models() and name not in timm.list_pretrained():
        raise unknown("network of timm", name, timm.list_models())
    try:
        net = timm.create_model(name, pretrained=source is None)
    except Exception as error:  # timm's hub raises many types
        raise RfvizError(
            f"the weights of timm:{name} cannot be had ({first_line(error)}): give a file that holds them as "
            "weights, or 'random'."
        ) from error
    expected = net.pretrained_cfg
    if source not in (None, RANDOM):
        net = _filled(lambda classes: timm.create_model(name, num_classes=classes), weights.read(source, name))
    crop = expected["input_size"][-1]
    resize, random = round(crop / (expected.get("crop_pct") or 1)), source == RANDOM
    preprocess = whitening.of(expected) if source is None else None
    return Loaded(net, f"{name}-random" if random else name, preprocess, resize, crop, random)


def _ours(name: str, source: str | None) -> Loaded:
    if name not in NETWORKS:
        raise unknown("network", name, NETWORKS)
    if source in (None, RANDOM):
        return Loaded(models.build(name), f"{name}-random", random=True)
    stored = weights.read(source, name)
    return Loaded(models.load(stored, NETWORKS[name]), name, stored.whitening)


def _of_file(path: Path, function: str, source: str | None) -> Loaded:
    if not path.is_file():
        raise RfvizError(f"there is no file {str(path)!r}: give FILE.py:FUNCTION.")
    spec = importlib.util.spec_from_file_location(f"_rfviz_own_{path.stem}", path)
    assert spec is not None and spec.loader is not None
    sys.modules[spec.name] = module = importlib.util.module_from_spec(spec)  # where data classes look for it
    sys.path.insert(0, str(path.parent.resolve()))  # what lies beside it can be imported, as if it were run
    try:
        spec.loader.exec_module(module)
        if not callable(getattr(module, function, None)):
            raise unknown(f"function of {path}", function, [n for n, each in vars(module).items() if callable(each)])
        made = getattr(module, function)()
    except RfvizError:
        raise
    except Exception as error:  # anything can go wrong in the code of others
        raise RfvizError(f"{path}:{function} failed with {type(error).__name__}: {first_line(error)}.") from error
    finally:
        sys.path.remove(str(path.parent.resolve()))
    net, told = made if isinstance(made, tuple) and len(made) == 2 else (made, None)
    preprocess = None if told is None else whitening.of(told)
    if not isinstance(net, nn.Module):
        raise RfvizError(f"{path}:{function} returned a {type(net).__name__}: a torch.nn.Module is expected.")
    if source == RANDOM:
        raise RfvizError(f"{path}:{function} brings weights of its own: leave 'random' out, or give a file of weights.")
    if source is not None:
        stored = weights.read(source)
        net = _filled(lambda classes: net, stored)
        preprocess = preprocess or stored.whitening
    return Loaded(net, f"{path.stem}.{function}", preprocess)


def _filled(build: Callable[[int], nn.Module], stored: weights.Stored) -> nn.Module:
    """Return a network with the weights of a file, for as many classes as these tell apart."""
    net = build(1000)
    needed, classifier = _parts(net)
    state = weights.unprefixed(stored, lambda inner: needed <= set(inner), sorted(needed or classifier)[:1])
    tensors = {key: value for key, value in state.items() if isinstance(value, Tensor)}
    *_, last = net.state_dict()
    if last in tensors and tensors[last].dim():
        net = build(len(tensors[last]))
    try:
        missing = net.load_state_dict(tensors, strict=False)
        without = classifier and set(missing.missing_keys) >= classifier and not missing.unexpected_keys
        if not (without and needed <= set(tensors)):
            net.load_state_dict(tensors)
    except RuntimeError as error:
        if (held := models.what(state)) is not None:
            raise RfvizError(f"{stored.origin} holds a {held}, which is not the network that was asked for.") from error
        wrong = one_line(str(error).strip().splitlines()[-1].strip())[:200]
        raise RfvizError(f"{stored.origin} does not fit {type(net).__name__}: {wrong}") from error
    if without:
        _log.warning("rfviz: %s holds no classifier: what the network puts out means nothing.", stored.origin)
    for key, value in tensors.items():
        if not value.isfinite().all():
            raise RfvizError(f"{stored.origin}: {key!r} holds NaN or infinity. Take the weights of an earlier epoch.")
    return net


def _parts(net: nn.Module) -> tuple[set[str], set[str]]:
    """Return the names of the weights that a network cannot do without, and those of the linear layer that ends it."""
    names = [name for name in net.state_dict() if not name.endswith("num_batches_tracked")]
    owner = names[-1].rpartition(".")[0] if names else ""
    ends = isinstance(dict(net.named_modules()).get(owner), nn.Linear)
    last = {name for name in names if ends and name.rpartition(".")[0] == owner}
    return set(names) - last, last


def expected_preprocess(net: nn.Module) -> Whitening | None:
    """Return what the weights that are published of a network expect, or None where none are known."""
    net = graph.unwrapped(net)
    told = getattr(net, "pretrained_cfg", None)
    if isinstance(told, dict) and "mean" in told and told.get("url", told.get("hf_hub_id")):
        return whitening.of(told)
    last = next(iter(reversed(list(net.parameters()))), torch.empty(0))
    if type(net).__module__.startswith("torchvision.models.") and len(last) == 1000 and _may_be_trained(net):
        return whitening.IMAGENET
    return None


def _may_be_trained(net: nn.Module) -> bool:
    """Tell whether batch norms have seen an image, or there are none to tell."""
    norms = [module for module in net.modules() if isinstance(module, nn.BatchNorm2d)]
    means = [norm.running_mean for norm in norms if norm.running_mean is not None]
    return not means or any(mean.any() for mean in means)
