"""The same attacks once more as an ordinary user, when the suite itself runs as root: other primitives hold there."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from fakes.cell import place, system_python

HERE = Path(__file__).parents[2]
CORE = (
    "approvals",
    "bombs",
    "control",
    "files",
    "folder_walls",
    "processes",
    "secrets",
    "sockets",
    "system_calls",
    "toolchains",
)
"""Where the kernel decides. CI runs all of it as an ordinary user, too."""
WITH_BWRAP = ("files", "processes", "secrets", "sockets")
"""Where it matters who has made the namespaces and the mounts."""
EXEC = "exec"
"""What `toka-runtime exec` is as a whole: no attack of this folder, but the same kernel decides."""
CASES = [
    *((name, "") for name in (*CORE, EXEC)),
    *((name, "bwrap") for name in WITH_BWRAP),
    ("secrets", "set-uid bwrap"),
]
"""(attacks, who makes the namespaces: the runtime, or only bwrap)."""
IGNORED = shutil.ignore_patterns("__pycache__", "*.pyc")


def _python() -> str | None:
    """One that the other user may run and that has the same version, so that the installed packages fit it."""
    wanted = f"{sys.version_info.major}.{sys.version_info.minor}"
    probe = f"import sys, ssl, ctypes; sys.exit('%d.%d' % sys.version_info[:2] != '{wanted}')"
    for candidate in (sys.executable, system_python()):
        try:
            if subprocess.run([candidate, "-c", probe], user="nobody", cwd="/", env={}, check=False).returncode == 0:
                return candidate
        except OSError:
            continue
    return None


def _bwrap(maker: str, folder: Path) -> str:
    """The program; "" where the runtime makes the namespaces itself."""
    if not maker:
        return ""
    program = shutil.which("bwrap")
    if program is None:
        pytest.skip("no bwrap here")
    if maker == "bwrap":
        return program
    copy = folder / "bwrap"
    shutil.copy(program, copy)
    copy.chmod(0o4755)
    return str(copy)


@pytest.mark.skipif(os.getuid() != 0, reason="the suite itself runs as an ordinary user")
@pytest.mark.slow
@pytest.mark.parametrize(("name", "maker"), CASES)
async def test_as_nobody(name: str, maker: str) -> None:
    python = _python()
    if python is None:
        pytest.skip("no Python here that an ordinary user may run")
    user = pwd.getpwnam("nobody")
    async with place() as folder:
        folder.chmod(0o755)
        for part in ("runtime", "tests", "configs"):
            if (HERE / part).is_dir():
                shutil.copytree(HERE / part, folder / part, ignore=IGNORED, symlinks=True)
        shutil.copy(HERE / "pyproject.toml", folder)
        if (specs := HERE.parent / "shared/data/toka-specs").is_dir():
            shutil.copytree(specs, folder / "specs")
        for path in (folder, *folder.rglob("*")):
            os.chown(path, user.pw_uid, user.pw_gid, follow_symlinks=False)
        bwrap = _bwrap(maker, folder)
        packages = [str(folder / "runtime"), sysconfig.get_path("purelib")]
        done = subprocess.run(  # nothing else happens in this loop meanwhile
            [
                python,
                "-m",
                "pytest",
                "tests/e2e/test_exec.py" if name == EXEC else f"tests/security/test_{name}.py",
                "-q",
                "-x",
                "-p",
                "no:cacheprovider",
                "-p",
                "no:xdist",
            ],
            cwd=folder,
            env={
                "PATH": "/usr/bin:/bin",
                "PYTHONPATH": ":".join(packages),
                "HOME": str(folder),
                "LANG": "C.UTF-8",
                "TOKA_SPECS": str(folder / "specs"),
                "TOKA_TESTS_ONLY_BWRAP": bwrap,
            },
            user=user.pw_uid,
            group=user.pw_gid,
            extra_groups=[],
            check=False,
            capture_output=True,
            text=True,
            timeout=110,
        )
    assert done.returncode == 0, (done.stdout + done.stderr)[-6000:]
    assert " passed" in done.stdout
    assert "no user namespaces" not in done.stdout
