"""Pages made of blocks, in English and Chinese: what `report`, `align` and `studio` share.

A document holds chapters of sentences, tables, figures and pictures, and is written as HTML,
Markdown and PNG. All texts are in `words/`; the numbers in a sentence are kept beside it.
"""
