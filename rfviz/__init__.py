"""rfviz: preferred stimuli, receptive fields and inactive neurons of residual networks.

The helper package of the book *Interpretation of ResNet by Visualization of Preferred Stimulus in Receptive Fields*.
Kernels (`receptive_field`, `responses`, `maximization`, `inactivity`) take a network, images and numbers and return
small dataclasses of tensors; `presets` and `runs` say what to compute and keep it; `figures` draws; `publish` makes the
book.
"""

from rfviz import _torchvision_ops as _torchvision_ops  # must come before the first import of torchvision

__version__ = "0.1.0"
