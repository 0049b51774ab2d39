"""From a spec's declared capabilities and grants to its Rights: the one compiled form.

Kernel rules, proxy list, the tools that the model is offered and the text for the operator all come from this value.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field

from toka_runtime.policy.catalogue import Catalogue
from toka_runtime.policy.catalogue_file import Capability
from toka_runtime.policy.matching import host_covered
from toka_runtime.policy.scopes import Unusable, check_argv, check_host, check_path, widen_folder
from toka_runtime.policy.wording import describe
from toka_runtime.protocol.capability import ExecuteRule, NetworkRule, PathRule, Rights
from toka_runtime.protocol.spec import AgentSpec

READ_TOOLS = ("list_files", "read_file", "search_text")
WRITE_TOOLS = ("write_file", "edit_file")


@dataclass
class _Collected:
    without: frozenset[str] = frozenset()
    read: dict[str, PathRule] = field(default_factory=dict[str, PathRule])
    write: dict[str, PathRule] = field(default_factory=dict[str, PathRule])
    execute: dict[str, ExecuteRule] = field(default_factory=dict[str, ExecuteRule])
    network: dict[str, NetworkRule] = field(default_factory=dict[str, NetworkRule])
    environment: dict[str, None] = field(default_factory=dict[str, None])
    model: bool = False
    refused: list[str] = field(default_factory=list[str])


def compile_rights(spec: AgentSpec, catalogue: Catalogue, without: Collection[str] = ()) -> Rights:
    """Never raises for what a spec says: names and scopes that mean nothing grant nothing, and are listed in `unknown`
    and `refused`. A capability that is declared and scoped is limited to its scopes; one that is only in `grants` is
    added, scoped. `without`: capabilities that an operator has withdrawn, also where others include them."""
    scopes: dict[str, list[str]] = {}
    unknown: dict[str, None] = {}
    for grant in spec.grants:
        name = catalogue.canonical(grant.capability)
        if name is None:
            unknown[grant.capability] = None
        else:
            scopes.setdefault(name, []).extend(grant.scopes)
    held: dict[str, None] = dict.fromkeys(catalogue.baseline)
    for written in spec.security.capabilities_required:
        name = catalogue.canonical(written)
        if name is None:
            unknown[written] = None
        else:
            held[name] = None
    held |= dict.fromkeys(scopes)
    collected = _Collected(without=frozenset(without))
    for name in held:
        _add(name, scopes, catalogue, collected)
    # They read any file of the folder, so they don't go with a narrower right to read.
    if collected.execute and any(rule.glob == "**" and not rule.within for rule in collected.read.values()):
        for name in catalogue.with_execute:
            _add(name, {}, catalogue, collected)
    return _finish(collected, unknown, catalogue)


def _add(name: str, scopes: dict[str, list[str]], catalogue: Catalogue, into: _Collected) -> None:
    own = catalogue.capabilities[name]
    for inner in catalogue.closure(name):
        if inner in into.without:
            continue
        entry = catalogue.capabilities[inner]
        # What is included obeys the scope of what includes it, where both are about the same thing.
        wanted = scopes.get(inner) or (scopes.get(name) if entry.scope == own.scope else None)
        if wanted is None:
            if not entry.scope_required:
                _merge(entry.rights, into)
            elif inner == name:
                into.refused.append(f"{name}: grants nothing until `grants` says what ({_wanted(entry.scope)})")
        else:
            _merge(_narrowed(entry, wanted, catalogue, into.refused), into)


def _merge(rights: Rights, into: _Collected) -> None:
    for rule in rights.read:
        into.read.setdefault(rule.id, rule)
    for rule in rights.write:
        into.write.setdefault(rule.id, rule)
    for rule in rights.execute:
        into.execute.setdefault(rule.id, rule)
    for rule in rights.network:
        into.network.setdefault(rule.id, rule)
    into.environment |= dict.fromkeys(rights.environment)
    into.model = into.model or rights.model


def _narrowed(entry: Capability, scopes: Iterable[str], catalogue: Catalogue, refused: list[str]) -> Rights:
    """The capability's rights with its scoped kind limited to `scopes`. One that cannot be scoped grants nothing then:
    who wrote a scope wanted less than the whole."""
    if not entry.scope:
        refused.append(f"{entry.name}: it cannot be scoped, so with a scope it grants nothing")
        return Rights(model=False)
    read: list[PathRule] = []
    write: list[PathRule] = []
    execute: list[ExecuteRule] = []
    network: list[NetworkRule] = []
    environment: list[str] = []
    for scope in scopes:
        try:
            match entry.scope:
                case "read":
                    read += _paths(entry.name, entry.rights.read, scope)
                case "write":
                    write += _paths(entry.name, entry.rights.write, scope)
                case "execute":
                    execute += _programs(entry, scope)
                case "network":
                    network += _hosts(entry, scope, catalogue)
                case _:
                    environment.append(_variable(entry, scope))
        except Unusable as error:
            refused.append(f"{entry.name}: {error}: it grants nothing")
    narrowed = {"read": read, "write": write, "execute": execute, "network": network, "environment": environment}
    return entry.rights.model_copy(update={entry.scope: tuple(narrowed[entry.scope])})


def _paths(name: str, rules: tuple[PathRule, ...], scope: str) -> list[PathRule]:
    glob = widen_folder(check_path(scope))
    return [
        PathRule(
            id=f"{name}:{glob}" if rule.glob == "**" else f"{name}:{glob} in {rule.glob}",
            capability=name,
            glob=glob,
            within="" if rule.glob == "**" else rule.glob,
        )
        for rule in rules
    ]


def _programs(entry: Capability, scope: str) -> list[ExecuteRule]:
    """Two prefixes meet where one begins with the other; the longer one is what both allow."""
    argv = check_argv(scope)
    found: list[ExecuteRule] = []
    for rule in entry.rights.execute:
        prefix = rule.argv_prefix
        if prefix == ("*",) or argv[: len(prefix)] == prefix:
            found.append(rule.model_copy(update={"id": f"{entry.name}:{' '.join(argv)}", "argv_prefix": argv}))
        elif prefix[: len(argv)] == argv:
            found.append(rule)
    if not found:
        raise Unusable(f"{scope!r} is not among the programs that it covers")
    return found


def _hosts(entry: Capability, scope: str, catalogue: Catalogue) -> list[NetworkRule]:
    host, port = check_host(scope, catalogue.broad_suffixes)
    wanted = NetworkRule(id=f"{entry.name}:{host}:{port}", capability=entry.name, host=host, port=port)
    if entry.scope_required and not entry.rights.network:
        return [wanted]
    found = [
        wanted if host_covered(rule, host.removeprefix("*."), port) else rule
        for rule in entry.rights.network
        if host_covered(rule, host, port) or host_covered(wanted, rule.host, rule.port)
    ]
    if not found:
        raise Unusable(f"{scope!r} is not among the hosts that it covers")
    return found


def _variable(entry: Capability, scope: str) -> str:
    if not scope.replace("_", "a").isalnum() or not scope.isascii() or scope[0].isdigit():
        raise Unusable(f"{scope!r} is no name of an environment variable")
    if entry.rights.environment and scope not in entry.rights.environment:
        raise Unusable(f"{scope!r} is not among the variables that it covers")
    return scope


def _wanted(scope: str) -> str:
    return {
        "read": "paths",
        "write": "paths",
        "execute": "commands",
        "network": "host:port",
        "environment": "names of variables",
    }[scope]


def _finish(collected: _Collected, unknown: Iterable[str], catalogue: Catalogue) -> Rights:
    for name in [name for name in collected.environment if name in catalogue.deny_environment]:
        del collected.environment[name]
        collected.refused.append(f"{name}: it holds a credential of the runtime itself and is never passed on")
    tools: list[str] = []
    if collected.read:
        tools += READ_TOOLS
    if collected.write:
        # Editing shows the text around the change, so it reads too.
        tools += WRITE_TOOLS if collected.read else WRITE_TOOLS[:1]
    if collected.execute:
        tools.append("run_command")
    if collected.network:
        tools.append("fetch_url")
    rights = Rights(
        read=tuple(collected.read.values()),
        write=tuple(collected.write.values()),
        execute=tuple(collected.execute.values()),
        network=tuple(collected.network.values()),
        environment=tuple(collected.environment),
        model=collected.model,
        tools=(*tools, "finish"),
        deny_read=catalogue.deny_read,
        programs_read=catalogue.programs_read,
        deny_write=catalogue.deny_write,
        toolchains=catalogue.toolchains if collected.execute else (),
        refused=tuple(collected.refused),
        unknown=tuple(unknown),
    )
    return rights.model_copy(update={"text": describe(rights)})
