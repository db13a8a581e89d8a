"""Parse e-mails (EML): subject and message."""

import codecs
import email
import email.policy
from collections.abc import Iterator, Sequence
from email.message import EmailMessage
from pathlib import Path

from utils.documents.formats.html import page_from_html
from utils.documents.formats.page import Page, decode


def read_mail(path: Path) -> Page:
    """Read an e-mail; its title is the subject. All parts of the message are read, of alternatives in plain text and in
    HTML the plain text, each without the signature, which is below a line `-- ` (RFC 3676). Attachments are not read.

    Raises:
        ValueError: the file is no e-mail, or holds neither text nor subject, or is cut before its text.
    """
    try:
        data = path.read_bytes().removeprefix(codecs.BOM_UTF8)
        message = email.message_from_bytes(data, policy=email.policy.default)
        parts = list(_message_parts(message))
        subject = _read_subject(message, [part for part, _ in parts], path)
    except Exception as error:  # Malformed headers and parts raise errors of many kinds.
        raise ValueError(f"{path}: is no readable e-mail: {error or type(error).__name__}") from None
    if not message.keys():
        raise ValueError(f"{path}: is no e-mail: it begins without a header such as 'Subject: ...'")
    text = "\n\n".join(filter(None, (_read_part(part, data, subject, path) for part, data in parts)))
    if not text and (message.defects or not subject.strip()):
        raise ValueError(f"{path}: {'is cut before its text' if message.defects else 'holds no text'}")
    return Page(subject, text)


def _message_parts(message: EmailMessage) -> Iterator[tuple[EmailMessage, bytes]]:
    """Yield (part, its bytes) of the parts with text of a message, those of messages in it included; of white space
    alone, no bytes. A multipart message without a boundary, such as one that is cut, is a text itself."""
    if message.is_attachment():
        return
    kind, parts = message.get_content_type(), message.get_payload()
    if not message.is_multipart():
        if kind in ("text/plain", "text/html") or message.get_content_maintype() == "multipart":
            data = message.get_payload(decode=True)
            yield message, data if data.strip() else b""
    elif kind == "multipart/alternative":
        alternatives = [[(leaf, data) for leaf, data in _message_parts(part) if data] for part in parts]
        yield from min(
            filter(None, alternatives), key=lambda leaves: any(_is_html(leaf) for leaf, _ in leaves), default=[]
        )
    else:
        for part in parts:
            yield from _message_parts(part)


def _read_subject(message: EmailMessage, parts: Sequence[EmailMessage], path: Path) -> str:
    """Return the subject, "" if there is none. Bytes beyond ASCII in it, which the parser takes for surrogates, are in
    the encoding that the first part with one declares, else in the detected one."""
    raw = next((value for name, value in message.raw_items() if name.lower() == "subject"), "").replace("\0", "")
    declared = next(filter(None, (part.get_content_charset() for part in parts)), "")
    text = decode(raw.encode("ascii", "surrogateescape"), path, declared)
    return str(message.policy.header_factory("subject", "".join(text.splitlines())))


def _is_html(part: EmailMessage) -> bool:
    return part.get_content_subtype() == "html"


def _read_part(part: EmailMessage, data: bytes, subject: str, path: Path) -> str:
    try:
        text = data.decode(part.get_content_charset("ascii")).replace("\r\n", "\n")
    except (UnicodeDecodeError, LookupError):  # Mailers declare encodings that are unknown or not those of the message.
        text = decode(data, path)
    if _is_html(part):
        title, text = page_from_html(path, text)
        text = text if title in ("", subject) else f"# {title}\n\n{text}"
    return text.partition("\n-- \n")[0].strip()
