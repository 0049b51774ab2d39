"""`python -m toka_runtime.worker FD`: one worker on an inherited, connected stream socket. The fork server's workers
run the same `loop.main`."""

from __future__ import annotations

import sys

from toka_runtime.worker.loop import main

if len(sys.argv) != 2 or not sys.argv[1].isdecimal():
    sys.stderr.write("usage: python -m toka_runtime.worker FD\n")
    sys.exit(2)
sys.exit(main(int(sys.argv[1])))
