"""A one-line editor: text and a cursor, changed by keys. Pure."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class LineEdit:
    text: str = ""
    cursor: int = 0

    def set(self, text: str) -> None:
        self.text, self.cursor = text, len(text)

    def insert(self, text: str) -> None:
        text = "".join(character for character in text if character.isprintable())
        self.text = self.text[: self.cursor] + text + self.text[self.cursor :]
        self.cursor += len(text)

    def key(self, key: str) -> bool:
        """Apply an editing key; False when it is none."""
        text, at = self.text, self.cursor
        match key:
            case "left" | "ctrl+b":
                self.cursor = max(0, at - 1)
            case "right" | "ctrl+f":
                self.cursor = min(len(text), at + 1)
            case "home" | "ctrl+a":
                self.cursor = 0
            case "end" | "ctrl+e":
                self.cursor = len(text)
            case "backspace" | "ctrl+h":
                self.text, self.cursor = text[: max(0, at - 1)] + text[at:], max(0, at - 1)
            case "delete":
                self.text = text[:at] + text[at + 1 :]
            case "ctrl+u":
                self.text, self.cursor = text[at:], 0
            case "ctrl+k":
                self.text = text[:at]
            case "ctrl+w":
                head = text[:at].rstrip()
                head = head[: head.rfind(" ") + 1]
                self.text, self.cursor = head + text[at:], len(head)
            case _:
                return False
        return True
