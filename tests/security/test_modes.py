"""A program that an agent leaves in its folder must not run with its owner's rights for whoever starts it: nothing can
be made or marked set-uid or set-gid, by whatever call."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from fakes.cell import Cell

ATTACKS = """
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
HERE = -100
def attempt(name, act):
    try:
        act()
    except OSError as error:
        refused[name] = error.errno
    else:
        refused[name] = 0
def call(*arguments):
    if libc.syscall(*arguments) < 0:
        raise OSError(ctypes.get_errno(), "")
def plain(name):
    os.close(os.open(name, os.O_CREAT | os.O_WRONLY, 0o755))
    return name
class How(ctypes.Structure):
    _fields_ = [("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64)]
refused = {}
os.umask(0)
for bits in (0o4755, 0o2755, 0o6711):
    mark = oct(bits)
    attempt("chmod " + mark, lambda: os.chmod(plain("c" + mark), bits))
    attempt("fchmod " + mark, lambda: os.fchmod(os.open(plain("f" + mark), os.O_RDONLY), bits))
    attempt("by proc " + mark, lambda: os.chmod("/proc/self/fd/%d" % os.open(plain("p" + mark), os.O_RDONLY), bits))
    attempt("fchmodat2 " + mark, lambda: call(452, HERE, plain("g" + mark).encode(), bits, 0))
    attempt("openat " + mark, lambda: os.open("o" + mark, os.O_CREAT | os.O_WRONLY, bits))
    attempt("openat2 " + mark, lambda: call(437, HERE, b"q" + mark.encode(),
            ctypes.byref(How(os.O_CREAT | os.O_WRONLY, bits, 0)), 24))
    attempt("tmpfile " + mark, lambda: os.link("/proc/self/fd/%d" % os.open(".", os.O_TMPFILE | os.O_RDWR, bits),
            "t" + mark, src_dir_fd=HERE, follow_symlinks=True))
    attempt("mknod " + mark, lambda: os.mknod("n" + mark, 0o100000 | bits))
    attempt("mkdir " + mark, lambda: os.mkdir("m" + mark, bits))
    if os.uname().machine == "x86_64":
        attempt("creat " + mark, lambda: call(85, b"r" + mark.encode(), bits))
        attempt("open " + mark, lambda: call(2, b"s" + mark.encode(), os.O_CREAT | os.O_WRONLY, bits))
        attempt("old mknod " + mark, lambda: call(133, b"u" + mark.encode(), 0o100000 | bits, 0))
tell(refused)
"""


def marked(folder: Path) -> list[str]:
    found = [each for each in folder.rglob("*") if not each.is_symlink()]
    return [each.name for each in found if each.stat().st_mode & (stat.S_ISUID | stat.S_ISGID)]


async def test_nothing_is_left_set_uid_or_set_gid(agent: Cell) -> None:
    refused = await agent.python(ATTACKS)
    assert len(refused) >= 27
    assert {name for name, number in refused.items() if number == 0} == set()
    assert marked(agent.folder) == []


@pytest.mark.parametrize("command", ["install -m 4755 /bin/true x", "cp /bin/true x; chmod u+s x", "mkdir -m 2777 x"])
async def test_nor_by_the_programs_that_people_use(agent: Cell, command: str) -> None:
    await agent.sh(command)
    assert marked(agent.folder) == []


async def test_ordinary_modes_are_as_ever(agent: Cell) -> None:
    outcome = await agent.sh(
        "umask 022 && touch a && chmod 755 a && install -m 640 a b && mkdir -m 1777 c && mkdir d && mkfifo -m 600 e"
        " && mktemp -p d && stat -c '%a' a b c d e"
    )
    assert outcome.ok, outcome.content
    assert outcome.content.split()[-5:] == ["755", "640", "1777", "755", "600"]


async def test_a_file_that_is_set_uid_loses_it_when_it_is_edited(agent: Cell) -> None:
    program = agent.folder / "tool"
    program.write_text("old\n")
    program.chmod(0o4777)
    outcome = await agent.tool("edit_file", path="tool", old_string="old", new_string="new")
    assert outcome.ok, outcome.content
    assert program.read_text() == "new\n"
    assert marked(agent.folder) == []
