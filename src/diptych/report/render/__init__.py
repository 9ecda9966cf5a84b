"""One document as HTML, Markdown, JSON and PNG."""
