"""Where the credential comes from, without importing the SDK (which takes a second). Follows the SDK's own order: an
API key, a token, a named profile, workload identity, the active profile on disk."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

PREFIX = "ANTHROPIC_"
"""All variables of this prefix go to the gateway over its socket, never through its environment, where a process of the
same user could read them."""

_SECRET_NAMES = (
    "ANTHROPIC_API_KEY",
    "ANTHROPIC_AUTH_TOKEN",
    "ANTHROPIC_IDENTITY_TOKEN",
    "ANTHROPIC_WEBHOOK_SIGNING_KEY",
    "ANTHROPIC_ENVIRONMENT_KEY",
    "ANTHROPIC_WORK_SECRET",
)
_SECRET_HEADERS = ("authorization", "x-api-key", "proxy-authorization", "cookie")


def credential_found(environ: Mapping[str, str]) -> bool:
    """Would the SDK find something to authenticate with? That the provider accepts it is not known. A profile that was
    chosen explicitly counts even when its file is missing: that is an error to show, not a reason for a rehearsal."""
    if environ.get("ANTHROPIC_API_KEY") or environ.get("ANTHROPIC_AUTH_TOKEN") or environ.get("ANTHROPIC_PROFILE"):
        return True
    if any(name in ("authorization", "x-api-key") for name in custom_headers(environ)):
        return True
    if (
        environ.get("ANTHROPIC_FEDERATION_RULE_ID")
        and environ.get("ANTHROPIC_ORGANIZATION_ID")
        and (environ.get("ANTHROPIC_IDENTITY_TOKEN") or environ.get("ANTHROPIC_IDENTITY_TOKEN_FILE"))
    ):
        return True
    if environ.get("ANTHROPIC_CONFIG_DIR"):
        return True
    home = environ.get("HOME")
    folder = (Path(home) if home else Path.home()) / ".config" / "anthropic"
    try:
        pointer = folder / "active_config"
        if pointer.is_file() and pointer.read_text(encoding="utf-8").strip():
            return True
        return (folder / "configs" / "default.json").is_file()
    except (OSError, UnicodeDecodeError):
        return False


def custom_headers(environ: Mapping[str, str]) -> dict[str, str]:
    """`ANTHROPIC_CUSTOM_HEADERS` (lines of `Name: value`), names in lower case."""
    headers: dict[str, str] = {}
    for line in environ.get("ANTHROPIC_CUSTOM_HEADERS", "").splitlines():
        name, colon, value = line.partition(":")
        if colon:
            headers[name.strip().lower()] = value.strip()
    return headers


def secrets_from_environment(environ: Mapping[str, str], names: Iterable[str] = ()) -> dict[str, str]:
    """Name → value of what must never be seen: the credential in all its places, and the variables `names`."""
    found = {name: environ[name] for name in (*_SECRET_NAMES, *names) if environ.get(name)}
    for header, value in custom_headers(environ).items():
        if header in _SECRET_HEADERS and value:
            # "Bearer VALUE": the value alone is the secret.
            found[f"ANTHROPIC_CUSTOM_HEADERS:{header}"] = value.split()[-1]
    return found
