"""The passages that examples are made of: documents in chunks, and what these have in common."""

from collections.abc import Sequence

from utils.documents.chunking import chunk_documents
from utils.documents.families import Families, group_documents
from utils.records import Chunk, Document
from utils.search.scorers import open_text_encoder


def chunk_and_group(
    documents: Sequence[Document],
    size: int,
    overlap: float,
    encoder: str | None,
    device: str | None,
    threads: int | None,
) -> tuple[list[Chunk], Families]:
    """Return all chunks of the documents, and which of them, and of the documents, repeat or resemble each other.

    Args:
        size, overlap: see utils.documents.chunking.chunk_documents.
        encoder: the model whose vectors show where the topic shifts, to cut there; None to cut by size.
    """
    encode = open_text_encoder(encoder, device, threads) if encoder else None
    chunks = chunk_documents(documents, size, overlap, encode)
    return chunks, group_documents(documents, chunks)
