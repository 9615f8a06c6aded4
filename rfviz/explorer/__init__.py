"""The explorer: pick a network, a layer and a channel, and see what is known of it.

One front end (``explorer.js``), two hosts: `Explorer` in a live notebook, and the page of the built book, whose files
`gather` writes.
"""

from rfviz.explorer.static import draw, gather
from rfviz.explorer.widget import Explorer, explore

__all__ = ["Explorer", "draw", "explore", "gather"]
