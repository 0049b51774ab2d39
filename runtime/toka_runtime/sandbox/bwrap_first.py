"""Process 1 in the namespaces that bwrap has made: an interpreter that puts up the remaining walls and becomes the shim
(or what a probe tries). Standard library only.

Started by `bwrap.start` with an empty environment; an ordinary user's has no capability from the beginning.
"""

from __future__ import annotations

import errno
import gc
import json
import os
import sys
from collections.abc import Callable
from importlib import import_module
from typing import Any, NoReturn

from toka_runtime.sandbox import namespaces
from toka_runtime.sandbox.bwrap_walls import check_walls
from toka_runtime.sandbox.confine import Confinement, failed, limit, say
from toka_runtime.sandbox.namespaces import PrimitiveMissing

Walls = tuple[Callable[[], None], Callable[[int], NoReturn]]
First = Callable[[Confinement, dict[str, Any]], Walls]
"""See `bwrap.Inside.first`."""
_SETS = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")


def main(report: int, order: int) -> NoReturn:
    """`order`: a descriptor with what `bwrap.start` asks for, as JSON. `report` gets how it went."""
    try:
        with os.fdopen(order) as file:
            asked = json.load(file)
        sys.path.extend(asked["import_paths"])
        confinement: Confinement = asked["confinement"]
        first: First = load(asked["first"])
        prepare, body = first(confinement, asked["settings"])
        listener = namespaces.open_listener()
        limit(confinement)
        _drop_privileges(confinement)
        check_walls(confinement["walls"], asked["built"])
        prepare()
        # What is loaded is shared with all children.
        gc.collect()
        gc.freeze()
    except BaseException as error:  # noqa: BLE001  # nothing runs half confined
        say(report, failed(error))
        os._exit(1)
    say(report, {"ready": True})
    os.close(report)
    body(listener)


def load(name: str) -> Any:
    """The object that is meant by `module:name`."""
    module, _, attribute = name.partition(":")
    return getattr(import_module(module), attribute)


def _drop_privileges(confinement: Confinement) -> None:
    if not confinement["user"]:
        namespaces.drop_privileges(confinement["uid"], confinement["gid"])
        return
    # To lock what cannot come back takes a capability, which bwrap leaves to nobody: that is checked instead.
    with open("/proc/self/status") as file:  # noqa: PTH123  # no pathlib in the fork server
        sets = dict(line.split(":\t") for line in file.read().splitlines() if line.startswith(_SETS))
    if len(sets) != len(_SETS) or any(int(value, 16) for value in sets.values()):
        raise PrimitiveMissing(errno.EPERM, f"bwrap left capabilities: {sets}")
    namespaces.hide_memory()
