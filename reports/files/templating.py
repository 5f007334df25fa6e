"""The templates of `reports/templates`. HTML is escaped, Markdown is left as it is."""

from __future__ import annotations

from importlib import resources

import jinja2
from markupsafe import Markup, escape


def template(name: str) -> jinja2.Template:
    """A template by the name of its file."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(str(resources.files("harness.reports") / "templates")),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=name.endswith(".html.jinja"),
    )
    environment.filters["code"] = _code
    return environment.get_template(name)


def _code(text: str) -> Markup:
    """HTML of a sentence, with what stands between backticks as code."""
    parts = [escape(part) for part in text.split("`")]
    inside = [Markup("<code>{}</code>").format(part) for part in parts[1::2]]
    outside = parts[::2]
    return Markup("").join(
        piece for pair in zip(outside, [*inside, Markup("")], strict=False) for piece in pair
    )
