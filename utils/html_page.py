"""HTML pages for people: one file each, with a look of their own, that loads nothing and runs nothing."""

from pathlib import Path
from typing import Any

import jinja2

BASE_FOLDER = Path(__file__).parent  # of page_base.html, which the templates extend


def render_page(template: Path, script: str, **values: Any) -> str:
    """Render a Jinja template that extends page_base.html.

    Args:
        script: name of the script that makes the page, for the mark in its head (utils.records.REPORT_MARKS).
        values: what the template shows; texts are escaped.
    """
    loader = jinja2.FileSystemLoader([template.parent, BASE_FOLDER])
    pages = jinja2.Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True)
    return pages.get_template(template.name).render(script=script, **values)
