"""Where two drawings of one row differ, so that only that is written."""

from __future__ import annotations

from rich.segment import Segment
from textual.strip import Strip

from toka_console.format.cells import width_of

MERGE_GAP = 8
"""Equal cells between two changed spans that are cheaper to write again than to jump over."""


def differences(old: Strip, new: Strip) -> list[tuple[int, int]]:
    """The spans of cells in which two strips of one width differ, in whole segments of the new one."""
    starts = _places(old)
    spans: list[tuple[int, int]] = []
    at = 0
    for segment in new:
        size = width_of(segment.text)
        # The same segment at the same place is on screen already.
        if size and (known := starts.get(at)) is not segment and known != segment:
            _add(spans, at, at + size)
        at += size
    return spans


def _add(spans: list[tuple[int, int]], start: int, end: int) -> None:
    if spans and start - spans[-1][1] <= MERGE_GAP:
        spans[-1] = (spans[-1][0], end)
    else:
        spans.append((start, end))


def _places(strip: Strip) -> dict[int, Segment]:
    """Segments by the cell they start at."""
    places: dict[int, Segment] = {}
    at = 0
    for segment in strip:
        places[at] = segment
        at += width_of(segment.text)
    return places
