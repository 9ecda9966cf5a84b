"""Instruments that show whether the two panels agree; no framework is loaded here."""
