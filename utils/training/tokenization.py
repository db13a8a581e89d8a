"""Training examples as token ids: each text once, the ids of all texts in one flat array."""

import functools
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch

from utils.console import progress_bar
from utils.records import TrainingExample
from utils.splade.encoder import SpladeEncoder
from utils.training.identity import identify

QUERIES_PER_DOCUMENT = 8  # most queries of a document that a step has, the example's own included
PART_TEXTS = 1024  # texts tokenized at a time: until then a tokenizer holds about 230 bytes for each of their tokens


@dataclass
class TokenizedTexts:
    """Distinct texts with their token ids, 2 bytes a token where the vocabulary has at most 65,536 tokens, else 4.

    Attributes:
        texts: by number.
        ids: [tokens] uint16 or int32 of all texts, one after the other.
        starts: [texts + 1] int64, where each text's ids begin, and where the last one's end.
        truncated: number of texts that were cut at the limit.
    """

    texts: list[str]
    ids: np.ndarray
    starts: np.ndarray
    truncated: int

    def __getitem__(self, number: int) -> list[int]:
        """Return a text's token ids."""
        return self.ids[self.starts[number] : self.starts[number + 1]].tolist()


class TokenizedQuery(NamedTuple):
    """A further query of an example's positive document.

    Attributes:
        ids: its token ids.
        index: its number among all queries.
        answers: keys of all documents that are a positive of the query.
        copied: see TokenizedExample.
    """

    ids: list[int]
    index: int
    answers: list[int]
    copied: bool


@dataclass
class TokenizedExample:
    """A training example as token ids; of all lists over documents, the positive comes first, then the negatives.

    Attributes:
        query_text, texts: the query and its documents.
        query, documents: their token ids.
        query_key, keys: which query and which documents they are, see `identify`.
        answers: keys of all documents that are a positive of the query.
        origin: names of the passage and the document that the example was made from.
        scores: a teacher's, of each document, where the example has them.
        query_index, document_indices: numbers of the query and the documents among all texts.
        copied: whether the query stands in the text that its passage has here, having been cut out of another one.
        siblings: further queries of the passage, where examples share it.
    """

    query_text: str
    texts: list[str]
    query: list[int]
    documents: list[list[int]]
    query_key: int
    keys: list[int]
    answers: list[int]
    origin: set[str]
    scores: list[float] | None
    query_index: int
    document_indices: list[int]
    copied: bool
    siblings: list[TokenizedQuery]


