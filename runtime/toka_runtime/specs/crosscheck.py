"""What only shows when all agents are known: names twice, unknown dependencies, cycles, one branch for two."""

from __future__ import annotations

from collections.abc import Sequence

from toka_runtime.protocol.ids import AgentName
from toka_runtime.protocol.spec import Dependency
from toka_runtime.specs.cycles import cycle_through, strongly_connected
from toka_runtime.specs.findings import did_you_mean, quoted
from toka_runtime.specs.normalise import Draft
from toka_runtime.specs.relations import PlacedDependency
from toka_runtime.specs.source import Place


def check_fleet(drafts: Sequence[Draft]) -> None:
    """Add the problems to each draft's findings, and make dependencies of tasks on agents dependencies of the agent."""
    _names(drafts)
    known = {draft.name for draft in drafts}
    for draft in drafts:
        _tasks_on_agents(draft, known)
        _unknown(draft, known)
    _cycles([draft for draft in drafts if draft.spec is not None])
    _branches(drafts)


def _names(drafts: Sequence[Draft]) -> None:
    first: dict[str, Draft] = {}
    for draft in drafts:
        if draft.place is None:
            continue  # named after its file only: it has an error of its own
        other = first.setdefault(draft.name, draft)
        if other is draft:
            continue
        for one, two in ((draft, other), (other, draft)):
            where = f"{two.findings.file}:{two.place.line}" if two.place else two.findings.file
            message = f"the name {quoted(one.name)} is taken twice, also in {where}"
            if not any(problem.message == message for problem in one.findings.errors):
                one.findings.error(one.place, "spec.duplicate_name", message, "give each agent a name of its own")


def _tasks_on_agents(draft: Draft, known: set[str]) -> None:
    """A task that depends on another agent makes its agent wait; a task that may not run (conditional) waits without
    failing. In a fleet file these are always agents' names, elsewhere they may be prose."""
    if draft.spec is None:
        return
    have = {item.dependency.agent for item in draft.dependencies}
    more: list[PlacedDependency] = []
    for number, task in enumerate(draft.spec.tasks, 1):
        for name in task.dependencies:
            place = draft.task_places.get(name, Place(0, 0))
            if name == draft.name or name in have or (name not in known and not draft.fleet_member):
                continue
            have.add(AgentName(name))
            reason = f"task {number} needs it: {task.description}"
            dependency = Dependency(agent=AgentName(name), reason=reason, required=not task.condition)
            more.append(PlacedDependency(dependency, place))
    if more:
        draft.dependencies = (*draft.dependencies, *more)
        dependencies = tuple(item.dependency for item in draft.dependencies)
        draft.spec = draft.spec.model_copy(update={"dependencies": dependencies})
        message = "dependencies of tasks on other agents read as the agent's own"
        draft.findings.repair(more[0].place, "repair.task_dependency", message)


def _unknown(draft: Draft, known: set[str]) -> None:
    others = known - {draft.name}
    for item in draft.dependencies:
        name = item.dependency.agent
        if name in known:
            continue
        if item.dependency.required:
            hint = did_you_mean(name, others, "load the file of that agent as well")
            message = f"requires the unknown agent {quoted(name)}"
            draft.findings.error(item.place, "spec.unknown_dependency", message, hint)
        else:
            hint = did_you_mean(name, others, "it is not waited for")
            message = f"the optional agent {quoted(name)} is absent"
            draft.findings.warning(item.place, "spec.optional_absent", message, hint)


def _cycles(drafts: Sequence[Draft]) -> None:
    required = {
        draft.name: [item.dependency.agent for item in draft.dependencies if item.dependency.required]
        for draft in drafts
    }
    for group in strongly_connected(required):
        for draft in drafts:
            if draft.name not in group:
                continue
            path = cycle_through(draft.name, required, group)
            place = next((item.place for item in draft.dependencies if item.dependency.agent == path[1]), None)
            message = f"dependency cycle: {' → '.join(path)}"
            draft.findings.error(place, "spec.cycle", message, "make one of these dependencies optional, or remove it")


def _branches(drafts: Sequence[Draft]) -> None:
    """Two worktrees cannot be on one branch."""
    users: dict[str, list[Draft]] = {}
    for draft in drafts:
        if draft.spec is not None and draft.spec.branch:
            users.setdefault(draft.spec.branch, []).append(draft)
    for branch, group in users.items():
        for draft in group if len(group) > 1 else ():
            others = ", ".join(other.name for other in group[:4] if other is not draft)
            message = f"branch {quoted(branch)} is also that of {others}"
            draft.findings.warning(draft.branch_place, "spec.shared_branch", message, "give each agent its own branch")
