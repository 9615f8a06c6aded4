"""Preferred stimuli, receptive fields and inactive neurons of residual networks.

The package behind the book *Interpretation of ResNet by Visualization of Preferred Stimulus in Receptive Fields*. The
names below are loaded when they are first used: to import the package does nothing else, to this process or the next.
"""

import lazy_loader

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submodules=["images", "pages"],
    submod_attrs={
        "nets": ["receptive_field"],
        "nets.models": ["resnet34", "plainnet34", "load"],
        "kernels.responses": ["collect", "preferred_stimuli"],
        "kernels.maximization": ["maximize"],
        "lab.run": ["open_run"],
        "nets.layer_table": ["layers"],
        "explorer": ["Explorer", "explore"],
    },
)
