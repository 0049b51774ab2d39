"""Evidence bundles: all that is known of agents in one sealed file, made over a `RuntimeClient`, near or far."""
