"""No form of a known secret survives, what looks like a key doesn't either, and ordinary text is left alone."""

from __future__ import annotations

import base64
import html
import json
import time
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from toka_runtime.llm.redact import Redactor, forms_of

SECRET = "sk-ant-api03-Zm9v_bar-BAZ/+=&\"'€" + "q7" * 8
PRINTABLE = st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs")), min_size=8, max_size=40)
AROUND = st.text(max_size=30)


def encodings(secret: str, before: bytes, after: bytes) -> list[str]:
    raw = secret.encode()
    return [
        secret,
        json.dumps(secret),
        json.dumps(secret, ensure_ascii=False),
        html.escape(secret),
        quote(secret),
        quote(secret, safe=""),
        quote_plus(secret),
        raw.hex(),
        raw.hex().upper(),
        base64.b64encode(before + raw + after).decode(),
        base64.urlsafe_b64encode(before + raw + after).decode(),
    ]


@given(PRINTABLE, AROUND, AROUND, st.binary(max_size=7), st.binary(max_size=7))
def test_no_form_of_a_known_secret_survives(secret: str, left: str, right: str, before: bytes, after: bytes) -> None:
    secret = secret.strip()
    assume(len(secret) >= 8)
    redactor = Redactor({"TOKEN": secret}, patterns=())
    for encoded in encodings(secret, before, after):
        clean, count = redactor.redact(left + encoded + right)
        assert count >= 1
        assert not [form for form in forms_of(secret) if form in clean]


@given(st.lists(PRINTABLE, min_size=1, max_size=4), st.lists(st.integers(0, 3), max_size=8), AROUND)
def test_several_secrets_side_by_side(secrets: list[str], order: list[int], filler: str) -> None:
    named = {f"S{index}": secret.strip() for index, secret in enumerate(secrets) if len(secret.strip()) >= 8}
    text = filler + "".join(secrets[index % len(secrets)].strip() for index in order)
    clean, _ = Redactor(named, patterns=()).redact(text)
    assert not [value for value in named.values() if value in clean]


def test_the_reader_sees_which_secret_was_there() -> None:
    clean, count = Redactor({"MY_KEY": "hunter2hunter2"}).redact("a hunter2hunter2 b hunter2hunter2")
    assert (clean, count) == ("a [redacted:MY_KEY] b [redacted:MY_KEY]", 2)


def test_a_secret_that_equals_its_own_name_is_not_put_back() -> None:
    clean, _ = Redactor({"password1": "password1", "redacted": "redacted"}).redact("password1 and redacted")
    assert "password1" not in clean
    assert "redacted" not in clean


def test_each_line_of_a_secret_of_several_lines() -> None:
    key = "first-line-of-the-key-0123\nsecond-line-of-the-key-4567"
    clean, count = Redactor({"KEY": key}, patterns=()).redact("grep: second-line-of-the-key-4567")
    assert (clean, count) == ("grep: [redacted:KEY]", 1)


def test_values_too_short_to_look_for_are_left() -> None:
    assert Redactor({"PIN": "1234"}).redact("1234 rows") == ("1234 rows", 0)


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("key=sk-ant-api03-abcDEF_0123456789-xyz", "key="),
        ("sk-proj-abcdefghij0123456789", ""),
        ("sk-" + "a1" * 24, ""),
        ("ghp_" + "a1B2" * 9, ""),
        ("github_pat_" + "a1_B2" * 10, ""),
        ("glpat-abcdefghij0123456789", ""),
        ("id AKIAIOSFODNN7EXAMPLE.", "id ."),
        ("aws_secret_access_key = wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", "aws_secret_access_key = "),
        ("xoxb-123456789012-abcdefghij", ""),
        ("AIza" + "a1-_B" * 7, ""),
        ("npm_" + "a1B2" * 9, ""),
        ("hf_" + "a1B2c3" * 6, ""),
        ("eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dBjftJeZ4CVP-mB92K27uhbUJU1p1r", ""),
        ("Authorization: Bearer abcdef0123456789abcdef", "Authorization: Bearer "),
        ("postgres://bob:hunter22@db:5432/x", "postgres://bob:@db:5432/x"),
        ("-----BEGIN RSA PRIVATE KEY-----\nMIIEpAIBAAKCAQEA75\nqVbX0A==\n-----END RSA PRIVATE KEY----- tail", " tail"),
        ("-----BEGIN PRIVATE KEY-----\\nMIIEpAIBAAKCAQEA75aB\\nqVbX0Aqqqqqqqqqqqqqqqq", ""),
        (
            "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,0\n\nMIIEpAIBAAKCAQEA75\n"
            "-----END RSA PRIVATE KEY-----",
            "",
        ),
    ],
)
def test_what_looks_like_a_key(text: str, left: str) -> None:
    clean, count = Redactor({}).redact(text)
    assert count == 1
    assert clean.replace(clean[clean.index("[redacted:") : clean.index("]") + 1], "") == left


@pytest.mark.parametrize(
    "text",
    [
        "the task-management-and-some-more-words-in-kebab-case",
        "sk-learn and risk-averse-thinking-about-all-the-things",
        "bearer authentication-with-a-long-name and Bearer <token>",
        "https://example.com:8080/path@tag and git@github.com:o/r.git",
        "A public key: -----BEGIN PUBLIC KEY-----\nMIIBIjANBgkqhkiG9w0BAQ\n-----END PUBLIC KEY-----",
        "write -----BEGIN PRIVATE KEY----- at the top",
        "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
        "def test_hf_model(self): return npm_config",
    ],
)
def test_ordinary_text_is_left_alone(text: str) -> None:
    assert Redactor({}).redact(text) == (text, 0)


def test_values_inside_json() -> None:
    value = {"a": [SECRET, 1, None], SECRET: {"b": f"x {SECRET}"}, "n": 1.5}
    clean, count = Redactor({"K": SECRET}).redact_value(value)
    assert count == 3
    assert SECRET not in json.dumps(clean, ensure_ascii=False)
    assert clean["n"] == 1.5
    assert value["a"][0] == SECRET  # type: ignore[index]  # the value given is untouched


@pytest.mark.parametrize(
    "piece",
    [
        "-----BEGIN PRIVATE KEY-----",
        "eyJ",
        "eyJaaaaaaaaaaa.",
        "sk-",
        "://",
        "://a:",
        "bearer ",
        "bearer a",
        "ghp_a",
        "AKIA",
        "\n",
    ],
)
def test_time_grows_with_length_whatever_the_text(piece: str) -> None:
    """Output of hostile programs goes through here: nothing may take time out of proportion."""
    redactor = Redactor({"K": SECRET})
    small, large = ((piece * (size // len(piece) + 1))[:size] for size in (50_000, 400_000))

    def cost(text: str) -> float:
        best = 1e9
        for _ in range(5):
            began = time.thread_time()
            redactor.redact(text)
            best = min(best, time.thread_time() - began)
        return best

    # Of this thread alone: what else the machine does has no part in it. Eight times the text: eight times the time,
    # and far from the sixty-four of a quadratic search.
    assert cost(large) < 30 * cost(small) + 0.01
