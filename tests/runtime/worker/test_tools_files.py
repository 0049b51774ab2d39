"""File tools on real files: what is read, written and refused."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest

from toka_runtime.worker.toolbox import beneath
from toka_runtime.worker.tools import execute


def call(root: Path, tool: str, *, cap: int = 64_000, timeout_s: float = 20.0, **arguments: Any) -> dict[str, Any]:
    request = {
        "tool": tool,
        "arguments": arguments,
        "root": str(root),
        "timeout_s": timeout_s,
        "output_cap_bytes": cap,
    }
    return execute(request, lambda stream, data: None)


@pytest.fixture(params=["openat2", "walk"])
def either_way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both ways of opening below a folder refuse alike."""
    if request.param == "walk":
        monkeypatch.setattr(beneath, "has_openat2", lambda: False)
    elif not beneath.has_openat2():
        pytest.skip("no openat2 here")
    return request.param


class TestRead:
    def test_lines_are_numbered(self, tmp_path: Path) -> None:
        (tmp_path / "a.txt").write_text("one\ntwo\r\nthree")
        assert call(tmp_path, "read_file", path="a.txt")["content"] == "     1\tone\n     2\ttwo\n     3\tthree"

    def test_a_range_says_how_to_go_on(self, tmp_path: Path) -> None:
        (tmp_path / "a.txt").write_text("".join(f"line {n}\n" for n in range(1, 101)))
        content = call(tmp_path, "read_file", path="a.txt", offset=10, limit=2)["content"]
        assert content.splitlines() == [
            "    10\tline 10",
            "    11\tline 11",
            "(lines 10 to 11 of a longer file; go on with offset=12)",
        ]

    def test_the_last_line_is_the_end(self, tmp_path: Path) -> None:
        (tmp_path / "a.txt").write_text("a\nb\n")
        assert "go on" not in call(tmp_path, "read_file", path="a.txt", limit=2)["content"]

    def test_past_the_end(self, tmp_path: Path) -> None:
        (tmp_path / "a.txt").write_text("a\n")
        outcome = call(tmp_path, "read_file", path="a.txt", offset=2)
        assert (outcome["ok"], outcome["code"]) == (False, "tool.invalid")

    def test_a_range_across_chunks(self, tmp_path: Path) -> None:
        (tmp_path / "big.txt").write_text("".join(f"{n:07}\n" for n in range(1, 300_001)))
        content = call(tmp_path, "read_file", path="big.txt", offset=262_145, limit=1)["content"]
        assert content.startswith("262145\t0262145\n")

    def test_the_cap_ends_at_a_line(self, tmp_path: Path) -> None:
        (tmp_path / "a.txt").write_text("x" * 99 + "\n" + ("y" * 99 + "\n") * 100)
        outcome = call(tmp_path, "read_file", path="a.txt", cap=1000)
        assert len(outcome["content"].encode()) <= 1000
        assert "left out" not in outcome["content"]
        assert "go on with offset=" in outcome["content"]

    def test_a_huge_line_is_cut_and_memory_bounded(self, tmp_path: Path) -> None:
        with (tmp_path / "long.txt").open("wb") as file:
            file.truncate(0)
            for _ in range(40):
                file.write(b"a" * (1 << 20))
            file.write(b"\nend\n")
        content = call(tmp_path, "read_file", path="long.txt")["content"]
        assert content.splitlines()[0].endswith(f"… +{(40 << 20) - 2000:,} B")
        assert content.splitlines()[1] == "     2\tend"

    def test_broken_utf8_is_said(self, tmp_path: Path) -> None:
        (tmp_path / "a.txt").write_bytes(b"caf\xe9\n")
        content = call(tmp_path, "read_file", path="a.txt")["content"]
        assert content == "     1\tcaf�\n(bytes that are not UTF-8 are shown as �)"

    @pytest.mark.parametrize("width", range(1996, 2004))
    def test_a_cut_never_halves_a_character(self, tmp_path: Path, width: int) -> None:
        (tmp_path / "a.txt").write_text("a" * width + "日本語" * 10)
        assert "�" not in call(tmp_path, "read_file", path="a.txt")["content"]

    def test_binary_and_empty(self, tmp_path: Path) -> None:
        (tmp_path / "a.bin").write_bytes(b"\x7fELF\0\0")
        (tmp_path / "empty").write_bytes(b"")
        assert call(tmp_path, "read_file", path="a.bin")["code"] == "tool.binary"
        assert call(tmp_path, "read_file", path="empty")["content"] == "(the file is empty)"

    def test_what_is_no_file(self, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "pipe")
        (tmp_path / "folder").mkdir()
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(str(tmp_path / "sock"))
            for path, words in (("pipe", "a pipe"), ("sock", "socket"), ("folder", "list_files"), (".", "folder")):
                outcome = call(tmp_path, "read_file", path=path)
                assert not outcome["ok"]
                assert words in outcome["content"]
        assert call(tmp_path, "read_file", path="absent")["code"] == "tool.not_found"

    @pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a device")
    def test_a_device(self, tmp_path: Path) -> None:
        try:
            os.mknod(tmp_path / "zero", stat.S_IFCHR | 0o666, os.makedev(1, 5))
        except PermissionError:
            pytest.skip("no devices here")
        assert "a device" in call(tmp_path, "read_file", path="zero")["content"]


