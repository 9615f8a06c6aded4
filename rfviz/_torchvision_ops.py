"""Let torchvision be imported beside a torch that its compiled operators were not built for.

The Linux wheel of torchvision is built for the CUDA build of torch. Beside a CPU build its ``_C.so`` does not load,
and ``import torchvision`` then stops with ``operator torchvision::nms does not exist``, because the pure-Python part
registers fake kernels for two operators that nobody declared (pytorch/vision issues 8985 and 9085). Nothing here uses
those operators: declaring their schemas is enough. Where the compiled library loads, this module does nothing.
"""

import importlib.util
from pathlib import Path

import torch

_SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)


def _compiled_operators_load() -> bool:
    spec = importlib.util.find_spec("torchvision")  # finds the folder without importing the package
    if spec is None or spec.origin is None:
        return True  # no torchvision: its own import error says so best
    for library in Path(spec.origin).parent.glob("_C*"):
        try:
            torch.ops.load_library(str(library))
            return True
        except OSError:
            continue
    return False


_library = None  # a Library is undone when it is garbage collected, so it is kept here
if not _compiled_operators_load():
    _library = torch.library.Library("torchvision", "DEF")
    for _schema in _SCHEMAS:
        _library.define(_schema)
