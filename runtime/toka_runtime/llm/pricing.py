"""What a call cost, from the price table that `genai-prices` ships: no request is made. Imported inside the gateway
process only (it costs a third of a second)."""

from __future__ import annotations

from genai_prices import Usage, calc_price

from toka_runtime.protocol.usage import TokenUsage


def price_usd(model: str, usage: TokenUsage) -> float | None:
    """US dollars at today's list price; None when the table does not know the model."""
    counted = Usage(
        # The table's input tokens are all of them, cached or not.
        input_tokens=usage.input_tokens + usage.cache_read_tokens + usage.cache_write_tokens,
        cache_read_tokens=usage.cache_read_tokens,
        cache_write_tokens=usage.cache_write_tokens,
        output_tokens=usage.output_tokens,
    )
    try:
        return float(calc_price(counted, model_ref=model, provider_id="anthropic").total_price)
    except (LookupError, ValueError):
        return None
