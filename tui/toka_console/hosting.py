"""What the actions about hosts do: showing them, attaching, leaving, and answering what they ask."""

from __future__ import annotations

from typing import TYPE_CHECKING

from toka_console import asking_hosts
from toka_console.actions import Context
from toka_console.dialogs.confirm import Question
from toka_console.handling import handles
from toka_console.host_names import SCHEME, is_host, wanted
from toka_console.links import EMBEDDED

if TYPE_CHECKING:
    from toka_console.app import ConsoleApp
    from toka_console.asking_hosts import Asked
    from toka_console.dialogs.base import Fact
    from toka_console.links import HostLink
    from toka_runtime.client.questions import OfferedKey


@handles("screen.hosts")
def hosts(app: ConsoleApp, context: Context, argument: str) -> None:
    app.navigator.go("hosts")


@handles("host.attach")
def attach(app: ConsoleApp, context: Context, argument: str) -> None:
    """Without a host: the one under the cursor if it was left, else the line, begun."""
    if not argument:
        link = _under_cursor(app)
        if link is not None and link.bridge is None:
            app.links.reconnect(link)
        else:
            app.current.open_line("command", "attach ")
        return
    words = argument.replace(",", " ").split()
    found = wanted([word.removeprefix(SCHEME) for word in words], app.session.settings.hosts)
    if wrong := [each.address for each in found if not is_host(each.address)]:
        app.say(f"{wrong[0]} is no host: write HOST or USER@HOST, as for ssh; nothing was done", "warn")
        return
    app.links.attach(found)
    app.say(f"attaching {', '.join(each.name for each in found)}; :hosts shows how far that is")


@handles("host.detach")
def detach(app: ConsoleApp, context: Context, argument: str) -> None:
    if link := _far(app, argument, "detach", "leaving it would end its agents; :quit does that"):
        app.links.detach(link)
        app.say(f"detached from {link.name}; its agents go on")


@handles("host.reconnect")
def reconnect(app: ConsoleApp, context: Context, argument: str) -> None:
    if link := _far(app, argument, "reconnect", "there is no link that could be made anew"):
        app.links.reconnect(link)
        app.say(f"attaching {link.name} anew")


def _under_cursor(app: ConsoleApp) -> HostLink | None:
    from toka_console.screens.hosts import HostsScreen

    return app.current.selected() if isinstance(app.current, HostsScreen) else None


def _far(app: ConsoleApp, name: str, word: str, embedded: str) -> HostLink | None:
    """The one that is named or under the cursor; says so when there is none, or `embedded` when it is the console's
    own."""
    found = app.links.find(name) if name else _under_cursor(app)
    if found is None:
        known = ", ".join(each.name for each in app.links.hosts)
        app.say(f"which host? :{word} takes one of {known}" if known else "there is no host", "warn")
    elif found.wanted.address == EMBEDDED:
        app.say(f"{found.name} runs in this console: {embedded}", "warn")
        return None
    return found


# -- what hosts ask -----------------------------------------------------------------------------------------------


@handles("host.answer")
def answer(app: ConsoleApp, context: Context, argument: str) -> None:
    """The oldest question of the host under the cursor, else of any."""
    link = _under_cursor(app)
    asked = (asking_hosts.first(app.session, link.wanted.name) if link is not None else None) or asking_hosts.first(
        app.session
    )
    if asked is None:
        app.say("no host asks for anything", "info")
    elif asked.key is not None:
        _ask_trust(app, asked, asked.key)
    else:
        _ask_secret(app, asked)


def _ask_trust(app: ConsoleApp, asked: Asked, key: OfferedKey) -> None:
    facts: list[Fact] = [("host", f"{asked.host}  ({key.host})"), ("key", key.kind), ("print", key.fingerprint)]
    facts += [("" if number else "picture", line) for number, line in enumerate(key.art.splitlines())]
    question = Question(
        title="Unknown host key",
        facts=lambda: facts,
        accept="Trust",
        note="Compare the fingerprint with what the host's operator tells you. Trusted, it is written to known_hosts.",
    )

    def answered(accepted: bool | None) -> None:
        asked.give("yes" if accepted else None)

    app.ask(question, answered)


def _ask_secret(app: ConsoleApp, asked: Asked) -> None:
    from toka_console.dialogs.secret import SecretDialog

    app.push_screen(SecretDialog(app.session, f"{asked.host} asks", asked.what, shown=asked.shown), asked.give)
