"""How a runtime was served last, kept beside its log, so that a console can have it served again after a crash or a
reboot (`toka-runtime-bridge --start`). Standard library only: the bridge imports this."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from toka_runtime import paths
from toka_runtime.client.endpoint import SOCKET_NAME, connected
from toka_runtime.errors import UsageError
from toka_runtime.whole_file import replace_file

FILE_NAME, LOG_NAME = "served.json", "serve.log"
READY_S, POLL_S = 30.0, 0.05
LOG_TAIL = 400


def remember(state_dir: Path, words: Sequence[str], provider: str) -> None:
    """Keep the command line (without the program), the folder it was given in, and which provider came of it: started
    again without its credential, a runtime fails instead of rehearsing. Mode 0600. Raises OSError."""
    kept = {"words": list(words), "cwd": str(Path.cwd()), "provider": provider}
    replace_file(state_dir / FILE_NAME, json.dumps(kept).encode())


def serve_again(state_dir: Path | None) -> Path:
    """Start the runtime of a state folder (None: the only one that was ever served), detached from this session; its
    socket, once it answers. Raises UsageError with what the runtime said when it does not come up."""
    folder = state_dir or _the_only_one()
    kept = _recall(folder)
    words = [str(word) for word in kept["words"]]
    if not any(word.startswith("--provider") for word in words):
        words += ["--provider", str(kept["provider"])]
    log = folder / LOG_NAME
    with os.fdopen(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600), "wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "toka_runtime.cli.main", *words],
            cwd=str(kept["cwd"]),
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            start_new_session=True,
        )
    path = _socket_of(words, folder, Path(str(kept["cwd"])))
    deadline = time.monotonic() + READY_S
    while time.monotonic() < deadline:
        try:
            connected(path).close()
            return path
        except OSError:
            time.sleep(POLL_S)
        if process.poll() is not None:
            break
    said = log.read_text(errors="replace").strip()[-LOG_TAIL:]
    process.terminate()
    raise UsageError(f"the runtime does not come up: {said or 'it says nothing'}", hint=f"see {log} on that host")


def _the_only_one() -> Path:
    found = sorted(file.parent for file in (paths.state_dir() / "fleets").glob(f"*/{FILE_NAME}"))
    if len(found) == 1:
        return found[0]
    if not found:
        raise UsageError("no runtime was ever served there", hint="start one on that host: toka-runtime serve")
    listed = " · ".join(str(folder) for folder in found)
    raise UsageError(f"{len(found)} were served: {listed}", hint="choose one on that host: toka-runtime serve")


def _recall(folder: Path) -> dict[str, Any]:
    """Raises UsageError. What others could have written is not carried out."""
    file = folder / FILE_NAME
    try:
        descriptor = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        with os.fdopen(descriptor) as opened:
            about = os.fstat(opened.fileno())
            kept = json.load(opened)
        if about.st_uid != os.geteuid() or stat.S_IMODE(about.st_mode) & 0o022:
            raise UsageError(f"{file} could have been written by others", hint="start it by hand: toka-runtime serve")
        if kept["words"][0] != "serve" or not Path(kept["cwd"]).is_dir():
            raise ValueError("the command or its folder is gone")
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise UsageError(f"{file} tells no command: {error}", hint="start it by hand: toka-runtime serve") from error
    return kept


def _socket_of(words: Sequence[str], folder: Path, cwd: Path) -> Path:
    for index, word in enumerate(words):
        if word == "--socket":
            return cwd / words[index + 1]
        if word.startswith("--socket="):
            return cwd / word.partition("=")[2]
    return folder / SOCKET_NAME
