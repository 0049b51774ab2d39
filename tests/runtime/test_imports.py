"""The law of imports: who may import whom (statically), and what is really loaded (in a process of its own).

The static half is `lint-imports`; each of its contracts is also broken on purpose, in a copy: each can fail.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import grimp
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

SCREEN_AND_SDK = {"textual", "anthropic", "asyncssh", "httpx", "httpx2"}

RUN_AND_LIST = """
import atexit, json, sys
target, entry = sys.argv[1:3]
sys.argv = [entry.split(":")[0], *sys.argv[3:]]
@atexit.register
def _():
    with open(target, "w") as out:
        json.dump(sorted(sys.modules), out)
module, _, function = entry.partition(":")
import importlib
loaded = importlib.import_module(module)
if function:
    sys.exit(getattr(loaded, function)())
"""


def modules_loaded_by(tmp_path: Path, entry: str, *arguments: str) -> tuple[int, set[str]]:
    """Run `module:function` (or import `module`) in a fresh interpreter: exit code, all modules it had at the end."""
    listing = tmp_path / "modules.json"
    ended = subprocess.run(
        [sys.executable, "-c", RUN_AND_LIST, str(listing), entry, *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=tmp_path,
        env={**os.environ, "HOME": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"},
    )
    assert listing.exists(), f"{entry} was cut off: {ended.stderr}"
    modules = set(json.loads(listing.read_text()))
    assert any(name.startswith(entry.partition(":")[0]) for name in modules), ended.stderr
    return ended.returncode, modules


def roots(modules: set[str]) -> set[str]:
    return {name.partition(".")[0] for name in modules}


@pytest.mark.parametrize("arguments", [["--version"], ["--help"], ["validate", "--help"]], ids=" ".join)
def test_the_headless_front_end_loads_no_screen_and_no_sdk(tmp_path: Path, arguments: list[str]) -> None:
    code, modules = modules_loaded_by(tmp_path, "toka_runtime.cli.main:main", *arguments)
    assert code == 0
    assert not roots(modules) & SCREEN_AND_SDK
    assert "toka_runtime.supervisor.supervisor" not in modules, "only `run` and `serve` need the supervisor"


def test_validate_loads_no_screen_and_no_sdk(tmp_path: Path, repo_root: Path) -> None:
    code, modules = modules_loaded_by(
        tmp_path, "toka_runtime.cli.main:main", "validate", "--json", str(repo_root / "configs/agents")
    )
    assert code == 0
    assert "yaml" in roots(modules), "it did load specs"
    assert not roots(modules) & SCREEN_AND_SDK


def test_the_console_loads_no_sdk_and_no_engine(tmp_path: Path) -> None:
    _, modules = modules_loaded_by(tmp_path, "toka_console.app")
    assert "textual" in modules
    assert not roots(modules) & {"anthropic", "asyncssh", "httpx", "httpx2"}
    engine = ("supervisor", "broker", "llm", "sandbox", "limits", "store", "specs", "server", "cli")
    loaded = {name for name in modules if name.startswith(tuple(f"toka_runtime.{package}." for package in engine))}
    assert not loaded, "the engine is imported when it is started, not when the first frame is drawn"


IMPORT_ALL = """
import importlib, json, pkgutil, sys
sys.path.insert(0, sys.argv[1])
for name in sys.argv[2:]:
    module = importlib.import_module(name)
    for found in pkgutil.walk_packages(getattr(module, "__path__", []), name + "."):
        if not found.name.endswith("__main__"):
            importlib.import_module(found.name)
