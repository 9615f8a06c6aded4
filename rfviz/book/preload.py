"""What every kernel of a notebook, and the build, would do anew: imported once, by the process they are forked from.

Nothing here computes with torch: its threads would not be there in a fork.
"""

import gc
import importlib
import pkgutil

from tqdm.auto import tqdm  # isort: skip  # noqa: F401  # behind ipykernel, it would draw its bars for notebooks only
import ipykernel.kernelapp  # noqa: F401
import jupyter_book.cli.main
import jupyter_book.sphinx  # noqa: F401
import myst_nb.ext.glue  # noqa: F401

import rfviz
from rfviz.book.batch import PAGES
from rfviz.lab.result import RESULTS
from rfviz.pages import claims
from rfviz.pages.style import page_digest

# All of it, as the code is now: not some of it later, as it may be edited by then.
for module in pkgutil.walk_packages(rfviz.__path__, "rfviz."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
for result in RESULTS.values():
    result.code  # noqa: B018
for page in PAGES:
    page_digest(page.__name__)
claims.code()

gc.freeze()  # else each kernel looks through all of this for garbage, and memory that they share is copied
