"""The prompt: queries, and commands on what they found."""

import contextlib
import itertools
import shlex
import shutil
import sys
import textwrap
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from utils.console import format_table, print_line
from utils.files import cache_folder
from utils.search.comparison import search_with
from utils.search.filters import parse_filters
from utils.search.judgments import record_judgment
from utils.search.searcher import SEARCHES, DocumentSearch, EncodedQuery, snippet

HISTORY_NAME = "queries"  # in the user's cache folder
HISTORY_LINES = 1000
COMMANDS = {
    ":filter CONDITION ...": "search such documents alone, as year>=2020 or kind=manual; without any, all",
    ":search KIND": f"search by {', '.join(SEARCHES)}",
    ":compare MODEL": "show the hits of another model beside; all documents are encoded by it; without one, no more",
    ":explain N": "which terms of the query met which of hit N, with their weights",
    ":more N": "the whole passage of hit N",
    ":like N, :dislike N": "record whether hit N answers the query, for generate_training_data.py --feedback-file",
    ":help": "these lines",
    "quit": "or the end of input",
}


class Prompt:
    """Asks for queries and prints what is found.

    Args:
        top_k: hits per query.
        top_terms: matching terms shown of a hit.
        feedback_file: where judgments of hits go, JSON Lines as `utils.training_data.feedback` reads them.
        filters: what the search's conditions were parsed of.

    Attributes:
        records: {"query", "results"} of each query.
    """

    def __init__(
        self, search: DocumentSearch, top_k: int, top_terms: int, feedback_file: Path, filters: Sequence[str] = ()
    ) -> None:
        self.search, self.top_k, self.top_terms, self.feedback_file = search, top_k, top_terms, feedback_file
        self._filters = filters
        self.records: list[dict[str, Any]] = []
        self._query: EncodedQuery | None = None
        self._legs = search.legs  # of the last query
        self._other: DocumentSearch | None = None  # by the model that is compared with

    def run(self) -> None:
        """Ask until `quit` or the end of input."""
        sys.stdin.reconfigure(errors="replace")  # bytes that are not UTF-8 end no session
        print_line("Type a query, :help, or quit.")
        with _history():
            while True:
                try:
                    line = input("query> ").strip()
                except EOFError:
                    break
                if line.lower() in ("quit", "exit"):
                    break
                if line.startswith(":"):
                    self._command(line)
                elif line:
                    try:
                        self.answer(line)
                    except (ValueError, OSError) as error:  # of a server, which may be back for the next query
                        print_line(str(error))

    def answer(self, text: str) -> None:
        """Search, print the hits, and keep them among the records."""
        if self.search.model.tokenize_and_count_queries([text])[1]:
            print_line(f"The query is longer than {self.search.model.query_max_length} tokens and was cut.")
        started = time.perf_counter()
        query = self.search.encode(text)
        encoded = time.perf_counter()
        results = self.search.find(query, self.top_k)
        milliseconds = [1000 * (end - start) for start, end in ((started, encoded), (encoded, time.perf_counter()))]
        self._query, self._legs = query, self.search.legs
        self.records.append({"query": text, "results": results})
        if self._other:
            self._other.search_by(self.search.kind)
            self._other.where = self.search.where
            names = self.search.model.name, self._other.model.name
            print_side_by_side(names, (results, self._other.search(text, self.top_k)), self.top_terms)
        else:
            print_hits(results, self.top_terms, bool(self.search.where))
        print_line(f"({milliseconds[0]:.1f} ms to encode, {milliseconds[1]:.1f} ms to search)\n")

    def _command(self, line: str) -> None:
        """Do what a command says, or print why that cannot be."""
        name, _, rest = line.partition(" ")
        commands = {
            ":filter": self._filter,
            ":search": self._search_by,
            ":compare": self._compare,
            ":explain": self._explain,
            ":more": self._more,
            ":like": lambda given: self._judge(given, True),
            ":dislike": lambda given: self._judge(given, False),
        }
        try:
            if name == ":help":
                width = max(map(len, COMMANDS))
                print_line("\n".join(f"{command.ljust(width)}  {text}" for command, text in COMMANDS.items()))
            elif name in commands:
                commands[name](rest.strip())
            else:
                raise ValueError(f"{name}: no such command; :help lists them")
        except (ValueError, OSError, ImportError) as error:
            print_line(str(error))

    def _filter(self, given: str) -> None:
        try:
            filters = _split_filters(given)
            where = parse_filters(filters)
            self.search.index.check_filters(where)
        except ValueError as error:
            raise ValueError(f"{error}; still {self._searched()}") from None
        self.search.where, self._filters = where, filters
        print_line(self._searched())

    def _searched(self) -> str:
        return f"searching documents with {' '.join(self._filters)}" if self._filters else "searching all documents"

    def _search_by(self, given: str) -> None:
        self.search.search_by(given)
        print_line(f"searching by {given}")

    def _compare(self, given: str) -> None:
        if not given and not self._other:
            raise ValueError(":compare needs a model: a folder, a hub id, or splade-tiny")
        other = search_with(self.search, given) if given else None
        if self._other:
            self._other.index.close()
        self._other = other
        if not other:
            print_line(f"searching by {self.search.model.name} alone")
        elif self._query:
            self.answer(self._query.text)

    def _hit(self, given: str) -> dict[str, Any]:
        """Return the hit of the last query with this rank."""
        results = self.records[-1]["results"] if self.records else []
        if not results:
            raise ValueError("there is no hit yet: type a query")
        if not given.isdecimal() or not 1 <= int(given) <= len(results):
            raise ValueError(f"'{given}' is none of the hits, 1 to {len(results)}")
        return results[int(given) - 1]

    def _explain(self, given: str) -> None:
        rows, words = self.search.explain(self._query, self._hit(given)["passage"])
        if rows:
            print_line(format_table(rows))
        if "bm25" in self._legs:
            print_line(f"words of both, by BM25: {', '.join(words) or 'none'}")
        elif not rows:
            print_line("found by its dense vector alone")

    def _more(self, given: str) -> None:
        hit = self._hit(given)
        places = self.search.index.passages_of(hit["index"])
        place = places.index(hit["passage"]) + 1 if hit["passage"] in places else 1
        print_line(f"{hit['id']}, passage {place} of {len(places)}")
        print_line(self.search.index.passage(hit["passage"]).text)

    def _judge(self, given: str, liked: bool) -> None:
        hit = self._hit(given)
        record_judgment(self.feedback_file, self.search, self._query.text, hit["passage"], liked)
        print_line(f"{'liked' if liked else 'disliked'} {hit['id']} -> {self.feedback_file}")


