"""Takes secrets out of text: known values in every form they travel in, then what looks like a key.

Light on purpose (standard library only), as the supervisor runs it over logs and screens. Speed comes from asking
first, with plain substring searches, whether anything could match at all: nearly all text ends there.
"""

from __future__ import annotations

import base64
import html
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, quote_plus

from toka_runtime.llm.credentials import secrets_from_environment
from toka_runtime.llm.json_value import as_list, as_object

MIN_SECRET_CHARS = 6
"""A shorter value is not looked for: it would shred ordinary text."""
_MIN_FORM_CHARS = 8
_MIN_LINE_CHARS = 16


@dataclass(frozen=True, slots=True)
class KeyPattern:
    """A kind of key that is known by its looks. `regex` begins with a literal wherever it can (that is what makes a
    search fast), captures in group 1 what stays, if anything; text without any of `hints` cannot match."""

    name: str
    regex: str
    hints: tuple[str, ...]


_PEM_GAP = r"(?:\s|\\[nrt])*+"
KEY_PATTERNS = (
    KeyPattern("anthropic-key", r"sk-ant-[A-Za-z0-9_\-]{16,}", ("sk-ant-",)),
    KeyPattern(
        "api-key", r"sk-(?<![A-Za-z0-9]sk-)(?:(?:proj|svcacct|admin)-[A-Za-z0-9_\-]{20,}|[A-Za-z0-9]{40,})", ("sk-",)
    ),
    KeyPattern("github-token", r"gh[pousr]_[A-Za-z0-9]{36,}", ("ghp_", "gho_", "ghu_", "ghs_", "ghr_")),
    KeyPattern("github-token", r"github_pat_[A-Za-z0-9_]{40,}", ("github_pat_",)),
    KeyPattern("gitlab-token", r"glpat-[A-Za-z0-9_\-]{20,}", ("glpat-",)),
    KeyPattern("aws-key-id", r"A(?:KIA|SIA)[A-Z0-9]{16}(?![A-Za-z0-9])", ("AKIA", "ASIA")),
    KeyPattern(
        "aws-secret-key",
        r"((?:aws_secret_access_key|AWS_SECRET_ACCESS_KEY)[\"'\\]*\s*[=:]\s*[\"'\\]*)[A-Za-z0-9/+=]{40}",
        ("aws_secret_access_key", "AWS_SECRET_ACCESS_KEY"),
    ),
    KeyPattern("slack-token", r"xox[abeoprs]-[A-Za-z0-9\-]{10,}", ("xox",)),
    KeyPattern("google-key", r"AIza[A-Za-z0-9_\-]{35}", ("AIza",)),
    KeyPattern("stripe-key", r"[rs]k_live_[A-Za-z0-9]{20,}", ("k_live_",)),
    KeyPattern("npm-token", r"npm_[A-Za-z0-9]{36}", ("npm_",)),
    KeyPattern("pypi-token", r"pypi-AgEI[A-Za-z0-9_\-]{50,}", ("pypi-AgEI",)),
    KeyPattern("huggingface-token", r"hf_[A-Za-z0-9]{30,}", ("hf_",)),
    KeyPattern(
        "jwt", r"eyJ(?<![A-Za-z0-9_\-]eyJ)[A-Za-z0-9_\-]{10,}+\.eyJ[A-Za-z0-9_\-]{10,}+\.[A-Za-z0-9_\-]{10,}", ("eyJ",)
    ),
    # Whole keys, and what is left of one that was cut before its end line.
    KeyPattern(
        "private-key",
        r"-----BEGIN [A-Z0-9 ]{0,32}PRIVATE KEY(?: BLOCK)?-----"
        rf"(?:{_PEM_GAP}(?:Proc-Type|DEK-Info|Version|Comment|Hash):[^\n\\]*+)*+"
        rf"(?:{_PEM_GAP}[A-Za-z0-9+/=]{{16,}}+)++"
        rf"(?:{_PEM_GAP}(?:=?[A-Za-z0-9+/=]{{1,15}}+{_PEM_GAP})?-----END [^\-\n]{{0,40}}-----)?",
        ("PRIVATE KEY",),
    ),
    # At least one digit: "bearer authentication-…" is prose.
    KeyPattern(
        "bearer-token", r"([Bb]earer\s+)(?=[A-Za-z._~+/\-]*[0-9])[A-Za-z0-9._~+/\-]{16,}=*", ("Bearer", "bearer")
    ),
    KeyPattern("password", r"(://[^\s/:@\"']{0,64}:)[^\s/@\"'\[]{3,128}(?=@)", ("://",)),
)


