"""The explorer: pick a network, a layer and a channel, and see what is known of it.

One front end (``explorer.js``), two hosts: `Explorer` in a live notebook, and the page that `write_atlas` and `Page`
put into the built book.
"""

from rfviz.explorer.static import Page, write_atlas
from rfviz.explorer.widget import Explorer

__all__ = ["Explorer", "Page", "write_atlas"]
