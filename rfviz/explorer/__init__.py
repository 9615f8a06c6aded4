"""The explorer: pick a network, a layer and a channel, and see what is known of it.

One front end (``explorer.js``), two hosts: `Explorer` in a live notebook, and the page of the built book, whose files
`gather` writes.
"""

from rfviz.explorer.static import Page, draw, gather, write_atlas
from rfviz.explorer.widget import Explorer, explore

__all__ = ["Explorer", "Page", "draw", "explore", "gather", "write_atlas"]
