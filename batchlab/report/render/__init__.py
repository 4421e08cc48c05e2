"""A report as words and pages: terminal, Markdown, HTML, JSON."""