def _split_filters(given: str) -> list[str]:
    try:
        return shlex.split(given)
    except ValueError as error:
        raise ValueError(f":filter {given}: {error}") from None


def print_hits(results: Sequence[dict[str, Any]], top_terms: int, filtered: bool) -> None:
    """Print hits with their title, heading and metadata, if they have some, and what matched."""
    if not results:
        print_line(f"No document {'that the filter lets through ' * filtered}shares a term with this query.")
    for result in results:
        print_line(f"Rank {result['rank']} (Score: {result['score']:.4f}) {result['id']}")
        if place := " > ".join(filter(None, (result["title"], result["heading"]))):
            print_line(f"  {snippet(place)}:")
        print_line(f"  {result['snippet']}")
        if result["metadata"]:
            print_line("  " + snippet(", ".join(f"{name}: {value}" for name, value in result["metadata"].items())))
        if result["terms"]:
            print_line("  matched: " + ", ".join(f"{word} {part:.0%}" for word, part in result["terms"][:top_terms]))
        if result["words"]:
            print_line("  words: " + ", ".join(result["words"]))


def print_side_by_side(names: Sequence[str], found: Sequence[Sequence[dict[str, Any]]], top_terms: int) -> None:
    """Print the hits of two models in columns; a hit that the other one has too says its rank there."""
    (left, right), width = found, (shutil.get_terminal_size().columns - 3) // 2
    ranks = [{hit["id"]: hit["rank"] for hit in hits} for hits in (right, left)]
    rows = [tuple(names)]
    for pair in itertools.zip_longest(left, right):
        rows.append(())
        rows += itertools.zip_longest(
            *(_cell(hit, there, top_terms, width) if hit else [] for hit, there in zip(pair, ranks))
        )
    for row in rows:
        cells = [textwrap.shorten(cell or "", width, placeholder="...") for cell in row]
        print_line(f"{cells[0].ljust(width)} | {cells[1]}".rstrip() if cells else "")


def _cell(hit: dict[str, Any], other_ranks: dict[str, int], top_terms: int, width: int) -> list[str]:
    other = other_ranks.get(hit["id"])
    lines = [f"{hit['rank']}. {hit['id']} ({hit['score']:.4f}; there {other or 'none'})"]
    lines += textwrap.wrap(hit["snippet"], width, max_lines=3, placeholder="...")
    matched = [word for word, _ in hit["terms"][:top_terms]] or hit["words"]
    return [*lines, f"matched: {', '.join(matched)}"]


@contextlib.contextmanager
def _history():
    """Let lines be edited and earlier ones, of this session and others, be found again by the arrow keys; where a
    terminal asks."""
    try:
        import readline
    except ImportError:  # Windows
        yield
        return
    if not sys.stdin.isatty():
        yield
        return
    file = None
    with contextlib.suppress(OSError):
        file = cache_folder() / HISTORY_NAME
        file.touch(mode=0o600)
        readline.read_history_file(file)
    readline.set_history_length(HISTORY_LINES)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            if file:
                readline.write_history_file(file)
