"""The front door: verbs, usage, exit codes, what errors look like, what is imported."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import toka_runtime
from toka_runtime.cli import main as front
from toka_runtime.cli.exit_codes import MEANING, ExitCode, exit_code_of
from toka_runtime.cli.main import Verb, main
from toka_runtime.errors import CredentialMissing, SpecError, StoreLocked, TokaError, UsageError, WorkspaceError

GOOD = "metadata: {name: good}\ntasks: {default: [{description: work}]}\n"


def run(*arguments: str | Path, **options: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "toka_runtime.cli.main", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, **options)  # type: ignore[call-overload]


def test_version_and_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"toka-runtime {toka_runtime.__version__}\n"
    assert main(["--help"]) == 0
    shown = capsys.readouterr().out
    for verb in front.VERBS:
        assert verb in shown
    for code, meaning in MEANING.items():
        assert f"{code:>5}  {meaning}" in shown
    assert set(MEANING) == {*ExitCode, "64+n"}


def test_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert "usage: toka-runtime" in capsys.readouterr().err
    assert main(["validate"]) == 2
    assert "PATH" in capsys.readouterr().err
    assert main(["validate", "--frobnicate", "x"]) == 2
    assert main(["vaidate", "x"]) == 2
    assert "did you mean validate?" in capsys.readouterr().err
    assert main(["plan", "--format", "svg", "x"]) == 2
    assert main(["plan", "--max-agents", "0", "x"]) == 2


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (UsageError("x"), 2),
        (WorkspaceError("x"), 3),
        (StoreLocked("x"), 3),
        (CredentialMissing("x"), 3),
        (SpecError("x"), 1),
        (TokaError("x"), 1),
    ],
)
def test_exit_codes_of_errors(error: TokaError, code: int) -> None:
    assert exit_code_of(error) == code


def failing(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    class Module:
        @staticmethod
        def add_arguments(parser: object) -> None: ...

        @staticmethod
        def execute(args: object) -> int:
            raise error

    monkeypatch.setitem(sys.modules, "failing_verb", Module)  # type: ignore[arg-type]
    monkeypatch.setitem(front.VERBS, "fail", Verb("failing_verb", "fails"))


def test_an_expected_error_is_a_message_and_a_hint(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    failing(monkeypatch, WorkspaceError("no folder \x1b[31m/x", hint="make it"))
    assert main(["fail"]) == 3
    assert capsys.readouterr().err == "error [workspace.error]: no folder \\x1b[31m/x\n  make it\n"


def test_an_error_of_the_system_names_the_file(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    failing(monkeypatch, PermissionError(13, "Permission denied", "/locked"))
    assert main(["fail"]) == 3
    assert capsys.readouterr().err == "error [os]: Permission denied: /locked\n"


def test_an_interrupt_is_130(monkeypatch: pytest.MonkeyPatch) -> None:
    failing(monkeypatch, KeyboardInterrupt())
    assert main(["fail"]) == 130


def test_a_defect_of_ours_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    failing(monkeypatch, ZeroDivisionError())
    with pytest.raises(ZeroDivisionError):
        main(["fail"])


def test_a_reader_that_goes_away(tmp_path: Path) -> None:
    for number in range(300):
        (tmp_path / f"{number}.yaml").write_text(GOOD.replace("good", f"agent-{number}"))
    command = f"{sys.executable} -m toka_runtime.cli.main plan {tmp_path} | head -n 1; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=60)
    assert done.stdout.splitlines()[-1] == "141"
    assert done.stderr == ""


def test_a_terminal_that_is_not_utf8_gets_escapes(tmp_path: Path) -> None:
    bad = tmp_path / "bad.yaml"
    bad.write_text("metadata: {name: é}\n")
    environment = {**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    done = run("validate", bad, env=environment)
    assert done.returncode == 1
    assert "spec.bad_name" in done.stdout
    assert "Traceback" not in done.stderr
    listed = json.loads(run("validate", "--json", bad, env=environment).stdout)
    assert "é" in listed["specs"][0]["errors"][0]["message"]


@pytest.mark.parametrize("arguments", [["--version"], ["--help"], ["walk"]])
def test_what_needs_no_verb_imports_none(arguments: list[str]) -> None:
    code = (
        "import sys; from toka_runtime.cli.main import main; main(sys.argv[1:]); "
        "heavy = {'pydantic', 'yaml', 'asyncio', 'textual', 'anthropic', 'rich'} & set(sys.modules); "
        "sys.exit(','.join(sorted(heavy)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_validate_imports_no_loop_and_no_engine(tmp_path: Path) -> None:
    (tmp_path / "good.yaml").write_text(GOOD)
    code = (
        "import sys; from toka_runtime.cli.main import main; code = main(sys.argv[1:]); "
        "heavy = {'asyncio', 'textual', 'anthropic', 'rich', 'toka_runtime.supervisor'} & set(sys.modules); "
        "sys.exit(','.join(sorted(heavy)) or code)"
    )
    command = [sys.executable, "-c", code, "validate", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
