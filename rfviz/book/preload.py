"""What every kernel of a notebook would do anew: imported once, by the process that they are forked from.

Nothing here computes with torch: its threads would not be there in a fork.
"""

import gc

import ipykernel.kernelapp  # noqa: F401
import myst_nb.ext.glue  # noqa: F401

from rfviz.book.batch import PAGES
from rfviz.lab.result import RESULTS
from rfviz.pages.style import page_digest

# Taken now, as the code is that has just been imported.
for result in RESULTS.values():
    result.code  # noqa: B018
for page in PAGES:
    page_digest(page.__name__)

gc.freeze()  # else each kernel looks through all of this for garbage, and memory that they share is copied