@dataclass
class TokenizedExamples(Sequence[TokenizedExample]):
    """Tokenized examples, each put together when it is asked for.

    Attributes:
        queries, documents: the texts.
        records: [examples] what they were tokenized from.
        positions: [examples] their positions among the examples that `tokenize_examples` was given.
        query_keys, document_keys: [examples] and [documents] which queries and documents they are, see `identify`.
        answers: by a query's key, the keys of all documents that are its positives.
        query_numbers: [examples] each query's number in `queries`.
        document_numbers, scores: numbers in `documents` and a teacher's scores (NaN: none) of the first example's
            documents, the positive first, then the second's, and so on.
        starts: [examples + 1] where each example's documents begin in these, and where the last one's end.
        copied: [examples] see TokenizedExample.
        shared: whether the examples of a passage share one text for it.
    """

    queries: TokenizedTexts
    documents: TokenizedTexts
    records: list[TrainingExample]
    positions: np.ndarray
    query_keys: np.ndarray
    document_keys: np.ndarray
    answers: dict[int, list[int]]
    query_numbers: np.ndarray
    document_numbers: np.ndarray
    scores: np.ndarray
    starts: np.ndarray
    copied: np.ndarray
    shared: bool

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> TokenizedExample:
        record = self.records[index]
        own = slice(self.starts[index], self.starts[index + 1])
        query, numbers = int(self.query_numbers[index]), self.document_numbers[own].tolist()
        query_key = int(self.query_keys[index])
        texts = [self.documents.texts[number] for number in numbers]
        return TokenizedExample(
            query_text=record.query,
            texts=texts,
            query=self.queries[query],
            documents=[self.documents[number] for number in numbers],
            query_key=query_key,
            keys=self.document_keys[numbers].tolist(),
            answers=self.answers[query_key],
            origin=record.origin,
            scores=None if np.isnan(self.scores[own]).any() else self.scores[own].tolist(),
            query_index=query,
            document_indices=numbers,
            copied=bool(self.copied[index]),
            siblings=self._siblings(index) if self.shared else [],
        )

    def _siblings(self, index: int) -> list[TokenizedQuery]:
        """Return the queries of the examples that follow, in a circle, among those of the same passage."""
        members = self.members[int(self.positive_numbers[index])]
        place = members.index(index)
        others = (members[place + 1 :] + members[:place])[: QUERIES_PER_DOCUMENT - 1]
        return [
            TokenizedQuery(
                self.queries[self.query_numbers[i]],
                int(self.query_numbers[i]),
                self.answers[int(self.query_keys[i])],
                bool(self.copied[i]),
            )
            for i in others
        ]

    @functools.cached_property
    def members(self) -> dict[int, list[int]]:
        """Examples by the number of their positive document."""
        members: dict[int, list[int]] = {}
        for index, number in enumerate(self.positive_numbers.tolist()):
            members.setdefault(number, []).append(index)
        return members

    @property
    def positive_numbers(self) -> np.ndarray:
        """[examples] numbers of the positive documents."""
        return self.document_numbers[self.starts[:-1]]

    @property
    def keys(self) -> list[tuple[int, int]]:
        """[examples] keys of the query and the positive document."""
        return list(zip(self.query_keys.tolist(), self.document_keys[self.positive_numbers].tolist()))

    def split(self, count: int) -> tuple["TokenizedExamples", "TokenizedExamples"]:
        """Return those of the first `count` examples that `tokenize_examples` was given, and the others. Both count
        the texts as before."""
        middle = int(np.searchsorted(self.positions, count))
        return self._part(0, middle), self._part(middle, len(self))

    def _part(self, first: int, end: int) -> "TokenizedExamples":
        documents = slice(self.starts[first], self.starts[end])
        return replace(
            self,
            records=self.records[first:end],
            positions=self.positions[first:end],
            query_keys=self.query_keys[first:end],
            query_numbers=self.query_numbers[first:end],
            document_numbers=self.document_numbers[documents],
            scores=self.scores[documents],
            starts=self.starts[first : end + 1] - self.starts[first],
            copied=self.copied[first:end],
        )

    def set_negatives(self, negatives: Sequence[Sequence[int]]) -> None:
        """Replace each example's negatives by the documents with these numbers, which have no scores."""
        rows = [[positive, *numbers] for positive, numbers in zip(self.positive_numbers.tolist(), negatives)]
        self.set_documents(np.array([number for row in rows for number in row], np.int32), _starts(map(len, rows)))

    def set_documents(self, document_numbers: np.ndarray, starts: np.ndarray) -> None:
        """Replace all examples' documents, without scores; see the attributes of these names."""
        self.document_numbers, self.starts = document_numbers, starts
        self.scores = np.full(len(document_numbers), np.nan, np.float32)


