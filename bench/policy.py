"""Cost of one decision and of loading the catalogue. Prints medians; the target is ≤ 50 µs a decision."""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Callable

from toka_runtime.broker.operations import prepare
from toka_runtime.policy.catalogue import Catalogue, load_catalogue
from toka_runtime.policy.engine import decide
from toka_runtime.policy.rules import compile_rights
from toka_runtime.protocol.capability import Operation, OperationKind
from toka_runtime.protocol.ids import AgentName
from toka_runtime.protocol.spec import AgentSpec, Security

TARGET_US = 50.0
ROUNDS = 2000


def median_us(work: Callable[[int], object]) -> tuple[float, float]:
    """(median, 99th percentile) of one call, in µs."""
    times: list[float] = []
    for number in range(ROUNDS):
        began = time.perf_counter()
        work(number)
        times.append((time.perf_counter() - began) * 1e6)
    times.sort()
    return statistics.median(times), times[int(len(times) * 0.99)]


def decisions(catalogue: Catalogue) -> float:
    """Prints what each kind of decision costs; the worst median, in µs."""
    wide = AgentSpec(
        name=AgentName("bench"),
        security=Security(
            capabilities_required=(
                "filesystem-write",
                "cargo-execution",
                "git-access",
                "ci-integration",
                "crypto-operations",
                "database-access",
                "performance-monitoring",
                "github-api-access",
            )
        ),
    )
    rights = compile_rights(wide, catalogue)
    print(f"rights: {len(rights.execute)} programs, {len(rights.write)} paths to write")
    worst = 0.0
    cases: dict[str, Callable[[int], Operation]] = {
        "read, a new path each time": lambda n: Operation(kind=OperationKind.READ, target=f"src/{n}/lib.rs"),
        "write, a new path each time": lambda n: Operation(kind=OperationKind.WRITE, target=f"src/{n}/lib.rs"),
        "program, first rule": lambda n: Operation(kind=OperationKind.EXECUTE, target="", argv=("mkdir", f"a{n}")),
        "program, last rule": lambda n: Operation(kind=OperationKind.EXECUTE, target="", argv=("tree", f"a{n}")),
        "connect": lambda n: Operation(kind=OperationKind.CONNECT, target="api.github.com:443"),
        "denied: path outside": lambda n: Operation(kind=OperationKind.WRITE, target=f"/etc/{n}"),
        "denied: program": lambda n: Operation(kind=OperationKind.EXECUTE, target="", argv=("nc", "-l", str(n))),
        "denied: host": lambda n: Operation(kind=OperationKind.CONNECT, target=f"h{n}.example.com:443"),
    }
    for name, make in cases.items():
        operations = [make(number) for number in range(ROUNDS)]
        middle, late = median_us(lambda n, ops=operations: decide(ops[n], rights, catalogue.remedies))
        worst = max(worst, middle)
        print(f"decide: {name:30} {middle:7.1f} µs, p99 {late:7.1f} µs")
    return worst


def main() -> int:
    began = time.perf_counter()
    catalogue = load_catalogue()
    print(f"catalogue loaded, all examples tried: {(time.perf_counter() - began) * 1e3:.1f} ms (once)")
    worst = decisions(catalogue)
    with tempfile.TemporaryDirectory() as root:
        line = "git status --short && cargo test --workspace 2>&1 | head -50 > out.txt"
        middle, late = median_us(lambda n: prepare("run_command", {"command": line}, root))
        print(f"reading a command of three programs and a redirection: {middle:.1f} µs, p99 {late:.1f} µs")
    print(f"worst median {worst:.1f} µs, target ≤ {TARGET_US:.0f} µs: {'met' if worst <= TARGET_US else 'MISSED'}")
    return 0 if worst <= TARGET_US else 1


if __name__ == "__main__":
    sys.exit(main())
