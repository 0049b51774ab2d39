"""What a stream of events is made of: batches, and a new beginning where one cannot go on."""

from __future__ import annotations

from toka_runtime.protocol.events import Envelope
from toka_runtime.protocol.model import Model
from toka_runtime.protocol.snapshot import FleetState


class Resync(Model):
    """The subscriber fell behind, or the runtime has forgotten: start again from this state. `missed` counts the
    durable events that this stream will not deliver (they may still be in the log)."""

    state: FleetState
    missed: int


Batch = list[Envelope] | Resync
"""Envelopes in order. Durable ones number on from the batch before without a hole, but for output merged for a slow
reader: `OutputAppended.merged` in the same batch counts how many are missing, so a batch that ends at seq B after one
that ended at seq A holds (durable envelopes) + (sum of merged) = B - A."""
