"""Cutting an agent off from what it uses: `x` on something that was refused takes away what the agent has of the same
kind. Containment: at once, without a dialog; `:give-back` gives it back to the next run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from toka_console import approvals, selectors
from toka_console.actions import Context
from toka_console.handling import handles

if TYPE_CHECKING:
    from toka_console.app import ConsoleApp
    from toka_console.entries import AgentEntry, DenialEntry


def cut(app: ConsoleApp, denial: DenialEntry) -> None:
    """What the operation asked for, its agent has no more: the capability, or else what was granted to it."""
    state = app.session.known
    entry = state.agents.get(denial.key)
    if entry is None:
        app.say(f"{denial.key.name} is not loaded any more", "warn")
        return
    capability = denial.denial.capability
    if capability in entry.view.capabilities:
        _withdraw(app, entry, capability)
        return
    held = [
        grant
        for key in approvals.granted(state)
        if key.agent == denial.key and (grant := approvals.freeze_grant(state, key)) is not None
    ]
    for grant in held:
        app.send(grant.revocation(), "revoking", (grant.key.agent,), grant.key.id)
    if not held:
        name = capability or "what it asked for"
        gone = " any more" if capability in entry.view.withdrawn else ""
        app.say(f"{denial.key.name} does not have {name}{gone}: nothing to cut; p pauses it, K kills it", "info")


def _withdraw(app: ConsoleApp, entry: AgentEntry, capability: str) -> None:
    from toka_runtime.protocol.commands import WithdrawCapability

    target = selectors.freeze(entry)
    app.send(WithdrawCapability(target=target.ref, capability=capability), f"withdrawing {capability}", (entry.key,))


@handles("capability.withdraw")
def withdraw(app: ConsoleApp, context: Context, argument: str) -> None:
    """Without a name: the line, begun."""
    entry = context.entry
    if not argument:
        app.current.open_line("command", "withdraw ")
    elif entry is not None and argument in entry.view.capabilities:
        _withdraw(app, entry, argument)
    elif entry is not None:
        app.say(f"{entry.key.name} does not have {argument}; it has {', '.join(entry.view.capabilities)}", "warn")


@handles("capability.restore")
def restore(app: ConsoleApp, context: Context, argument: str) -> None:
    from toka_runtime.protocol.commands import RestoreCapability

    entry = context.entry
    if entry is None:
        return
    withdrawn = entry.view.withdrawn
    name = argument or (withdrawn[0] if len(withdrawn) == 1 else "")
    if name not in withdrawn:
        listed = ", ".join(withdrawn) or "nothing"
        app.say(f"withdrawn from {entry.key.name}: {listed}", "warn")
        return
    ref = selectors.freeze(entry).ref
    app.send(RestoreCapability(target=ref, capability=name), f"restoring {name}", (entry.key,))
