"""The chapters: each file holds the sentences, tables and figures of one subject."""
