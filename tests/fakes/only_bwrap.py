"""A host where only bwrap may make namespaces, as far as fork servers started from here can tell: making their own is
refused in them as such a kernel refuses it, and bwrap, another program, still may."""

from __future__ import annotations

from toka_runtime.sandbox import zygote_start

_REFUSAL = """
import errno
from toka_runtime.sandbox import bwrap, namespaces
def _refused(*arguments, **options):
    raise namespaces.PrimitiveMissing({number}, "clone(CLONE_NEWPID | CLONE_NEWUSER)")
namespaces.fork_apart = namespaces.isolate = _refused
{more}
"""


def fork_servers_command(number: str = "errno.EPERM", more: str = "") -> str:
    """To replace `launcher.COMMAND`: `number` is how making namespaces fails, `more` is run in the fork server, where
    `bwrap` is the module."""
    path, _, start = zygote_start.COMMAND.partition("; from ")
    return path.replace("; ", "\n") + _REFUSAL.format(number=number, more=more) + "from " + start
