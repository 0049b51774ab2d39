"""What an agent may do and use: confinement, permissions, scopes, limits, budget, restarts.

Fails closed: a value that cannot be read is an error, and a misspelt key in these sections is one too.
"""

from __future__ import annotations

from toka_runtime.protocol.health import HealthPolicy, OnStuck
from toka_runtime.protocol.spec import Restart, RestartPolicy, SandboxMode, ScopedGrant, Security
from toka_runtime.protocol.usage import Budget, ResourceLimits
from toka_runtime.specs import fields, units
from toka_runtime.specs.findings import quoted
from toka_runtime.specs.reading import MAX_NAME, Reader, Section
from toka_runtime.specs.source import Place
from toka_runtime.specs.tree import Mapping, Node, Scalar, Sequence, is_null

MIN_MEMORY_BYTES = 1_000_000
MAX_COST_USD = 1e9


def read_security(reader: Reader, section: Section | None, defaults: Security | None = None) -> Security:
    """`defaults` are a fleet file's: they hold wherever the agent says nothing of its own."""
    base = defaults or Security()
    if section is None:
        return base
    named = reader.as_lines(section.get("capabilities_required"), "security.capabilities_required")
    place = section.get("capabilities_required")
    for node in place.items if isinstance(place, Sequence) else ():
        if isinstance(node, Scalar):
            reader.capability_places.setdefault(node.text.strip(), Place(node.line, node.column))
    for name in named:
        if len(name) > MAX_NAME:
            reader.findings.error(place, "spec.too_long", f"capability {quoted(name)} is long", f"at most {MAX_NAME}")
    return Security(
        sandbox=_sandbox(reader, section.get("sandbox"), base.sandbox),
        capabilities_required=_unique(reader, section, named) or base.capabilities_required,
        limits=read_limits(reader, section.get("resource_limits"), "security.resource_limits", base.limits),
        strict=reader.as_bool(section.get("strict"), "security.strict", base.strict),
        on_limit=reader.as_choice(section.get("on_limit"), "security.on_limit", base.on_limit),
        approvals=reader.as_choice(section.get("approvals"), "security.approvals", base.approvals),
    )


def _unique(reader: Reader, section: Section, names: tuple[str, ...]) -> tuple[str, ...]:
    kept = tuple(dict.fromkeys(names))
    if len(kept) < len(names):
        place = section.get("capabilities_required")
        reader.findings.repair(
            place, "repair.duplicate", "security.capabilities_required: a name given twice counts once"
        )
    return kept


def _sandbox(reader: Reader, node: Node | None, default: SandboxMode) -> SandboxMode:
    if isinstance(node, Scalar) and isinstance(node.value, str):
        if node.text.strip().lower() in {"yes", "on", "true", "no", "off", "false"}:
            required = reader.as_bool(node, "security.sandbox", True)
            return SandboxMode.REQUIRED if required else SandboxMode.NONE
        return reader.as_choice(node, "security.sandbox", default)
    if node is None or is_null(node):
        return default
    return SandboxMode.REQUIRED if reader.as_bool(node, "security.sandbox", True) else SandboxMode.NONE


def read_limits(reader: Reader, node: Node | None, name: str, base: ResourceLimits | None = None) -> ResourceLimits:
    base = base or ResourceLimits()
    section = reader.section(node, name, fields.LIMITS, strict=True)
    if section is None:
        return base
    get, path = section.get, section.path
    memory = reader.as_quantity(
        get("max_memory"),
        path("max_memory"),
        units.parse_size,
        minimum=MIN_MEMORY_BYTES,
        hint="no process runs in less than 1MB; write the unit, such as 512MB",
    )
    read = {
        "memory_bytes": memory,
        "cpu_fraction": reader.as_quantity(get("max_cpu"), path("max_cpu"), units.parse_cpu),
        "timeout_s": reader.as_quantity(get("timeout"), path("timeout"), units.parse_duration),
        "disk_bytes": reader.as_quantity(get("max_disk_usage"), path("max_disk_usage"), units.parse_size),
        "network_bytes_per_s": reader.as_quantity(
            get("max_network_bandwidth"), path("max_network_bandwidth"), units.parse_bandwidth
        ),
        "processes": reader.as_count(get("max_processes"), path("max_processes")),
    }
    return base.model_copy(update={key: value for key, value in read.items() if value is not None})


