"""`toka-runtime validate`: every problem of every file, at once."""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any, TextIO

from toka_runtime.cli.exit_codes import ExitCode
from toka_runtime.cli.render import Style, clean, counted, print_json, problem_line
from toka_runtime.client.arguments import add_catalogue_argument
from toka_runtime.policy.catalogue import Catalogue, load_catalogue, operators_files
from toka_runtime.policy.rules import compile_rights
from toka_runtime.protocol.events import ProblemView
from toka_runtime.specs.loader import LoadedFile, LoadReport, load_paths


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("paths", nargs="+", type=Path, metavar="PATH", help="spec files, or folders of them")
    add_catalogue_argument(parser)
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    parser.add_argument("--strict", action="store_true", help="unknown permission names are errors")
    parser.add_argument("-v", "--verbose", action="store_true", help="show what was repaired on reading")


def execute(args: argparse.Namespace) -> int:
    catalogue = load_catalogue(operators_files(args.catalogue))
    report = with_rights(load_paths(args.paths), catalogue, strict=args.strict)
    if args.json:
        print_json({"specs": [_as_json(file) for file in report.files]})
    else:
        _print_report(report, sys.stdout, verbose=args.verbose)
    return ExitCode.OK if report.ok else ExitCode.FAILED


def with_rights(report: LoadReport, catalogue: Catalogue, *, strict: bool = False) -> LoadReport:
    """The report with what policy has to say of each good spec, as warnings: scopes that grant nothing, and names that
    no catalogue entry defines. With `strict` the latter are errors, and the spec is then no longer good."""
    return replace(report, files=tuple(_judge(file, catalogue, strict) for file in report.files))


def _judge(file: LoadedFile, catalogue: Catalogue, strict: bool) -> LoadedFile:
    if file.spec is None:
        return file
    rights = compile_rights(file.spec, catalogue)
    unknown = tuple(_unknown(file, name, catalogue) for name in rights.unknown)
    refused = tuple(_refused(file, line) for line in rights.refused)
    if strict and unknown:
        return replace(file, spec=None, errors=unknown, warnings=(*file.warnings, *refused))
    return replace(file, warnings=(*file.warnings, *unknown, *refused))


def _unknown(file: LoadedFile, name: str, catalogue: Catalogue) -> ProblemView:
    near = catalogue.nearest(name)
    hint = f"did you mean “{near}”?" if near else "the catalogue does not define it"
    return _problem(file, name, "policy.unknown_capability", f"capability “{name}” is unknown and grants nothing", hint)


def _refused(file: LoadedFile, line: str) -> ProblemView:
    capability, _, reason = line.partition(": ")
    return _problem(file, capability, "policy.refused_grant", f"capability “{capability}”: {reason}", "")


def _problem(file: LoadedFile, capability: str, code: str, message: str, hint: str) -> ProblemView:
    place = file.capability_places.get(capability)
    line, column = (place.line, place.column) if place else (0, 0)
    return ProblemView(file=file.path, line=line, column=column, code=code, message=message, hint=hint)


def print_problems(report: LoadReport, stream: TextIO) -> None:
    """The errors of all files that are not good, one line each."""
    style = Style(stream)
    for problem in report.errors:
        print(problem_line(problem, style, "red"), file=stream)


def _print_report(report: LoadReport, stream: TextIO, *, verbose: bool) -> None:
    style = Style(stream)
    for file in report.files:
        mark = style("green", "✓") if file.ok else style("red", "✗")
        print(f"{mark} {clean(file.path)}  {style('bold', clean(file.name))}", file=stream)
        for problem in file.errors:
            print(f"    {problem_line(problem, style, 'red')}", file=stream)
        for problem in file.warnings:
            print(f"    {problem_line(problem, style, 'yellow')}", file=stream)
        for problem in file.repairs if verbose else ():
            print(f"    {problem_line(problem, style, 'cyan')}", file=stream)
    print(_summary(report, verbose), file=stream)


def _summary(report: LoadReport, verbose: bool) -> str:
    bad = sum(not file.ok for file in report.files)
    warnings = sum(len(file.warnings) for file in report.files)
    repairs = sum(len(file.repairs) for file in report.files)
    parts = [f"{len(report.files) - bad} good", f"{bad} not good"]
    if warnings:
        parts.append(counted(warnings, "warning"))
    if repairs:
        parts.append(counted(repairs, "repair") + ("" if verbose else " (-v shows them)"))
    return ", ".join(parts)


def _as_json(file: LoadedFile) -> dict[str, Any]:
    return {
        "file": file.path,
        "name": file.name,
        "ok": file.ok,
        "errors": [problem.model_dump() for problem in file.errors],
        "warnings": [problem.model_dump() for problem in file.warnings],
        "repairs": [problem.model_dump() for problem in file.repairs],
    }
