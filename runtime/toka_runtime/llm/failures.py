"""How one try of a model call failed, and what is to be done about it. Inside the gateway only: what leaves it is the
`ModelError` that each failure holds."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Any

from toka_runtime.errors import ModelError, ModelRefused, ModelUnavailable, PromptTooLong
from toka_runtime.llm.json_value import as_object

_RETRYABLE_STATUS = frozenset((408, 409, 425, 429))
_RETRYABLE_TYPES = frozenset(("overloaded_error", "api_error", "timeout_error", "rate_limit_error", "conflict_error"))
_TOO_LONG = re.compile(
    r"prompt is too long|maximum context length|context_length_exceeded|exceeds? (?:the )?(?:model'?s? )?context"
    r"|request_too_large|too many (?:input )?tokens",
    re.IGNORECASE,
)
_HINTS = {
    401: "check the credential (ANTHROPIC_API_KEY or ANTHROPIC_AUTH_TOKEN)",
    402: "the account has no credit left, or a budget is used up",
    403: "this credential may not use this model or this server",
    404: "check the model's name (TOKA_MODEL, or `model` in the spec) and the base URL",
}
_TYPE_STATUS = {
    "authentication_error": 401,
    "billing_error": 402,
    "permission_error": 403,
    "not_found_error": 404,
    "rate_limit_error": 429,
}


class TryFailed(Exception):
    """One try failed. `error` is what the caller gets when no further try is made."""

    def __init__(
        self,
        error: ModelError,
        *,
        retryable: bool,
        retry_after_s: float | None = None,
        shared: bool = False,
        fixed_delay_s: float | None = None,
    ) -> None:
        super().__init__(str(error))
        self.error = error
        self.retryable = retryable
        self.retry_after_s = retry_after_s
        """What the provider asked for, uncapped; None: it said nothing."""
        self.shared = shared
        """Every call must slow down, not only this one."""
        self.fixed_delay_s = fixed_delay_s
        """The exact wait before the next try: a replay knows it."""


def failure_of_status(status: int, headers: Mapping[str, str], kind: str, message: str) -> TryFailed:
    """An HTTP answer with an error status. `kind` is `error.type` of its body, "" when it has none."""
    said = f"{status} {kind}: {message}" if kind else f"{status}: {message}"
    verdict = headers.get("x-should-retry", "").lower()
    retryable = (
        (status in _RETRYABLE_STATUS or status >= 500) if verdict not in ("true", "false") else verdict == "true"
    )
    if status in (400, 413) and (status == 413 or _TOO_LONG.search(message)):
        return TryFailed(PromptTooLong(f"the prompt is too long ({said})"), retryable=False)
    if not retryable and status < 500:
        return TryFailed(
            ModelRefused(f"the provider refused the request ({said})", hint=_HINTS.get(status, "")), retryable=False
        )
    return TryFailed(
        ModelUnavailable(f"the provider cannot answer now ({said})"),
        retryable=retryable,
        retry_after_s=retry_after_s(headers),
        shared=status in (429, 529),
    )


def failure_of_error_event(event: Mapping[str, Any]) -> TryFailed:
    """An `error` event inside a stream whose status was 200: only its type says what it is. An unknown type is taken
    for an outage."""
    detail = as_object(event.get("error"))
    kind, message = str(detail.get("type") or ""), str(detail.get("message") or "")
    if kind == "invalid_request_error" and _TOO_LONG.search(message):
        return TryFailed(PromptTooLong(f"the prompt is too long ({kind}: {message})"), retryable=False)
    if kind.endswith("_error") and kind not in _RETRYABLE_TYPES:
        hint = _HINTS.get(_TYPE_STATUS.get(kind, 0), "")
        return TryFailed(
            ModelRefused(f"the provider refused the request in mid-stream ({kind}: {message})", hint=hint),
            retryable=False,
        )
    return TryFailed(
        ModelUnavailable(f"the provider broke off in mid-stream ({kind or 'error'}: {message})"),
        retryable=True,
        shared=kind in ("overloaded_error", "rate_limit_error"),
    )


def retry_after_s(headers: Mapping[str, str]) -> float | None:
    """Seconds from `retry-after-ms` or `retry-after` (seconds or a date); None when absent or senseless."""
    for name, scale in (("retry-after-ms", 1000.0), ("retry-after", 1.0)):
        value = headers.get(name, "").strip()
        if not value:
            continue
        try:
            seconds = float(value) / scale
        except ValueError:
            seconds = _seconds_until(value, headers.get("date", ""))
        if math.isfinite(seconds) and seconds >= 0:
            return seconds
    return None


def _seconds_until(when: str, now: str) -> float:
    """Between two HTTP dates, the server's own `Date` being now: no clocks need to agree."""
    try:
        return (parsedate_to_datetime(when) - parsedate_to_datetime(now)).total_seconds()
    except (ValueError, TypeError):
        return math.nan
