"""rfviz: preferred stimuli, receptive fields and inactive neurons of residual networks.

The helper package of the book *Interpretation of ResNet by Visualization of Preferred Stimulus in Receptive Fields*.
Kernels (`receptive_field`, `responses`, `maximization`, `inactivity`, `tuning`) take a network, images and numbers and
return small dataclasses of tensors; `presets` and `runs` say what to compute and keep it; `figures` draws; `publish`
makes the book.
"""

import os

# Threads that wait for each other should sleep, not spin: when another program wants one of the cores, spinning makes
# small networks train many times slower. It must be said before torch starts its threads.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from rfviz import _torchvision_ops as _torchvision_ops  # before the first import of torchvision
from rfviz.book import memory as memory

__version__ = "0.1.0"
