"""Results that may be huge: head and tail are kept, the middle is counted, the whole is digested."""

from __future__ import annotations

import hashlib

_MARKER_BYTES = 120


class HeadTail:
    """Takes bytes as they come and keeps at most about `cap_bytes` of them: the first half and the last half."""

    def __init__(self, cap_bytes: int) -> None:
        self._half = max(cap_bytes - _MARKER_BYTES, 2) // 2
        self._head = bytearray()
        self._tail = bytearray()
        self._sha256 = hashlib.sha256()
        self.total_bytes = 0

    def add(self, data: bytes) -> None:
        self.total_bytes += len(data)
        self._sha256.update(data)
        room = self._half - len(self._head)
        if room > 0:
            self._head += data[:room]
            data = data[room:]
        self._tail += data[-self._half :]
        if len(self._tail) > 4 * self._half:
            del self._tail[: -self._half]

    @property
    def digest(self) -> str:
        """SHA-256 of everything added, as hex."""
        return self._sha256.hexdigest()

    def text(self) -> str:
        """Valid text within the cap; bytes that are no UTF-8 become `�`."""
        text = self._render(self._half)
        # Each bad byte becomes three: show less of what is mostly not text.
        return text if len(text.encode()) <= 2 * self._half + _MARKER_BYTES else self._render(self._half // 3)

    def _render(self, half: int) -> str:
        head, tail = bytes(self._head), bytes(self._tail[-self._half :])
        if self.total_bytes <= 2 * half:
            return (head + tail).decode("utf-8", "replace")
        if self.total_bytes <= len(head) + len(tail):
            head = tail = head + tail
        # Whole characters on both sides of the cut: up to three bytes of a cut one are dropped.
        head = cut_utf8(head[:half])
        tail = tail[-half:]
        tail = tail[next((index for index in range(min(3, len(tail))) if tail[index] & 0xC0 != 0x80), 0) :]
        left_out = self.total_bytes - len(head) - len(tail)
        marker = f"\n… {left_out:,} bytes left out, sha256 {self.digest} of the whole …\n"
        return head.decode("utf-8", "replace") + marker + tail.decode("utf-8", "replace")


def cap_text(text: str, cap_bytes: int) -> tuple[str, int, str]:
    """`text` within the cap, the size of the whole in bytes, and the SHA-256 of the whole as hex."""
    data = text.encode("utf-8", "replace")
    keep = HeadTail(cap_bytes if len(data) > cap_bytes else len(data) + 2 * _MARKER_BYTES)
    keep.add(data)
    return keep.text(), keep.total_bytes, keep.digest


def cut_utf8(data: bytes) -> bytes:
    """Without a character that was cut at the end."""
    for back in range(1, min(4, len(data) + 1)):
        lead = data[-back]
        if lead & 0xC0 == 0x80:
            continue
        width = 1 if lead < 0x80 else 2 if lead >> 5 == 0b110 else 3 if lead >> 4 == 0b1110 else 4
        return data[:-back] if width > back else data
    return data
