"""A report as text and pages: terminal, Markdown, HTML, JSON."""
