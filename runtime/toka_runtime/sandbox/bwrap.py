"""Where only bwrap may make namespaces (a set-uid bwrap, an AppArmor profile of its own): it makes them and the root of
its own, and starts an interpreter in them that goes on with the same walls (`bwrap_first.py`). Fork server's side;
standard library only.

Nothing asks for bwrap: `fork_first_or_bwrap` tries the runtime's own namespaces each time and falls back only when the
kernel forbids those to this user. bwrap leaves /proc/1/environ, inherited descriptors, io_uring, keyctl and unix
sockets open: it is started with an empty environment and the listed descriptors alone, and the system call filter, the
path rules and the limits are those of every agent.
"""

from __future__ import annotations

import errno
import json
import os
import select
import signal
import stat
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, NamedTuple, NoReturn

from toka_runtime.sandbox import groups
from toka_runtime.sandbox.bwrap_walls import wall_arguments
from toka_runtime.sandbox.confine import SCRATCH, Confinement, failed, fork_first, say, view_of
from toka_runtime.sandbox.control import reset_signals
from toka_runtime.sandbox.descriptors import keep_only
from toka_runtime.sandbox.namespaces import DEVICES, Bind, PrimitiveMissing, View

PLACES = ("/usr/bin/bwrap", "/bin/bwrap", "/usr/local/bin/bwrap")
"""Never by a search path that somebody else may have set."""
COMMAND = (
    "import sys; sys.path.append(sys.argv[1]); "
    "from toka_runtime.sandbox.bwrap_first import main; main(int(sys.argv[2]), int(sys.argv[3]))"
)
_MAKING = ("clone(", "unshare(", "write /proc/self/setgroups and the id maps")
"""Steps in which namespaces come to be; an AppArmor profile may let the first pass and refuse the others."""
READY_S = 20.0
"""For bwrap and a cold interpreter; the fork server waits for it."""
_KEPT_BY_ROOT = ("CAP_SETUID", "CAP_SETGID", "CAP_SETPCAP")
"""To become the agent's user with, and then to give up."""


class Inside(NamedTuple):
    """What process 1 becomes in the interpreter that bwrap starts."""

    first: str
    """`module:function`, called with the confinement and `settings`; gives the `prepare` and `body` of `fork_first`."""
    settings: dict[str, Any]
    """Plain JSON."""
    descriptors: Sequence[int]
    """They are 3, 4, … there."""
    import_paths: Sequence[str] = ()
    """Beside this package; what lies there must be in the view."""


def find() -> str | None:
    """The program; None where it is not installed."""
    return next((path for path in PLACES if os.access(path, os.X_OK)), None)


def forbidden(error: OSError) -> bool:
    """It is the making of namespaces that this user is refused, which bwrap may be allowed."""
    return (
        isinstance(error, PrimitiveMissing)
        and error.errno in (errno.EPERM, errno.EACCES)
        and error.primitive.startswith(_MAKING)
    )


def fork_first_or_bwrap(
    confinement: Confinement,
    prepare: Callable[[], None],
    body: Callable[[int], NoReturn],
    inside: Inside,
    control_groups: Sequence[str] = (),
) -> int:
    """As `confine.fork_first`; where that is forbidden, `inside` through bwrap. `made_by` in the confinement that
    `inside` gets says so and why. Raises OSError (PrimitiveMissing), with both reasons when neither works."""
    try:
        return fork_first(confinement, prepare, body, control_groups)
    except PrimitiveMissing as error:
        program = find()
        if not forbidden(error) or program is None:
            raise
        made_by = f"bwrap, because the runtime may not: {error.strerror}"
        if _set_uid(program):
            made_by += "; it is set-uid and gives private folders no limit but half of the memory"
        try:
            return start({**confinement, "made_by": made_by}, inside, program, control_groups)
        except OSError as second:
            raise OSError(error.errno, f"{error.strerror}; {program}: {second.strerror or second}") from None


