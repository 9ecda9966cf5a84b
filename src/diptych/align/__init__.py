"""Instruments that measure the agreement of the two backends; no framework is loaded here."""
