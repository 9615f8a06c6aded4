"""ImageNet and Imagenette in torchvision's own layout on the disk, and the preset `imagenet` on a tiny ImageNet."""

import math
from pathlib import Path

import pytest
import torch
from PIL import Image

from rfviz.images import photographs
from rfviz.images.whitening import fit
from rfviz.lab import presets, results, sources
from rfviz.lab import run as runs
from rfviz.training import trainer as training
from rfviz.training.augmentation import ASPECTS

WNIDS = {"n01440764": ("tench", "Tinca tinca"), "n02102040": ("English springer", "English springer spaniel")}
CROPS = {"n01440764": "coffee", "n02102040": "chelsea"}


def write(folder: Path, numbers: range, side: tuple[int, int] = (240, 300)) -> None:
    """Write pieces of two photographs as JPEG files, one folder per class."""
    for wnid, name in CROPS.items():
        (folder / wnid).mkdir(parents=True)
        for i in numbers:
            piece = photographs.photograph(name)[:, 10 * i : 10 * i + side[0], 20 * i : 20 * i + side[1]]
            Image.fromarray(piece.permute(1, 2, 0).numpy()).save(folder / wnid / f"{wnid}_{i}.JPEG", quality=97)


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """What torchvision leaves on the disk when it has unpacked ImageNet and Imagenette."""
    root = tmp_path_factory.mktemp("data")
    for name in ("imagenet", "imagenette2-320"):
        write(root / name / "train", range(4))
        write(root / name / "val", range(4, 6))
    torch.save((WNIDS, ["n01440764"] * 2), root / "imagenet" / "meta.bin")
    return root


@pytest.fixture(autouse=True)
def folders_of_the_test(data, tmp_path, monkeypatch):
    monkeypatch.setenv("RFVIZ_DATA", str(data))
    monkeypatch.setenv("RFVIZ_RUNS", str(tmp_path / "runs"))


@pytest.mark.parametrize("name", ["imagenet", "imagenette"])
def test_a_data_set_is_read_through_torchvision(name):
    images = sources.load(presets.get(name))
    assert tuple(images.train.classes) == ("tench", "English springer")
    assert (list(images.train.labels), list(images.evaluation.labels)) == ([0] * 4 + [1] * 4, [0, 0, 1, 1])
    assert images.evaluation[0][0].shape == (3, 224, 224)
    image, label = images.train[5]
    assert (image.dtype, label) == (torch.uint8, 1)
    assert image.shape == ((3, 240, 300))  # no image is enlarged
    original = photographs.photograph("chelsea")[:, 10:250, 20:320]
    assert (image.float() - original.float()).abs().mean() < 2
    assert images.train.in_memory == (name == "imagenette")  # ImageNet is too large to be decoded before it is used


@pytest.mark.thorough
@pytest.mark.parametrize("architecture", ["resnet34", "plainnet34"])
def test_the_preset_imagenet_trains_by_the_papers_recipe(monkeypatch, architecture):
    """Two steps on a tiny ImageNet, with every number of section 3.1 of the paper as it arrives where it is used."""
    optimizers, rates, batches, augmentations = [], [], [], []

    class Optimizer(torch.optim.SGD):
        def __init__(self, *arguments, **options):
            super().__init__(*arguments, **options)
            optimizers.append(self)

        def step(self, *arguments):
            rates.append(self.param_groups[0]["lr"])
            return super().step(*arguments)

    class Augmentation(training.Augmentation):
        def __call__(self, batch):
            augmentations.append(self)
            images = super().__call__(batch)
            batches.append(images)
            return images

    monkeypatch.setattr(torch.optim, "SGD", Optimizer)
    monkeypatch.setattr(training, "Augmentation", Augmentation)
    run = runs.open_run("imagenet", epochs=2)
    run.progress = False
    net = run.net(architecture)

    (optimizer,) = optimizers
    (group,) = optimizer.param_groups
    assert (group["momentum"], group["weight_decay"]) == (0.9, 1e-4)
    assert (group["nesterov"], group["dampening"]) == (False, 0)
    assert len(group["params"]) == len(list(net.parameters()))  # all of them decay
    assert rates == [0.01, 0.01]
    recipe = run.recipe(architecture)
    later = [training.learning_rate(recipe, 5004 * epoch, 5004) for epoch in (29, 30, 59, 60, 89)]
    assert all(math.isclose(a, b) for a, b in zip(later, (0.01, 0.001, 0.001, 0.0001, 0.0001), strict=True))
    assert recipe.batch_size == 256 and presets.get("imagenet").recipes[architecture].epochs == 90
    assert [batch.shape for batch in batches] == [(8, 3, 224, 224)] * 2  # all images that there are
    assert (augmentations[0].area, augmentations[0].window, ASPECTS) == ((0.08, 1.0), None, (3 / 4, 4 / 3))
    assert augmentations[0].distortion > 0
    assert (net.conv1.out_channels, net.fc.out_features) == (64, 2)
    assert [len(layer) for layer in (net.layer1, net.layer2, net.layer3, net.layer4)] == [3, 4, 6, 3]
    assert any("downsample" in name for name in net.state_dict()) == (architecture == "resnet34")
    expected = fit([run.images.train[i][0] for i in range(8)])  # per colour channel, of the training images
    assert runs.data_whitening(run) == expected.to_json()
    assert run.images.evaluation[0][0].shape == (3, 224, 224)
    assert len(results.history(run, architecture)) == 2