def read_grants(reader: Reader, node: Node | None, name: str) -> tuple[ScopedGrant, ...]:
    """Capability → scopes. A grant without a scope is refused: it could be read as everything or as nothing."""
    mapping = reader.as_mapping(node, name)
    found: list[ScopedGrant] = []
    for key, value in mapping or Mapping(()):
        where = f"{name}.{key.text}"
        before = len(reader.findings.errors)
        reader.capability_places.setdefault(key.text, Place(key.line, key.column))
        scopes = tuple(dict.fromkeys(reader.as_lines(value, where)))
        if scopes and key.text:
            found.append(ScopedGrant(capability=key.text, scopes=scopes))
        elif len(reader.findings.errors) == before:
            hint = "name what it covers, such as [“docs/**”], or remove the line"
            reader.findings.error(key, "spec.bad_value", f"{where} has no scope", hint)
    return tuple(found)


def read_budget(reader: Reader, node: Node | None) -> tuple[Budget, Budget]:
    """(of a run, of each task)."""
    section = reader.section(node, "budget", fields.BUDGET, strict=True)
    if section is None:
        return Budget(), Budget()

    def caps(suffix: str) -> Budget:
        tokens, cost = f"max_tokens{suffix}", f"max_cost_usd{suffix}"
        return Budget(
            max_tokens=reader.as_count(section.get(tokens), f"budget.{tokens}"),
            max_cost_usd=reader.as_quantity(section.get(cost), f"budget.{cost}", _parse_usd),
        )

    return caps(""), caps("_per_task")


def _parse_usd(value: units.Raw) -> float:
    text = value.strip().removeprefix("$").strip() if isinstance(value, str) else value
    try:
        amount = float(text) if not isinstance(text, bool) else -1.0
    except (ValueError, OverflowError):
        amount = -1.0
    if not 0 <= amount <= MAX_COST_USD:
        raise units.UnitError(f"{str(value)[:40]!r} is not an amount", hint="write US dollars, such as 2.50")
    return amount


def read_restart(reader: Reader, node: Node | None) -> Restart:
    if isinstance(node, Scalar) and not is_null(node):
        return Restart(policy=reader.as_choice(node, "restart", RestartPolicy.NEVER))
    if isinstance(node, Sequence):
        reader.wrong_type(node, "restart", "a mapping or one of never, on-failure")
        return Restart()
    section = reader.section(node, "restart", fields.RESTART, strict=True)
    if section is None:
        return Restart()
    if is_null(section.get("policy")):
        reader.findings.error(section.node, "spec.missing_key", "restart.policy is missing", "never or on-failure")
    restart = Restart(policy=reader.as_choice(section.get("policy"), "restart.policy", RestartPolicy.NEVER))
    limit = reader.as_count(section.get("max_restarts"), "restart.max_restarts", minimum=0)
    backoff = reader.as_quantity(section.get("backoff"), "restart.backoff", units.parse_duration)
    given = {
        "max_restarts": limit,
        "backoff_s": backoff,
        "max_backoff_s": reader.as_quantity(section.get("max_backoff"), "restart.max_backoff", units.parse_duration),
        "crash_limit": reader.as_count(section.get("crash_limit"), "restart.crash_limit"),
        "crash_window_s": reader.as_quantity(section.get("crash_window"), "restart.crash_window", units.parse_duration),
    }
    return restart.model_copy(update={key: value for key, value in given.items() if value is not None})


def read_health(reader: Reader, node: Node | None) -> HealthPolicy:
    section = reader.section(node, "health", fields.HEALTH, strict=True)
    if section is None:
        return HealthPolicy()
    policy = HealthPolicy(on_stuck=reader.as_choice(section.get("on_stuck"), "health.on_stuck", OnStuck.WARN))
    given = {
        "stall_after_s": reader.as_quantity(section.get("stall_after"), "health.stall_after", units.parse_duration),
        "repeats": reader.as_count(section.get("repeats"), "health.repeats", minimum=2),
    }
    return policy.model_copy(update={key: value for key, value in given.items() if value is not None})
