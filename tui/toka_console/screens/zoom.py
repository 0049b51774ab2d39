"""One pane over the whole body of a screen."""

from __future__ import annotations

from typing import Any

from textual.widget import Widget

from toka_console.panes.base import Pane
from toka_console.panes.group import Group

_RULES = ("display", "width", "height")


class Zoom:
    def __init__(self) -> None:
        self._before: list[tuple[Widget, dict[str, Any]]] = []

    def enter(self, pane: Pane, body: Group) -> None:
        """Show `pane` alone. Another call comes after `leave`."""
        kept = {pane, *pane.ancestors}
        for widget in body.query("Pane, Group"):
            inline = widget.styles.inline
            self._before.append(
                (widget, {rule: inline.get_rule(rule, None) for rule in _RULES if inline.has_rule(rule)})
            )
            widget.display = widget in kept
            if widget in kept:
                widget.styles.width = widget.styles.height = "100%"

    def leave(self) -> None:
        """Give every pane back what it had."""
        for widget, rules in self._before:
            for rule in _RULES:
                if rule in rules:
                    widget.styles.inline.set_rule(rule, rules[rule])
                else:
                    widget.styles.inline.clear_rule(rule)
            widget.refresh(layout=True)
        self._before.clear()
