"""Read the rows of CSV and TSV files as records."""

import csv
import io
from collections.abc import Iterator
from pathlib import Path

from utils.documents.formats.page import decode, read_text_bytes

DELIMITERS = ",;\t|"  # in the order in which they are tried; Excel writes semicolons where the comma is a decimal sign
TEXT_COLUMNS = {"content", "text"}
DOCUMENT_COLUMNS = TEXT_COLUMNS | {"title", "id", "_id", "metadata"}  # their names may be in any case
MAX_FIELD_CHARACTERS = 2**31 - 1  # the most that the csv module takes on all systems; its default is 131,072


def read_table_records(path: Path) -> Iterator[tuple[str, dict[str, str] | ValueError]]:
    """Yield (place, record) of each row of a CSV or TSV file, by the columns that its first line names; `place` is its
    file and line, for messages. Rows without any field are left out, and so are empty fields other than the text. Of a
    row with more fields than columns, or with a stray quote, the record is the ValueError.

    The delimiter is the one with which there is a column `content` or `text`. Quotes are as in RFC 4180; in a file with
    tabs where they are not, they are characters like others.

    Raises:
        ValueError: the file is binary, its first line is broken, or it has no such column, or two of one name.
        OSError: the file cannot be read.
    """
    csv.field_size_limit(MAX_FIELD_CHARACTERS)
    text = decode(read_text_bytes(path), path)
    headers = {delimiter: _header(text, delimiter) for delimiter in DELIMITERS}
    delimiter = next((d for d, columns in headers.items() if TEXT_COLUMNS.intersection(columns)), "")
    if not delimiter:
        found = ", ".join(f"'{name}'" for name in max(headers.values(), key=len)) or "none"
        raise ValueError(f"{path}: a column must be named 'content' or 'text'; its columns are {found}")
    columns = headers[delimiter]
    for name in DOCUMENT_COLUMNS:
        if columns.count(name) > 1:
            raise ValueError(f"{path}: {columns.count(name)} columns are named '{name}'; rename all but one")
    quoting = csv.QUOTE_NONE if delimiter == "\t" and not _is_well_quoted(text) else csv.QUOTE_MINIMAL
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, quoting=quoting, strict=True)
    try:
        next(rows)
    except csv.Error as error:
        raise ValueError(f"{path}: line 1: {_reason(error)}") from None
    while True:
        place, before = f"{path}: line {rows.line_num + 1}", rows.line_num
        try:
            row = next(rows)
            if len(row) > len(columns) and any(field.strip() for field in row[len(columns) :]):
                raise ValueError(f"{len(row)} fields for {len(columns)} columns; put texts in quotes")
        except StopIteration:
            return
        except (csv.Error, ValueError) as error:
            lines = rows.line_num - before
            left_out = f"; the {lines:,} lines up to line {rows.line_num:,} are left out" if lines > 1 else ""
            yield place, ValueError(f"{place}: {_reason(error)}{left_out}")
            continue
        if any(field.strip() for field in row):
            record = dict(zip(columns, row))
            yield place, {name: field for name, field in record.items() if field.strip() or name in TEXT_COLUMNS}


def _reason(error: Exception) -> str:
    return "a quote that is never closed" if str(error) == "unexpected end of data" else str(error)


def _header(text: str, delimiter: str) -> list[str]:
    """Return the names of the columns; those of DOCUMENT_COLUMNS in lower case."""
    names = [name.strip() for name in next(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter), [])]
    return [name.lower() if name.lower() in DOCUMENT_COLUMNS else name for name in names]


def _is_well_quoted(text: str) -> bool:
    """Return whether each field of a table with tabs that begins with a quote also ends with one."""
    try:
        for _ in csv.reader(io.StringIO(text, newline=""), delimiter="\t", strict=True):
            pass
    except csv.Error:
        return False
    return True
