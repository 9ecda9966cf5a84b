"""Texts in English and Chinese, and the templates that numbers fill."""
