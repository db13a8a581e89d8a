"""Families of documents that say the same, and boilerplate: passages that many families share."""

from collections.abc import Collection, Iterable, Sequence
from typing import NamedTuple

import numpy as np
import scipy.sparse

from utils.documents.duplicates import NearDuplicateIndex
from utils.records import Chunk, Document

EDITION_JACCARD = (
    0.7  # Jaccard similarity of two whole documents from which on they are editions of one: 82 % is shared
)
# Families. A passage that more of them share is boilerplate: it fills the first page of ten results by itself, so that
# no document is a better answer than another. In a small collection half of the families suffice.
MAX_SHARING_FAMILIES, MIN_SHARING_FAMILIES = 10, 3


class Families(NamedTuple):
    """What `group_documents` found.

    Attributes:
        passages: the chunks that duplicate no earlier one and are no boilerplate, in order.
        copy_of: id of each other chunk that duplicates a passage -> that passage's id.
        boilerplate: id of each chunk that is boilerplate -> number of documents that share it.
        family_of: id of each document with a chunk -> number of its family.
        related_to: id of each chunk that is related to others -> ids of these, its own included.
    """

    passages: list[Chunk]
    copy_of: dict[str, str]
    boilerplate: dict[str, int]
    family_of: dict[str, int]
    related_to: dict[str, set[str]]


def group_documents(documents: Sequence[Document], chunks: Sequence[Chunk]) -> Families:
    """Group documents that must not be told apart, such as editions of a manual, and find what their passages repeat.

    Documents that resemble each other as a whole are one family. A passage that, exactly or nearly, more than
    MAX_SHARING_FAMILIES of these families share, or half of them where these are fewer, is boilerplate, such as a
    section "Getting help". All other passages that are related join the families of their documents.

    Args:
        chunks: of the documents.
    """
    document_of = {chunk.id: chunk.document_id for chunk in chunks}
    with_text = dict.fromkeys(document_of.values())
    whole = NearDuplicateIndex(EDITION_JACCARD)
    for document in documents:
        if document.id in with_text:
            whole.add(document.id, document.text)
    edition_of = _connected(with_text, whole.related)
    limit = max(MIN_SHARING_FAMILIES, min(MAX_SHARING_FAMILIES, len(set(edition_of.values())) // 2))

    def is_widespread(names: Iterable[str]) -> bool:
        return len({edition_of[document_of[name]] for name in names}) > limit

    index = NearDuplicateIndex()
    distinct = [chunk for chunk in chunks if index.add(chunk.id, chunk.text)]
    related_to: dict[str, set[str]] = {}
    for one, other in index.related:
        related_to.setdefault(one, {one}).add(other)
        related_to.setdefault(other, {other}).add(one)
    widespread = {name for name, related in related_to.items() if is_widespread(related)}
    joined = [(document_of[one], document_of[other]) for one, other in index.related if not {one, other} & widespread]

    copies: dict[str, set[str]] = {}  # id of a duplicated chunk -> ids of it and its duplicates
    for copy, original in index.duplicate_of.items():
        copies.setdefault(original, {original}).add(copy)
    boilerplate: dict[str, int] = {}
    for names in filter(is_widespread, copies.values()):
        boilerplate |= dict.fromkeys(names, len({document_of[name] for name in names}))
    return Families(
        passages=[chunk for chunk in distinct if chunk.id not in boilerplate],
        copy_of={copy: original for copy, original in index.duplicate_of.items() if copy not in boilerplate},
        boilerplate=boilerplate,
        family_of=_connected(with_text, [*whole.related, *joined]),
        related_to=related_to,
    )


def _connected(names: Collection[str], pairs: Iterable[tuple[str, str]]) -> dict[str, int]:
    """Return the number of each name's connected component in the graph whose edges are `pairs`."""
    position = {name: i for i, name in enumerate(names)}
    edges = np.array([(position[one], position[other]) for one, other in pairs], int).reshape(-1, 2)
    graph = scipy.sparse.coo_array((np.ones(len(edges), bool), edges.T), shape=(len(names), len(names)))
    return dict(zip(names, scipy.sparse.csgraph.connected_components(graph, directed=False)[1].tolist()))
