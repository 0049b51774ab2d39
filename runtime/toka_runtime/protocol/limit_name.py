"""The names of the limits, apart from the models: what must start before anything else is loaded needs no more."""

from __future__ import annotations

from enum import StrEnum


class LimitName(StrEnum):
    """The unit of its figures in parentheses."""

    MEMORY = "memory"
    """Of the whole process tree (bytes)."""
    CPU = "cpu"
    """Of one core (fraction)."""
    TIMEOUT = "timeout"
    """Of a run, pauses not counted (seconds)."""
    DISK = "disk"
    """The agent's folder and its scratch (bytes)."""
    NETWORK = "network"
    """Through the proxy (bytes a second)."""
    PROCESSES = "processes"
    """With their threads (count)."""
    DESCRIPTORS = "descriptors"
    """Open files of one process (count)."""
    FILE_SIZE = "file_size"
    """Of one file (bytes)."""
    OUTPUT = "output"
    """Of one tool call, as the model reads it (bytes)."""
