"""Looking for processes that should be gone."""

from __future__ import annotations

import os
from pathlib import Path


def alive(pids: set[int]) -> set[int]:
    """Those that still exist and are no zombies."""
    found: set[int] = set()
    for pid in pids:
        try:
            stat = Path(f"/proc/{pid}/stat").read_text()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if stat.rpartition(")")[2].split()[0] not in "ZX":
            found.add(pid)
    return found


def processes_naming(text: str) -> list[int]:
    """Pids whose command line or environment holds `text` (a path that only this test uses)."""
    found: list[int] = []
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit() or int(folder.name) == os.getpid():
            continue
        for name in ("cmdline", "environ", "cwd"):
            try:
                content = os.readlink(folder / name) if name == "cwd" else (folder / name).read_bytes().decode("latin1")
            except OSError:
                continue
            if text in content:
                found.append(int(folder.name))
                break
    return found