class TestConfinement:
    @pytest.mark.parametrize("tool", ["read_file", "write_file", "edit_file", "list_files", "search_text"])
    @pytest.mark.parametrize("path", ["../secret", "/etc/passwd", "a/../../secret", "out/secret", "link", "in/x"])
    def test_nothing_leads_out(self, tmp_path: Path, either_way: str, tool: str, path: str) -> None:
        root = tmp_path / "root"
        root.mkdir()
        (tmp_path / "secret").write_text("secret")
        (root / "out").symlink_to(tmp_path)
        (root / "link").symlink_to(tmp_path / "secret")
        (root / "real").mkdir()
        (root / "real/x").write_text("inside")
        # Even a link within the folder is refused: the broker had resolved what was there.
        (root / "in").symlink_to("real")
        more = {
            "write_file": {"content": "x"},
            "edit_file": {"old_string": "s", "new_string": "x"},
            "search_text": {"pattern": "s"},
        }.get(tool, {})
        outcome = call(root, tool, path=path, **more)
        assert not outcome["ok"], outcome
        assert outcome["code"] == "tool.refused"
        assert outcome["refused_target"] == path
        assert (tmp_path / "secret").read_text() == "secret"
        assert (root / "real/x").read_text() == "inside"

    def test_the_swap_of_a_folder_for_a_link(self, tmp_path: Path, either_way: str) -> None:
        root = tmp_path / "root"
        (root / "docs").mkdir(parents=True)
        (tmp_path / "outside").mkdir()
        (root / "docs").rmdir()
        (root / "docs").symlink_to(tmp_path / "outside")
        outcome = call(root, "write_file", path="docs/x", content="planted")
        assert outcome["refused_target"] == "docs/x"
        assert list((tmp_path / "outside").iterdir()) == []

    def test_permission_denied_is_a_refusal(self, tmp_path: Path) -> None:
        (tmp_path / "a").write_text("x")
        (tmp_path / "a").chmod(0o400)
        outcome = call(tmp_path, "write_file", path="a", content="y")
        assert (outcome["code"], outcome["refused_target"]) == ("tool.refused", "a")
        assert (tmp_path / "a").read_text() == "x"


