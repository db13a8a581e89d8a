"""The parser of each format, by the suffix of a file's name."""

from collections.abc import Callable
from pathlib import Path

from utils.documents.formats.docx import read_docx
from utils.documents.formats.html import read_html
from utils.documents.formats.mail import read_mail
from utils.documents.formats.markdown import read_markdown
from utils.documents.formats.mdx import read_mdx
from utils.documents.formats.notebook import read_notebook
from utils.documents.formats.page import Page
from utils.documents.formats.pandoc import FORMATS, read_with_pandoc
from utils.documents.formats.pdf import read_pdf
from utils.documents.formats.plain_text import read_plain_text
from utils.documents.formats.pptx import read_pptx
from utils.documents.formats.restructured_text import read_restructured_text
from utils.documents.normalization import normalize

READERS: dict[str, Callable[[Path], Page]] = {
    ".md": read_markdown,
    ".markdown": read_markdown,
    ".mdx": read_mdx,
    ".txt": read_plain_text,
    ".rst": read_restructured_text,
    ".html": read_html,
    ".htm": read_html,
    ".pdf": read_pdf,
    ".docx": read_docx,
    ".pptx": read_pptx,
    ".ipynb": read_notebook,
    ".eml": read_mail,
    **dict.fromkeys(FORMATS, read_with_pandoc),
}


def read_page(path: Path) -> Page:
    """Read the title and text of a regular file, both normalized; its suffix, in any case, is one of READERS.

    Raises:
        ValueError: the file is not what its suffix says, is encrypted, or is a text file larger than 20 MB.
        ImportError: the library that reads it is not installed.
        OSError: the file cannot be read.
    """
    try:
        page = READERS[path.suffix.lower()](path)
    except ImportError:
        raise
    except Exception as error:  # Parsers raise errors of many kinds, and not all name the file.
        if isinstance(error, ValueError | OSError) and str(path) in str(error):
            raise
        raise ValueError(f"{path}: cannot be read: {str(error) or type(error).__name__}") from error
    return Page(" ".join(normalize(page.title).split()), normalize(page.text).strip())
