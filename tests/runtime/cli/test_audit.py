"""`toka-runtime audit`: exit codes, text and JSON, filters, an export that is checked elsewhere."""

import asyncio
import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from fakes.recorded_log import record_log
from toka_runtime.cli.main import main
from toka_runtime.store.schema import DATABASE


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    asyncio.run(record_log(tmp_path / "state"))
    return tmp_path / "state"


def lines_of(capsys: pytest.CaptureFixture[str], *words: str, code: int = 0) -> list[str]:
    assert main(["audit", *words]) == code
    out = capsys.readouterr().out
    assert out.isascii()
    assert "\x1b" not in out
    return out.splitlines()


def test_a_good_log(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = lines_of(capsys, "verify", str(folder))
    assert told[0].startswith("good: ")
    assert "dropped by retention, signed" in told[0]
    assert told[-1].startswith("key ")
    trusted = lines_of(capsys, "verify", str(folder), "--public-key", str(folder / "audit.pub"))
    assert "compare" not in trusted[-1]


def test_what_is_wrong_is_told(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with closing(sqlite3.connect(folder / DATABASE)) as connection, connection:
        connection.execute("UPDATE events SET body = '{}' WHERE seq = 9")
    told = lines_of(capsys, "verify", str(folder), code=1)
    assert told[0].startswith("BAD  edit: record 9 ")
    found = json.loads(lines_of(capsys, "verify", str(folder), "--json", code=1)[0])
    assert (found["good"], found["problems"][0]["seq"]) == (False, 9)
    assert main(["audit", "export", str(folder), "-o", str(folder / "file")]) == 3
    assert "record 9" in capsys.readouterr().err
    assert not (folder / "file").exists()


def test_a_head_that_was_noted_down_proves_the_log_later(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    head = lines_of(capsys, "head", str(folder))[0]
    assert json.loads(lines_of(capsys, "head", str(folder), "--json")[0])["hash"] in head
    lines_of(capsys, "verify", str(folder), "--seen", head)
    seq, _, digest = head.partition(":")
    told = lines_of(capsys, "verify", str(folder), "--seen", f"{int(seq) + 1}:{digest}", code=1)
    assert told[0].startswith("BAD  rollback:")


def test_filters(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def shown(*words: str) -> list[dict[str, object]]:
        return [json.loads(line) for line in lines_of(capsys, "show", str(folder), "--json", *words)]

    assert {each["agent"] for each in shown("--agent", "beta")} == {"beta"}
    assert {each["kind"] for each in shown("--kind", "operation.denied")} == {"operation.denied"}
    assert {each["kind"] for each in shown("--layer", "policy")} == {"operation.denied"}
    actors = shown("--actor", "operator")
    everything = shown()
    assert 0 < len(actors) < len(everything)
    assert all(each["body"]["actor"] == "operator" for each in actors)  # type: ignore[index]
    assert shown("--until", "2020-01-01") == []
    assert len(lines_of(capsys, "show", str(folder))) == len(everything)


def test_an_export_of_a_part_is_verified_without_the_folder(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "part.jsonl"
    lines_of(capsys, "export", str(folder), "--kind", "operation.denied", "-o", str(file))
    key = (folder / "audit.pub").read_text().strip()
    folder.rename(tmp_path / "gone")
    report = json.loads(lines_of(capsys, "verify", str(file), "--public-key", key, "--json")[0])
    assert report["good"]
    assert report["records"] == 2
    assert report["omitted"] > 50
    assert main(["audit", "export", str(tmp_path / "gone"), "-o", str(file)]) == 3, "no file is written over"


def test_nothing_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["audit", "verify", str(tmp_path)]) == 3
    assert "no event log" in capsys.readouterr().err
    assert main(["audit", "verify", str(tmp_path), "--seen", "7:zz"]) == 2