class TestWrite:
    def test_new_with_folders(self, tmp_path: Path) -> None:
        outcome = call(tmp_path, "write_file", path="a/b/c.txt", content="x\ny\n")
        assert outcome["content"] == "created a/b/c.txt (2 lines, 4 bytes)"
        assert (tmp_path / "a/b/c.txt").read_text() == "x\ny\n"

    def test_replacing_keeps_the_mode_and_leaves_nothing(self, tmp_path: Path) -> None:
        script = tmp_path / "run.sh"
        script.write_text("old")
        script.chmod(0o750)
        before = script.stat().st_ino
        assert call(tmp_path, "write_file", path="run.sh", content="new")["content"].startswith("replaced")
        assert stat.S_IMODE(script.stat().st_mode) == 0o750
        assert script.stat().st_ino != before, "it has to be put in place whole"
        assert [entry.name for entry in tmp_path.iterdir()] == ["run.sh"]

    def test_a_hard_link_elsewhere_keeps_its_text(self, tmp_path: Path) -> None:
        root = tmp_path / "root"
        root.mkdir()
        (tmp_path / "other").write_text("theirs")
        os.link(tmp_path / "other", root / "mine")
        assert call(root, "write_file", path="mine", content="changed")["ok"]
        assert (tmp_path / "other").read_text() == "theirs"

    def test_what_is_no_file_stays(self, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "pipe")
        (tmp_path / "folder").mkdir()
        for path in ("pipe", "folder", "."):
            assert not call(tmp_path, "write_file", path=path, content="x")["ok"]
        assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)

    @pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
    def test_a_full_disk_changes_nothing(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "a").write_text("old")
        real = os.write

        def full(fd: int, data: bytes) -> int:
            with open("/dev/full", "wb", buffering=0) as file:
                return file.write(data) if len(data) > 5 else real(fd, data)

        monkeypatch.setattr(os, "write", full)
        outcome = call(tmp_path, "write_file", path="a", content="longer than five")
        assert outcome["code"] == "tool.disk_full"
        assert [entry.name for entry in tmp_path.iterdir()] == ["a"]
        assert (tmp_path / "a").read_text() == "old"


class TestEdit:
    def test_one_occurrence(self, tmp_path: Path) -> None:
        (tmp_path / "a").write_text("one\ntwo\nthree\n")
        outcome = call(tmp_path, "edit_file", path="a", old_string="two", new_string="2")
        assert "     2\t2" in outcome["content"]
        assert (tmp_path / "a").read_text() == "one\n2\nthree\n"

    def test_several_need_to_be_told(self, tmp_path: Path) -> None:
        (tmp_path / "a").write_text("x\ny\nx\n")
        outcome = call(tmp_path, "edit_file", path="a", old_string="x", new_string="z")
        assert outcome["code"] == "tool.ambiguous"
        assert "lines 1, 3" in outcome["content"]
        assert (tmp_path / "a").read_text() == "x\ny\nx\n"
        assert call(tmp_path, "edit_file", path="a", old_string="x", new_string="z", replace_all=True)["ok"]
        assert (tmp_path / "a").read_text() == "z\ny\nz\n"

    def test_no_match_points_at_white_space(self, tmp_path: Path) -> None:
        (tmp_path / "a").write_text("def f():\n\treturn 1\n")
        outcome = call(tmp_path, "edit_file", path="a", old_string="def f():\n    return 1", new_string="pass")
        assert outcome["code"] == "tool.no_match"
        assert "line 1" in outcome["content"]

    def test_other_line_ends_are_kept(self, tmp_path: Path) -> None:
        (tmp_path / "a").write_bytes(b"one\r\ntwo\r\nthree\r\n")
        assert call(tmp_path, "edit_file", path="a", old_string="one\ntwo", new_string="1\n2")["ok"]
        assert (tmp_path / "a").read_bytes() == b"1\r\n2\r\nthree\r\n"

    def test_bytes_that_are_no_text_stay(self, tmp_path: Path) -> None:
        (tmp_path / "a").write_bytes(b"caf\xe9 one\n")
        assert call(tmp_path, "edit_file", path="a", old_string="one", new_string="two")["ok"]
        assert (tmp_path / "a").read_bytes() == b"caf\xe9 two\n"

    @pytest.mark.parametrize(("old", "new"), [("x", "x"), ("", "y")])
    def test_edits_that_say_nothing(self, tmp_path: Path, old: str, new: str) -> None:
        (tmp_path / "a").write_text("x")
        assert call(tmp_path, "edit_file", path="a", old_string=old, new_string=new)["code"] == "tool.invalid"


