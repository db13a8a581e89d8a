"""A file comes in, a Page goes out: its title and its content as Markdown (headings, paragraphs, lists, tables, code).

Open `registry.py` first: `read_page` picks the parser by the file's suffix. `page.py` holds Page and the detection of
encodings; each other module parses one format, and `pandoc.py` all those that pandoc reads. To add a format, write a
module here with a function `read_X(path) -> Page`, and add a line to READERS in `registry.py` and the suffix to the
table in README.md.
"""
