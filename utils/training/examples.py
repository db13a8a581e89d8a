"""Which examples a training learns from, and which ones validate it."""

import random
from collections.abc import Sequence
from pathlib import Path

from utils.console import print_line
from utils.records import TrainingExample, read_examples
from utils.training.settings import VAL_FILE
from utils.training_data.splitting import part_file


def read_usable_examples(path: str | Path, teacher_losses: list[str]) -> list[TrainingExample]:
    """Read the examples that have a query and a positive document.

    Raises:
        ValueError: there is none, or one has no scores or all have no negatives, which `teacher_losses` learn from.
    """
    examples = read_examples(path)
    usable = [e for e in examples if e.query.strip() and e.positive_document.strip()]
    if not usable:
        raise ValueError(f"{path}: every example has an empty query or positive document")
    if len(usable) < len(examples):
        print_line(f"{path}: skipped {len(examples) - len(usable)} examples with an empty query or positive document")
    without_scores = sum(example.scores is None for example in usable)
    if teacher_losses and not any(example.negative_documents for example in usable):
        raise ValueError(
            f"{path}: loss '{teacher_losses[0]}' compares a query's own documents, and no example has negatives"
        )
    if teacher_losses and without_scores:
        raise ValueError(
            f"{path}: loss '{teacher_losses[0]}' learns from a teacher, and {without_scores:,} of {len(usable):,} "
            "examples have no field 'scores'"
        )
    return usable


def sample_passages(
    examples: Sequence[TrainingExample], count: int, seed: int, purpose: str
) -> Sequence[TrainingExample]:
    """Return the examples of `count` passages drawn at random, where there are more; how many is printed."""
    passages = list(dict.fromkeys(example.positive_id or example.positive_document for example in examples))
    if len(passages) <= count:
        return examples
    drawn = set(random.Random(seed).sample(passages, count))
    chosen = [example for example in examples if (example.positive_id or example.positive_document) in drawn]
    print_line(f"{purpose} on {len(chosen):,} examples, of {count:,} passages of {len(passages):,}")
    return chosen


def find_validation_file(val_file: str | Path | None, given: bool, train_file: str | Path) -> str | Path | None:
    """Return the validation file: `val_file` where it was `given` or is None. Otherwise the one that was generated with
    the training file is looked for, then one of the default name beside the training file, then here; all may be
    missing."""
    if given or val_file is None:
        return val_file
    train_file = Path(train_file)
    own = part_file(train_file, "validation")
    beside = list(dict.fromkeys((own, train_file.with_name(VAL_FILE))))
    found = next((file for file in (*beside, Path(VAL_FILE)) if file.exists()), None)
    if found is None:
        names = " or ".join(file.name for file in beside)
        print_line(f"no {names} beside {train_file}, and no {VAL_FILE} here: training without validation")
    else:
        doubt = "" if found == own else f", as there is no {own}; check that they are of the same run as {train_file}"
        print_line(f"validation examples: {found if found in beside else found.absolute()}{doubt}")
    return found
