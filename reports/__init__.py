"""Reports: `frames` computes tables, `render` draws them, `page` writes the files."""