class Redactor:
    """Immutable once built; safe to share."""

    def __init__(self, secrets: Mapping[str, str], patterns: Iterable[KeyPattern] = KEY_PATTERNS) -> None:
        """`secrets`: name → value; the name is what the reader sees in place of the value."""
        named: dict[str, str] = {}
        for name, value in secrets.items():
            for form in forms_of(value):
                named.setdefault(form, name)
        forms = sorted(named, key=len, reverse=True)
        # A marker that itself holds a secret (a value equal to a variable's name) would let it survive.
        self._known = [(form, _marker(named[form], forms)) for form in forms]
        self._patterns = [(re.compile(p.regex), p.hints, f"[redacted:{p.name}]") for p in patterns]

    @classmethod
    def from_environment(cls, environ: Mapping[str, str], names: Iterable[str] = ()) -> Redactor:
        """Knows the model credential and the values of the variables `names`."""
        return cls(secrets_from_environment(environ, names))

    def redact(self, text: str) -> tuple[str, int]:
        """(text without secrets, how many were taken out)."""
        text, count = self.redact_known(text)
        for regex, hints, marker in self._patterns:
            if any(hint in text for hint in hints):
                text, found = regex.subn(lambda match, m=marker: (match.group(1) if match.re.groups else "") + m, text)
                count += found
        if count and any(form in text for form, _ in self._known):
            # What was cut out brought the halves of another secret together. Nothing of it goes through.
            return "[redacted]", count
        return text, count

    def redact_known(self, text: str) -> tuple[str, int]:
        """Known values only: for encoded data, where a look-alike of a key is chance."""
        count = 0
        for form, marker in self._known:
            if form in text:
                count += text.count(form)
                text = text.replace(form, marker)
        return text, count

    def text(self, text: str) -> str:
        return self.redact(text)[0]

    def redact_value(self, value: Any) -> tuple[Any, int]:
        """The same for every string in a JSON value, keys of objects included. The value given is not changed."""
        if isinstance(value, str):
            return self.redact(value)
        if isinstance(value, (list, tuple)):
            pairs = [self.redact_value(item) for item in as_list(value)]
            return [item for item, _ in pairs], sum(count for _, count in pairs)
        if isinstance(value, dict):
            result: dict[str, Any] = {}
            total = 0
            for key, item in as_object(value).items():
                clean_key, in_key = self.redact(str(key))
                result[clean_key], in_item = self.redact_value(item)
                total += in_key + in_item
            return result, total
        return value, 0


def forms_of(value: str) -> set[str]:
    """Every form that is looked for: as it is, its long lines, as JSON and HTML write it, URL-encoded, hexadecimal, and
    base64 in both alphabets, also from inside longer data (three alignments)."""
    value = value.strip()
    if len(value) < MIN_SECRET_CHARS:
        return set()
    forms = {value}
    lines = value.splitlines()
    if len(lines) > 1:
        forms.update(line.strip() for line in lines if len(line.strip()) >= _MIN_LINE_CHARS)
    raw = value.encode(errors="surrogateescape")
    text = raw.decode(errors="replace")
    derived = {json.dumps(text)[1:-1], json.dumps(text, ensure_ascii=False)[1:-1], html.escape(text)}
    derived.update((quote(raw), quote(raw, safe=""), quote_plus(raw), quote_plus(raw, safe="/")))
    derived.update({re.sub(r"%[0-9A-F]{2}", lambda match: match.group().lower(), form) for form in derived})
    derived.update((raw.hex(), raw.hex().upper()))
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        whole = encode(raw).decode()
        derived.update((whole, whole.rstrip("=")))
        derived.update(_inside_base64(encode(bytes(shift) + raw).decode(), shift, len(raw)) for shift in range(3))
    forms.update(form for form in derived if len(form) >= _MIN_FORM_CHARS)
    return forms


def _inside_base64(encoded: str, shift: int, size: int) -> str:
    """The characters that depend on the secret alone, whatever comes before and after it."""
    end = len(encoded.rstrip("=")) - (1 if (shift + size) % 3 else 0)
    return encoded[(0, 2, 3)[shift] : end]


def _marker(name: str, forms: list[str]) -> str:
    for marker in (f"[redacted:{name}]", "[redacted]", "[***]"):
        if not any(form in marker for form in forms):
            return marker
    return ""
