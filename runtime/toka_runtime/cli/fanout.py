"""One verb on several hosts at once: each host's lines carry its name, one host's trouble is not another's, and the
exit code says how many hosts it did not work on."""

from __future__ import annotations

import argparse
import asyncio
import io
import json
import sys
from collections.abc import Callable, Coroutine, Generator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from contextvars import ContextVar
from typing import Any, TextIO

from toka_runtime.cli.exit_codes import FANOUT_FAILED, FANOUT_MOST, ExitCode, exit_code_of
from toka_runtime.cli.render import clean, complaint, counted
from toka_runtime.errors import TokaError

Verb = Callable[[argparse.Namespace], Coroutine[Any, Any, int]]

_HOST: ContextVar[str] = ContextVar("host")


def on_hosts(args: argparse.Namespace, verb: Verb) -> int:
    """Run an attached verb: on the one runtime that is meant, or on every host of `--host` side by side."""
    if args.host is None or len(args.host) == 1:
        return asyncio.run(verb(args))
    return asyncio.run(_everywhere(args, verb))


async def _everywhere(args: argparse.Namespace, verb: Verb) -> int:
    with _lines_by_host():
        codes = await asyncio.gather(*(_on(host, args, verb) for host in args.host))
    failed = {host: code for host, code in zip(args.host, codes, strict=True) if code != ExitCode.OK}
    told = ", ".join(f"{clean(host)} (exit {int(code)})" for host, code in failed.items())
    done = counted(len(codes) - len(failed), "host") + " done"
    print(f"{done}, {len(failed)} failed: {told}" if failed else done, file=sys.stderr)
    return min(FANOUT_FAILED + len(failed), FANOUT_MOST) if failed else ExitCode.OK


async def _on(host: str, args: argparse.Namespace, verb: Verb) -> int:
    _HOST.set(host)
    try:
        return await verb(argparse.Namespace(**vars(args) | {"host": (host,)}))
    except TokaError as error:
        if args.json:
            print(json.dumps({"ok": False, "code": error.code, "message": error.message, "hint": error.hint}))
        else:
            print(complaint(error), file=sys.stderr)
        return exit_code_of(error)
    except OSError as error:
        print(f"error [os]: {clean(str(error))}", file=sys.stderr)
        return ExitCode.ENVIRONMENT


@contextmanager
def _lines_by_host() -> Generator[None]:
    out, errors = _HostLines(sys.stdout), _HostLines(sys.stderr)
    with redirect_stdout(out), redirect_stderr(errors):
        try:
            yield
        finally:
            out.finish()
            errors.finish()


class _HostLines(io.TextIOBase):
    """Whole lines, each with the host of the task that wrote it: before it, or as a member of its JSON object."""

    def __init__(self, below: TextIO) -> None:
        self._below = below
        self._begun: dict[str, str] = {}
        """By host: a line without its end."""

    def write(self, text: str, /) -> int:
        host = _HOST.get("")
        *lines, rest = (self._begun.pop(host, "") + text).split("\n")
        if rest:
            self._begun[host] = rest
        for line in lines:
            self._below.write(f"{_with_host(host, line)}\n")
        return len(text)

    def flush(self) -> None:
        self._below.flush()

    def finish(self) -> None:
        for host, line in self._begun.items():
            self._below.write(f"{_with_host(host, line)}\n")
        self._begun.clear()
        self.flush()


def _with_host(host: str, line: str) -> str:
    if not host:
        return line
    if line.startswith("{"):
        try:
            return json.dumps({"via": host} | json.loads(line))
        except ValueError:
            pass
    return f"{clean(host)}: {line}"
