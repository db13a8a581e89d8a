"""Files come in, documents and their passages go out, to train on and to search.

Open `reading.py` first: it reads a file, a folder or a collection in the BEIR layout as a list of documents. `formats/`
parses one file, with a module for each format, and `tables.py` the rows of CSV and TSV files; `normalization.py` gives
equal texts one spelling. `chunking.py` splits documents into passages, `segments.py` texts into sentences, list items
and code; `duplicates.py` finds copies, `families.py` the documents that say the same, and boilerplate.
"""