def start(confinement: Confinement, inside: Inside, program: str, control_groups: Sequence[str] = ()) -> int:
    """The pid of process 1 as seen from here, once all walls stand: a child of this process, which must adopt orphans.
    Raises OSError; nothing is left then."""
    said, report, info = os.pipe(), os.pipe(), os.pipe()
    try:
        bwrap = os.fork()
        if bwrap == 0:
            _exec(confinement, inside, program, control_groups, (said[1], report[1], info[1]))
        for pipe in (said, report, info):
            os.close(pipe[1])
        heard = dict[str, Any](json.loads(_read(report[0], READY_S) or "{}"))
        # bwrap only waits for process 1, which is adopted by this process now. (With `--die-with-parent` agents would
        # end with the fork server; they end with the runtime.)
        os.kill(bwrap, signal.SIGKILL)
        os.waitpid(bwrap, 0)
        pid = _child_pid(_read(info[0], 0.0))
        if pid and heard.get("ready"):
            return pid
        if pid:
            with suppress(ProcessLookupError, ChildProcessError):
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
        raise _problem(heard, _read(said[0], 0.0))
    finally:
        for pipe in (said, report, info):
            os.close(pipe[0])


def arguments(view: View, walls: Sequence[str], files: Sequence[int], *, user: bool, sized: bool) -> list[str]:
    """For `bwrap`: the namespaces of `namespaces.isolate` and the root of `namespaces.build_root`. `walls` are those of
    the agent's folder, `files` descriptors with the text of each of the view's files. `sized`: private folders get
    their limit."""
    words = ["--unshare-pid", "--unshare-net", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup"]
    words += ["--hostname", view.hostname[:64], "--as-pid-1", "--clearenv"]
    if user:
        words.append("--unshare-user")
    else:
        words += ["--cap-drop", "ALL"]
        for capability in _KEPT_BY_ROOT:
            words += ["--cap-add", capability]
    words += _own(["--size", str(view.scratch_bytes)] if sized else [])
    for folder in _folders(view):
        words += ["--perms", "0755", "--dir", folder]
    for bind in view.binds:
        words += ["--bind" if bind.writable else "--ro-bind", bind.source, bind.target]
    words += walls
    for where, target in view.links:
        words += ["--symlink", target, where]
    for (path, _), descriptor in zip(view.files, files, strict=True):
        words += ["--perms", "0644", "--file", str(descriptor), path]
    return [*words, "--remount-ro", "/", "--chdir", "/"]


def _own(size: list[str]) -> list[str]:
    """/proc of the own PID namespace, a /dev of a few devices, private /tmp and /dev/shm."""
    words = ["--proc", "/proc", "--perms", "1777", *size, "--tmpfs", SCRATCH[0], "--perms", "0755", "--tmpfs", "/dev"]
    for name in DEVICES:
        words += ["--dev-bind", f"/dev/{name}", f"/dev/{name}"]
    for name, target in (("fd", "/proc/self/fd"), ("stdin", "fd/0"), ("stdout", "fd/1"), ("stderr", "fd/2")):
        words += ["--symlink", target, f"/dev/{name}"]
    return [*words, "--perms", "1777", *size, "--tmpfs", SCRATCH[1], "--remount-ro", "/dev"]


def _folders(view: View) -> list[str]:
    """In which something lies, outermost first: bwrap would give them the mode that the host's have, and the agent is
    not root."""
    found: set[str] = set()
    for path in (*(bind.target for bind in view.binds), *(where for where, _ in (*view.links, *view.files))):
        parts = path.split("/")[1:-1]
        found.update("/" + "/".join(parts[:count]) for count in range(1, len(parts) + 1))
    return sorted(found - {"/tmp", "/dev", "/dev/shm"})  # noqa: S108  # of the view, and there already


def _exec(
    confinement: Confinement, inside: Inside, program: str, control_groups: Sequence[str], ends: tuple[int, int, int]
) -> NoReturn:
    """In the forked child: become bwrap, with the listed descriptors and nothing else of the fork server."""
    said, report, info = ends
    try:
        groups.enter(control_groups)
        reset_signals()
        executable = os.path.realpath(sys.executable)
        view = _with_interpreter(view_of(confinement), executable)
        walls, built = wall_arguments(confinement["walls"], confinement["uid"])
        order = {
            "confinement": confinement,
            "built": built,
            "first": inside.first,
            "settings": inside.settings,
            "import_paths": list(inside.import_paths),
        }
        first = 3 + len(inside.descriptors)
        report_at, order_at, info_at, words_at = range(first, first + 4)
        files_at = range(first + 4, first + 4 + len(view.files))
        words = arguments(view, walls, files_at, user=bool(confinement["user"]), sized=not _set_uid(program))
        texts = [json.dumps(order), "".join(f"{word}\0" for word in words), *(text for _, text in view.files)]
        order_memory, *memories = (_memory(text) for text in texts)
        keep_only(*inside.descriptors, report, order_memory, info, *memories, errors_to=said)
        report = report_at
        for number in range(3, files_at.stop):
            os.set_inheritable(number, True)
        package = os.path.abspath(f"{__file__}/../../..")  # noqa: PTH100  # no pathlib in the fork server
        command = [executable, "-I", "-S", "-c", COMMAND, package, str(report_at), str(order_at)]
        options = ["--args", str(words_at), "--info-fd", str(info_at)]
        os.execve(program, [program, *options, "--", *command], {})  # noqa: S606  # there is to be no shell
    except BaseException as error:  # noqa: BLE001  # a forked child never returns into its parent's code
        say(report, failed(error))
    finally:
        os._exit(1)


def _with_interpreter(view: View, executable: str) -> View:
    """An agent's view has its library; the program, and what it is linked with, may lie outside of the system folders.
    No path rule lets a tool call use them."""
    folder = os.path.join(sys.base_prefix, "lib")  # noqa: PTH118
    linked = [name for name in os.listdir(folder) if name.startswith("libpython") and ".so" in name]  # noqa: PTH208
    needed = [executable, *(f"{folder}/{name}" for name in linked)]
    tops = [bind.target for bind in view.binds]
    missing = [path for path in needed if not any(path.startswith(f"{top}/") for top in tops)]
    return view._replace(binds=[*view.binds, *(Bind(path, path) for path in missing)])


def _set_uid(program: str) -> bool:
    """One that is refuses `--size` to an ordinary user."""
    return os.getuid() != 0 and bool(os.stat(program).st_mode & stat.S_ISUID)  # noqa: PTH116


def _memory(text: str) -> int:
    descriptor = os.memfd_create("toka")
    with os.fdopen(os.dup(descriptor), "wb") as file:
        file.write(text.encode())
    os.lseek(descriptor, 0, os.SEEK_SET)
    return descriptor


def _read(descriptor: int, timeout_s: float) -> bytes:
    """Up to the end of file, or what has come in time."""
    until, text = time.monotonic() + timeout_s, bytearray()
    while select.select([descriptor], [], [], max(0.0, until - time.monotonic()))[0]:
        data = os.read(descriptor, 65536)
        if not data:
            break
        text += data
    return bytes(text)


def _child_pid(info: bytes) -> int:
    """0: bwrap did not get so far."""
    try:
        return int(json.loads(info)["child-pid"])
    except (ValueError, KeyError):
        return 0


def _problem(heard: dict[str, Any], said: bytes) -> OSError:
    """From what process 1 has reported, else from the last line that bwrap (or the interpreter) has written."""
    lines = said.decode(errors="replace").strip().splitlines()
    text = str(heard.get("error", lines[-1] if lines else f"it ended, or was not ready within {READY_S:g} s"))
    number = int(heard.get("errno", 0))
    return PrimitiveMissing(number, text) if number else OSError(text)