print(json.dumps(sorted(sys.modules)))
"""


@pytest.mark.parametrize(
    ("module", "allowed"),
    [
        ("toka_runtime.worker", ("toka_runtime.worker",)),
        ("toka_runtime.sandbox.zygote", ("toka_runtime.worker", "toka_runtime.sandbox")),
    ],
)
def test_what_runs_beside_the_model_loads_the_standard_library_only(
    repo_root: Path, module: str, allowed: tuple[str, ...]
) -> None:
    # -I -S: no site-packages at all, so that any other import fails at once.
    ended = subprocess.run(
        [sys.executable, "-I", "-S", "-c", IMPORT_ALL, str(repo_root / "runtime"), module],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ended.returncode == 0, ended.stderr
    foreign = {
        name
        for name in json.loads(ended.stdout)
        if name.partition(".")[0] not in sys.stdlib_module_names | {"__main__"}
        and not name.startswith(allowed)
        and name not in {"toka_runtime", "__editable__"}
    }
    assert not foreign


@pytest.fixture(scope="module")
def import_graph() -> grimp.ImportGraph:
    return grimp.build_graph("toka_runtime", "toka_console", include_external_packages=True, cache_dir=None)


@pytest.mark.parametrize("module", ["toka_runtime.worker", "toka_runtime.sandbox.zygote"])
def test_nor_is_anything_else_written_in_their_sources(import_graph: grimp.ImportGraph, module: str) -> None:
    """Imports inside functions count too; only the graph of the sources sees those."""
    reachable = import_graph.find_upstream_modules(module, as_package=True)
    foreign = {
        name
        for name in reachable
        if name.partition(".")[0] not in sys.stdlib_module_names
        and not name.startswith(("toka_runtime.worker", "toka_runtime.sandbox"))
        and name != "toka_runtime"
    }
    assert not foreign


PART_OF = {
    "pydantic_core": "pydantic",  # one release, two wheels
    "httpx2": "anthropic",  # its transport and its exceptions are part of the SDK's interface
}


def test_what_is_imported_is_declared(import_graph: grimp.ImportGraph, repo_root: Path) -> None:
    """A package that is there only because another brought it along may be gone after the next update."""
    project = tomllib.loads((repo_root / "pyproject.toml").read_text())["project"]
    declared = {canonicalize_name(Requirement(line).name) for line in project["dependencies"]}
    provided_by = importlib.metadata.packages_distributions()
    ours = {"toka_runtime", "toka_console"}
    undeclared = {
        f"{importer} imports {module}"
        for module in roots(import_graph.modules) - ours - sys.stdlib_module_names
        for importer in import_graph.find_modules_that_directly_import(module)
        if not {canonicalize_name(name) for name in provided_by.get(PART_OF.get(module, module), [module])} & declared
    }
    assert not undeclared


IN_A_FUNCTION = "def f():\n    import "


def lint_imports(top: Path, *, packages_in: Path) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([str(packages_in / "runtime"), str(packages_in / "tui")])
    return subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-cache", "--config", str(top / "pyproject.toml")],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=packages_in,
        env={**os.environ, "PYTHONPATH": path, "NO_COLOR": "1", "COLUMNS": "400"},
    )


def test_the_contracts_hold(repo_root: Path) -> None:
    ended = lint_imports(repo_root, packages_in=repo_root)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert " 0 broken" in ended.stdout


VIOLATIONS = [
    # file, line added to it, contract that must break, what its report must name
    (
        "runtime/toka_runtime/protocol/ids.py",
        "import toka_runtime.specs",
        "layers",
        "protocol.ids -> toka_runtime.specs",
    ),
    ("runtime/toka_runtime/errors.py", "import toka_runtime.paths", "layers", "errors -> toka_runtime.paths"),
    (
        "runtime/toka_runtime/broker/__init__.py",
        "import toka_runtime.supervisor",
        "layers",
        "broker -> toka_runtime.sup",
    ),
    ("runtime/toka_runtime/llm/__init__.py", "import toka_runtime.sandbox", "layers", "llm -> toka_runtime.sandbox"),
    ("runtime/toka_runtime/policy/__init__.py", "import toka_runtime.store", "layers", "policy -> toka_runtime.store"),
    ("runtime/toka_runtime/novelty.py", "", "layers", "toka_runtime.novelty"),
    (
        "tui/toka_console/app.py",
        "import toka_runtime.supervisor",
        "console knows only",
        "app -> toka_runtime.supervisor",
    ),
    (
        "tui/toka_console/screens/__init__.py",
        IN_A_FUNCTION + "toka_runtime.specs",
        "console knows only",
        "screens -> toka_ru",
    ),
    ("runtime/toka_runtime/cli/main.py", IN_A_FUNCTION + "textual", "a screen exists", "cli.main -> textual"),
    ("runtime/toka_runtime/server/__init__.py", "import toka_console", "a screen exists", "server -> toka_console"),
    ("runtime/toka_runtime/broker/__init__.py", "import anthropic", "model SDK", "broker -> anthropic"),
    ("runtime/toka_runtime/llm/budget.py", "import anthropic", "model SDK", "llm.budget -> anthropic"),
    ("tui/toka_console/app.py", IN_A_FUNCTION + "anthropic.types", "model SDK", "toka_console.app -> anthropic"),
    (
        "runtime/toka_runtime/worker/__init__.py",
        "import toka_runtime.errors",
        "fork server",
        "worker -> toka_runtime.errors",
    ),
    ("runtime/toka_runtime/worker/frames.py", IN_A_FUNCTION + "pydantic", "fork server", "worker.frames -> pydantic"),
    ("runtime/toka_runtime/sandbox/zygote.py", "import psutil", "fork server", "sandbox.zygote -> psutil"),
    ("runtime/toka_runtime/protocol/ids.py", "import asyncio", "protocol is types", "protocol.ids -> asyncio"),
    ("tui/toka_console/state.py", IN_A_FUNCTION + "textual", "state is a fold", "toka_console.state -> textual"),
]


@pytest.fixture(scope="module")
def report_on_violations(tmp_path_factory: pytest.TempPathFactory, repo_root: Path) -> str:
    """What `lint-imports` says of a copy that breaks every contract in every way above."""
    top = tmp_path_factory.mktemp("violations")
    for folder in ("runtime", "tui"):
        shutil.copytree(repo_root / folder, top / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for file, line, _, _ in VIOLATIONS:
        target = top / file
        target.write_text((target.read_text() if target.exists() else "") + f"\n{line}\n")
    ended = lint_imports(repo_root, packages_in=top)
    assert ended.returncode == 1, ended.stdout + ended.stderr
    return ended.stdout


@pytest.mark.parametrize(("file", "line", "contract", "named"), VIOLATIONS)
def test_each_contract_can_fail(report_on_violations: str, file: str, line: str, contract: str, named: str) -> None:
    summary, _, details = report_on_violations.partition("Broken contracts")
    broken = [row for row in summary.splitlines() if " BROKEN" in row]
    assert any(contract in row for row in broken), summary
    assert named in details, details


def test_no_package_is_called_runtime_or_tui(repo_root: Path) -> None:
    """With an `__init__.py` there, `import runtime.toka_runtime` works too, and every class exists twice."""
    assert not (repo_root / "runtime/__init__.py").exists()
    assert not (repo_root / "tui/__init__.py").exists()
