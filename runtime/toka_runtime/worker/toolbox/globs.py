"""Path globs: the one meaning that policy rules, scopes and the file tools share.

`*` and `?` stay within one path component, `[…]` is a set (`[!…]` its complement), `**` as a whole component crosses
folders, and a trailing `/**` covers the folder itself and everything below it. Everything else is literal; matching is
by whole path and case-sensitive unless asked otherwise.
"""

from __future__ import annotations

import re
from functools import lru_cache


@lru_cache(4096)
def compile_glob(glob: str, *, ignore_case: bool = False) -> re.Pattern[str]:
    """A pattern for `fullmatch` on a path relative to the same folder as the glob."""
    flags = re.DOTALL | (re.IGNORECASE if ignore_case else 0)
    return re.compile(_translate(glob), flags)


def matches(glob: str, path: str) -> bool:
    return compile_glob(glob).fullmatch(path) is not None


def is_tree(glob: str) -> bool:
    """Whether whatever folder matches is covered with everything below it."""
    return glob == "**" or glob.endswith("/**")


@lru_cache(4096)
def covers(glob: str, within: str, path: str, *, tree: bool = False) -> bool:
    """Whether a rule for `glob`, limited to `within` ("": not limited), is about `path`; with `tree`, about everything
    below it, too."""
    return all(
        (not tree or is_tree(one)) and compile_glob(one).fullmatch(path) is not None for one in (glob, within) if one
    )


def _translate(glob: str) -> str:
    split = glob.split("/")
    parts = [part for index, part in enumerate(split) if part != "**" or split[index - 1 : index] != ["**"]]
    if parts == ["**"]:
        return ".*"
    out: list[str] = []
    last = len(parts) - 1
    for index, part in enumerate(parts):
        if part != "**":
            out.append(_component(part) + ("/" if index < last else ""))
        elif index == last:
            # "docs/" has been written: the folder itself is covered too.
            out[-1] = out[-1].removesuffix("/")
            out.append("(?:/.*)?")
        else:
            out.append("(?:.*/)?")
    return "".join(out)


def _component(part: str) -> str:
    if part and not part.strip("*"):
        return "[^/]+"  # a name is never empty
    out: list[str] = []
    index = 0
    while index < len(part):
        char = part[index]
        index += 1
        if char == "*":
            if not out or out[-1] != "[^/]*":
                out.append("[^/]*")
        elif char == "?":
            out.append("[^/]")
        elif char == "[" and (end := part.find("]", index + (2 if part[index : index + 1] == "!" else 1))) > 0:
            body = part[index:end]
            negated = body.startswith("!")
            members = re.sub(r"([\\\[\]^&~|])", r"\\\1", body[negated:])
            try:
                re.compile(f"[{members}]")
            except re.error:
                out.append(re.escape("[" + body + "]"))
            else:
                # A set never matches the separator, whatever its range spans.
                out.append(f"(?!/)[{'^' if negated else ''}{members}]")
            index = end + 1
        else:
            out.append(re.escape(char))
    return "".join(out)
