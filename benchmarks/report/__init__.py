"""Shows what was measured: a table, Markdown, a page."""
