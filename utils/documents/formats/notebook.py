"""Parse Jupyter notebooks: the text and code of their cells."""

from pathlib import Path

from pydantic import BaseModel, ValidationError

from utils.documents.formats.markdown import clean_markdown
from utils.documents.formats.page import Page, decode, page_from_markdown, read_text_bytes
from utils.records import describe_error, parse_json


class Cell(BaseModel):
    """A cell of a notebook; its source is a text or a list of its lines, with their ends."""

    cell_type: str
    source: str | list[str] = ""


class Notebook(BaseModel):
    """A notebook in version 4 of the format (2015 on), https://nbformat.readthedocs.io."""

    cells: list[Cell]


def read_notebook(path: Path) -> Page:
    """Read a notebook: Markdown cells, and code cells between fences. Outputs and raw cells are dropped. Its title is
    the `#` heading that it begins with.

    Raises:
        ValueError: the file is broken JSON, no notebook, or one of a version before 4.
    """
    try:
        notebook = Notebook.model_validate(parse_json(decode(read_text_bytes(path), path), path))
    except ValidationError as error:
        raise ValueError(f"{path}: is no notebook of version 4: {describe_error(error)}") from None
    parts = []
    for cell in notebook.cells:
        source = "".join(cell.source).strip("\n")
        if cell.cell_type == "markdown":
            parts.append(source)
        elif cell.cell_type == "code" and source.strip():
            fence = "~~~" if "```" in source else "```"
            parts.append(f"{fence}\n{source}\n{fence}")
    return page_from_markdown(clean_markdown("\n\n".join(parts)))
