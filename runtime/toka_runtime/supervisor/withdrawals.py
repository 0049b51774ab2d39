"""Taking a declared capability away from an agent, and giving it back: what `x` and `revoke --capability` do.

What is taken away is kept with the agent's view, so that later runs, restarts and recoveries of the runtime keep to it.
"""

from __future__ import annotations

from toka_runtime.errors import CommandRefused
from toka_runtime.policy.rules import compile_rights
from toka_runtime.protocol.events import CapabilityRestored, CapabilityWithdrawn
from toka_runtime.protocol.states import AgentState
from toka_runtime.supervisor.agent import Agent
from toka_runtime.supervisor.services import Services


async def withdraw(services: Services, agent: Agent, capability: str, actor: str) -> str:
    """In force when this returns; the words for it. Raises CommandRefused, StoreError (it is in force all the same)."""
    view = services.state().agents[agent.name]
    if capability in view.withdrawn:
        raise CommandRefused(f"{agent.name} does not have {capability} any more")
    if capability not in view.capabilities:
        held = ", ".join(view.capabilities) or "none"
        raise CommandRefused(f"no right of {agent.name} rests on {capability!r}", hint=f"it has: {held}")
    left = compile_rights(agent.spec, services.catalogue, {*view.withdrawn, capability})
    await agent.narrow(left, capability)
    await services.store.append(
        CapabilityWithdrawn(capability=capability, actor=actor), agent=agent.name, run=agent.run
    )
    ending = "; calls in progress end when it goes on" if agent.state is AgentState.PAUSED else ""
    return f"{agent.name} does not have {capability} any more{ending}"


async def restore(services: Services, agent: Agent, capability: str, actor: str) -> str:
    """Raises CommandRefused, StoreError (then it is not restored)."""
    view = services.state().agents[agent.name]
    if capability not in view.withdrawn:
        raise CommandRefused(f"{capability} was not withdrawn from {agent.name}")
    await services.store.append(CapabilityRestored(capability=capability, actor=actor), agent=agent.name, run=agent.run)
    kept = [name for name in view.withdrawn if name != capability]
    agent.rights = compile_rights(agent.spec, services.catalogue, kept)
    return f"the next run of {agent.name} has {capability} again"
