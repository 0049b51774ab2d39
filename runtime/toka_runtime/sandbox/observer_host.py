"""Which of the paths that an observer finds missing in the view were hidden from the agent: they are on the host, and
not for everybody. What anybody may read there (a program's optional settings in /etc) is merely not there."""

from __future__ import annotations

import asyncio
import stat
from pathlib import Path

from toka_runtime.sandbox.observer_rules import VIEW
from toka_runtime.sandbox.plan import KernelRefusal


async def on_the_host(refusal: KernelRefusal) -> bool:
    """Whether it is worth telling: always, but for a path that is missing for everybody or public."""
    if refusal.rule != VIEW or not refusal.target:
        return True
    return await asyncio.to_thread(_is_private, refusal.target)


def _is_private(path: str) -> bool:
    """`path`: absolute. A folder that this process may not enter is private whatever is in it. Blocking."""
    private = False
    place = Path("/")
    for name in path.split("/")[1:]:
        place /= name
        try:
            mode = place.stat().st_mode
        except PermissionError:
            return True
        except OSError:
            return False
        needed = stat.S_IXOTH if stat.S_ISDIR(mode) else stat.S_IROTH
        private = private or not mode & needed
    return private
