"""Starts programs with sandlock (PyPI), from a process that has it loaded. For bench/sandbox.py.

python sandlock_.py WRITABLE-FOLDER < {"argv": …, "out": path} … > milliseconds …
"""

from __future__ import annotations

import importlib
import json
import sys
import time
from pathlib import Path
from typing import Any

_SYSTEM = ["/usr", "/bin", "/lib", "/lib64", "/etc", "/proc", "/dev"]


def run(sandlock: Any, argv: list[str], out: str) -> float:
    """Path rules and its call filter, nothing of the network; until the program has ended, in ms."""
    began = time.perf_counter()
    readable = [path for path in _SYSTEM if Path(path).exists()]
    result = sandlock.Sandbox(fs_readable=readable, fs_writable=[sys.argv[1]]).run(argv)
    took = (time.perf_counter() - began) * 1000
    if not result.success:
        sys.exit(f"sandlock: {result}")
    Path(out).write_bytes(result.stdout)
    return took


def main() -> None:
    try:
        sandlock = importlib.import_module("sandlock")
    except ImportError as error:
        sys.exit(str(error))
    print(sandlock.__version__, flush=True)
    for line in sys.stdin:
        print(run(sandlock, **json.loads(line)), flush=True)


main()
