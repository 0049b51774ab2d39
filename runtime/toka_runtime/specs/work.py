"""Objectives and tasks, and the commands that prove them."""

from __future__ import annotations

from toka_runtime.protocol.spec import Objective, Priority, TaskSpec, Verify
from toka_runtime.specs import fields, units
from toka_runtime.specs.reading import MAX_DESCRIPTION, MAX_NAME, Reader, Section
from toka_runtime.specs.source import Place
from toka_runtime.specs.tree import Mapping, Node, Scalar, Sequence, is_null


def read_objectives(reader: Reader, node: Node | None) -> tuple[Objective, ...]:
    found: list[Objective] = []
    for number, item in enumerate(reader.as_items(node, "objectives"), 1):
        where = f"objectives[{number}]"
        section = _described(reader, item, where, fields.OBJECTIVE)
        if isinstance(section, str):
            found.append(Objective(description=section))
        elif section is not None:
            found.append(
                Objective(
                    description=reader.as_required_text(section, "description", limit=MAX_DESCRIPTION),
                    deliverable=reader.as_text(section.get("deliverable"), section.path("deliverable")),
                    validation=reader.as_text(section.get("validation"), section.path("validation")),
                    priority=reader.as_choice(section.get("priority"), section.path("priority"), Priority.MEDIUM),
                    verify=read_verify(reader, section.get("verify"), section.path("verify")),
                )
            )
    return tuple(found)


def read_tasks(reader: Reader, node: Node | None) -> tuple[TaskSpec, ...]:
    """Default tasks in file order, then the conditional ones."""
    if isinstance(node, Sequence):
        reader.findings.repair(node, "repair.shape", "tasks: a list read as tasks.default")
        return _tasks(reader, node, "tasks", "")
    section = reader.section(node, "tasks", fields.TASKS)
    if section is None:
        return ()
    tasks = _tasks(reader, section.get("default"), "tasks.default", "")
    conditional = reader.as_mapping(section.get("conditional"), "tasks.conditional")
    for key, value in conditional or Mapping(()):
        where = f"tasks.conditional.{key.text}"
        condition = reader.as_text(key, where, limit=MAX_NAME)
        if not condition:
            reader.findings.error(key, "spec.bad_value", "a condition has no name", "give it one to switch it on by")
            continue
        tasks += _tasks(reader, value, where, condition)
    return tasks


def _tasks(reader: Reader, node: Node | None, where: str, condition: str) -> tuple[TaskSpec, ...]:
    items = enumerate(reader.as_items(node, where), 1)
    found = (_task(reader, item, f"{where}[{number}]", condition) for number, item in items)
    return tuple(task for task in found if task is not None)


def _task(reader: Reader, item: Node, where: str, condition: str) -> TaskSpec | None:
    section = _described(reader, item, where, fields.TASK)
    if isinstance(section, str):
        return TaskSpec(description=section, condition=condition)
    if section is None:
        return None
    get, path = section.get, section.path
    after = get("dependencies")
    for node in after.items if isinstance(after, Sequence) else ():
        if isinstance(node, Scalar):
            reader.task_places.setdefault(node.text.strip(), Place(node.line, node.column))
    return TaskSpec(
        description=reader.as_required_text(section, "description", limit=MAX_DESCRIPTION),
        priority=reader.as_choice(get("priority"), path("priority"), Priority.MEDIUM),
        condition=condition,
        estimated_duration_s=reader.as_quantity(
            get("estimated_duration"), path("estimated_duration"), units.parse_estimate
        ),
        tools_required=reader.as_lines(get("tools_required"), path("tools_required")),
        dependencies=reader.as_lines(after, path("dependencies")),
        timeout_s=reader.as_quantity(get("timeout"), path("timeout"), units.parse_duration),
        verify=read_verify(reader, get("verify"), path("verify")),
        inputs=reader.as_lines(get("inputs"), path("inputs")),
    )


def _described(reader: Reader, item: Node, where: str, known: fields.Fields) -> Section | str | None:
    """The section, or the text where nothing but a description was written, or None after an error."""
    if isinstance(item, Scalar) and not is_null(item):
        reader.findings.repair(item, "repair.single_value", f"{where}: a text read as its description")
        return reader.as_text(item, where, limit=MAX_DESCRIPTION) or None
    if not isinstance(item, Mapping):
        reader.wrong_type(item, where, "a mapping with a description")
        return None
    return Section(reader, item, where, known)


def read_verify(reader: Reader, node: Node | None, where: str) -> Verify | None:
    """A text is run by `sh -c`, a list as it is; `{command, timeout}` sets a time limit."""
    if node is None or is_null(node):
        return None
    timeout = None
    before = len(reader.findings.errors)
    if isinstance(node, Mapping):
        section = Section(reader, node, where, fields.VERIFY, strict=True)
        timeout = reader.as_quantity(section.get("timeout"), section.path("timeout"), units.parse_duration)
        node = section.get("command") or Scalar("", "", node.line, node.column)
    if isinstance(node, Sequence):
        argv = tuple(reader.as_text(item, f"{where}[{number}]") for number, item in enumerate(node.items, 1))
    else:
        command = reader.as_text(node, where)
        argv = ("sh", "-c", command) if command else ()
    if not argv or not argv[0]:
        if len(reader.findings.errors) == before:
            hint = "a command whose exit code 0 is the proof, such as “python3 -m pytest -q”"
            reader.findings.error(node, "spec.bad_value", f"{where} is empty", hint)
        return None
    return Verify(argv=argv) if timeout is None else Verify(argv=argv, timeout_s=timeout)
