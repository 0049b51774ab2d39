"""Live output of a tool as text: whole characters, and no half of a secret."""

from __future__ import annotations

import codecs
import re
from collections.abc import Callable

from toka_runtime.broker.shown import Redact

_HELD_CHARS = 512
_HELD_KEY_CHARS = 16_384
# The end of what may still be going on: a run of the characters that keys are made of.
_OPEN_RUN = re.compile(r"[A-Za-z0-9_\-+/=~.:%]*[A-Za-z0-9][A-Za-z0-9_\-+/=~.:%]*\Z")


class LiveText:
    """Takes the bytes of one stream, hands text on. With a redactor the last unfinished word is held back until the
    next piece, so that a secret that two pieces share is seen whole."""

    def __init__(self, hand_on: Callable[[str], None], redact: Redact | None) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._hand_on = hand_on
        self._redact = redact
        self._held = ""

    def add(self, data: bytes) -> None:
        self._take(self._decoder.decode(data))

    def close(self) -> None:
        """The stream has ended: hand on what is left."""
        text = self._held + self._decoder.decode(b"", final=True)
        self._held = ""
        if text:
            self._hand_on(self._redact(text) if self._redact else text)

    def _take(self, text: str) -> None:
        if self._redact is None:
            if text:
                self._hand_on(text)
            return
        text = self._held + text
        cut = self._safe_cut(text)
        self._held = text[cut:]
        if cut:
            self._hand_on(self._redact(text[:cut]))

    @staticmethod
    def _safe_cut(text: str) -> int:
        cut = len(text)
        run = _OPEN_RUN.search(text, max(len(text) - _HELD_CHARS, 0))
        if run is not None:
            cut = run.start()
        begin = text.rfind("-----BEGIN")
        if begin >= 0 and "-----END" not in text[begin:] and len(text) - begin < _HELD_KEY_CHARS:
            cut = min(cut, begin)
        return cut
