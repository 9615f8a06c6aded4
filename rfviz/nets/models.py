"""ResNet34 and PlainNet34, the table of their layers, and reading weights.

PlainNet34 is ResNet34 without the skips, and so without the projections on them; batch norm stays. Both are built of
torchvision's block and carry torchvision's parameter names, so weights go back and forth without renaming.
"""

import copy
import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock

from rfviz.errors import RfvizError, unknown
from rfviz.nets import graph, receptive_field, weights
from rfviz.nets.receptive_field import ReceptiveField
from rfviz.nets.weights import Stored

BLOCKS = (3, 4, 6, 3)
"""Number of blocks in layer1 to layer4."""

LAYERS = ("maxpool", *(f"layer{i + 1}.{j}" for i, blocks in enumerate(BLOCKS) for j in range(blocks)))
"""The 17 layers of the analyses: the first pooling layer and the 16 blocks."""

PAPER_NAMES = {
    "conv1": "first convolution filter",
    "maxpool": "first pooling layer",
    **{layer: f"conv. layer {2 * block + 3}" for block, layer in enumerate(LAYERS[1:])},
}
"""What the paper calls each layer: block b (from 0) is conv. layer 2b + 3."""


class PlainBlock(BasicBlock):
    """torchvision's BasicBlock without the skip: eq. 1 of the paper with y = F(x)."""

    def forward(self, x: Tensor) -> Tensor:
        """Return ``relu(F(x))`` of `(N, C, H, W)`, where torchvision's block returns ``relu(F(x) + x)``."""
        out = self.relu(self.bn1(self.conv1(x)))
        return self.relu(self.bn2(self.conv2(out)))


class Net34(nn.Module):
    """A 34-layer network of the ResNet family, with or without skips.

    Parameters
    ----------
    skips : bool
        True builds ResNet34, False PlainNet34.
    width : int
        Channels of the stem and of layer1; layer4 has eight times as many. The paper's networks have 64.
    num_classes : int
        Length of the logits.
    """

    def __init__(self, skips: bool, width: int = 64, num_classes: int = 1000):
        super().__init__()
        if width < 1 or num_classes < 1:
            raise RfvizError(f"width {width} and num_classes {num_classes} must both be at least 1.")
        self.name = "resnet34" if skips else "plainnet34"
        self.conv1 = nn.Conv2d(3, width, kernel_size=7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(kernel_size=3, stride=2, padding=1)
        self.layer1, self.layer2, self.layer3, self.layer4 = (nn.Sequential() for _ in BLOCKS)
        channels = width
        for stage, layer in enumerate((self.layer1, self.layer2, self.layer3, self.layer4)):
            planes = width * 2**stage
            for block in range(BLOCKS[stage]):
                stride = 2 if stage > 0 and block == 0 else 1
                layer.append(_block(skips, channels, planes, stride))
                channels = planes
        self.avgpool = nn.AdaptiveAvgPool2d((1, 1))
        self.fc = nn.Linear(channels, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits `(N, num_classes)` of whitened images `(N, 3, H, W)`."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(torch.flatten(self.avgpool(x), 1))


def _block(skips: bool, channels: int, planes: int, stride: int) -> BasicBlock:
    if not skips:
        return PlainBlock(channels, planes, stride)
    if stride == 1 and channels == planes:
        return BasicBlock(channels, planes)
    projection = nn.Sequential(nn.Conv2d(channels, planes, 1, stride, bias=False), nn.BatchNorm2d(planes))
    return BasicBlock(channels, planes, stride, projection)


def resnet34(width: int = 64, num_classes: int = 1000) -> Net34:
    """Build ResNet34 with random weights; its state dict has exactly the keys of torchvision's ``resnet34``."""
    return Net34(True, width, num_classes)


def plainnet34(width: int = 64, num_classes: int = 1000) -> Net34:
    """Build PlainNet34 with random weights; its state dict is that of `resnet34` less the ``downsample`` entries."""
    return Net34(False, width, num_classes)


ARCHITECTURES = {"resnet34": resnet34, "plainnet34": plainnet34}
PAPER_ARCHITECTURES = {"resnet34": "ResNet34", "plainnet34": "PlainNet34"}
"""How the paper writes the names of the architectures."""


class Layer(NamedTuple):
    """One row of the table of layers: `name` (torchvision's), the paper's name, channels, receptive field."""

    name: str
    paper_name: str
    channels: int
    receptive_field: ReceptiveField


def layers(net: nn.Module) -> list[Layer]:
    """Return the table of layers of a 34-layer network: ``conv1``, ``maxpool`` and the 16 blocks, in order."""
    names = list(PAPER_NAMES)
    channels: dict[str, int] = {}
    shapes_only = copy.deepcopy(net).to("meta")  # runs no arithmetic
    graph.ForwardPass(shapes_only, names)(
        torch.empty(1, 3, 64, 64, device="meta"),
        lambda layer, response: channels.update({layer: response.shape[1]}),
    )
    fields = receptive_field.of_layers(net, names)
    return [Layer(name, PAPER_NAMES[name], channels[name], fields[name]) for name in names]


READABLE = (torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32)
"""Types of the numbers in weights that are read; integers count batches."""


def load(source: str | Path | Mapping[str, Tensor] | Stored) -> Net34:
    """Read a network from weights; architecture, width and number of classes follow from the names and shapes.

    Parameters
    ----------
    source : path, address, mapping or str
        See `rfviz.nets.weights.read`, whose answer may be given as well. A ``module.`` prefix, which `DataParallel` leaves
        behind, is taken off.

    Returns
    -------
    Net34
        In evaluation mode.

    Raises
    ------
    RfvizError
        If the weights are missing, unreadable or not finite, or are not those of a ResNet34 or a PlainNet34.
    """
    stored = source if isinstance(source, Stored) else weights.read(source)
    origin = stored.origin
    state = {re.sub(r"^module\.", "", str(key)): value for key, value in stored.tensors.items()}
    for key in ("conv1.weight", "fc.weight"):
        if not isinstance(state.get(key), Tensor) or state[key].dim() == 0:
            raise RfvizError(f"{origin} does not hold a ResNet34 or PlainNet34: it has no tensor {key!r}.")
    skips = any(".downsample." in key for key in state)
    net = Net34(skips, width=state["conv1.weight"].shape[0], num_classes=state["fc.weight"].shape[0])
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
        raise RfvizError(f"{origin} does not hold a {PAPER_ARCHITECTURES[net.name]}: {wrong[0]}{more}.")
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


def build(architecture: str, width: int, num_classes: int) -> Net34:
    """Build an architecture by name.

    Raises
    ------
    RfvizError
        If the name is neither ``resnet34`` nor ``plainnet34``.
    """
    if architecture not in ARCHITECTURES:
        raise unknown("model", architecture, ARCHITECTURES)
    return ARCHITECTURES[architecture](width, num_classes)
