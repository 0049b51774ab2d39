"""From tool calls to operations."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toka_runtime.broker.definitions import TOOLS
from toka_runtime.broker.operations import operations_of, prepare, tool_schemas
from toka_runtime.broker.validation import InvalidArguments
from toka_runtime.protocol.capability import OperationKind, Rights


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    (root / "docs/deep").mkdir(parents=True)
    (root / "docs/a.md").write_text("a")
    (root / "in").symlink_to("docs")
    (root / "out").symlink_to(tmp_path)
    (root / "up").symlink_to("/etc/passwd")
    return root


def told(root: Path, tool: str, **arguments: Any) -> list[str]:
    return [f"{o.kind} {o.target}" for o in operations_of(tool, arguments, str(root))]


class TestPaths:
    @pytest.mark.parametrize(
        ("path", "target"),
        [
            ("a", "a"),
            ("./a//b/", None),
            ("docs/../a", "a"),
            ("in/a.md", "docs/a.md"),
            ("in/../x", "x"),
            ("new/folder/x", "new/folder/x"),
            ("up", "/etc/passwd"),
            ("/etc/passwd", "/etc/passwd"),
            ("../x", "{parent}/x"),
            ("out/x", "{parent}/x"),
            ("out/root/x", "x"),
            ("docs/../../x", "{parent}/x"),
            ("{parent}/root/docs/a.md", "docs/a.md"),
            ("~/x", "~/x"),
            ("..\\x", "..\\x"),
        ],
    )
    def test_links_and_dots(self, root: Path, path: str, target: str | None) -> None:
        path = path.format(parent=root.parent)
        if target is None:
            with pytest.raises(InvalidArguments):
                told(root, "write_file", path=path, content="")
            return
        target = target.format(parent=root.parent)
        assert told(root, "write_file", path=path, content="") == [f"fs.write {target}"]
        assert prepare("write_file", {"path": path, "content": ""}, str(root)).arguments["path"] == target

    def test_folders_are_trees(self, root: Path) -> None:
        assert told(root, "list_files") == ["fs.list ./"]
        assert told(root, "list_files", path="docs") == ["fs.list docs/"]
        assert told(root, "search_text", pattern="x", path="in") == ["fs.read docs/"]
        assert told(root, "search_text", pattern="x", path="docs/a.md") == ["fs.read docs/a.md"]
        assert told(root, "list_files", path="/etc") == ["fs.list /etc/"]

    def test_editing_shows_and_changes(self, root: Path) -> None:
        found = told(root, "edit_file", path="a", old_string="x", new_string="y")
        assert found == ["fs.read a", "fs.write a"]

    @given(st.text(st.sampled_from("./abdocsinoutup~"), min_size=1, max_size=20))
    def test_every_target_is_where_the_kernel_would_go(self, path: str) -> None:
        here = Path(__file__).resolve().parent
        try:
            (operation,) = operations_of("read_file", {"path": path}, str(here))
        except InvalidArguments:
            return
        real = (here / path).resolve()
        assert (here / operation.target).resolve() == real
        assert operation.target.startswith("/") == (not real.is_relative_to(here))


class TestCommands:
    def test_each_command_is_one(self, root: Path) -> None:
        found = told(root, "run_command", command="git status && cargo test | head -3")
        assert found == ["process.execute git status", "process.execute cargo test", "process.execute head -3"]
        assert [o.argv for o in operations_of("run_command", {"command": "git 'a b'"}, str(root))] == [("git", "a b")]

    def test_redirections_are_reads_and_writes(self, root: Path) -> None:
        found = told(root, "run_command", command="a > in/x 2>> /tmp/log < docs/a.md 2>&1 >/dev/null")
        assert found == ["fs.write docs/x", "fs.write /tmp/log", "fs.read docs/a.md", "process.execute a"]

    def test_after_cd_both_folders_count(self, root: Path) -> None:
        found = told(root, "run_command", command="cd docs && touch x > y")
        assert found == [
            "fs.list docs",
            "fs.write y",
            "fs.write docs/y",
            "process.execute touch x",
            "fs.write x",
            "fs.write docs/x",
        ]

    def test_cd_out_is_told(self, root: Path) -> None:
        assert f"fs.list {root.parent}" in told(root, "run_command", command="cd .. && cat secret")
        assert f"fs.list {root.parent}" in told(root, "run_command", command="cd out")

    def test_a_link_out_is_told(self, root: Path) -> None:
        found = told(
            root, "run_command", command="cat up docs/a.md in/a.md /etc/hosts 'no such' && cd docs && wc ../up x"
        )
        assert found == [
            "process.execute cat up docs/a.md in/a.md /etc/hosts 'no such'",
            "fs.read /etc/passwd",
            "fs.list docs",
            "process.execute wc ../up x",
        ]

    def test_cd_is_physical(self, root: Path) -> None:
        prepared = prepare("run_command", {"command": "cd in && cd .. && echo x > y"}, str(root))
        assert prepared.arguments["command"] == "cd -P -- in && cd -P -- .. && echo x > y"

    @pytest.mark.parametrize(
        ("command", "paths"),
        [
            ("mkdir -p new/deep", ["fs.write new/deep"]),
            ("rm docs/a.md", ["fs.write docs/a.md"]),
            ("rm -rf docs", ["fs.write docs/"]),
            ("rm -rf .", ["fs.write ./"]),
            ("rm -r -- -x", ["fs.write -x"]),
            ("mv docs/a.md b.md", ["fs.write docs/a.md", "fs.write b.md"]),
            ("mv docs new", ["fs.write docs/", "fs.write new/"]),
            ("cp docs/a.md docs/deep", ["fs.read docs/a.md", "fs.write docs/deep", "fs.write docs/deep/a.md"]),
            ("cp -r docs in", ["fs.read docs/", "fs.write docs", "fs.write docs/docs/"]),
            ("cp up x", ["fs.read /etc/passwd", "fs.write x"]),
            ("cp docs/a.md up", ["fs.read docs/a.md", "fs.write /etc/passwd"]),
            ("mv x .git", ["fs.write x", "fs.write .git"]),
            ("chmod +x docs/a.md", ["fs.write docs/a.md"]),
            ("chmod -R 755 docs", ["fs.write docs/"]),
        ],
    )
    def test_programs_whose_arguments_are_paths(self, root: Path, command: str, paths: list[str]) -> None:
        found = told(root, "run_command", command=command)
        assert found[0].startswith("process.execute ")
        assert found[1:] == paths

    def test_a_link_at_the_goal_is_followed(self, root: Path) -> None:
        (root / "docs/deep/a.md").symlink_to("/etc/passwd")
        assert "fs.write /etc/passwd" in told(root, "run_command", command="cp docs/a.md docs/deep")

    @pytest.mark.parametrize(
        "command",
        [
            "rm *",
            "rm -rf docs --no-preserve-root",
            "cp -t /etc a",
            "cp --target-directory=/etc a",
            "mv a",
            "rm",
            "chmod u+s a",
            "touch -d now a",
            "touch -r /etc/passwd a",
            "mkdir -m 777 a",
            "cp '' a",
            "echo $(id)",
            "sh -c 'x' &",
        ],
    )
    def test_what_is_not_read_is_one_operation(self, root: Path, command: str) -> None:
        prepared = prepare("run_command", {"command": command}, str(root))
        (operation,) = prepared.operations
        assert (operation.kind, operation.argv, operation.target) == (OperationKind.EXECUTE, (), command)
        assert prepared.unreadable
        assert prepared.arguments["command"] == command


class TestUrls:
    @pytest.mark.parametrize(
        ("url", "target"),
        [
            ("https://Example.COM/x?y", "example.com:443"),
            ("http://example.com", "example.com:80"),
            ("https://example.com.:8443/", "example.com:8443"),
            ("https://bücher.example/", "xn--bcher-kva.example:443"),
            ("http://[::1]:80/", "[::1]:80"),
            ("http://0x7f.1/", "0x7f.1:80"),
        ],
    )
    def test_host_and_port(self, root: Path, url: str, target: str) -> None:
        assert told(root, "fetch_url", url=url) == [f"network.connect {target}"]

    @pytest.mark.parametrize(
        "url",
        [
            "ftp://x/",
            "file:///etc/passwd",
            "example.com",
            "https://",
            "https://user:pass@example.com/",
            "https://allowed.example\\@evil.example/",
            "https://x:99999/",
            "https://x:abc/",
            "https://[::1/",
            "https://exa\nmple.com/",
            "javascript:alert(1)",
        ],
    )
    def test_refused(self, root: Path, url: str) -> None:
        with pytest.raises(InvalidArguments):
            told(root, "fetch_url", url=url)

    def test_what_is_fetched_is_what_was_decided(self, root: Path) -> None:
        url = prepare("fetch_url", {"url": "https://Bücher.example/a b#frag"}, str(root)).arguments["url"]
        assert url == "https://xn--bcher-kva.example:443/a b"


class TestValidation:
    @pytest.mark.parametrize(
        ("tool", "arguments", "words"),
        [
            ("read_file", {}, "'path' is missing"),
            ("read_file", {"path": "a", "file_path": "b"}, "no argument 'file_path'; did you mean 'path'?"),
            ("read_file", {"path": 3}, "path has to be text, not a number"),
            ("read_file", {"path": ""}, "path is empty"),
            ("read_file", {"path": "a\0b"}, "NUL"),
            ("read_file", {"path": "a\ud800b"}, "surrogate"),
            ("read_file", {"path": "a" * 5000}, "at most 4,096"),
            ("read_file", {"path": "a", "limit": 0}, "between 1 and"),
            ("read_file", {"path": "a", "limit": "3"}, "a whole number, not text"),
            ("read_file", {"path": "a", "limit": 1.5}, "a whole number"),
            ("read_file", {"path": "a", "limit": float("inf")}, "a whole number"),
            ("read_file", {"path": "a", "limit": True}, "a whole number, not true or false"),
            ("edit_file", {"path": "a", "old_string": "x", "new_string": "y", "replace_all": "yes"}, "true or false"),
            ("finish", {"status": "maybe", "summary": "x"}, "one of done, blocked, failed"),
            ("finish", {"status": "done", "summary": "x", "evidence": "all"}, "evidence has to be a list"),
            ("finish", {"status": "done", "summary": "x", "evidence": [1]}, "evidence[0] has to be text"),
            ("finish", {"status": "done", "summary": "x", "evidence": ["x"] * 101}, "at most 100"),
            ("format_disk", {}, "no tool 'format_disk'"),
            ("read_file", [], "an object, not a list"),
            ("read_file", None, "an object, not null"),
        ],
    )
    def test_what_is_wrong_is_said(self, root: Path, tool: str, arguments: Any, words: str) -> None:
        with pytest.raises(InvalidArguments) as error:
            prepare(tool, arguments, str(root))
        assert words in str(error.value)

    def test_defaults_and_whole_floats(self, root: Path) -> None:
        found = prepare("read_file", {"path": "a", "limit": 3.0}, str(root)).arguments
        assert found == {"path": "a", "offset": 1, "limit": 3}
        assert type(found["limit"]) is int

    @given(
        st.sampled_from(sorted(TOOLS)),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
            lambda inner: (
                st.lists(inner, max_size=3)
                | st.dictionaries(
                    st.sampled_from(["path", "content", "command", "url", "pattern", "x"]), inner, max_size=4
                )
            ),
            max_leaves=8,
        ),
    )
    def test_any_value_is_answered(self, tool: str, arguments: Any) -> None:
        with contextlib.suppress(InvalidArguments):
            assert prepare(tool, arguments, "/nonexistent").tool == tool


def test_schemas_are_valid_and_as_offered() -> None:
    offered = tool_schemas(Rights(tools=("read_file", "finish", "launch_rockets")))
    assert [tool["name"] for tool in offered] == ["read_file", "finish"]
    for tool in TOOLS.values():
        schema = tool["input_schema"]
        assert set(tool) == {"name", "description", "input_schema"}
        assert schema["type"] == "object"
        assert set(schema["required"]) <= set(schema["properties"])
        assert all(rule["description"] for rule in schema["properties"].values())
