"""The tools that a model can be offered: names, descriptions and schemas as today's coding agents use them.

One schema is both what the model reads and what its arguments are checked against.
"""

from __future__ import annotations

from typing import Any

MAX_COMMAND_TIMEOUT_S = 3600
_PATH_CHARS = 4096
_WRITE_CHARS = 5_000_000


def _text(description: str, most: int, *, least: int = 0, default: str | None = None) -> dict[str, Any]:
    rule: dict[str, Any] = {"type": "string", "description": description, "maxLength": most}
    if least:
        rule["minLength"] = least
    if default is not None:
        rule["default"] = default
    return rule


def _whole(description: str, least: int, most: int, default: int | None = None) -> dict[str, Any]:
    rule: dict[str, Any] = {"type": "integer", "description": description, "minimum": least, "maximum": most}
    if default is not None:
        rule["default"] = default
    return rule


def _flag(description: str) -> dict[str, Any]:
    return {"type": "boolean", "description": description, "default": False}


def _path(description: str, default: str | None = None) -> dict[str, Any]:
    return _text(description, _PATH_CHARS, least=1, default=default)


def _tool(name: str, description: str, required: tuple[str, ...], /, **properties: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": name,
        "description": description,
        "input_schema": {
            "type": "object",
            "properties": properties,
            "required": list(required),
            "additionalProperties": False,
        },
    }


TOOLS: dict[str, dict[str, Any]] = {
    tool["name"]: tool
    for tool in (
        _tool(
            "list_files",
            "List files and folders, sorted, one path a line relative to your folder; folders end in /, links in @. "
            ".git is left out.",
            (),
            path=_path("Folder to list.", "."),
            pattern=_text(
                "Glob on the path below that folder: * within one name, ** across folders. `*` lists the folder "
                "itself, `**` everything below it, `**/*.py` all Python files.",
                1000,
                least=1,
                default="*",
            ),
            limit=_whole("How many entries at most.", 1, 10_000, 1000),
        ),
        _tool(
            "read_file",
            "Read a text file. Each line comes with its number and a tab before it. Long files come in parts: the "
            "answer says how to go on.",
            ("path",),
            path=_path("The file."),
            offset=_whole("First line, from 1.", 1, 1_000_000_000, 1),
            limit=_whole("How many lines at most.", 1, 100_000, 2000),
        ),
        _tool(
            "search_text",
            "Search files for a regular expression (Python syntax), line by line. Answers path:line: text. Binary "
            "files and .git are left out.",
            ("pattern",),
            pattern=_text("The regular expression.", 1000, least=1),
            path=_path("File or folder to search in.", "."),
            glob=_text("Only files whose path matches, e.g. *.rs or src/**/*.py.", 1000, default=""),
            ignore_case=_flag("Upper and lower case are the same."),
            limit=_whole("How many matches at most.", 1, 5000, 200),
        ),
        _tool(
            "write_file",
            "Write a whole file, new or in place of an old one; missing folders are made. To change a part of a file "
            "use edit_file.",
            ("path", "content"),
            path=_path("The file."),
            content=_text("All of its new text.", _WRITE_CHARS),
        ),
        _tool(
            "edit_file",
            "Replace text in a file exactly. old_string has to occur exactly once (give more text around it) unless "
            "replace_all is set. Copy it from read_file without the line numbers.",
            ("path", "old_string", "new_string"),
            path=_path("The file."),
            old_string=_text("The text to replace, exactly as it is.", _WRITE_CHARS, least=1),
            new_string=_text("What comes in its place.", _WRITE_CHARS),
            replace_all=_flag("Replace every occurrence."),
        ),
        _tool(
            "run_command",
            "Run a shell command in your folder and get its output and exit code. Plain commands joined by && || ; | "
            "with literal arguments, wildcards and redirections are decided one by one; variables, substitutions, "
            "subshells, here-documents and background jobs need the right to run any program. There is no input and "
            "nothing keeps running afterwards.",
            ("command",),
            command=_text("The command line.", 32_000, least=1),
            timeout_s=_whole("Stop it after so many seconds.", 1, MAX_COMMAND_TIMEOUT_S),
        ),
        _tool(
            "fetch_url",
            "GET an http:// or https:// address and read the text. A redirect to another host is told, not followed.",
            ("url",),
            url=_text("The address.", 4096, least=1),
        ),
        _tool(
            "finish",
            "End the task. Say truthfully how it stands; done is checked where a check is declared.",
            ("status", "summary"),
            status={
                "type": "string",
                "enum": ["done", "blocked", "failed"],
                "description": "done: it is complete; blocked: something outside your rights is missing; failed: you "
                "tried and could not.",
            },
            summary=_text(
                "What was done, what is open, for the people and agents that go on from here.", 20_000, least=1
            ),
            evidence={
                "type": "array",
                "description": "Facts that show it: files written, commands run with their result.",
                "items": {"type": "string", "maxLength": 4000},
                "maxItems": 100,
                "default": [],
            },
        ),
    )
}
FINISH = "finish"
WITHOUT_EFFECT = frozenset({"list_files", "read_file", "search_text", FINISH})
"""Tools that may be called twice without harm."""
