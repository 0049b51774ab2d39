"""Authority: what was asked (Operation), what was declared (Rights), what was answered (Allowed or Denial).

A denial is a value, not an exception.
"""

from __future__ import annotations

from enum import StrEnum

from toka_runtime.protocol.ids import CallId
from toka_runtime.protocol.model import Model


class OperationKind(StrEnum):
    READ = "fs.read"
    LIST = "fs.list"
    WRITE = "fs.write"
    EXECUTE = "process.execute"
    CONNECT = "network.connect"
    LISTEN = "network.listen"
    """Taking connections. Nothing grants it; only the kernel's refusals are told."""
    MODEL = "model.call"
    TOOL = "tool.call"
    """A tool that is not offered to this agent at all."""


class Layer(StrEnum):
    """Which layer refused."""

    POLICY = "policy"
    SANDBOX = "sandbox"
    PROXY = "proxy"
    LIMIT = "limit"
    BUDGET = "budget"


class Operation(Model):
    """One side effect, asked for."""

    kind: OperationKind
    target: str
    """Exact: a path relative to the agent's folder (absolute when it lies outside, links resolved; with a `/` at the
    end the whole tree below it), `host:port`, or the command line."""
    argv: tuple[str, ...] = ()
    """Of an execution; empty where it is not known before the shell runs (substitutions, subshells …)."""
    tool: str = ""
    call: CallId = CallId("")


class PathRule(Model):
    id: str
    """Stable name shown with each decision, e.g. `filesystem-write:docs/**`."""
    capability: str
    glob: str
    """Relative to the workspace root unless it begins with `/`; `**` crosses folders."""
    within: str = ""
    """A second glob that must match too: what the capability covers, where a grant's scope is `glob`."""


class ExecuteRule(Model):
    id: str
    capability: str
    argv_prefix: tuple[str, ...]
    """("git",) allows any git; ("cargo", "test") only that subcommand. ("*",) allows any program."""
    refuse: tuple[str, ...] = ()
    """Argument patterns (`*`, `?`, `[…]`) with which the rule does not apply, e.g. `--output*`."""
    inside_only: bool = False
    """The rule does not apply when an argument is an absolute path or goes up (`..`)."""
    options_only: bool = False
    """The rule does not apply when an argument after the prefix is no option."""
    open_ended: bool = False
    """The program can run other code (build scripts, plug-ins, tests): policy sees only its name, the kernel is the
    wall."""


class NetworkRule(Model):
    id: str
    capability: str
    host: str
    """Exact name or `*.example.com`."""
    port: int


class ToolchainFolder(Model):
    """A folder of the operator's that programs need, as far as `read` says; what else lies in it does not exist for an
    agent."""

    at: tuple[str, ...]
    """The first that is there: `$VARIABLE`, `~/…` or an absolute path."""
    read: tuple[str, ...]
    """Relative to it."""
    variable: str = ""
    """Environment variable that tells programs where it is."""
    own: str = ""
    """Where `variable` points to instead, below the agent's own home, when the agent has a network: what it loads needs
    a place. "" when it never writes there."""


class Toolchain(Model):
    name: str
    programs: tuple[str, ...]
    folders: tuple[ToolchainFolder, ...] = ()


class Rights(Model):
    """The compiled form of one spec's declared capabilities. Kernel rules, proxy list, tool list and the operator's
    text are all derived from this one value, so that they can't disagree."""

    read: tuple[PathRule, ...] = ()
    write: tuple[PathRule, ...] = ()
    execute: tuple[ExecuteRule, ...] = ()
    network: tuple[NetworkRule, ...] = ()
    environment: tuple[str, ...] = ()
    model: bool = True
    tools: tuple[str, ...] = ()
    """Names of the tools that the model is offered."""
    deny_read: tuple[PathRule, ...] = ()
    """Never read by tools, whatever else is granted."""
    programs_read: tuple[PathRule, ...] = ()
    """Of `deny_read`: what allowed programs read all the same (git its own folder)."""
    deny_write: tuple[PathRule, ...] = ()
    """Never written by tools, whatever else is granted."""
    toolchains: tuple[Toolchain, ...] = ()
    """Known ones, also of programs that may not be run."""
    refused: tuple[str, ...] = ()
    """Scopes of `grants` that grant nothing, each with the reason."""
    unknown: tuple[str, ...] = ()
    """Declared names that no catalogue entry defines: they grant nothing."""
    text: tuple[str, ...] = ()
    """One line a right, for people."""


class Allowed(Model):
    rule: str
    capability: str


class Denial(Model):
    operation: Operation
    capability: str
    """The capability that would have allowed it ("" when none would)."""
    layer: Layer
    rule: str
    reason: str
    hint: str = ""


Decision = Allowed | Denial
