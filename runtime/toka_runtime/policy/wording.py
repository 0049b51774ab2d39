"""Rights in words: one line a right, for the operator and for the prompt."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

from toka_runtime.policy.matching import is_folder
from toka_runtime.protocol.capability import ExecuteRule, NetworkRule, PathRule, Rights

_Rule = TypeVar("_Rule", PathRule, ExecuteRule, NetworkRule)


def describe(rights: Rights) -> tuple[str, ...]:
    lines = _paths("read", rights.read) + _paths("write", rights.write)
    for capability, rules in _grouped(rights.execute):
        lines.append(f"run {_programs(rules)} ({capability})")
    for capability, hosts in _grouped(rights.network):
        lines.append(f"connect to {', '.join(f'{rule.host}:{rule.port}' for rule in hosts)} ({capability})")
    if rights.execute and (single := [rule.glob for rule in rights.write if not is_folder(rule)]):
        files = ", ".join(dict.fromkeys(single))
        lines.append(f"programs change files of {files} in place only; making, renaming and deleting them is for tools")
    if rights.environment:
        lines.append(f"see the variables {', '.join(rights.environment)}")
    if not rights.model:
        lines.append("no model")
    if rights.deny_write:
        lines.append(f"never write {', '.join(dict.fromkeys(rule.glob for rule in rights.deny_write))}")
    if rights.deny_read:
        lines.append(f"never read {', '.join(dict.fromkeys(rule.glob for rule in rights.deny_read))}")
        if rights.execute and rights.programs_read:
            readable = ", ".join(dict.fromkeys(rule.glob for rule in rights.programs_read))
            lines.append(f"of these, programs still read {readable}")
    lines += [f"not granted: {reason}" for reason in rights.refused]
    lines += [f"not granted: {name}: no such capability" for name in rights.unknown]
    return tuple(lines)


def _paths(verb: str, rules: tuple[PathRule, ...]) -> list[str]:
    lines: list[str] = []
    for capability, group in _grouped(rules):
        globs = [f"{rule.glob} (as far as {rule.within} goes)" if rule.within else rule.glob for rule in group]
        everything = "everything in its folder" if globs == ["**"] else ", ".join(globs)
        lines.append(f"{verb} {everything} ({capability})")
    return lines


def _programs(rules: list[ExecuteRule]) -> str:
    """`git add, commit, mv` for prefixes that differ in the last word only."""
    heads: dict[tuple[str, ...], list[str]] = {}
    for rule in rules:
        if rule.argv_prefix == ("*",):
            return "any program"
        head, last = rule.argv_prefix[:-1], rule.argv_prefix[-1]
        heads.setdefault(head, []).append(last)
    texts = [" ".join((*head, ", ".join(dict.fromkeys(lasts)))) for head, lasts in heads.items()]
    opened = any(rule.open_ended for rule in rules)
    return "; ".join(texts) + (", and through them other code" if opened else "")


def _grouped(rules: Iterable[_Rule]) -> list[tuple[str, list[_Rule]]]:
    groups: dict[str, list[_Rule]] = {}
    for rule in rules:
        groups.setdefault(rule.capability, []).append(rule)
    return list(groups.items())
