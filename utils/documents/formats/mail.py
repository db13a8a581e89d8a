"""Parse e-mails (EML): subject and message."""

import email
import email.policy
from pathlib import Path

from utils.documents.formats.html import page_from_html
from utils.documents.formats.page import Page, decode


def read_mail(path: Path) -> Page:
    """Read an e-mail; its title is the subject. Of a message in plain text and in HTML the plain text is read, without
    the signature, which is below a line `-- ` (RFC 3676). Attachments are not read.

    Raises:
        ValueError: the file is no e-mail.
    """
    try:
        message = email.message_from_bytes(path.read_bytes(), policy=email.policy.default)
        subject = str(message.get("subject", ""))
        body = message.get_body(("plain", "html"))
        data = body.get_payload(decode=True) if body else b""
    except Exception as error:  # Malformed headers and parts raise errors of many kinds.
        raise ValueError(f"{path}: is no readable e-mail: {error or type(error).__name__}") from None
    if not message.keys():
        raise ValueError(f"{path}: is no e-mail: it begins without a header such as 'Subject: ...'")
    try:
        text = data.decode(body.get_content_charset("ascii") if body else "ascii").replace("\r\n", "\n")
    except (UnicodeDecodeError, LookupError):  # Mailers declare encodings that are unknown or not those of the message.
        text = decode(data, path)
    if body and body.get_content_subtype() == "html":
        text = page_from_html(path, text).text
    return Page(subject, text.partition("\n-- \n")[0])
