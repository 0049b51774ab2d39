"""Runtime of toka-console: loads agent specs and runs them. Import nothing here: the worker must stay light."""

__version__ = "0.1.0"
