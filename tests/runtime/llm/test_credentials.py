"""Is there a credential? Asked without the SDK, answered as the SDK would."""

from __future__ import annotations

from pathlib import Path

import pytest

from toka_runtime.llm.credentials import credential_found, secrets_from_environment
from toka_runtime.llm.models import DEFAULT_MODEL, default_model
from toka_runtime.llm.redact import Redactor

FEDERATION = {
    "ANTHROPIC_FEDERATION_RULE_ID": "f",
    "ANTHROPIC_ORGANIZATION_ID": "o",
    "ANTHROPIC_IDENTITY_TOKEN_FILE": "/t",
}


@pytest.mark.parametrize(
    "environ",
    [
        {"ANTHROPIC_API_KEY": "k"},
        {"ANTHROPIC_AUTH_TOKEN": "t"},
        {"ANTHROPIC_PROFILE": "work"},
        {"ANTHROPIC_CONFIG_DIR": "/nowhere"},
        {"ANTHROPIC_CUSTOM_HEADERS": "X-Trace: 1\nAuthorization: Bearer abc"},
        FEDERATION,
    ],
)
def test_found(environ: dict[str, str], tmp_path: Path) -> None:
    assert credential_found({"HOME": str(tmp_path), **environ})


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"ANTHROPIC_API_KEY": ""},
        {"ANTHROPIC_BASE_URL": "http://localhost"},
        {"ANTHROPIC_CUSTOM_HEADERS": "X-Trace: 1"},
        {name: value for name, value in FEDERATION.items() if name != "ANTHROPIC_ORGANIZATION_ID"},
    ],
)
def test_not_found(environ: dict[str, str], tmp_path: Path) -> None:
    assert not credential_found({"HOME": str(tmp_path), **environ})


def test_profiles_on_disk(tmp_path: Path) -> None:
    folder = tmp_path / ".config/anthropic"
    (folder / "configs").mkdir(parents=True)
    (folder / "configs/work.json").write_text("{}")
    environ = {"HOME": str(tmp_path)}
    assert not credential_found(environ), "a profile that is not the active one"
    (folder / "active_config").write_text("work\n")
    assert credential_found(environ)
    (folder / "active_config").write_text(" ")
    (folder / "configs/default.json").write_text("{}")
    assert credential_found(environ)


def test_secrets_are_known_by_name() -> None:
    environ = {
        "ANTHROPIC_API_KEY": "the-api-key",
        "ANTHROPIC_CUSTOM_HEADERS": "Authorization: Bearer header-token-1\nX-Trace: harmless",
        "GITHUB_TOKEN": "the-github-token",
        "HOME": "/root",
    }
    assert secrets_from_environment(environ, ["GITHUB_TOKEN", "ABSENT"]) == {
        "ANTHROPIC_API_KEY": "the-api-key",
        "GITHUB_TOKEN": "the-github-token",
        "ANTHROPIC_CUSTOM_HEADERS:authorization": "header-token-1",
    }
    redactor = Redactor.from_environment(environ, ["GITHUB_TOKEN"])
    assert redactor.text("the-api-key the-github-token header-token-1 harmless").endswith(" harmless")
    assert redactor.redact("the-api-key the-github-token header-token-1")[1] == 3


def test_the_model_of_one_setting() -> None:
    assert default_model("chosen", {"TOKA_MODEL": "env"}) == "chosen"
    assert default_model("", {"TOKA_MODEL": "env"}) == "env"
    assert default_model("", {}) == DEFAULT_MODEL
