"""Rows that the operator has marked, by identity: they stay marked in any order and behind any filter. Pure."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)


class Marks(Generic[K]):
    def __init__(self) -> None:
        self._marked: dict[K, None] = {}
        """In the order of marking."""
        self._last: K | None = None

    def __bool__(self) -> bool:
        return bool(self._marked)

    def __len__(self) -> int:
        return len(self._marked)

    def __iter__(self) -> Iterator[K]:
        return iter(self._marked)

    def __contains__(self, key: object) -> bool:
        return key in self._marked

    def toggle(self, key: K) -> None:
        if key in self._marked:
            del self._marked[key]
        else:
            self._marked[key] = None
        self._last = key

    def extend(self, key: K, order: Sequence[K], fits: Callable[[K], bool]) -> None:
        """Mark all that `fits` from the row that was toggled last to `key`; without such a row, `key` alone."""
        start = order.index(self._last) if self._last in order else order.index(key)
        end = order.index(key)
        for each in order[min(start, end) : max(start, end) + 1]:
            if fits(each):
                self._marked[each] = None
        self._last = key

    def clear(self) -> None:
        self._marked.clear()
        self._last = None

    def keep(self, exists: Callable[[K], bool]) -> None:
        """Forget those that are gone."""
        for key in [key for key in self._marked if not exists(key)]:
            del self._marked[key]
