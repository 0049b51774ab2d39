"""`toka-runtime audit verify|show|export|head`: the event log as evidence, where it lies; also while a runtime writes.

Everything is read-only, and everything printed is ASCII: `cat` is safe, whatever an agent has written.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, cast

from toka_runtime.audit.chain import Head, Record, head_from, record_line
from toka_runtime.audit.exported import ExportWriter, is_export, verify_export
from toka_runtime.audit.key import KEY_FILE, AuditKey, PublicKey
from toka_runtime.audit.verify import Report, clock_text
from toka_runtime.cli.exit_codes import ExitCode
from toka_runtime.cli.log_place import since, state_dir_of
from toka_runtime.cli.narration import told
from toka_runtime.cli.render import clean, counted
from toka_runtime.errors import StoreError
from toka_runtime.protocol.capability import Layer
from toka_runtime.store.chain_rows import begin_of, read_checkpoints, read_dropped, read_records, stored_head
from toka_runtime.store.proof import chained, database_of, open_proof, verify_log
from toka_runtime.store.rows import decode_row, to_micros
from toka_runtime.whole_file import new_file

_TOLD_MOST = 20


def add_arguments(parser: argparse.ArgumentParser) -> None:
    verbs = parser.add_subparsers(metavar="WHAT", title="what to do", required=True, dest="what")
    checking = verbs.add_parser("verify", help="follow the chain: the first bad record and what is wrong with it")
    _add_place(checking, "a state folder, a copy of its events.db, or an exported file")
    checking.add_argument("--public-key", metavar="KEY", help="the log's public key: 64 digits, or a file (audit.pub)")
    checking.add_argument(
        "--seen", action="append", default=[], type=_head, metavar="SEQ:HASH", help="a head it must contain"
    )
    showing = verbs.add_parser("show", help="the records, oldest first")
    _add_place(showing, "a state folder, or a copy of its events.db")
    _add_filters(showing)
    exporting = verbs.add_parser("export", help="records with their proof into a file, to be verified anywhere")
    _add_place(exporting, "a state folder")
    _add_filters(exporting)
    exporting.add_argument("-o", "--output", type=Path, required=True, metavar="FILE", help="not there yet")
    telling = verbs.add_parser("head", help="where the chain stands: note it down, and --seen proves it later")
    _add_place(telling, "a state folder, or a copy of its events.db")
    for each in (checking, showing, telling):
        each.add_argument("--json", action="store_true", help="JSON, ASCII only")
    parser.epilog = "exit code 0: told, and the log is good; 1: verify found something; 2: wrong words; 3: no log there"


def _add_place(parser: argparse.ArgumentParser, what: str) -> None:
    place = parser.add_mutually_exclusive_group()
    place.add_argument("place", nargs="?", type=Path, metavar="PLACE", help=f"{what} (default: the one written last)")
    place.add_argument("--state-dir", "--state", type=Path, metavar="DIR", help="the same, as the other verbs have it")
    place.add_argument("--workspace", type=Path, metavar="DIR", help="the state folder that belongs to this workspace")


def _add_filters(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--agent", action="append", default=[], metavar="NAME", help="only of this agent (repeatable)")
    parser.add_argument("--kind", action="append", default=[], metavar="KIND", help="only of this kind (repeatable)")
    parser.add_argument("--since", type=since, metavar="WHEN", help="a duration (10m) or a time (2026-01-31T12:00)")
    parser.add_argument("--until", type=since, metavar="WHEN", help="likewise")
    parser.add_argument("--actor", default="", metavar="NAME", help="only what this operator did")
    parser.add_argument("--layer", choices=[layer.value for layer in Layer], help="only what this layer refused")


def _head(text: str) -> Head:
    try:
        return head_from(text)
    except StoreError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def execute(args: argparse.Namespace) -> int:
    place: Path = args.place if args.place is not None else state_dir_of(args)
    match args.what:
        case "verify":
            return _verify(place, args)
        case "show":
            return _show(place, args)
        case "export":
            return _export(place, args)
        case _:
            return _tell_head(place, as_json=args.json)


# -- verify -----------------------------------------------------------------------------------------------------------


def _verify(place: Path, args: argparse.Namespace) -> int:
    public = _public_key(args.public_key) if args.public_key else None
    seen = tuple((head, "the head you have seen") for head in args.seen)
    if place.is_file() and is_export(place):
        report = verify_export(place, public=public, seen=seen)
    else:
        report = verify_log(place, public=public, seen=seen)
    if args.json:
        print(json.dumps(report_json(report)))
    else:
        sys.stdout.write(_ascii("".join(f"{line}\n" for line in _report_lines(report, trusted=public is not None))))
    return ExitCode.OK if report.good else ExitCode.FAILED


def _public_key(text: str) -> PublicKey:
    path = Path(text)
    return PublicKey.from_text(path.read_text(encoding="ascii", errors="replace") if path.is_file() else text)


def report_json(report: Report) -> dict[str, Any]:
    """Stable names."""
    return {
        "good": report.good,
        "problems": [
            {"fault": problem.fault.value, "seq": problem.seq, "line": problem.line, "message": problem.message}
            for problem in report.problems
        ],
        "more_problems": report.more_problems,
        "records": report.records,
        "unchained": report.unchained,
        "dropped": report.dropped,
        "omitted": report.omitted,
        "head": None if report.head is None else str(report.head),
        "signed_seq": report.signed_seq,
        "signed_at": report.signed_at,
        "sealed": report.sealed,
        "public_key": report.public_key,
    }


def _report_lines(report: Report, *, trusted: bool) -> Iterator[str]:
    for problem in report.problems[:_TOLD_MOST]:
        where = f"line {problem.line}: " if problem.line else ""
        yield f"BAD  {where}{problem.fault.value}: {problem.message}"
    if (more := len(report.problems) - _TOLD_MOST + report.more_problems) > 0:
        yield f"BAD  and {more} more"
    told_of = [counted(report.records, "record") + " followed"]
    told_of += [f"{report.dropped} dropped by retention, signed"] if report.dropped else []
    told_of += [f"{report.omitted} left out by the export"] if report.omitted else []
    told_of += [f"{report.unchained} unchained: from before the chain, not proven"] if report.unchained else []
    yield f"{'good' if report.good else 'NOT GOOD'}: {'; '.join(told_of)}"
    if report.head is not None:
        yield f"head {report.head}"
    if report.signed_seq:
        signed = f"signed up to record {report.signed_seq}"
        yield signed + (f" at {clock_text(report.signed_at)}" if report.signed_at else "")
    if report.unsigned and report.sealed is None:
        yield f"the last {counted(report.unsigned, 'record')} are chained but not signed yet; only {KEY_FILE} can tell"
    if report.public_key:
        yield f"key {report.public_key}" + ("" if trusted else " (of the log itself: compare it with the one you know)")


# -- show and export --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which records; empty and None: any."""

    agents: frozenset[str] = frozenset()
    kinds: frozenset[str] = frozenset()
    since: datetime | None = None
    until: datetime | None = None
    actor: str = ""
    layer: str | None = None

    @classmethod
    def of(cls, args: argparse.Namespace) -> Wanted:
        return cls(frozenset(args.agent), frozenset(args.kind), args.since, args.until, args.actor, args.layer)

    def __contains__(self, record: Record) -> bool:
        return (
            (not self.agents or record.agent in self.agents)
            and (not self.kinds or record.kind in self.kinds)
            and (self.since is None or record.at >= to_micros(self.since))
            and (self.until is None or record.at < to_micros(self.until))
            and ((not self.actor and self.layer is None) or self._fits(record))
        )

    def _fits(self, record: Record) -> bool:
        try:
            found: Any = json.loads(record.body)
        except ValueError:
            return False
        body = cast(dict[str, Any], found) if isinstance(found, dict) else {}
        denial = body.get("denial")
        layer = cast(dict[str, Any], denial).get("layer") if isinstance(denial, dict) else None
        return (not self.actor or body.get("actor") == self.actor) and (self.layer is None or layer == self.layer)


