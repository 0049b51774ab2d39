"""Fakes for clocks and for the far side of our interfaces."""
