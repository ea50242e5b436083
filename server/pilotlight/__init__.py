"""Pilotlight: a local, OpenAI-compatible inference daemon that is careful with battery, heat and memory."""

__version__ = "0.1.0"