def _show(place: Path, args: argparse.Namespace) -> int:
    wanted = Wanted.of(args)
    with closing(open_proof(database_of(place))) as connection:
        has_hash = chained(connection)
        for record, _ in read_records(connection) if has_hash else ():
            if record in wanted:
                print(record_line(record).decode("ascii") if args.json else _ascii(_text(record)))
    if not has_hash:
        raise StoreError(f"the log at {place} has no hash chain", hint="`toka-runtime events` shows what is in it")
    return ExitCode.OK


def _text(record: Record) -> str:
    try:
        what = told(decode_row(record))
    except (ValueError, TypeError):
        what = ""
    who = f" {record.agent}" if record.agent and not what.startswith(record.agent) else ""
    return f"{record.seq} {clock_text(record.at)} {record.kind}{clean(who)} {what or clean(record.body[:300])}".rstrip()


def _ascii(text: str) -> str:
    return text.encode("ascii", "backslashreplace").decode("ascii")


def _export(place: Path, args: argparse.Namespace) -> int:
    """Whole or not at all: a file that is broken off is not left behind."""
    path, output = database_of(place), cast(Path, args.output)
    try:
        key = AuditKey.load(path.parent)
    except FileNotFoundError:
        raise StoreError(
            f"there is no {KEY_FILE} beside {path}: an export is signed",
            hint="export where the log was written; a copy of events.db can be verified as it is",
        ) from None
    if not (report := verify_log(place)).good:
        raise StoreError(
            f"the log {path} is not good, and is not signed for: {report.problems[0].message}",
            hint="keep a copy of the whole folder as evidence",
        )
    with new_file(output) as file, closing(open_proof(path)) as connection:
        connection.execute("BEGIN")
        begin = begin_of(connection) if chained(connection) else None
        head, _ = stored_head(connection) if begin is not None else (None, b"")
        if begin is None or head is None:
            raise StoreError(f"the log {path} has no hash chain", hint="see `toka-runtime audit verify`")
        wanted, writer = Wanted.of(args), ExportWriter(file, key)
        for point in read_checkpoints(connection):
            writer.checkpoint(point)
        for dropped in read_dropped(connection):
            writer.dropped(dropped)
        for record, hashed in read_records(connection):
            if record in wanted:
                writer.record(record, hashed)
            else:
                writer.omit(record.seq, hashed)
        writer.end(Head(begin.seq, begin.hash))
    print(f"{counted(writer.records, 'record')} in {_ascii(clean(str(output)))}; check it with: audit verify FILE")
    return ExitCode.OK


# -- head -------------------------------------------------------------------------------------------------------------


def _tell_head(place: Path, *, as_json: bool) -> int:
    with closing(open_proof(database_of(place))) as connection:
        head = stored_head(connection)[0] if chained(connection) else None
    if head is None:
        raise StoreError(f"the log at {place} has no head of a chain", hint="see `toka-runtime audit verify`")
    print(json.dumps({"seq": head.seq, "hash": head.hash.hex()}) if as_json else head)
    return ExitCode.OK
