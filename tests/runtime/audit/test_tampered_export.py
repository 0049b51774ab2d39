"""An exported file is verified with nothing but the file and a public key; any byte of it that changes is seen."""

import random
from pathlib import Path

import pytest

from toka_runtime.audit.exported import verify_export
from toka_runtime.audit.key import AuditKey
from toka_runtime.audit.verify import Fault, Report

FLIPS, OTHERS = 1200, 900


@pytest.fixture
def check(tmp_path: Path, recorded: Path):
    key = AuditKey.load(recorded).public

    def verify(data: bytes) -> Report:
        path = tmp_path / "file"
        path.write_bytes(data)
        return verify_export(path, public=key)

    return verify


def test_it_is_good_and_ascii(check, exported: bytes) -> None:
    report = check(exported)
    assert report.good, report.problems
    assert report.records > 60
    assert report.dropped > 5
    assert report.unsigned == 0
    assert all(byte == 10 or 32 <= byte < 127 for byte in exported)


def test_any_flipped_byte_is_seen(check, exported: bytes) -> None:
    chance = random.Random(1)
    # All of the first and last lines, and a sample of what is between.
    places = [*range(300), *range(len(exported) - 400, len(exported))]
    places += [chance.randrange(len(exported)) for _ in range(FLIPS - len(places))]
    for place in places:
        data = bytearray(exported)
        data[place] ^= 1 << chance.randrange(8)
        assert not check(bytes(data)).good, place


def changed(lines: list[bytes], case: int, chance: random.Random) -> bytes:
    data = b"".join(lines)
    place, (line, other) = chance.randrange(len(data)), sorted(chance.sample(range(len(lines)), 2))
    match case % 6:
        case 0:
            return data[:place]
        case 1:
            return data[:place] + data[place + 1 :]
        case 2:
            return data[:place] + bytes([chance.randrange(256)]) + data[place:]
        case 3:
            lines = [*lines[:line], *lines[line + 1 :]]
        case 4:
            lines = [*lines[:other], lines[line], *lines[other:]]
        case _:
            lines = [*lines[:line], lines[other], *lines[line + 1 : other], lines[line], *lines[other + 1 :]]
    return b"".join(lines)


def test_any_cut_insertion_deletion_and_swap_is_seen(check, exported: bytes) -> None:
    chance = random.Random(2)
    lines = exported.splitlines(keepends=True)
    for case in range(OTHERS):
        data = changed(lines, case, chance)
        # A file that is cut to nothing is no export at all, which the verb says, too.
        if data and data != exported:
            assert not check(data).good, case


def test_what_is_wrong_is_named_with_its_line(check, exported: bytes) -> None:
    lines = exported.splitlines(keepends=True)
    at = next(number for number, line in enumerate(lines) if line.startswith(b'{"seq":') and number > 40)

    edited = [*lines[:at], lines[at].replace(b'"host":"host-1"', b'"host":"host-2"'), *lines[at + 1 :]]
    first = check(b"".join(edited)).problems[0]
    assert (first.fault, first.line) == (Fault.EDIT, at + 1)

    first = check(b"".join(lines[:at] + lines[at + 1 :])).problems[0]
    assert (first.fault, first.line) == (Fault.DELETION, at + 1)

    swapped = [*lines[:at], lines[at + 1], lines[at], *lines[at + 2 :]]
    first = check(b"".join(swapped)).problems[0]
    assert (first.fault, first.line) == (Fault.REORDERING, at + 1)

    first = check(b"".join([*lines[: at + 1], lines[at], *lines[at + 1 :]])).problems[0]
    assert (first.fault, first.line) == (Fault.INSERTION, at + 2)

    faults = {problem.fault for problem in check(b"".join(lines[:-1])).problems}
    assert Fault.TRUNCATION in faults


def test_another_key_is_not_the_logs(exported: bytes, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(exported)
    other = AuditKey.create(tmp_path).public
    report = verify_export(path, public=other)
    assert Fault.SIGNATURE in {problem.fault for problem in report.problems}
