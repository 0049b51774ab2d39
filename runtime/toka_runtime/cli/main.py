"""`toka-runtime VERB …`: the headless front end. Only the verb that was asked for is imported."""

from __future__ import annotations

import argparse
import difflib
import importlib
import io
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, cast

import toka_runtime
from toka_runtime.cli.exit_codes import ExitCode, exit_code_help, exit_code_of
from toka_runtime.cli.render import clean, complaint
from toka_runtime.errors import TokaError, UsageError


@dataclass(frozen=True, slots=True)
class Verb:
    """`module` has `add_arguments(parser)` and `execute(args) -> int`; it is imported when the verb is asked for."""

    module: str
    summary: str


VERBS: dict[str, Verb] = {
    "validate": Verb("toka_runtime.cli.validate", "check spec files: every problem with file, line and column"),
    "plan": Verb("toka_runtime.cli.plan", "start order, dependency graph, critical path, rights of each agent"),
    "run": Verb("toka_runtime.cli.run", "run a fleet to its end, without a console"),
    "exec": Verb("toka_runtime.cli.exec", "run one command under the walls, proxy and limits of an agent"),
    "denials": Verb(
        "toka_runtime.cli.denials", "what was refused in a run, by which layer and rule; live with --follow"
    ),
    "serve": Verb("toka_runtime.cli.serve", "a runtime without a front end: consoles and the verbs below attach to it"),
    "ps": Verb("toka_runtime.cli.ps", "agents of a serving runtime"),
    "top": Verb("toka_runtime.cli.ps", "the same again and again, busiest first"),
    "start": Verb("toka_runtime.cli.control", "start agents and what they require"),
    "pause": Verb("toka_runtime.cli.control", "freeze agents, proven by the kernel"),
    "resume": Verb("toka_runtime.cli.control", "let paused agents go on"),
    "stop": Verb("toka_runtime.cli.control", "end agents: TERM, grace, then kill"),
    "kill": Verb("toka_runtime.cli.control", "end agents now, the whole tree, proven"),
    "restart": Verb("toka_runtime.cli.control", "kill agents and start them again"),
    "freeze-all": Verb("toka_runtime.cli.control", "freeze every running agent at once"),
    "approvals": Verb("toka_runtime.cli.approvals", "what waits for an operator, and what operators have granted"),
    "grants": Verb("toka_runtime.cli.approvals", "what operators have granted beyond the specs, and still holds"),
    "approve": Verb("toka_runtime.cli.approvals", "allow what a request asks for: this call only, or as --scope says"),
    "deny": Verb("toka_runtime.cli.approvals", "refuse what a request asks for"),
    "revoke": Verb("toka_runtime.cli.approvals", "take a grant back, at once"),
    "budget": Verb("toka_runtime.cli.budget", "what was spent of which cap; set a new cap"),
    "logs": Verb("toka_runtime.cli.logs", "what agents and their tools wrote"),
    "events": Verb("toka_runtime.cli.logs", "what happened, record by record"),
    "evidence": Verb("toka_runtime.cli.evidence", "all that is known of agents in one sealed file; verify such a file"),
    "audit": Verb("toka_runtime.cli.audit", "is the log as it was written: verify, show, export, head"),
    "doctor": Verb("toka_runtime.cli.doctor", "what this host lets the runtime enforce: every protection is tried"),
}


class VerbModule(Protocol):
    add_arguments: Callable[[argparse.ArgumentParser], None]
    execute: Callable[[argparse.Namespace], int]


def main(argv: Sequence[str] | None = None) -> int:
    """The exit code. Expected errors are a message with its code on stderr, never a traceback."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A terminal that is not UTF-8 gets escapes instead of an exception.
            stream.reconfigure(errors="backslashreplace")
    try:
        code = _dispatch(arguments)
        sys.stdout.flush()
    except TokaError as error:
        return _complain(error)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return ExitCode.INTERRUPTED
    except BrokenPipeError:
        # What is still buffered goes nowhere, or the interpreter would complain while it ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return ExitCode.BROKEN_PIPE
    except OSError as error:
        where = f": {clean(str(error.filename))}" if error.filename else ""
        print(f"error [os]: {error.strerror or error}{where}", file=sys.stderr)
        return ExitCode.ENVIRONMENT
    return code


def _dispatch(arguments: list[str]) -> int:
    name = next((word for word in arguments if not word.startswith("-")), None)
    if name is not None and name not in VERBS:
        near = difflib.get_close_matches(name, VERBS, n=1)
        hint = f"did you mean {near[0]}?" if near else f"one of {', '.join(VERBS)}"
        raise UsageError(f"there is no verb {name!r}", hint=hint)
    parser, module = _parser(name)
    try:
        args = parser.parse_args(arguments)
    except SystemExit as ending:  # argparse has printed the help, the version or what is wrong
        return ending.code if isinstance(ending.code, int) else ExitCode.USAGE
    if module is None:
        parser.print_help(sys.stderr)
        return ExitCode.USAGE
    args.words = arguments
    return module.execute(args)


def _parser(name: str | None) -> tuple[argparse.ArgumentParser, VerbModule | None]:
    """The parser with arguments for the one verb that is named, and that verb's module."""
    parser = argparse.ArgumentParser(
        prog="toka-runtime",
        description="Runs AI agents from their specs: each in its own process tree, within its declared rights.",
        epilog=exit_code_help(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"toka-runtime {toka_runtime.__version__}")
    verbs = parser.add_subparsers(metavar="VERB", title="verbs")
    module: VerbModule | None = None
    for verb, entry in VERBS.items():
        own = verbs.add_parser(verb, help=entry.summary, description=entry.summary, allow_abbrev=False)
        own.set_defaults(verb=verb)
        if verb == name:
            module = cast(VerbModule, importlib.import_module(entry.module))
            module.add_arguments(own)
    return parser, module


def _complain(error: TokaError) -> int:
    print(complaint(error), file=sys.stderr)
    return exit_code_of(error)


if __name__ == "__main__":
    sys.exit(main())
