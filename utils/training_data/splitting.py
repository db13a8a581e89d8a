"""Training, validation and test data: examples split by the documents that they were made from."""

import argparse
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from utils.console import print_line
from utils.files import check_writable
from utils.records import (
    Passage,
    TrainingExample,
    corpus_file,
    read_examples,
    read_json_records,
    read_passages,
    write_examples,
)

SPLITS = ("training", "validation", "test")
DEFAULT_STEM = "training_data"  # of the file of training examples; the files beside it have names without it


def parse_split(text: str) -> list[float]:
    """Parse, as an argparse type, `80/10/10`: the shares of training, validation and, if there are three, test."""
    try:
        shares = [float(part) for part in text.split("/")]
    except ValueError:
        shares = []
    if not (2 <= len(shares) <= len(SPLITS) and shares[0] > 0 and min(shares) >= 0 and sum(shares) < float("inf")):
        raise argparse.ArgumentTypeError(f"must be shares such as 80/10/10 or 90/10, training first, not '{text}'")
    return shares


def part_file(training: Path, part: str) -> Path:
    """Return where a part other than training goes by default: `validation_data.json` beside `training_data.json`, and
    `NAME_validation.json` beside `NAME.json`."""
    return _file_beside(training, f"{part}_data", part, training.suffix)


def report_file(training: Path) -> Path:
    """Return where the report goes: `data_report.html` beside `training_data.json`, and `NAME_report.html` beside
    `NAME.json`; `NAME.jsonl` has the same."""
    return _file_beside(training, "data_report", "report", ".html")


def _file_beside(training: Path, default: str, ending: str, suffix: str) -> Path:
    """Return the file beside the training examples that has the name `default` where theirs is the default name, and
    their name with an ending otherwise."""
    name = default if training.stem == DEFAULT_STEM else f"{training.stem}_{ending}"
    return training.with_name(f"{name}{suffix}")


def output_files(training: Path, validation: str | None, test: str | None, shares: Sequence[float]) -> dict[str, Path]:
    """Return where each part goes that has a share.

    Raises:
        ValueError, OSError: two parts go to one file, or a file cannot be written.
    """
    check_writable(training)
    named = {"training": training, "validation": validation, "test": test}
    files = {
        part: Path(file or part_file(training, part)) for (part, file), share in zip(named.items(), shares) if share
    }
    written = all_outputs(files)
    if len({file.resolve() for file in written}) < len(written):
        raise ValueError(f"{training}: two parts of the examples cannot go to the same file")
    for file in written:
        check_writable(file)
    return files


def all_outputs(files: Mapping[str, Path]) -> list[Path]:
    """Return the file of each part, and those of the passages that its queries search."""
    return [*files.values(), *(corpus_file(file) for part, file in files.items() if part != "training")]


def write_parts(
    parts: Mapping[str, Sequence[TrainingExample]],
    files: Mapping[str, Path],
    corpora: Mapping[str, Sequence[Passage]],
) -> None:
    """Write the parts that have a file, and beside one, for each part of `corpora`, the passages that its queries
    search. Where a part has no examples, a file that holds an earlier run's, which do not match this split, is removed,
    and so are an earlier run's passages; any other stays. What is removed or kept is printed."""
    for name, path in files.items():
        if parts[name]:
            if name in corpora:
                write_examples(corpus_file(path), corpora[name])
            write_examples(path, parts[name])
            continue
        if _holds_generated_examples(path):
            path.unlink()
            print_line(f"removed     {path}: it held the {name} examples of an earlier run, and there are none now")
        elif path.exists():
            print_line(f"kept        {path}: there are no {name} examples, and it holds none that were generated")
        passages = corpus_file(path)
        if name in corpora and _holds_passages(passages) and not _are_searched(path):
            passages.unlink()
            print_line(f"removed     {passages}: it held the passages of an earlier run, which no queries search now")


def print_earlier_parts(files: Mapping[str, Path]) -> None:
    """Say which files hold an earlier run's examples of a part that these files are not of."""
    for name in SPLITS[1:]:
        path = part_file(files["training"], name)
        if name not in files and path not in files.values() and _holds_generated_examples(path):
            print_line(f"kept        {path}: of an earlier run; its documents may be among the training data now")


def _holds_generated_examples(path: Path) -> bool:
    """Return whether a regular file holds examples that all have a source, as those made from documents do."""
    try:
        return path.is_file() and all(example.source for example in read_examples(path))
    except (ValueError, OSError):
        return False


def _holds_passages(path: Path) -> bool:
    """Return whether a regular file holds passages, and nothing else of them, as those written here do."""
    try:
        return path.is_file() and all(
            value.keys() == Passage.model_fields.keys() for _, value in read_json_records(path)
        )
    except (ValueError, OSError, AttributeError):
        return False


def _are_searched(path: Path) -> bool:
    """Return whether the passages beside a file are those that its examples, such as a person's own, search."""
    try:
        return path.is_file() and bool(read_passages(path, read_examples(path)))
    except (ValueError, OSError):
        return False


def split_by_document(
    examples: Sequence[TrainingExample],
    shares: Sequence[float],
    seed: int,
    family_of: Mapping[str, int] | None = None,
) -> list[list[TrainingExample]]:
    """Split the examples into as many parts as there are shares, the documents of a family in one part.

    The largest family is the first part's. Each other part gets its share of the documents, as families at random that
    fit into it: at least one, the smallest if none fits, where the share is above 0 and there is one left.

    Args:
        shares: of the parts, in any unit.
        seed: of the order in which documents are dealt out.
        family_of: document id -> its family; a document that it lacks is a family of its own.
    """
    families: dict[str | int, list[str]] = {}
    for source in sorted({example.source for example in examples}):
        families.setdefault((family_of or {}).get(source, source), []).append(source)
    left = list(families.values())
    random.Random(seed).shuffle(left)
    total = sum(map(len, left))
    left.remove(max(left, key=len))
    part_of: dict[str, int] = {}
    for part, share in enumerate(shares[1:], 1):
        room = max(1, round(total * share / sum(shares))) if share else 0
        later = sum(share > 0 for share in shares[part + 1 :])  # parts that are left a family each
        dealt, rest = [], []
        for family in left:
            fits = len(family) <= room and len(left) - len(dealt) > later
            (dealt if fits else rest).append(family)
            room -= len(family) if fits else 0
        if share and rest and not dealt:
            dealt = [min(rest, key=len)]
            rest.remove(dealt[0])
        part_of.update((source, part) for family in dealt for source in family)
        left = rest
    parts: list[list[TrainingExample]] = [[] for _ in shares]
    for example in examples:
        parts[part_of.get(example.source, 0)].append(example)
    return parts


def explain_shares(
    parts: Sequence[Sequence[TrainingExample]], shares: Sequence[float], family_of: Mapping[str, int]
) -> str:
    """Return one line on why the parts of `split_by_document` have other shares of the documents than those asked for,
    "" where each but the first has its share to within a document."""
    sources = [source for part in parts for source in {example.source for example in part}]
    got = [len({example.source for example in part}) for part in parts]
    asked = [len(sources) * share / sum(shares) for share in shares]
    if all(abs(number - wanted) < 1 for number, wanted in zip(got[1:], asked[1:])):
        return ""
    largest = Counter(family_of.get(source, source) for source in sources).most_common(1)[0][1]
    asked_percent, got_percent = ("/".join(f"{100 * n / len(sources):.0f}" for n in part) for part in (asked, got))
    return (
        f"{got_percent} of the documents, not {asked_percent}: those that share text stay together, and of "
        f"{len(sources):,} the largest such family has {largest:,}"
    )
