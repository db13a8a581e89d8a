"""Vectors and queries come in, hits go out: scored documents, best first.

Open `document_index.py` first: it takes in documents, which `ingestion.py` splits by `passages.py` and encodes, by
`dense.py` too, keeps them in `store.py`, and searches them by vectors and by words, whose scores `fusion.py` adds, in
`index.py`, the engine's inverted index, which `mirror.py` brings up to the store; `filters.py` are conditions on
documents' metadata. `searcher.py` asks it and shows why a passage matched, `settings.py` are the flags for that, and
`prompt.py` lets a person do so. `lexical.py` is BM25, on the terms that `analyzer.py` makes of
texts; `scorers.py` opens BM25 or any model that scores how well a document answers a query, to distill from, to mine
hard negatives with and to rank hits anew, and `vector_cache.py` keeps dense models' vectors between runs; `synonyms.py`
expands queries, `abbreviations.py` suggests what by.
"""
