"""What `toka-runtime exec` is to run, and under which rights: from a spec or from `--capability` words."""

from __future__ import annotations

import shlex
import sys
from datetime import UTC, datetime
from pathlib import Path

from toka_runtime.broker.operations import operations_of
from toka_runtime.cli.render import clean
from toka_runtime.errors import SpecError, UsageError
from toka_runtime.policy.catalogue import Catalogue
from toka_runtime.policy.engine import decide
from toka_runtime.protocol.capability import Denial, ExecuteRule, Rights
from toka_runtime.protocol.ids import AgentName
from toka_runtime.protocol.spec import AgentSpec, SandboxMode, ScopedGrant, Security

OPERATORS_RULE = "operator:typed"


def spec_of(file: Path | None, capabilities: list[str]) -> AgentSpec:
    """Of the file's one agent, or made from `--capability` words."""
    if file is None:
        return _made_up(capabilities)
    # Of a few files at most, and reading YAML takes long to import.
    from toka_runtime.specs.loader import load_paths

    report = load_paths([file], alone=True)
    for loaded in report.files:
        for problem in loaded.errors:
            raise SpecError(f"{problem.file}:{problem.line}: {problem.message}", hint=problem.hint)
    specs = report.specs
    if len(specs) != 1:
        raise UsageError(f"{file} has {len(specs)} agents", hint="name a file with one agent")
    spec = specs[0]
    if spec.security.sandbox is SandboxMode.NONE:
        raise UsageError(f"{spec.name} runs without a sandbox by its spec", hint="remove `sandbox: none` from it")
    return spec


def _made_up(capabilities: list[str]) -> AgentSpec:
    scopes: dict[str, list[str]] = {}
    whole: list[str] = []
    for text in capabilities:
        name, colon, scope = text.partition(":")
        if colon:
            scopes.setdefault(name, []).append(scope)
        else:
            whole.append(name)
    return AgentSpec(
        name=AgentName("exec"),
        security=Security(capabilities_required=tuple(whole)),
        grants=tuple(ScopedGrant(capability=name, scopes=tuple(of)) for name, of in scopes.items()),
    )


def check_words(rights: Rights, file: Path | None) -> None:
    """A word on this command line that grants nothing is a mistake; in a file it is what its agent gets, too."""
    if file is not None:
        return
    for name in rights.unknown:
        raise UsageError(f"capability {name!r} is in no catalogue", hint="`toka-runtime validate` checks names")
    for line in rights.refused:
        raise UsageError(f"capability {line}")


def refusals(command: list[str], rights: Rights, catalogue: Catalogue, root: str) -> list[Denial]:
    operations = operations_of("run_command", {"command": shlex.join(command)}, root)
    decisions = (decide(operation, rights, catalogue.remedies) for operation in operations)
    return [decision for decision in decisions if isinstance(decision, Denial)]


def explain(denial: Denial) -> None:
    operation = denial.operation
    wanted = denial.capability or "no capability allows it"
    print(
        f"denied at {datetime.now(UTC):%H:%M:%S}: {operation.kind} {clean(operation.target)}: {clean(denial.reason)} "
        f"[capability: {wanted}; rule: {denial.rule}]",
        file=sys.stderr,
    )
    if denial.hint:
        print(f"  {clean(denial.hint)}", file=sys.stderr)
    if denial.capability and operation.argv:
        print(f"  to allow it: --capability {denial.capability}, or leave --strict out", file=sys.stderr)


def with_command(rights: Rights, command: list[str], catalogue: Catalogue) -> Rights:
    """What the program needs to be found and to run."""
    rule = ExecuteRule(id=OPERATORS_RULE, capability="", argv_prefix=(command[0],))
    return rights.model_copy(update={"execute": (*rights.execute, rule), "toolchains": catalogue.toolchains})
