"""Handlers that answer requests for approval and take grants back.

The answer is made of what was on screen at the key press: identity, digest and run. Whatever happens meanwhile, it goes
to that request or is refused by the runtime.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from toka_console import approvals, cutting
from toka_console.actions import Context
from toka_console.approvals import Asked, Held
from toka_console.dialogs.choose import Choice
from toka_console.dialogs.confirm import Question
from toka_console.format.units import elapsed, plural
from toka_console.handling import handles
from toka_console.identity import AgentKey, ApprovalKey, GrantKey

if TYPE_CHECKING:
    from toka_console.app import ConsoleApp
    from toka_console.dialogs.base import Fact
    from toka_runtime.protocol.approval import Offer

_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0}


def _asked(app: ConsoleApp, context: Context) -> Asked | None:
    """The request under the cursor, once it has been there long enough to be read; says why not."""
    subject = context.subject
    found = approvals.freeze_request(app.session.known, subject) if isinstance(subject, ApprovalKey) else None
    if found is None:
        app.say("this request waits no more", "warn")
    elif not app.current.is_settled():
        app.say("the request under the cursor has just changed: look again, then press the key", "warn")
    else:
        return found
    return None


def _facts(app: ConsoleApp, asked: Asked) -> list[Fact]:
    request, now = asked.shown.request, approvals.request_of(app.session.known, asked.key)
    facts = [("warning", warning) for warning in request.warnings]
    facts += [("asks for", f"{each.operation.kind.value} {each.operation.target}") for each in request.denials]
    facts += [("by", f"{request.tool} of {asked.key.agent.name} on {asked.key.agent.host}, task {request.task + 1}")]
    facts += [("run", f"{request.run}  digest {request.digest[:16]}…")]
    if now is None:
        facts.append(("now", "it waits no more: this answer will be refused"))
    elif now.request.digest != request.digest:
        facts.append(("now", "it has changed: this answer will be refused"))
    else:
        facts.append(("left", approvals.left(now.countdown, app.session.now())))
    return facts


def _allow(app: ConsoleApp, asked: Asked, offer: Offer, ttl_s: float | None = None) -> None:
    app.send(asked.answer(offer, ttl_s), "allowing", (asked.key.agent,), asked.key.id)


def _ask(app: ConsoleApp, asked: Asked, offer: Offer, ttl_s: float | None = None) -> None:
    """The question before one offer is taken."""
    narrowest = offer == asked.shown.request.offers[0]

    def facts() -> list[Fact]:
        # What it opens comes first: a long target must not push it out of a small terminal.
        found: list[Fact] = [("allow", _name(offer)), ("opens", offer.text)]
        if ttl_s is not None:
            found.append(("but for", f"{elapsed(ttl_s)} of running time"))
        return [*found, *_facts(app, asked)]

    def answered(accepted: bool | None) -> None:
        if accepted:
            _allow(app, asked, offer, ttl_s)

    title = "Allow this one call" if offer.scope.value == "once" else "Allow more than this one call"
    app.ask(Question(title=title, facts=facts, accept="Allow", dangerous=not narrowest or ttl_s is not None), answered)


@handles("approval.once")
def allow_once(app: ConsoleApp, context: Context, argument: str) -> None:
    if (asked := _asked(app, context)) is None:
        return
    offer = next((offer for offer in asked.shown.request.offers if offer.scope.value == "once"), None)
    if offer is None:
        app.say("allow once is not offered: A shows what is", "warn")
    else:
        _ask(app, asked, offer)


@handles("approval.allow")
def allow(app: ConsoleApp, context: Context, argument: str) -> None:
    if (asked := _asked(app, context)) is None:
        return
    offers = asked.shown.request.offers
    if argument:
        try:
            offer, ttl_s = parse_offer(argument, offers)
        except ValueError as error:
            app.say(str(error), "warn")
        else:
            _ask(app, asked, offer, ttl_s)
        return
    choice = Choice(
        title="Allow",
        facts=lambda: _facts(app, asked),
        options=tuple((_name(each), each.text) for each in offers),
    )

    def answered(index: int | None) -> None:
        if index is not None:
            _allow(app, asked, offers[index])

    app.choose(choice, answered)


def _name(offer: Offer) -> str:
    return f"{offer.scope.value} wide" if offer.wide else offer.scope.value


def parse_offer(text: str, offers: tuple[Offer, ...]) -> tuple[Offer, float | None]:
    """`run`, `task wide`, `ttl 90s`, `ttl wide 2h` → the offer, and another time than offered (seconds). Raises
    ValueError, in words for the operator."""
    scope, *more = text.casefold().split()
    wide = "wide" in more
    times = [word for word in more if word != "wide"]
    offer = next((offer for offer in offers if offer.scope.value == scope and offer.wide is wide), None)
    if offer is None:
        raise ValueError(f"{text} is not offered; there are {', '.join(_name(each) for each in offers)}")
    if not times:
        return offer, None
    match = re.fullmatch(r"(\d+)([smh])", times[0])
    if match is None or len(times) > 1 or scope != "ttl" or int(match[1]) == 0:
        raise ValueError("a time such as 90s, 30m or 2h goes with ttl, and with nothing else")
    return offer, int(match[1]) * _UNITS[match[2]]


@handles("approval.refuse")
def refuse(app: ConsoleApp, context: Context, argument: str) -> None:
    """Containment: at once, without a dialog. On the Fleet, where no request is to be seen, after a question."""
    if context.denial is not None:
        cutting.cut(app, context.denial)
        return
    if context.screen == "fleet":
        refuse_everything(app, tuple(entry.key for entry in context.targets))
        return
    if isinstance(context.subject, GrantKey):
        held = approvals.freeze_grant(app.session.known, context.subject)
        if held is None:
            app.say("this grant holds no more", "warn")
        elif app.current.is_settled():
            _revoke(app, held)
        else:
            app.say("the grant under the cursor has just changed: look again, then press the key", "warn")
    elif (asked := _asked(app, context)) is not None:
        _deny(app, asked)


def _deny(app: ConsoleApp, asked: Asked) -> None:
    app.send(asked.answer(None), "denying", (asked.key.agent,), asked.key.id)


def _revoke(app: ConsoleApp, held: Held) -> None:
    app.send(held.revocation(), "revoking", (held.key.agent,), held.key.id)


@handles("approval.refuse_all")
def refuse_all(app: ConsoleApp, context: Context, argument: str) -> None:
    if context.subject is None:
        raise LookupError("nothing selected: the action's own check comes first")
    refuse_everything(app, (context.subject.agent,))


def refuse_everything(app: ConsoleApp, agents: tuple[AgentKey, ...]) -> None:
    """Deny all that these agents ask for, and revoke all that was granted to them, after a question."""
    state = app.session.known
    asked = [each for key in approvals.waiting(state) if key.agent in agents
             if (each := approvals.freeze_request(state, key)) is not None]  # fmt: skip
    held = [each for key in approvals.granted(state) if key.agent in agents
            if (each := approvals.freeze_grant(state, key)) is not None]  # fmt: skip
    question = Question(
        title="Deny and revoke",
        facts=lambda: [
            *(("agent", f"{agent.name} on {agent.host}") for agent in agents),
            ("denies", plural(len(asked), "request")),
            ("revokes", plural(len(held), "grant")),
        ],
        accept="Deny and revoke",
        note="It goes on with what its spec declares."
        if len(agents) == 1
        else "They go on with what their specs declare.",
        dangerous=False,
    )

    def answered(accepted: bool | None) -> None:
        if accepted:
            for request in asked:
                _deny(app, request)
            for grant in held:
                _revoke(app, grant)

    app.ask(question, answered)
