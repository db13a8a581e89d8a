"""Files of people's documents come in, passages to train on and to search go out.

Open `reading.py` first: a file, a folder or a collection in the BEIR layout as a list of documents. Each file passes
`formats.py`, one parser a format, and `normalization.py`, one spelling for the same text; `chunking.py` cuts documents
into passages, and `duplicates.py` finds those that repeat each other.
"""
