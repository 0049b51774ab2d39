"""Evidence bundles of a real runtime: whole, sealed, redacted, and never half."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import stat
import tarfile
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from fakes.gateway import finish, tool_results, tool_turn
from fakes.scene import Scene, scene, spec
from toka_runtime.client.base import RuntimeClient
from toka_runtime.client.evidence.archive import HEADER_BYTES, MANIFEST, header, new_archive, safe_name
from toka_runtime.client.evidence.collect import Subject, Written, write_bundle
from toka_runtime.client.evidence.place import file_name
from toka_runtime.client.evidence.report import About
from toka_runtime.client.evidence.verify import verify_bundle
from toka_runtime.client.local import LocalClient
from toka_runtime.errors import LinkDown, UsageError
from toka_runtime.protocol.commands import CommandRequest, CommandResult, PauseFleet, ReadEvents, ReadTranscript
from toka_runtime.protocol.ids import AgentName, new_command_id
from toka_runtime.protocol.snapshot import FleetState

AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
ABOUT = About(AT, "ann@desk (test)")
KEY = "sk-ant-" + "a1B2" * 8
ALPHA = AgentName("alpha")


def writes(request: Any) -> Any:
    """One file with a key in it, then the end."""
    if tool_results(request) == 0:
        return tool_turn(("write_file", {"path": "note.txt", "content": f"the key is {KEY}\n"}))
    return finish()


@asynccontextmanager
async def ran(tmp_path: Path, *names: str) -> AsyncGenerator[tuple[Scene, LocalClient]]:
    async with scene(tmp_path, writes, *(spec(name) for name in names or ("alpha",))) as stage:
        await stage.run()
        yield stage, LocalClient(stage.supervisor)


async def bundle(client: RuntimeClient, path: Path, *names: str) -> Written:
    return await write_bundle(path, [Subject(client, tuple(AgentName(name) for name in names or ("alpha",)))], ABOUT)


def contents(path: Path) -> dict[str, bytes]:
    with tarfile.open(path) as tar:
        return {member.name: tar.extractfile(member).read() for member in tar}  # type: ignore[union-attr] # files only


def lines(data: bytes) -> list[Any]:
    return [json.loads(line) for line in data.splitlines()]


async def test_a_bundle_has_all_that_is_known_and_verifies(tmp_path: Path) -> None:
    async with ran(tmp_path) as (stage, client):
        pause = PauseFleet(agents=(ALPHA,))
        await client.send(CommandRequest(id=new_command_id("t"), actor="ann", command=pause, reason="look at it"))
        done = await bundle(client, tmp_path / "e.tar.gz")
        log = await stage.send(ReadEvents(agent=ALPHA, limit=10_000))
    files = contents(done.path)
    top = "agents/here/alpha"
    head = json.loads(files["hosts/here/proof.json"])["head"]
    whole = [each for each in log.data["events"] if each["seq"] <= head]
    assert lines(files[f"{top}/events.jsonl"]) == whole, "the slice is complete"
    roles = [turn["body"]["role"] for turn in lines(files[f"{top}/transcript.jsonl"]) if turn["until"] is None]
    assert roles[:3] == ["user", "assistant", "user"]
    assert lines(files[f"{top}/tool-calls.jsonl"])[0]["tool"] == "write_file"
    assert b"+the key" in files[f"{top}/diff.patch"]
    assert json.loads(files[f"{top}/policy.json"])["write"]
    assert files[f"{top}/spec.yaml"].startswith(b"name: alpha")
    acts = [each["event"] for each in lines(files["hosts/here/operators.jsonl"])]
    assert [act["reason"] for act in acts if act["kind"] == "command.handled"] == ["look at it"]
    text = files["REPORT.md"].decode()
    assert "starting → running" in text
    assert "fleet.pause alpha" in text
    assert "proof of the audit log of here: unavailable" in text
    assert done.missing == ()
    assert done.files == len(files)
    assert done.digest == hashlib.sha256(done.path.read_bytes()).hexdigest()
    assert stat.S_IMODE(done.path.stat().st_mode) == 0o600
    verdict = verify_bundle(done.path)
    assert verdict.problems == []
    assert verdict.about["agents"] == ["here/alpha"]
    assert (verdict.digest, verdict.files) == (done.digest, len(files) - 1)


async def test_secrets_do_not_leave_with_the_transcript(tmp_path: Path) -> None:
    async with ran(tmp_path) as (_, client):
        done = await bundle(client, tmp_path / "e.tar.gz")
    files = contents(done.path)
    for name in ("transcript.jsonl", "diff.patch"):
        data = files[f"agents/here/alpha/{name}"].decode()
        assert KEY not in data
        assert "[redacted:anthropic-key]" in data
    assert not any(KEY.encode() in data for data in files.values())
    assert "redacted of alpha: 0 in" not in files["REPORT.md"].decode()


async def test_the_journal_is_read_in_pages_without_a_gap(tmp_path: Path) -> None:
    async with ran(tmp_path) as (stage, _):
        run = stage.agent("alpha").run
        assert run is not None
        whole = (await stage.send(ReadTranscript(run=run))).data
        assert whole["next"] is None
        assert len(whole["records"]) > 3
        found: list[Any] = []
        after: int | None = 0
        while after is not None:
            page = (await stage.send(ReadTranscript(run=run, after=after, limit=1))).data
            assert len(page["records"]) == 1
            found += page["records"]
            after = page["next"]
        assert found == whole["records"]


async def test_several_agents_in_one_bundle(tmp_path: Path) -> None:
    async with ran(tmp_path, "alpha", "beta") as (_, client):
        done = await bundle(client, tmp_path / "e.tar.gz", "alpha", "beta")
    for name in ("alpha", "beta"):
        agents = {each["agent"] for each in lines(contents(done.path)[f"agents/here/{name}/events.jsonl"])}
        assert agents == {name}


class Broken:
    """A client whose link is lost after so many queries."""

    def __init__(self, client: LocalClient, answers: int) -> None:
        self.host = client.host
        self.link = client.link
        self._client, self._left = client, answers

    async def snapshot(self) -> FleetState:
        return await self._client.snapshot()

    async def send(self, request: CommandRequest) -> CommandResult:
        self._left -= 1
        if self._left < 0:
            return CommandResult(id=request.id, ok=False, code="link.unknown", message="cut")
        return await self._client.send(request)


@pytest.mark.parametrize("answers", range(6))
async def test_a_lost_link_leaves_nothing(tmp_path: Path, answers: int) -> None:
    async with ran(tmp_path) as (_, client):
        out = tmp_path / "out"
        out.mkdir()
        with pytest.raises(LinkDown, match="cut"):
            await bundle(Broken(client, answers), out / "e.tar.gz")  # type: ignore[arg-type] # what is not used is left out
        assert list(out.iterdir()) == []


async def test_refuses_to_overwrite_and_who_is_not_there(tmp_path: Path) -> None:
    async with ran(tmp_path) as (_, client):
        path = tmp_path / "e.tar.gz"
        path.write_bytes(b"mine")
        with pytest.raises(FileExistsError):
            await bundle(client, path)
        assert path.read_bytes() == b"mine"
        with pytest.raises(UsageError, match="nobody"):
            await bundle(client, tmp_path / "f.tar.gz", "alpha", "nobody")
        assert not (tmp_path / "f.tar.gz").exists()


# -- the seal -----------------------------------------------------------------------------------------------------


def small(path: Path, *entries: tuple[str, bytes]) -> bytes:
    with new_archive(path, AT) as archive:
        for name, data in entries or (("a.txt", b"hello\n"), ("b.txt", b"world " * 50)):
            archive.add_bytes(name, data)
        archive.seal({"agents": []})
    return path.read_bytes()


def test_any_changed_byte_is_caught(tmp_path: Path) -> None:
    data = small(tmp_path / "e.tar.gz")
    assert verify_bundle(tmp_path / "e.tar.gz").problems == []
    broken = tmp_path / "broken"
    for at in range(len(data)):
        for mask in (0x01, 0x20, 0x80):
            broken.write_bytes(data[:at] + bytes([data[at] ^ mask]) + data[at + 1 :])
            assert verify_bundle(broken).problems, (at, mask)


def test_what_is_cut_or_added_is_caught(tmp_path: Path) -> None:
    data = small(tmp_path / "e.tar.gz")
    broken = tmp_path / "broken"
    for changed in (*(data[:end] for end in range(len(data))), data + b"\0", data + data):
        broken.write_bytes(changed)
        assert verify_bundle(broken).problems, len(changed)


def resealed(path: Path, entries: list[tuple[tarfile.TarInfo, bytes]]) -> list[str]:
    """The problems of a bundle that was packed anew with a good seal by somebody who did not touch the manifest."""
    packed = io.BytesIO()
    with tarfile.open(mode="w", fileobj=packed) as tar:
        for info, data in entries:
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    body = gzip.compress(packed.getvalue(), mtime=0)[10:]
    path.write_bytes(header(hashlib.sha256(body).hexdigest()) + body)
    return verify_bundle(path).problems


def unpacked(path: Path) -> list[tuple[tarfile.TarInfo, bytes]]:
    with tarfile.open(path) as tar:
        return [(member, tar.extractfile(member).read()) for member in tar]  # type: ignore[union-attr] # files only


def test_the_manifest_names_what_was_edited_removed_or_added(tmp_path: Path) -> None:
    path = tmp_path / "e.tar.gz"
    small(path)
    first, second, manifest = unpacked(path)
    new = tmp_path / "new"
    assert resealed(new, [first, second, manifest]) == []
    assert resealed(new, [(first[0], b"hallo\n"), second, manifest]) == ["'a.txt' is not what the manifest says it is"]
    assert resealed(new, [second, manifest]) == ["'a.txt' is missing"]
    extra = (tarfile.TarInfo("c.txt"), b"")
    assert resealed(new, [first, second, extra, manifest]) == ["'c.txt' was added: the manifest does not have it"]
    assert resealed(new, [first, second]) == [f"the archive cannot be read: there is no {MANIFEST}"]
    assert any("there twice" in problem for problem in resealed(new, [first, first, second, manifest]))
    for name in ("../x", "/etc/x", "a\x1b[2Jb"):
        hostile = (tarfile.TarInfo(name), b"")
        assert any("no bundle has" in each for each in resealed(new, [first, second, hostile, manifest])), name
    link = tarfile.TarInfo("l")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    assert any("no bundle has" in each for each in resealed(new, [first, second, (link, b""), manifest]))


def test_the_header_is_a_gzip_header(tmp_path: Path) -> None:
    data = small(tmp_path / "e.tar.gz")
    assert data[:HEADER_BYTES] == header(hashlib.sha256(data[HEADER_BYTES:]).hexdigest())
    assert gzip.decompress(data)


def test_names_from_outside_stay_inside() -> None:
    assert safe_name("../../etc/passwd") == "_.._etc_passwd"
    assert safe_name("a\x1b[2J/b") == "a__2J_b"
    assert safe_name("..") == "_"
    assert len(safe_name("x" * 500)) == 80
    assert file_name(["../a", "b"], AT) == "evidence-_a+1-20260102T030405Z.tar.gz"


def test_a_block_that_raises_leaves_no_file(tmp_path: Path) -> None:
    def fail() -> None:
        with new_archive(tmp_path / "e.tar.gz", AT) as archive:
            archive.add_bytes("a", b"b")
            raise OSError("full")

    with pytest.raises(OSError, match="full"):
        fail()
    assert list(tmp_path.iterdir()) == []
