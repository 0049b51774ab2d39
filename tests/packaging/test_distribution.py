"""What a person gets from `pip install`: the wheel, installed into a clean environment, works far from the checkout."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow


def checked(*command: str | Path, cwd: Path, **environment: str) -> str:
    ended = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=120,
        env={"PATH": os.environ["PATH"], "HOME": str(cwd), "LANG": "C.UTF-8", **environment},
    )
    assert ended.returncode == 0, f"{command}: {ended.stdout}{ended.stderr}"
    return ended.stdout


@pytest.fixture(scope="session")
def distributions(tmp_path_factory: pytest.TempPathFactory, repo_root: Path) -> tuple[Path, Path, Path]:
    """(wheel, sdist, source): the sdist from a copy of the checkout, the wheel from that sdist."""
    out = tmp_path_factory.mktemp("dist")
    source = tmp_path_factory.mktemp("source") / "main"
    ignored = shutil.ignore_patterns(".venv", ".git", "__pycache__", "workspace", ".*_cache", ".hypothesis")
    shutil.copytree(repo_root, source, ignore=ignored)
    checked(sys.executable, "-m", "build", "--no-isolation", "--outdir", out, source, cwd=source)
    (wheel,) = out.glob("*.whl")
    (sdist,) = out.glob("*.tar.gz")
    return wheel, sdist, source


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory, distributions: tuple[Path, Path, Path]) -> Path:
    """The `bin` folder of a new environment that holds our wheel. This environment lends it the dependencies, so that
    the test needs no network; our own editable install is not visible there."""
    top = tmp_path_factory.mktemp("clean") / "venv"
    venv.create(top, with_pip=False, symlinks=True)
    binaries = top / "bin"
    checked(
        sys.executable, "-m", "pip", "--python", binaries / "python", "install", "--no-deps", "--no-index",
        "--disable-pip-version-check", "--quiet", distributions[0],
        cwd=top,
    )  # fmt: skip
    site = Path(checked(binaries / "python", "-c", "import site; print(site.getsitepackages()[0])", cwd=top).strip())
    # A plain path line: .pth files inside the lending folder (our editable install's) are not processed.
    (site / "lent.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    return binaries


def test_the_wheel_holds_both_packages_the_configs_and_the_licence(distributions: tuple[Path, Path, Path]) -> None:
    source = distributions[2]
    with zipfile.ZipFile(distributions[0]) as wheel:
        names = set(wheel.namelist())
    tops = {name.partition("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"toka_runtime", "toka_console"}
    assert any(name.endswith("/licenses/LICENSE") for name in names)
    for folder, package in (
        ("runtime/toka_runtime", "toka_runtime"),
        ("tui/toka_console", "toka_console"),
        ("configs", "toka_runtime/configs"),
    ):
        shipped = {
            f"{package}/{path.relative_to(source / folder)}"
            for path in (source / folder).rglob("*")
            if path.is_file() and "__pycache__" not in path.parts
        }
        assert shipped
        assert shipped - names == set(), "files of the checkout that the wheel lacks"
    assert {name for name in names if name.endswith(".pyc")} == set()


def test_the_sdist_holds_what_is_needed_to_build_and_test(distributions: tuple[Path, Path, Path]) -> None:
    with tarfile.open(distributions[1]) as sdist:
        names = {name.partition("/")[2] for name in sdist.getnames()}
    assert {"pyproject.toml", "LICENSE", "README.md", "Makefile", "constraints.txt", ".ci/setup"} <= names
    assert "tests/conftest.py" in names
    assert not any(name.startswith((".venv", "workspace", "state")) for name in names)


def test_both_commands_answer(installed: Path, tmp_path: Path) -> None:
    version = checked(installed / "toka-runtime", "--version", cwd=tmp_path)
    assert version.strip().endswith("0.1.0")
    assert "--workspace" in checked(installed / "toka-console", "--help", cwd=tmp_path)


def test_what_runs_is_the_wheel_and_not_the_checkout(installed: Path, tmp_path: Path) -> None:
    code = "import toka_runtime, toka_console; print(toka_runtime.__file__, toka_console.__file__)"
    where = checked(installed / "python", "-c", code, cwd=tmp_path)
    assert all(Path(file).is_relative_to(installed.parent) for file in where.split())


def test_the_shipped_fleet_is_found_and_is_valid(installed: Path, tmp_path: Path, repo_root: Path) -> None:
    code = "from toka_runtime import paths; print(paths.shipped_configs())"
    configs = Path(checked(installed / "python", "-c", code, cwd=tmp_path).strip())
    assert configs.is_relative_to(installed.parent)
    answer = json.loads(checked(installed / "toka-runtime", "validate", "--json", configs / "agents", cwd=tmp_path))
    assert [spec["errors"] for spec in answer["specs"] if not spec["ok"]] == []
    assert len(answer["specs"]) == len(list((repo_root / "configs/agents").glob("*.yaml"))) > 0


def test_the_worker_runs_without_site_packages(installed: Path, tmp_path: Path) -> None:
    """The wheel's worker, too, needs nothing beside the standard library."""
    code = "import sys; sys.path.insert(0, sys.argv[1]); import toka_runtime.worker.loop"
    site = checked(installed / "python", "-c", "import site; print(site.getsitepackages()[0])", cwd=tmp_path).strip()
    checked(installed / "python", "-I", "-S", "-c", code, site, cwd=tmp_path)
