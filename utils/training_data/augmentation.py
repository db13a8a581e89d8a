"""Query augmentation: variants of training queries that express the same information need."""

import random
from collections import Counter
from collections.abc import Callable, Sequence

from pydantic import BaseModel

from utils.records import TrainingExample
from utils.search.synonyms import Synonyms
from utils.training_data.extractive import WORD
from utils.training_data.language_model import LanguageModel, Request

VARIANT_KINDS = ("keyword", "typo", "synonym", "reformulation")
DEFAULT_SHARE = 0.2  # fraction of the queries that get a variant, for each kind
REPHRASING_TOKENS = 100, 25  # prompt and completion tokens of one reformulation; rough, for the cost estimate
MAX_KEYWORDS = 4  # words of a keyword variant; queries of no more words get none
MIN_TYPO_LETTERS = 4  # letters; shorter words get no typo, since one edit may turn them into other words
KEYBOARD_ROWS = ("qwertyuiop", "asdfghjkl", "zxcvbnm")  # QWERTY; a typo may hit an adjacent key of the same row


class Rephrased(BaseModel):
    """A query in other words."""

    query: str


def augment_queries(
    examples: Sequence[TrainingExample],
    shares: dict[str, float],
    seed: int,
    synonyms: Synonyms | None = None,
    model: LanguageModel | None = None,
) -> list[TrainingExample]:
    """Return additional examples whose query is a variant of an example's and whose `query_type` is such as
    `question+typo`. A variant that has the words of the original is dropped. The kinds of variants are:

    keyword         the query's rarest words (by document frequency in the positive documents), in their order
    typo            one letter of a word deleted, doubled, swapped with the next or replaced by a neighbor on a keyboard
    synonym         one phrase or abbreviation replaced by a synonym
    reformulation   the same need in other words, by a language model

    Args:
        shares: the fraction of the examples, sampled at random, that get a variant, by kind.
        seed: random seed; each kind has a random sequence of its own.
        synonyms: required by the kind `synonym`.
        model: required by the kind `reformulation`.
    """
    document_frequency: Counter[str] = Counter()
    if "keyword" in shares:
        for text in {example.positive_document for example in examples}:
            document_frequency.update({word.lower() for word in WORD.findall(text)})
    generators: dict[str, Callable[[str, random.Random], str]] = {
        "keyword": lambda query, rng: _keywords(query, document_frequency),
        "typo": _typo,
        "synonym": lambda query, rng: rng.choice(list(synonyms.variants(query)) or [query]),
    }
    variants: list[TrainingExample] = []
    for kind, share in shares.items():
        rng = random.Random(f"{seed} {kind}")
        sampled = [example for example in examples if rng.random() < share]
        if kind == "reformulation":
            queries = _reformulate(sampled, model)
        else:
            queries = [generators[kind](example.query, rng) for example in sampled]
        variants += [
            example.model_copy(update={"query": query, "query_type": f"{example.query_type or 'query'}+{kind}"})
            for example, query in zip(sampled, queries)
            if query.lower().split() != example.query.lower().split()
        ]
    return variants


def _reformulate(examples: Sequence[TrainingExample], model: LanguageModel) -> list[str]:
    """Return each example's query in other words, or unchanged where the model gave no usable answer."""
    task = (
        "Somebody searches documents with the query below. Write the query that another person would type who needs "
        "the same and thinks of other words: in its language, about as long, sharing as few of its content words as "
        'you can. Answer with JSON alone: {"query": "..."}'
    )
    requests = [
        Request(f"{task}\n\nQuery: {example.query}", Rephrased, lambda a: "" if a.query.strip() else "malformed")
        for example in examples
    ]
    answers = model.complete(requests)
    return [" ".join(a.query.split()) if a else e.query for e, a in zip(examples, answers)]


def _keywords(query: str, document_frequency: Counter[str]) -> str:
    """Return the MAX_KEYWORDS words of the query with the lowest document frequency above 0, in their order; the whole
    query if it has no more than MAX_KEYWORDS words, or fewer than two that occur in documents."""
    words = list(dict.fromkeys(WORD.findall(query)))
    indexed = [word for word in words if document_frequency[word.lower()]]
    if len(words) <= MAX_KEYWORDS or len(indexed) < 2:
        return query
    rarest = set(sorted(indexed, key=lambda word: (document_frequency[word.lower()], word))[:MAX_KEYWORDS])
    return " ".join(word for word in words if word in rarest)


def _typo(query: str, rng: random.Random) -> str:
    """Return the query with one random edit in one word of MIN_TYPO_LETTERS letters or more, if it has such a word."""
    words = [match for match in WORD.finditer(query) if len(match[0]) >= MIN_TYPO_LETTERS and match[0].isalpha()]
    if not words:
        return query
    word = rng.choice(words)
    position = rng.randrange(word.start() + 1, word.end() - 1)  # neither the first nor the last letter
    letter = query[position]
    row = next((row for row in KEYBOARD_ROWS if letter in row), "")
    neighbors = [row[i] for i in (row.find(letter) - 1, row.find(letter) + 1) if row and 0 <= i < len(row)]
    replacements = {
        "deletion": "",
        "doubling": letter * 2,
        "transposition": query[position + 1] + letter,
        "neighbor": rng.choice(neighbors or [""]),
    }
    edit = rng.choice(list(replacements))
    return query[:position] + replacements[edit] + query[position + (2 if edit == "transposition" else 1) :]
