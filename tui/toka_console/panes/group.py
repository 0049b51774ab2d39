"""Panes beside or below one another."""

from __future__ import annotations

from textual.containers import Container


class Group(Container):
    """Its panes cover it: it has nothing of its own to draw, which Textual would do for each partial update."""

    BLANK = True
