"""A report's files: Markdown, HTML, LaTeX, CSV."""
