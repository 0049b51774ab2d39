"""How the operator likes to see things, kept from one start to the next: sorts, sizes, columns. No Textual."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from toka_console.panes.ordering import Sort

if TYPE_CHECKING:
    from toka_console.session import Session
    from toka_runtime.aio import TaskOwner

MAX_BYTES = 64 * 1024


@dataclass
class Views:
    sorts: dict[str, Sort] = field(default_factory=dict[str, Sort])
    """Table → the column it is sorted by. Others have the order of their own."""
    sizes: dict[str, int] = field(default_factory=dict[str, int])
    """Screen → rows that its table has more (or less) than it would take by itself."""
    costs: bool = False
    """The Fleet shows all columns of tokens and money."""


def load(path: Path) -> tuple[Views, str]:
    """The views of the last time, and what is wrong with the file ("" when nothing is). No file is no problem."""
    try:
        with path.open("rb") as file:
            text = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        return Views(), ""
    except OSError as error:
        return Views(), f"{path} cannot be read: {error.strerror}"
    import json

    try:
        if len(text) > MAX_BYTES:
            raise ValueError("too large")
        return _read(json.loads(text)), ""
    except (ValueError, RecursionError) as error:
        return Views(), f"kept views are damaged and ignored: {error}, in {path}"


def _read(raw: Any) -> Views:
    """Raises ValueError for whatever is not what `text_of` wrote."""
    if not isinstance(raw, dict):
        raise ValueError("not a map")
    found = cast(dict[str, Any], raw)
    views = Views(costs=found.get("costs") is True)
    for table, sort in _map(found.get("sorts", {})).items():
        match sort:
            case {"column": str(column), "descending": bool(descending)}:
                views.sorts[table] = Sort(column, descending)
            case _:
                raise ValueError(f"the sort of {table}")
    for screen, size in _map(found.get("sizes", {})).items():
        if type(size) is not int or abs(size) > 1000:
            raise ValueError(f"the size of {screen}")
        views.sizes[screen] = size
    return views


def _map(raw: Any) -> dict[str, Any]:
    if not isinstance(raw, dict):
        raise ValueError("not a map")
    return cast(dict[str, Any], raw)


def text_of(views: Views) -> str:
    import json

    sorts = {table: sort._asdict() for table, sort in views.sorts.items()}
    return json.dumps({"sorts": sorts, "sizes": views.sizes, "costs": views.costs}, indent=1) + "\n"


class ViewsFile:
    """Reads the views at the start, and writes them after each change, one write at a time."""

    def __init__(self, session: Session, path: Path, tasks: TaskOwner) -> None:
        self._session, self._path, self._tasks = session, path, tasks
        self._changed = self._writing = False

    async def open(self) -> None:
        import asyncio

        self._session.views, problem = await asyncio.to_thread(load, self._path)
        self._session.keep_views = self.changed
        if problem:
            self._session.say(problem, "warn")

    def changed(self) -> None:
        self._changed = True
        if not self._writing:
            self._writing = True
            self._tasks.spawn(self._write(), name="views")

    async def _write(self) -> None:
        import asyncio

        from toka_runtime.whole_file import replace_file

        try:
            while self._changed:
                self._changed = False
                await asyncio.to_thread(replace_file, self._path, text_of(self._session.views).encode())
        except OSError as error:
            self._session.say(f"how you see things is not kept: {self._path}: {error.strerror}", "warn")
        finally:
            self._writing = False
