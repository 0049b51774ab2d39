"""Reading command lines: what is read is exactly what the shell does, and the rest is refused."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from toka_runtime.broker.command_line import Unreadable, parse


@pytest.mark.parametrize(
    ("command", "argvs"),
    [
        ("git status", [("git", "status")]),
        ("  git\tstatus  ", [("git", "status")]),
        ("a && b || c; d | e\nf", [("a",), ("b",), ("c",), ("d",), ("e",), ("f",)]),
        ("a &&\n\n b", [("a",), ("b",)]),
        ("a;", [("a",)]),
        ("'g'it \"st\"atus", [("git", "status")]),
        (r"echo a\ b \$HOME", [("echo", "a b", "$HOME")]),
        ('echo "a \\" b" "" \'\'', [("echo", 'a " b', "", "")]),
        ('echo "a\\b"', [("echo", "a\\b")]),
        ("echo a\\\nb", [("echo", "ab")]),
        ("echo 'a\nb'", [("echo", "a\nb")]),
        ("# say\ngit status # now\n", [("git", "status")]),
        ("echo a#b", [("echo", "a#b")]),
        ("ls *.md", [("ls", "./*.md")]),
        ("ls src/*.rs", [("ls", "src/*.rs")]),
        ("find . -name '*.rs'", [("find", ".", "-name", "*.rs")]),
        ("git show HEAD~1 HEAD@{1} HEAD^", [("git", "show", "HEAD~1", "HEAD@{1}", "HEAD^")]),
        ("grep 'x$' a", [("grep", "x$", "a")]),
        ("echo $ 5$", [("echo", "$", "5$")]),
        ("make A=b", [("make", "A=b")]),
        ("a 2>&1 | b", [("a",), ("b",)]),
        ("echo 日本", [("echo", "日本")]),
    ],
)
def test_read(command: str, argvs: list[tuple[str, ...]]) -> None:
    assert [simple.argv for simple in parse(command).commands] == argvs


@pytest.mark.parametrize(
    "command",
    [
        "",
        "  \n ",
        "# nothing",
        "echo $(id)",
        "echo `id`",
        'echo "$(id)"',
        'echo "`id`"',
        "echo $HOME",
        'echo "${HOME}"',
        "echo $((1+1))",
        "echo $'\\x41'",
        'echo $"x"',
        "echo $1",
        "(id)",
        "f() { id; }",
        "{ id; }",
        "id &",
        "id & id",
        "a |& b",
        "cat <<EOF\nx\nEOF",
        "cat <<< x",
        "cat <(id)",
        "tee >(id)",
        "echo {a,/etc/passwd}",
        "echo {1..3}",
        "cat ~/.ssh/id_rsa",
        "make A=~/x",
        "A=b make",
        "A=b",
        "a[0]=x",
        "*",
        "./*",
        "[ -f x ]",
        "[[ -f x ]]",
        "if true",
        "while true",
        "! true",
        "cat .*/x",
        "cat a/.*/x",
        "cat .[.]/x",
        "git log -*",
        "a >",
        "a > > b",
        "a > 2> b",
        "a > *",
        "a > $X",
        "a 3> b",
        "a >& b",
        "a 2>&3",
        "a >&-",
        "a <& 0",
        "a <> b",
        "&& a",
        "a &&",
        "a || ;",
        "a | | b",
        "; a",
        "a ;; b",
        "'a",
        '"a',
        "a\\",
        "a\x00b",
        "a\rb",
        "a\x1b[2J",
        "cd",
        "cd -",
        "cd a b",
        "cd *",
        "cd -P /",
        "a;" * 60,
        "echo " + "x " * 3000,
    ],
)
def test_refused(command: str) -> None:
    with pytest.raises(Unreadable):
        parse(command)


@pytest.mark.parametrize(
    ("command", "redirections"),
    [
        ("a > b", [">:b"]),
        ("a >b", [">:b"]),
        ("a >> b 2> c < d", [">>:b", "2>:c", "<:d"]),
        ("a >| b", [">:b"]),
        ("a 2>&1 >&2", ["2>&1:", ">&2:"]),
        ("a &> b", [">:b", "2>&1:"]),
        ("a &>> b", [">>:b", "2>&1:"]),
        ("> b", [">:b"]),
        ("a 'x y'2> b", [">:b"]),
        ("a x2> b", [">:b"]),
        ("a > 'b c'", [">:b c"]),
    ],
)
def test_redirections(command: str, redirections: list[str]) -> None:
    (simple,) = parse(command).commands
    found = [f"{r.operator}:{r.path.text if r.path else ''}" for r in simple.redirections]
    assert found == redirections


# One write for each start, ended by a mark: the parts of a pipeline write at the same time.
STUB = '#!/bin/sh\nprintf \'%s\\001\' "${0##*/}" "$@" \'\x02\' >> "$LOG"\n'


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shell")
    (folder / "bin").mkdir()
    (folder / "work/sub").mkdir(parents=True)
    for name in ("a", "b", "-c", "sub/a"):
        (folder / "work" / name).write_text("")
    for name in ("a", "b", "git"):
        (folder / "bin" / name).write_text(STUB)
        (folder / "bin" / name).chmod(0o755)
    return folder


def runs(folder: Path, command: str) -> list[tuple[str, ...]]:
    """The argv of every program that bash starts for this command."""
    log = folder / "log"
    log.write_bytes(b"")
    environment = {"PATH": str(folder / "bin"), "LOG": str(log)}
    subprocess.run(
        ["/bin/bash", "--noprofile", "--norc", "-c", command],
        cwd=folder / "work",
        env=environment,
        capture_output=True,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    found = log.read_bytes().decode("utf-8", "replace").split("\x02\x01")[:-1]
    # The parts of a pipeline start in no particular order.
    return sorted(tuple(one.split("\x01")[:-1]) for one in found)


# fmt: off
PIECES = st.sampled_from([
    "a", "b", "git", "x", "a", "b", " ", " ", " ", " ", "'", '"', "'x y'", '"x;y"', "\\", "\n", ";", "&&", "||", "|",
    "&", "$", "$(a)", "`a`", "#", "(", ")", "{", "}", ",", "*", "?", "[", "]", "~", "=", "-c", "!", "<", "2>&1",
    "> /dev/null", "./", "..", "é", "$x", "cd sub", "^", "@",
])
# fmt: on


@given(st.lists(PIECES, max_size=9).map(lambda pieces: "a " + "".join(pieces)))
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_is_read_is_what_bash_runs(shell: Path, command: str) -> None:
    """Any text: either it is refused, or bash starts nothing but what was read, from the text as asked for and from the
    text as it is written out again."""
    try:
        line = parse(command)
    except Unreadable:
        event("refused")
        return
    event("read")
    wild = any(word.wild for simple in line.commands for word in simple.words)
    read = {simple.argv for simple in line.commands}
    started = runs(shell, line.shell)
    if wild:
        assert {argv[:1] for argv in started} <= {argv[:1] for argv in read}
        return
    assert set(started) <= read
    assert started == runs(shell, command)


def test_a_file_named_like_an_option_stays_a_file(shell: Path) -> None:
    assert runs(shell, parse("git *").shell) == [("git", "./-c", "./a", "./b", "./sub")]
    assert runs(shell, "git *") == [("git", "-c", "a", "b", "sub")], "which is why it is written out"
