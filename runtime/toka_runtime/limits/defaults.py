"""What holds for every agent whose spec says nothing."""

from __future__ import annotations

PROCESSES = 512
FILE_BYTES = 4 << 30
OUTPUT_BYTES = 64_000
"""Of one tool call's result, as the model reads it."""
