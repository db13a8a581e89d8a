"""Vectors and queries come in, hits go out: scored documents, best first.

Open `base_index.py` first, what every index of documents does: `ingestion.py` encodes those that are new or have
changed, long ones by their `passages.py`; searches go by several `legs.py`, a model's vectors, words and those of
`dense.py`, whose scores `fusion.py` adds. `document_index.py` keeps an index on disk: in `store.py`, and searched in
`index.py`, the engine's inverted index, which `mirror.py` brings up to the store; `remote_index.py` keeps it in a
`collection.py` of a Qdrant server, which `qdrant.py` asks, and `locations.py` opens either. `filters.py` are conditions
on documents' metadata.

`searcher.py` asks an index and shows why a passage matched, `settings.py` has the flags for that, `prompt.py` lets a
person do so; `judgments.py` records what people say of hits, `comparison.py` encodes the documents by another model, to
compare with, and `highlighting.py` marks what matched. `lexical.py` is BM25, on the terms that `analyzer.py` makes of
texts; `scorers.py` opens BM25 or any model that scores how well a document answers a query, to distill from, to mine
hard negatives with and to rank hits anew, and `vector_cache.py` keeps dense models' vectors between runs; `synonyms.py`
expands queries, `abbreviations.py` suggests what by.
"""
