"""The documents of an index, encoded anew by another model, to search them by both."""

import copy
import time
from collections.abc import Iterator

from utils.console import print_line
from utils.records import Document
from utils.search.base_index import BaseIndex
from utils.search.document_index import DocumentIndex
from utils.search.searcher import DocumentSearch
from utils.splade.opening import open_encoder


def search_with(search: DocumentSearch, model_name: str, index_dir: str | None = None) -> DocumentSearch:
    """Return the same search by another model: of an index that was made with it, or else of a temporary one, for which
    all documents of the first one are encoded, which is said with the time it took.

    Raises:
        ValueError, OSError: the model or the index cannot be had.
    """
    model = open_encoder(model_name, search.model.device, precision=search.model.precision)
    if index_dir:
        index = DocumentIndex(model, index_dir)
        print_line(f"{index_dir}: {index.describe()}, by {model_name}")
    else:
        if search.index.dense_model:
            search.index.open_dense(str(model.device))
        index = DocumentIndex(model, language=search.index.language, dense=search.index.dense)
        started = time.perf_counter()
        index.add(read_documents_of(search.index), show_progress=True)
        print_line(f"{len(index):,} documents encoded by {model_name} in {time.perf_counter() - started:.1f} s")
    other = copy.copy(search)
    other.index, other.model = index, model
    other.search_by(search.kind)
    return other


def read_documents_of(index: BaseIndex) -> Iterator[Document]:
    """Yield the documents of an index, a long one's text made of its passages."""
    for name in index.ids():
        document = index.find(name)
        keys = index.passages_of(document.number)
        passages = index.passages(keys)
        title = document.title.strip()  # which each passage begins with
        texts = [passage.text.removeprefix(title).strip() for passage in map(passages.get, keys)]
        yield Document(id=name, title=document.title, text="\n\n".join(texts), metadata=document.metadata)
