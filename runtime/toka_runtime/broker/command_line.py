"""Reading a command line so that what is decided is what runs.

Only a small part of the shell's language is read: plain commands with literal arguments and wildcards, joined by `&&`,
`||`, `;`, `|` and line ends, with redirections to literal paths. What is read is written out again, quoted, and that
text is what the shell gets: it cannot mean more than was decided. Everything else (substitution, variables, subshells,
functions, background jobs, here-documents, assignments …) is `Unreadable`: one operation without a known argv, which
only the right to run any program covers.
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass, field

MAX_COMMANDS = 50
MAX_WORDS = 2000
_NAME = re.compile(r"[A-Za-z0-9_./+@%-]+")
# fmt: off
_RESERVED = frozenset((
    "if", "then", "elif", "else", "fi", "for", "while", "until", "do", "done", "case", "esac", "in", "select",
    "function", "time", "coproc",
))
# fmt: on
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")
_GLOB = "*?["
_RAW_IN_GLOB = re.compile(r"[A-Za-z0-9_./,:=@%+\-\]\[*?!^]")
SINKS = ("/dev/null", "/dev/stdout", "/dev/stderr")
"""Redirecting to them has no effect on files."""


class Unreadable(ValueError):
    """The text says what in the command is not read."""


@dataclass(frozen=True, slots=True)
class Word:
    text: str
    """Without quotes; wildcards as written."""
    shell: str
    """As it is written for the shell."""
    wild: bool = False


@dataclass(frozen=True, slots=True)
class Redirection:
    operator: str
    """`>`, `>>` or `<`, with its descriptor number (`2>`); for duplicates (`2>&1`) the whole and no path."""
    path: Word | None = None

    @property
    def writes(self) -> bool:
        return self.path is not None and ">" in self.operator

    @property
    def shell(self) -> str:
        return self.operator + (f" {self.path.shell}" if self.path else "")


@dataclass(frozen=True, slots=True)
class SimpleCommand:
    words: tuple[Word, ...]
    redirections: tuple[Redirection, ...]

    @property
    def argv(self) -> tuple[str, ...]:
        return tuple(word.text for word in self.words)

    @property
    def shell(self) -> str:
        """Without the redirections."""
        # Physically, so that `..` after a link means what it meant when it was decided.
        if self.argv[:1] == ("cd",):
            return f"cd -P -- {self.words[-1].shell}"
        return " ".join(word.shell for word in self.words)


@dataclass(frozen=True, slots=True)
class CommandLine:
    commands: tuple[SimpleCommand, ...]
    separators: tuple[str, ...]
    """Between them: one fewer."""

    @property
    def shell(self) -> str:
        """What the shell is given."""
        out: list[str] = []
        for command, separator in zip(self.commands, (*self.separators, ""), strict=True):
            parts = [command.shell, *(redirection.shell for redirection in command.redirections)]
            out.append(" ".join(part for part in parts if part))
            out.append(separator if separator == "\n" else f" {separator} " if separator else "")
        return "".join(out)


def parse(command: str) -> CommandLine:
    """Raises Unreadable."""
    if found := _CONTROL.search(command):
        raise Unreadable(f"a control character ({found.group()!r})")
    return _Reader(command).read()


@dataclass
class _Reader:
    source: str
    at: int = 0
    fragments: list[tuple[str, bool]] = field(default_factory=list[tuple[str, bool]])
    """(text, quoted?) of the word being read."""
    in_word: bool = False
    words: list[Word] = field(default_factory=list[Word])
    redirections: list[Redirection] = field(default_factory=list[Redirection])
    pending: str = ""
    """A redirection operator that waits for its path."""
    commands: list[SimpleCommand] = field(default_factory=list[SimpleCommand])
    separators: list[str] = field(default_factory=list[str])
    count: int = 0

    def read(self) -> CommandLine:
        while self.at < len(self.source):
            self._step(self.source[self.at])
        self._end_command("\n", explicit=False)
        if not self.commands:
            raise Unreadable("no command")
        if len(self.separators) >= len(self.commands):
            if self.separators[-1] != "\n":
                raise Unreadable(f"nothing after {self.separators[-1]!r}")
            self.separators.pop()
        return CommandLine(tuple(self.commands), tuple(self.separators))

    # -- characters -----------------------------------------------------------------------------------------------

    def _step(self, char: str) -> None:
        self.at += 1
        if char in " \t":
            self._end_word()
        elif char == "\n":
            self._end_command("\n", explicit=False)
        elif char == "\\":
            following = self._take("a backslash at the end")
            if following != "\n":
                self._add(following, quoted=True)
        elif char == "'":
            end = self.source.find("'", self.at)
            if end < 0:
                raise Unreadable("a quote that is not closed")
            self._add(self.source[self.at : end], quoted=True)
            self.at = end + 1
        elif char == '"':
            self._double_quoted()
        elif char == "$":
            self._dollar(quoted=False)
        elif char == "`":
            raise Unreadable("command substitution (`)")
        elif char in "()":
            raise Unreadable("a subshell or function (parentheses)")
        elif char in ";|&":
            self._separator(char)
        elif char in "<>":
            self._redirect(char, "")
        elif char == "#" and not self.in_word:
            end = self.source.find("\n", self.at)
            self.at = len(self.source) if end < 0 else end
        else:
            self._add(char, quoted=False)

    def _take(self, missing: str) -> str:
        if self.at >= len(self.source):
            raise Unreadable(missing)
        self.at += 1
        return self.source[self.at - 1]

    def _add(self, text: str, *, quoted: bool) -> None:
        self.in_word = True
        self.fragments.append((text, quoted))

    def _double_quoted(self) -> None:
        self._add("", quoted=True)
        while (char := self._take("a quote that is not closed")) != '"':
            if char == "\\":
                following = self._take("a quote that is not closed")
                if following == "\n":
                    continue
                self._add(following if following in '$`"\\' else "\\" + following, quoted=True)
            elif char == "`":
                raise Unreadable("command substitution (`)")
            elif char == "$":
                self._dollar(quoted=True)
            else:
                self._add(char, quoted=True)

    def _dollar(self, *, quoted: bool) -> None:
        following = self.source[self.at : self.at + 1]
        if following == "(":
            raise Unreadable("command substitution or arithmetic ($(…))")
        if following.isalnum() or (following and following in "_{[@*#?-$!"):
            raise Unreadable("a variable ($)")
        if not quoted and following and following in "'\"":
            raise Unreadable("special quoting ($'…')")
        self._add("$", quoted=True)

    # -- operators ------------------------------------------------------------------------------------------------

    def _separator(self, char: str) -> None:
        following = self.source[self.at : self.at + 1]
        if char == "&" and following == ">":
            self.at += 1
            self._redirect(">", "&")
            return
        if following == char:
            self.at += 1
            if char == ";":
                raise Unreadable("`;;`")
            self._end_command(char * 2, explicit=True)
        elif char == "&":
            raise Unreadable("a background job (&)")
        elif char == "|" and following == "&":
            raise Unreadable("`|&`")
        else:
            self._end_command("\n" if char == ";" else char, explicit=True)

    def _redirect(self, char: str, both: str) -> None:
        number = ""
        if self.in_word and not both:
            # A number that touches the operator is a descriptor; anything else is a word before it.
            text = "".join(part for part, quoted in self.fragments if not quoted)
            if text.isascii() and text.isdigit() and not any(quoted for _, quoted in self.fragments):
                number = text
                self.fragments.clear()
                self.in_word = False
        self._end_word()
        if self.pending:
            raise Unreadable("a redirection without a path")
        rest = self.source[self.at : self.at + 4]
        if char == "<" and rest[:1] in ("<", ">", "&"):
            raise Unreadable("a here-document or a two-way redirection")
        if char == ">" and rest[:1] == "&":
            if both:
                raise Unreadable("`&>&`")
            self._duplicate(number, rest)
            return
        operator = char
        if char == ">" and rest[:1] in (">", "|"):
            self.at += 1
            operator = ">>" if rest[0] == ">" else ">"
        if rest[:1] == "(" or self.source[self.at : self.at + 1] == "(":
            raise Unreadable("process substitution")
        if number not in ("", "0", "1", "2"):
            raise Unreadable(f"descriptor {number}")
        self.pending = f"{both or number}{operator}"

    def _duplicate(self, number: str, rest: str) -> None:
        match = re.match(r"&([12])(?=[\s;|&<>]|$)", rest)
        if match is None or number not in ("", "1", "2"):
            raise Unreadable("a redirection of descriptors other than 1 and 2")
        self.at += match.end()
        self.redirections.append(Redirection(f"{number}>{match.group()}"))

    # -- words and commands ---------------------------------------------------------------------------------------

    def _end_word(self) -> None:
        if not self.in_word:
            return
        word = _word(self.fragments)
        self.fragments.clear()
        self.in_word = False
        self.count += 1
        if self.count > MAX_WORDS:
            raise Unreadable(f"more than {MAX_WORDS} words")
        if not self.pending:
            self.words.append(word)
            return
        if word.wild or not word.text:
            raise Unreadable("a redirection to a path that is not literal")
        if self.pending.startswith("&"):
            self.redirections.append(Redirection(self.pending[1:], word))
            self.redirections.append(Redirection("2>&1"))
        else:
            self.redirections.append(Redirection(self.pending, word))
        self.pending = ""

    def _end_command(self, separator: str, *, explicit: bool) -> None:
        self._end_word()
        if self.pending:
            raise Unreadable("a redirection without a path")
        if not self.words and not self.redirections:
            if explicit:
                raise Unreadable(f"nothing before {separator!r}")
            return  # an empty line, or a line end after `&&`
        if self.words:
            _check_name(self.words)
        self.commands.append(SimpleCommand(tuple(self.words), tuple(self.redirections)))
        self.separators.append(separator)
        self.words.clear()
        self.redirections.clear()
        if len(self.commands) > MAX_COMMANDS:
            raise Unreadable(f"more than {MAX_COMMANDS} commands")


def _check_name(words: list[Word]) -> None:
    name = words[0]
    if name.wild or not _NAME.fullmatch(name.text) or name.text in _RESERVED:
        raise Unreadable(f"{name.text!r} where a program's plain name is expected")
    if name.text == "cd":
        where = words[2:] if len(words) > 2 and words[1].text == "--" else words[1:]
        if len(where) != 1 or where[0].wild or where[0].text in ("", "-") or where[0].text.startswith("-"):
            raise Unreadable("`cd` without one literal folder")


def _word(fragments: list[tuple[str, bool]]) -> Word:
    text = "".join(part for part, _ in fragments)
    bare = "".join("\0" * len(part) if quoted else part for part, quoted in fragments)
    if "{" in bare and ("," in bare or ".." in bare):
        raise Unreadable("brace expansion ({…})")
    if re.search(r"(?:^|[=:])~", bare):
        raise Unreadable("a home folder (~)")
    if not any(char in bare for char in _GLOB):
        return Word(text, shlex.quote(text))
    if bare.startswith("-"):
        raise Unreadable("a wildcard in an option")
    if any(part.startswith(".") and any(char in part for char in _GLOB) for part in bare.split("/")):
        raise Unreadable("a wildcard for hidden names (.*), which could mean `..`")
    shell = "".join(
        char if raw != "\0" and _RAW_IN_GLOB.match(char) else shlex.quote(char)
        for char, raw in zip(text, bare, strict=True)
    )
    # A file may be named like an option: with `./` before it, it stays a file.
    before = "./" if bare[0] in _GLOB else ""
    return Word(before + text, before + shell, wild=True)