def tokenize_examples(
    examples: Sequence[TrainingExample], encoder: SpladeEncoder, share_passages: bool = False
) -> TokenizedExamples:
    """Tokenize examples, without those whose query or positive has no tokens, and without negatives that have none.

    With `share_passages` all examples of a passage, by their `positive_id`, have the longest of their positive
    documents as its text.
    """
    positives = _longest_of_passages(examples) if share_passages else [e.positive_document for e in examples]
    copied = np.array([text != e.positive_document for text, e in zip(positives, examples)])
    query_numbers: dict[str, int] = {}
    document_numbers: dict[str, int] = {}
    of_queries, of_documents = array("i"), array("i")
    for positive, example in zip(positives, examples):
        of_queries.append(query_numbers.setdefault(example.query, len(query_numbers)))
        for text in (positive, *example.negatives):
            of_documents.append(document_numbers.setdefault(text, len(document_numbers)))
    of_queries, of_documents = np.asarray(of_queries), np.asarray(of_documents)
    identities = identify(examples)
    document_keys = np.empty(len(document_numbers), np.int64)
    document_keys[of_documents] = [key for identity in identities for key in identity.documents]
    with progress_bar(total=len(query_numbers) + len(document_numbers), desc="tokenizing", unit="texts") as bar:
        typecode = "H" if max(encoder.tokenizer.get_vocab().values()) < 2**16 else "i"
        queries = _tokenize(list(query_numbers), encoder.tokenize_and_count_queries, typecode, bar.update)
        documents = _tokenize(list(document_numbers), encoder.tokenize_and_count, typecode, bar.update)

    counts = np.array([1 + len(example.negative_documents) for example in examples], np.int64)
    scores = [score for example, count in zip(examples, counts) for score in example.scores or [np.nan] * count]
    owners = np.repeat(np.arange(len(examples)), counts)
    present = np.diff(documents.starts)[of_documents] > 0
    usable = present[_starts(counts)[:-1]] & (np.diff(queries.starts)[of_queries] > 0)
    kept = present & usable[owners]
    positions = np.flatnonzero(usable)
    return TokenizedExamples(
        queries=queries,
        documents=documents,
        records=[examples[position] for position in positions],
        positions=positions,
        query_keys=np.array([identity.query for identity in identities], np.int64)[usable],
        document_keys=document_keys,
        answers={identity.query: identity.answers for identity in identities},
        query_numbers=of_queries[usable],
        document_numbers=of_documents[kept],
        scores=np.array(scores, np.float32)[kept],
        starts=_starts(np.bincount(owners[kept], minlength=len(examples))[usable]),
        copied=copied[usable],
        shared=share_passages,
    )


def _longest_of_passages(examples: Sequence[TrainingExample]) -> list[str]:
    """Return the longest of the texts that each example's passage has among the examples."""
    longest: dict[str, str] = {}
    for example in examples:
        if example.positive_id:
            texts = longest.get(example.positive_id, ""), example.positive_document
            longest[example.positive_id] = max(texts, key=len)
    return [longest.get(example.positive_id or "", example.positive_document) for example in examples]


def _tokenize(
    texts: list[str],
    tokenize: Callable[[Sequence[str]], tuple[list[list[int]], int]],
    typecode: str,
    advance: Callable[[int], object],
) -> TokenizedTexts:
    """Tokenize texts in parts, by what returns their token ids and how many of them were cut. `typecode` is
    that of an array of ids."""
    ids, starts, truncated = array(typecode), array("q", [0]), 0
    for first in range(0, len(texts), PART_TEXTS):
        part = texts[first : first + PART_TEXTS]
        rows, cut = tokenize(part)
        for row in rows:
            ids.extend(row)
            starts.append(len(ids))
        truncated += cut
        advance(len(part))
    return TokenizedTexts(texts, np.asarray(ids), np.asarray(starts), truncated)


def _starts(counts) -> np.ndarray:
    """Return [counts + 1] sums of the counts before each one, and of all."""
    return np.cumsum([0, *counts], dtype=np.int64)


def corpus_idf(examples: TokenizedExamples, encoder: SpladeEncoder) -> torch.Tensor:
    """Return [vocabulary] inverse document frequencies over the examples' documents, divided by their mean over the
    tokens of the queries; 0 for special tokens.

    The formula is BM25's with 1 added inside the logarithm, so that none is negative (Robertson and Zaragoza 2009;
    Lucene).
    """
    numbers = {key: n for example in examples for key, n in zip(example.keys, example.document_indices)}
    counts = torch.zeros(encoder.vocabulary_size)
    for number in numbers.values():
        counts[list(set(examples.documents[number]))] += 1
    idf = torch.log1p((len(numbers) - counts + 0.5) / (counts + 0.5))
    idf[encoder.tokenizer.all_special_ids] = 0.0
    of_queries = idf[[token for number in examples.query_numbers for token in examples.queries[number]]]
    return idf / of_queries[of_queries > 0].mean()
