"""Networks of every floating-point type are measured, and give what they do in float32 but for their own rounding."""

import copy

import pytest
import torch
import torchvision
from torch import nn

from rfviz.images.whitening import IMAGENET
from rfviz.kernels import controls, effective, intervene, noise, silent, stream, tuning
from rfviz.kernels.maximization import maximize
from rfviz.kernels.responses import collect, levels
from rfviz.kernels.tuning import spots
from rfviz.nets import models
from rfviz.training.trainer import evaluate

IMAGES = torch.rand(6, 3, 64, 64, generator=torch.Generator().manual_seed(0))


class Labelled:
    labels = (0, 1, 2, 3, 4, 0)

    def __len__(self) -> int:
        return 6

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return IMAGES[index], self.labels[index]


@pytest.fixture(scope="module")
def net() -> nn.Module:
    torch.manual_seed(0)
    return controls.calibrated(models.build("resnet18", width=8, num_classes=5).eval(), IMAGES, preprocess=IMAGENET)


def of_images(net: nn.Module) -> dict[str, torch.Tensor]:
    found = collect(net, IMAGES, "maxpool", strongest=20, preprocess=IMAGENET)["maxpool"]
    written = stream.written(net, IMAGES, ["maxpool", "layer1.0"], preprocess=IMAGENET)["layer1.0"]
    wanted = torch.full((8, 1), 0.5)
    levels.nearest(net, IMAGES, "maxpool", wanted, 2, preprocess=IMAGENET)
    return {
        "maxima": found.maximum,
        "mean": found.mean_stimulus,
        "map": levels.maps(net, IMAGES, "maxpool", {0: [1]}, preprocess=IMAGENET)[0, 1],
        "highest": silent.silence(net, IMAGES, found, preprocess=IMAGENET).highest,
        "written": written.variance,
        "follows": stream.handed_on(net, IMAGES, ["maxpool", "layer1.0"], skips=True, preprocess=IMAGENET)[
            "layer1.0"
        ].whole,
        "deviation": torch.tensor(
            intervene.deviation(net, IMAGES, "maxpool", [1], indices=range(6), preprocess=IMAGENET)
        ),
        "clean": torch.tensor(noise.noise_effect(net, Labelled(), found, seeds=[0, 1], preprocess=IMAGENET).clean_loss),
        "loss": torch.tensor(evaluate(net, Labelled(), IMAGENET)[0]),
    }


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_images_go_into_a_network_of_any_type(net, dtype) -> None:
    expected, found = of_images(net), of_images(copy.deepcopy(net).to(dtype))
    for name, each in found.items():
        scale = expected[name].abs().nan_to_num().max()
        apart = (each.float() - expected[name].float()).abs().nan_to_num().max()
        assert apart <= (1e-4 if dtype == torch.float64 else 0.1) * scale, name


@pytest.mark.parametrize(
    "dtype", [pytest.param(torch.float64, marks=pytest.mark.thorough), torch.bfloat16, torch.float16]
)
@pytest.mark.parametrize("setting", ["paper", "clear"])
def test_pictures_that_drive_a_network_do_not_depend_on_its_type(net, dtype, setting) -> None:
    units = collect(net, IMAGES, "layer1.0", preprocess=IMAGENET)["layer1.0"]
    options = {"setting": setting, "units": units, "preprocess": IMAGENET}
    expected = maximize(net, "layer1.0", **options)
    found = maximize(copy.deepcopy(net).to(dtype), "layer1.0", **options)
    assert found.images.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    torch.testing.assert_close(found.activations[0].float(), expected.activations[0], rtol=0.05, atol=0.1)
    grown = found.activations[-1] / expected.activations[-1]  # on ways that part, as a neuron is up another ReLU
    assert (grown > 0.5).all() and (grown - 1).abs().median() < 0.1


def test_without_a_preprocess_the_same_warning_everywhere(caplog) -> None:
    torch.manual_seed(0)
    net, layer = torchvision.models.squeezenet1_1().eval(), "features.0"
    found = collect(net, IMAGES, layer, preprocess="imagenet")[layer]
    given = {
        "collect": lambda **options: collect(net, IMAGES, layer, **options),
        "effective fields": lambda **options: effective.effective_fields(net, IMAGES, layer, found, [0], **options),
        "gratings": lambda **options: tuning.measure(net, layer, **options),
        "spots": lambda **options: spots.measure(net, layer, **options),
        "clear": lambda **options: maximize(net, layer, 0, setting="clear", steps=1, units=torch.ones(1), **options),
    }
    for name, measure in given.items():
        caplog.clear()
        measure(preprocess="imagenet")
        measure(preprocess="none")
        assert not caplog.messages, name
        measure()
        assert len(caplog.messages) == 1 and "expect images that are normalised" in caplog.text, name
