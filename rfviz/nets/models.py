"""The networks, the table of their layers, and reading weights.

A PlainNet is a ResNet without the skips, and so without the projections on them; batch norm stays. All are built of
torchvision's blocks and carry torchvision's parameter names, so weights go back and forth without renaming.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from rfviz import _torchvision_ops  # isort: skip  # noqa: F401  # torchvision may not load without it
from torchvision.models.resnet import BasicBlock, Bottleneck

from rfviz.errors import RfvizError
from rfviz.nets import weights
from rfviz.nets.network import NETWORKS, Network, network
from rfviz.nets.weights import Stored


class PlainBlock(BasicBlock):
    """torchvision's BasicBlock without the skip: eq. 1 of the paper with y = F(x)."""

    def forward(self, x: Tensor) -> Tensor:
        """Return ``relu(F(x))`` of `(N, C, H, W)`, where torchvision's block returns ``relu(F(x) + x)``."""
        out = self.relu(self.bn1(self.conv1(x)))
        return self.relu(self.bn2(self.conv2(out)))


class ResidualNet(nn.Module):
    """A network of the ResNet family, with or without skips.

    Parameters
    ----------
    network : Network
    width : int
        Channels of the stem, and of the blocks of layer1 before a bottleneck widens them; every further stage has twice
        as many. The published networks have 64.
    num_classes : int
        Length of the logits.
    """

    def __init__(self, network: Network, width: int = 64, num_classes: int = 1000):
        super().__init__()
        if width < 1 or num_classes < 1:
            raise RfvizError(f"width {width} and num_classes {num_classes} must both be at least 1.")
        self.network = network
        self.conv1 = nn.Conv2d(3, width, kernel_size=7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(kernel_size=3, stride=2, padding=1)
        self.layer1, self.layer2, self.layer3, self.layer4 = (nn.Sequential() for _ in network.blocks)
        channels = width
        for stage, layer in enumerate((self.layer1, self.layer2, self.layer3, self.layer4)):
            planes = width * 2**stage
            for block in range(network.blocks[stage]):
                stride = 2 if stage > 0 and block == 0 else 1
                layer.append(_block(network, stage + 1, channels, planes, stride))
                channels = planes * (Bottleneck.expansion if network.bottleneck else 1)
        self.avgpool = nn.AdaptiveAvgPool2d((1, 1))
        self.fc = nn.Linear(channels, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    @property
    def name(self) -> str:
        """Name of the network, such as ``"resnet34"``."""
        return self.network.name

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits `(N, num_classes)` of whitened images `(N, 3, H, W)`."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(torch.flatten(self.avgpool(x), 1))


def _block(network: Network, stage: int, channels: int, planes: int, stride: int) -> BasicBlock | Bottleneck:
    if not network.skips or stage in network.plain_stages:
        return PlainBlock(channels, planes, stride)
    kind = Bottleneck if network.bottleneck else BasicBlock
    if stride == 1 and channels == planes * kind.expansion:
        return kind(channels, planes)
    out = planes * kind.expansion
    projection = nn.Sequential(nn.Conv2d(channels, out, 1, stride, bias=False), nn.BatchNorm2d(out))
    return kind(channels, planes, stride, projection)


def build(name: str, width: int = 64, num_classes: int = 1000) -> ResidualNet:
    """Build a network with random weights.

    The state dict of a ResNet has exactly the keys of torchvision's network of that name; that of a PlainNet lacks the
    ``downsample`` entries.

    Raises
    ------
    RfvizError
        If the name is none of `rfviz.nets.network.NETWORKS`.
    """
    return ResidualNet(network(name), width, num_classes)


def resnet34(width: int = 64, num_classes: int = 1000) -> ResidualNet:
    """Build ResNet34 with random weights; see `build`."""
    return build("resnet34", width, num_classes)


def plainnet34(width: int = 64, num_classes: int = 1000) -> ResidualNet:
    """Build PlainNet34 with random weights; see `build`."""
    return build("plainnet34", width, num_classes)


def frozen_part(net: nn.Module, last: str) -> list[tuple[str, nn.Module]]:
    """Return the modules of a network from ``conv1`` to the one called `last`, with the batch norm of the stem."""
    parts = list(net.named_children())
    names = [name for name, _ in parts]
    return parts[: max(names.index(last), names.index("bn1")) + 1]


def take_over(net: ResidualNet, source: Stored, last: str) -> None:
    """Put the weights of a source into a network, from ``conv1`` to the module called `last`; of the rest none is read.

    Raises
    ------
    RfvizError
        If the source lacks one of them, or its shape is another.
    """
    for name, module in frozen_part(net, last):
        state = {key: source.tensors.get(f"{name}.{key}") for key in module.state_dict()}
        for key, own in module.state_dict().items():
            given = state[key]
            if given is None and key.endswith("num_batches_tracked"):
                state[key] = own
            elif not isinstance(given, Tensor) or given.shape != own.shape or not given.isfinite().all():
                fits = isinstance(given, Tensor) and given.shape == own.shape
                wrong = "not finite" if fits else f"of shape {tuple(getattr(given, 'shape', ()))}"
                wrong = "missing" if given is None else wrong
                raise RfvizError(
                    f"{source.origin}: {name}.{key} is needed as finite numbers of shape {tuple(own.shape)}, but is "
                    f"{wrong}: give weights of a {net.network.title} of width {net.conv1.out_channels}."
                )
        module.load_state_dict(state)


READABLE = (torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32)
"""Types of the numbers in weights that are read; integers count batches."""


def load(source: str | Path | Mapping[str, Tensor] | Stored, described: Network | None = None) -> ResidualNet:
    """Read a network from weights; which network it is, width and number of classes follow from names and shapes.

    Parameters
    ----------
    source : path, address, mapping or str
        See `rfviz.nets.weights.read`, whose answer may be given as well. What wrappers leave before the names, such as
        ``module.`` or ``_orig_mod.``, is taken off (`rfviz.nets.weights.unprefixed`). Weights without those of ``fc``
        give a network without a classifier, whose output are the mean responses of the last layer.
    described : Network, optional
        What to build, where the names of the weights do not tell, such as without some of the skips.

    Returns
    -------
    ResidualNet
        In evaluation mode.

    Raises
    ------
    RfvizError
        If the weights are missing, unreadable or not finite, or are those of no network of
        `rfviz.nets.network.NETWORKS`.
    """
    stored = source if isinstance(source, Stored) else weights.read(source)
    origin = stored.origin
    state = weights.unprefixed(stored, lambda inner: what(inner) is not None, ["conv1.weight"])
    if not isinstance(state.get("conv1.weight"), Tensor) or state["conv1.weight"].dim() == 0:
        raise RfvizError(f"{origin} does not hold a network of the ResNet family: it has no tensor 'conv1.weight'.")
    described = described or recognize(state)
    if described is None:
        known = ", ".join(each.title for each in NETWORKS.values())
        held = what(state)
        remedy = f": rfviz explore torchvision:{held.lower()} shows it" if held else ""
        raise RfvizError(
            f"{origin} holds {f'a {held}' if held else 'a network with other blocks'}, none of the networks "
            f"{known}{remedy}."
        )
    held, classifier = what(state), state.get("fc.weight")
    classes = classifier.shape[0] if isinstance(classifier, Tensor) and classifier.dim() else 0
    net = ResidualNet(described, width=state["conv1.weight"].shape[0], num_classes=classes or 1)
    if not classes:
        net.fc = nn.Identity()  # type: ignore[assignment]
    expected = net.state_dict()
    # Files from before torch 0.4.1 lack these counters, which nothing here reads; torch itself lets that pass.
    state = {key: value for key, value in expected.items() if key.endswith("num_batches_tracked")} | state
    wrong = [
        *(f"{key!r} is missing" for key in expected if key not in state),
        *(f"{key!r} does not belong there" for key in state if key not in expected),
        *(
            f"{key!r} has shape {tuple(getattr(state[key], 'shape', ()))} instead of {tuple(expected[key].shape)}"
            for key in expected
            if key in state and getattr(state[key], "shape", None) != expected[key].shape
        ),
    ]
    if wrong:
        more = f" (and {len(wrong) - 1} more differences)" if len(wrong) > 1 else ""
        other = f" It holds a {held}." if held not in (None, described.title) else ""
        raise RfvizError(f"{origin} does not hold a whole {described.title}: {wrong[0]}{more}.{other}")
    for key, value in state.items():
        if value.dtype not in READABLE:
            raise RfvizError(
                f"{origin}: {key!r} holds {value.dtype}. Save the weights as 32-bit floating-point numbers."
            )
        value = value.to(expected[key].dtype)
        if not value.isfinite().all():
            raise RfvizError(f"{origin}: {key!r} holds NaN or infinity. Take the weights of an earlier epoch.")
        if key.endswith("running_var") and (value < 0).any():
            raise RfvizError(f"{origin}: {key!r} holds a variance below 0. Take weights that are whole.")
    net.load_state_dict(state)
    return net.eval()


_OTHERS = {(3, 4, 23, 3): "ResNet101", (3, 8, 36, 3): "ResNet152"}
"""Networks of bottleneck blocks that are none of ours, by their blocks."""


def what(state: Mapping[str, object]) -> str | None:
    """Return the title of the network of the ResNet family whose weights these are; None if they are of no such."""
    if "conv1.weight" not in state:
        return None
    if (ours := recognize(state)) is not None:
        return ours.title
    blocks, skips, bottleneck = _blocks(state)
    return _OTHERS.get(blocks) if skips and bottleneck else None


def recognize(state: Mapping[str, object]) -> Network | None:
    """Return the network whose blocks a state dict names, or None if they are those of no network of ours."""
    usual = [each for each in NETWORKS.values() if not (each.plain_stages or each.control_of)]
    kinds = {(each.blocks, each.skips, each.bottleneck): each for each in usual}
    return kinds.get(_blocks(state))


def _blocks(state: Mapping[str, object]) -> tuple[Any, bool, bool]:
    """Return how many blocks each stage has, whether there are skips, and whether blocks have three convolutions."""
    found = {(int(name[1]), int(name[2])) for key in state if (name := re.match(r"layer([1-4])\.(\d+)\.", key))}
    blocks = tuple(sum(stage == each for stage, _ in found) for each in (1, 2, 3, 4))
    skips = any(".downsample." in key for key in state)
    bottleneck = any(key.endswith(".conv3.weight") for key in state)
    return blocks, skips, bottleneck
