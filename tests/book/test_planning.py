"""What a training would take: counts, memory and the words of the report."""

import pytest
import torch
from PIL import Image
from torch import nn

from rfviz.book import planning
from rfviz.book.planning import Speed, duration, probe, report, saved_bytes, set_size
from rfviz.errors import RfvizError
from rfviz.lab import presets
from rfviz.nets.network import network

CPU = torch.device("cpu")


class TwoLayers(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.norm, self.fc = nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Linear(4, 5)

    def forward(self, x):
        return self.fc(torch.relu(self.norm(self.conv(x))).mean((2, 3)))


def test_saved_bytes_are_those_of_the_maps_that_the_way_back_needs():
    net, images = TwoLayers(), torch.rand(6, 3, 10, 10)
    maps = 4 * 6 * 4 * 100  # bytes of one set of maps of float32
    image_bytes = 4 * 6 * 3 * 100
    found = saved_bytes(net, images)
    # the images, the input of batch norm, the output of relu; perhaps its input; and a few numbers per channel
    assert image_bytes + 2 * maps <= found < image_bytes + 3.2 * maps


def test_saved_bytes_grow_with_the_images_and_shrink_with_the_precision():
    net = presets_net()
    few, many = (saved_bytes(net, torch.rand(n, 3, 96, 96)) for n in (4, 16))
    assert many == pytest.approx(4 * few, rel=0.05)
    assert saved_bytes(net, torch.rand(16, 3, 96, 96), "bfloat16") < 0.8 * many


def presets_net():
    torch.manual_seed(0)
    return planning.models.resnet34(8, 3)


def test_the_sets_of_torchvision_are_counted_without_them():
    assert set_size(presets.get("imagenet")) == (1281167, 50000, 1000)
    assert set_size(presets.get("caltech101")) == (6982, 1695, 101)
    assert set_size(presets.get("quick"))[::2] == (14, 14)


def test_a_folder_is_counted(tmp_path):
    for part, count in (("train", 3), ("val", 2)):
        for name in "ab":
            (tmp_path / part / name).mkdir(parents=True)
            for i in range(count):
                Image.new("RGB", (8, 8)).save(tmp_path / part / name / f"{i}.png")
    assert set_size(presets.get("imagenet", images=str(tmp_path))) == (6, 4, 2)
    assert set_size(presets.get("imagenet", images=str(tmp_path / "train"), split=0.34)) == (4, 2, 2)


def test_a_probe_measures_the_trainer():
    preset = presets.get("smoke")
    speed = probe(network("plainnet34"), preset, 4, CPU)
    assert speed.training > 0 and speed.evaluation > 0 and speed.per_image > 0
    net = planning.models.plainnet34(preset.width, 4)
    assert speed.fixed == 12 * sum(value.numel() for value in net.parameters())  # float32: weight, gradient, momentum


def test_the_report_does_its_sums_right(monkeypatch):
    monkeypatch.setattr(planning, "probe", lambda *_, **__: Speed(1000.0, 5000.0, planning.GIB // 2, 10 * 2**20))
    lines = list(report(presets.get("imagenet"), CPU))
    assert lines[0].startswith("imagenet: 1,281,167 training images and 50,000 held-out images of 1,000 classes")
    steps = 90 * (1281167 // 256)
    assert f"ResNet34: 90 epochs, {steps:,} steps of 256, {steps * 256:,} images of 224 px" in lines[1]
    hours = (steps * 256 / 1000 + 90 * 50000 / 5000) / 3600
    assert lines[1].endswith(f"1,000.0 images/s in the probe: about {hours:.1f} h")
    assert (
        lines[2] == "  memory: about 3.0 GiB for 256 images at a time; with a smaller micro_batch less (0.7 GiB for 16)"
    )
    assert f"together: about {2 * hours:.1f} h" in lines[-2]


def test_the_report_is_about_the_networks_of_the_run(monkeypatch):
    monkeypatch.setattr(planning, "probe", lambda *_, **__: Speed(1000.0, 5000.0, planning.GIB, planning.GIB))
    lines = list(report(presets.get("quick", networks="resnet18"), CPU))
    assert lines[1].startswith("ResNet18: 24 epochs of 128 visits to each image")
    assert sum("epochs" in line for line in lines) == 1


def test_the_report_knows_of_micro_batches_and_small_sets(monkeypatch):
    monkeypatch.setattr(planning, "probe", lambda *_, **__: Speed(1000.0, 5000.0, planning.GIB, planning.GIB))
    lines = list(report(presets.get("imagenet", micro_batch=8), CPU))
    assert "memory: about 9.0 GiB for 8 images at a time" in lines[2]
    lines = list(report(presets.get("quick", repeats=2), CPU))
    assert "24 epochs of 2 visits to each image, 24 steps of 28, 672 images of 64 px" in lines[1]


def test_too_little_memory_is_said_with_a_remedy(monkeypatch):
    def fails(*_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(planning.trainer, "train", fails)
    with pytest.raises(RfvizError, match=r"16 images at a time do not fit .*: give a smaller micro-batch, .*=4\.$"):
        probe(network("resnet34"), presets.get("smoke"), 4, CPU)


@pytest.mark.parametrize(
    ("hours", "text"), [(0.01, "36 s"), (0.5, "30 min"), (5.24, "5.2 h"), (71, "71.0 h"), (240, "10 days")]
)
def test_durations(hours, text):
    assert duration(hours) == text
