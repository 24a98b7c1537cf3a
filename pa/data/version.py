"""The version of pa, recorded in what it writes."""

__version__ = "0.1.0"
