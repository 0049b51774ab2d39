"""Handlers that change what is seen and never what is: marks, sorting, narrowing, sizes, removed runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from toka_console import fleet_list, selectors
from toka_console.actions import Context
from toka_console.dialogs.choose import Choice
from toka_console.dialogs.confirm import Question
from toka_console.format.units import plural
from toka_console.handling import handles
from toka_console.panes.table import TablePane
from toka_console.place import Place

if TYPE_CHECKING:
    from collections.abc import Hashable

    from toka_console.app import ConsoleApp
    from toka_console.entries import AgentEntry

    Table = TablePane[Hashable]

_DIRECTIONS = {"desc": True, "asc": False}


def _table(app: ConsoleApp) -> Table | None:
    """The table that the keys are about; says so when there is none."""
    for pane in (app.current.active_pane(), app.current.main_pane()):
        if isinstance(pane, TablePane):
            return pane  # pyright: ignore[reportUnknownVariableType] # of whatever rows
    app.say("there is no list here", "warn")
    return None


# -- marks --------------------------------------------------------------------------------------------------------


@handles("view.mark")
def mark(app: ConsoleApp, context: Context, argument: str) -> None:
    table = app.navigator.fleet.table
    if table.cursor is None or not table.can_mark(table.cursor):
        app.say("only agents can be marked", "warn")
        return
    table.marks.toggle(table.cursor)
    app.repaint()


@handles("view.mark_range")
def mark_range(app: ConsoleApp, context: Context, argument: str) -> None:
    table = app.navigator.fleet.table
    if table.cursor is not None:
        table.marks.extend(table.cursor, table.order, table.can_mark)
        app.repaint()


@handles("view.unmark")
def unmark(app: ConsoleApp, context: Context, argument: str) -> None:
    app.navigator.fleet.table.marks.clear()
    app.repaint()


# -- order --------------------------------------------------------------------------------------------------------


@handles("view.sort")
def sort(app: ConsoleApp, context: Context, argument: str) -> None:
    if (table := _table(app)) is None:
        return
    word, _, direction = argument.lower().partition(" ")
    column = _column(table, word) if word else ""
    if column is None or (direction and direction not in _DIRECTIONS):
        titles = ", ".join(title for title in _sortable(table).values())
        what = f"no column {word}" if column is None else f"{direction} is neither asc nor desc"
        app.say(f"{what}; this list sorts by {titles or 'nothing'}; nothing was done", "warn")
        return
    table.sort_by(column, descending=_DIRECTIONS.get(direction))
    app.repaint()


def _sortable(table: Table) -> dict[str, str]:
    """Column → its title, as one types it. Those out of view have no title but their name."""
    titles = {column.id: column.title.lower() for column in table.visible_columns()}
    return {column: titles.get(column, column) for column in table.sort_keys()}


def _column(table: Table, word: str) -> str | None:
    """The column of that title or name, or the only one that begins so."""
    known = _sortable(table)
    exact = [column for column, title in known.items() if word in (column, title)]
    found = exact or [column for column, title in known.items() if column.startswith(word) or title.startswith(word)]
    return found[0] if len(found) == 1 or exact else None


@handles("view.sort_next")
def sort_next(app: ConsoleApp, context: Context, argument: str) -> None:
    if (table := _table(app)) is not None:
        table.step_sort(1)


@handles("view.sort_before")
def sort_before(app: ConsoleApp, context: Context, argument: str) -> None:
    if (table := _table(app)) is not None:
        table.step_sort(-1)


@handles("view.sort_flip")
def sort_flip(app: ConsoleApp, context: Context, argument: str) -> None:
    if (table := _table(app)) is None:
        return
    if table.sort is None:
        app.say("the list has its own order: shift-→ chooses a column to sort by", "warn")
    else:
        table.sort_by(table.sort.column, descending=not table.sort.descending)


# -- what is in the list ------------------------------------------------------------------------------------------


@handles("view.host")
def host(app: ConsoleApp, context: Context, argument: str) -> None:
    if argument:
        app.entered("filter", f"host:={argument}")
    else:
        source = app.session.filter("fleet").source
        app.current.open_line("filter", f"{source} host:".lstrip())


@handles("view.trouble")
def trouble(app: ConsoleApp, context: Context, argument: str) -> None:
    table = app.navigator.fleet.table
    table.trouble = not table.trouble
    app.repaint()


@handles("view.costs")
def costs(app: ConsoleApp, context: Context, argument: str) -> None:
    app.session.views.costs = not app.session.views.costs
    app.session.keep_views()
    app.repaint()


@handles("agent.remove")
def remove(app: ConsoleApp, context: Context, argument: str) -> None:
    finished = [entry for entry in context.targets if fleet_list.is_finished(entry)]
    runs = {fleet_list.run_of(entry) for entry in finished}
    left = len(context.targets) - len(finished)
    facts = [("run", _finished(entry)) for entry in finished]
    if left:
        facts.append(("not", f"{plural(left, 'marked agent')}: not finished"))
    question = Question(
        title="Remove from the list",
        facts=lambda: facts,
        accept="Remove",
        note="Only from this list: log, output and worktree stay. :restore brings it back; a new run is shown.",
    )

    def answered(accepted: bool | None) -> None:
        if accepted:
            app.navigator.fleet.table.hide(runs)
            app.repaint()

    app.ask(question, answered)


def _finished(entry: AgentEntry) -> str:
    view = entry.view
    return f"{view.name} on {view.host}, run {view.run or 'none'}, {view.state.value}"


@handles("view.restore")
def restore(app: ConsoleApp, context: Context, argument: str) -> None:
    removed = app.navigator.fleet.table.removed
    app.say(f"{plural(len(removed), 'run')} back in the list" if removed else "nothing was removed")
    removed.clear()
    app.repaint()


# -- where to look ------------------------------------------------------------------------------------------------


@handles("agent.spec")
def spec(app: ConsoleApp, context: Context, argument: str) -> None:
    app.navigator.visit(Place("specs", context.focus))


@handles("agent.dependents")
def dependents(app: ConsoleApp, context: Context, argument: str) -> None:
    """The list of its neighbours; one of them can be opened."""
    entry = context.entry
    if entry is None:
        raise LookupError("no agent: the action's own check comes first")
    near = selectors.neighbours(app.session.known, entry)
    if not near:
        app.say(f"{entry.key.name} waits for nobody, and nobody waits for it")
        return
    choice = Choice(
        title=f"Around {entry.key.name}",
        facts=lambda: [("state", f"{selectors.badge(entry.view).word}  {selectors.why(entry.view)}")],
        options=tuple((each.relation, f"{each.name}  {each.state}  {each.reason}".rstrip()) for each in near),
    )

    def answered(index: int | None) -> None:
        if index is None:
            return
        if (key := near[index].key) is None:
            app.say(f"there is no agent {near[index].name}", "warn")
        else:
            app.navigator.fleet.show(key)
            app.navigator.go("agent", key)

    app.choose(choice, answered)


@handles("view.follow_agent")
def follow_agent(app: ConsoleApp, context: Context, argument: str) -> None:
    fleet = app.navigator.fleet
    if fleet.followed is None and context.focus is None:
        app.say("no agent is selected", "warn")
        return
    fleet.followed = context.focus if fleet.followed is None else None
    app.repaint()


# -- sizes --------------------------------------------------------------------------------------------------------


@handles("view.grow")
def grow(app: ConsoleApp, context: Context, argument: str) -> None:
    app.current.resize_body(1)


@handles("view.shrink")
def shrink(app: ConsoleApp, context: Context, argument: str) -> None:
    app.current.resize_body(-1)


@handles("view.zoom")
def zoom(app: ConsoleApp, context: Context, argument: str) -> None:
    app.current.zoom(app.current.active_pane())
