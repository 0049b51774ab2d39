"""`toka-runtime doctor`: what this host lets the runtime enforce, each protection tried."""

from __future__ import annotations

import argparse
import sys
import textwrap
from typing import TextIO

from toka_runtime.cli.exit_codes import ExitCode
from toka_runtime.cli.render import Style, clean, print_json
from toka_runtime.sandbox.probe import Badge, Check, HostProbe, Strength, probe_host

_MARKS = {
    Strength.ENFORCED: ("●", "green"),
    Strength.APPROXIMATE: ("◐", "yellow"),
    Strength.NONE: ("○", "red"),
}
_WIDTH = 100
_INDENT = " " * 24


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--json", action="store_true", help="one JSON object on stdout (stable; `format` is its version)"
    )
    parser.add_argument("-v", "--verbose", action="store_true", help="every single check")
    parser.epilog = "exit code 0: agents with `sandbox: true` can start here; 1: they can't, and the reason is named"


def execute(args: argparse.Namespace) -> int:
    probe = probe_host()
    if args.json:
        print_json(probe.model_dump(mode="json"))
    else:
        print_probe(probe, sys.stdout, verbose=args.verbose)
    return ExitCode.OK if probe.sandbox else ExitCode.FAILED


def print_probe(probe: HostProbe, stream: TextIO, *, verbose: bool) -> None:
    style = Style(stream)
    who = "root" if probe.uid == 0 else f"user {probe.uid}"
    print(f"Linux {clean(probe.kernel)} on {clean(probe.machine)}, as {who}", file=stream)
    print(f"tier {style('bold', probe.tier.value)}: {probe.tier_meaning}", file=stream)
    if probe.sandbox:
        print(f"{style('green', '✓ sandbox: true')} works here", file=stream)
    else:
        print(f"{style('red', '✗ sandbox: true')} does not work here: no such agent starts", file=stream)
    _told("because", probe.reason, stream)
    _told("fix", probe.fix, stream)
    print(file=stream)
    for badge in probe.badges:
        _print_badge(badge, style, stream, reasons=probe.sandbox)
    if verbose:
        print(file=stream)
        for check in probe.checks:
            _print_check(check, style, stream)
    print(f"\n{len(probe.checks)} checks tried in {probe.duration_ms:.0f} ms", file=stream)


def _print_badge(badge: Badge, style: Style, stream: TextIO, *, reasons: bool) -> None:
    mark, colour = _MARKS[badge.strength]
    word = style(colour, f"{mark} {badge.strength.value:<11}")
    print(f"  {style('bold', f'{badge.area.value:<6}')} {word}  {clean(badge.mechanism) or '—'}", file=stream)
    _lines(clean(badge.effect), stream)
    if reasons:
        _told("because", badge.reason, stream)
        _told("fix", badge.fix, stream)


def _told(what: str, text: str, stream: TextIO) -> None:
    if text:
        _lines(f"{what}: {clean(text)}", stream)


def _lines(text: str, stream: TextIO) -> None:
    for line in textwrap.wrap(text, _WIDTH - len(_INDENT)):
        print(f"{_INDENT}{line}", file=stream)


def _print_check(check: Check, style: Style, stream: TextIO) -> None:
    mark = style("green", "✓ yes") if check.ok else style("red", "✗ no ")
    number = f" [{check.errno}]" if check.errno else ""
    print(f"  {mark} {check.name:<22} {clean(check.detail)}{number}", file=stream)
