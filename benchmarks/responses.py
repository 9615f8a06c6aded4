"""How much longer does one pass with all its statistics take than the bare forward pass? `make bench` prints it.

Both run in turn on the same images, and the ratio of each pair counts, so that a machine whose speed drifts does not
matter. The floor is the forward pass cut at the deepest layer, with nothing collected.
"""

import argparse
import platform
import statistics
import time
from collections.abc import Callable

import torch

from rfviz import models, responses
from rfviz.graph import ForwardPass
from rfviz.presets import FIGURE_LAYERS


def seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=32, help="number of images")
    parser.add_argument("--side", type=int, default=128, help="side of an image, px")
    parser.add_argument("--width", type=int, default=64, help="channels of the stem")
    parser.add_argument("--runs", type=int, default=5, help="counted pairs")
    given = parser.parse_args()
    torch.manual_seed(0)
    net = models.resnet34(given.width).eval()
    images = torch.rand(given.images, 3, given.side, given.side)
    forward = ForwardPass(net, FIGURE_LAYERS)

    def floor() -> None:
        with torch.inference_mode():
            for batch in images.split(32):
                forward(batch)

    rows = {
        "top 16 and activity": lambda: responses.collect(net, images, FIGURE_LAYERS, mean_stimulus=False),
        "+ mean preferred stimulus": lambda: responses.collect(net, images, FIGURE_LAYERS),
    }
    threads = torch.get_num_threads()
    print(f"{platform.machine()}, {threads} threads, torch {torch.__version__}")
    print(f"ResNet34, width {given.width}, {given.images} images of {given.side} px, layers {', '.join(FIGURE_LAYERS)}")
    print(f"{'work':<28}{'seconds':>9}{'x floor':>9}")
    floors = []
    for name, work in rows.items():
        floor(), work()  # warm-up
        pairs = [(seconds(floor), seconds(work)) for _ in range(given.runs)]
        floors += [pair[0] for pair in pairs]
        median = statistics.median(pair[1] for pair in pairs)
        print(f"{name:<28}{median:>9.2f}{statistics.median(b / a for a, b in pairs):>9.2f}")
    print(f"{'floor: cut forward pass':<28}{statistics.median(floors):>9.2f}{1:>9.2f}")


if __name__ == "__main__":
    main()
