"""A tuned model comes in, what others run goes out: a smaller and faster model, a graph, an engine's files.

Open `folders.py` first, which writes an optimized model: `vocabulary.py` finds what of the vocabulary a collection
uses, `pieces.py` cuts tokens from the tokenizer, `graph.py` exports network and head as one graph. `measuring.py`
measures what each step gains and costs, each in a process of its own. `vector_files.py` writes vectors as our own
files, or as those that a search engine loads, which are made in the folder `engines`.
"""