class TestListAndSearch:
    @pytest.fixture
    def tree(self, tmp_path: Path) -> Path:
        for path in ("src/main.py", "src/deep/mod.py", "README.md", ".git/config", "secrets/id_rsa"):
            (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / path).write_text(f"TODO in {path}\nnothing\n")
        (tmp_path / "link").symlink_to("/etc")
        return tmp_path

    def test_one_folder(self, tree: Path) -> None:
        content = call(tree, "list_files", path="./")["content"]
        assert content.splitlines() == ["README.md", "link@", "secrets/", "src/"]

    def test_a_pattern(self, tree: Path) -> None:
        content = call(tree, "list_files", path="src/", pattern="**/*.py")["content"]
        assert content.splitlines() == ["src/deep/mod.py", "src/main.py"]

    def test_protected_files_are_left_out(self, tree: Path) -> None:
        exclude = ["**/id_rsa"]
        assert "id_rsa" not in call(tree, "list_files", path="./", pattern="**", exclude=exclude)["content"]
        assert "id_rsa" not in call(tree, "search_text", path="./", pattern="TODO", exclude=exclude)["content"]

    def test_the_limit_says_how_many_more(self, tree: Path) -> None:
        content = call(tree, "list_files", path="./", pattern="**", limit=2)["content"]
        assert "more: narrow" in content

    def test_names_that_are_no_text(self, tmp_path: Path) -> None:
        (tmp_path / os.fsdecode(b"caf\xe9\nx")).write_text("x")
        content = call(tmp_path, "list_files", path="./")["content"]
        assert content == "caf�␊x"

    def test_matches(self, tree: Path) -> None:
        content = call(tree, "search_text", path="./", pattern="todo", ignore_case=True, glob="*.py")["content"]
        assert content.splitlines() == [
            "src/deep/mod.py:1: TODO in src/deep/mod.py",
            "src/main.py:1: TODO in src/main.py",
        ]

    def test_one_file(self, tree: Path) -> None:
        content = call(tree, "search_text", path="README.md", pattern="noth.ng")["content"]
        assert content == "README.md:2: nothing"

    def test_links_are_not_followed(self, tree: Path) -> None:
        assert "link/" not in call(tree, "search_text", path="./", pattern="root")["content"]

    def test_binary_and_huge_files_are_left_out(self, tmp_path: Path) -> None:
        (tmp_path / "b").write_bytes(b"TODO\0")
        with (tmp_path / "huge").open("wb") as file:
            file.truncate(33 << 20)
        content = call(tmp_path, "search_text", path="./", pattern="TODO")["content"]
        assert "(no match)" in content
        assert "huge" in content

    def test_a_bad_pattern(self, tmp_path: Path) -> None:
        assert call(tmp_path, "search_text", path="./", pattern="(")["code"] == "tool.invalid"

    def test_a_pattern_that_backtracks_for_ever(self, tmp_path: Path) -> None:
        (tmp_path / "a").write_text("a" * 60 + "!\n")
        outcome = call(tmp_path, "search_text", path="./", pattern="(a+)+$", timeout_s=0.3)
        assert outcome["code"] == "tool.timeout"

    def test_a_deep_tree(self, tmp_path: Path) -> None:
        folder = os.open(tmp_path, os.O_RDONLY)
        for _ in range(1200):
            os.mkdir("d", dir_fd=folder)
            inner = os.open("d", os.O_RDONLY, dir_fd=folder)
            os.close(folder)
            folder = inner
        os.close(folder)
        try:
            assert call(tmp_path, "list_files", path="./", pattern="**")["ok"]
        finally:
            # Deeper than pytest's own cleaning goes.
            subprocess.run(["rm", "-rf", str(tmp_path / "d")], check=True)


def test_unknown_tool_and_missing_root(tmp_path: Path) -> None:
    assert call(tmp_path, "format_disk")["code"] == "tool.invalid"
    assert call(tmp_path / "gone", "list_files", path="./")["code"] == "tool.workspace"


def test_the_result_has_its_digest(tmp_path: Path) -> None:
    import hashlib

    for number in range(300):
        (tmp_path / f"{number:03}").write_text("x")
    outcome = call(tmp_path, "list_files", path="./", cap=500)
    assert len(outcome["content"].encode()) <= 500
    small = call(tmp_path, "read_file", path="000")
    assert small["digest"] == hashlib.sha256(small["content"].encode()).hexdigest()
    assert small["result_bytes"] == len(small["content"].encode())
