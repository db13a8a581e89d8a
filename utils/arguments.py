"""Arguments: the scripts' parser, the types of its arguments, NAME=WEIGHT lists, and checks of what is given."""

import argparse
import os
import sys
from collections.abc import Callable, Collection, Iterable, Sequence
from numbers import Integral
from pathlib import Path
from typing import Any

from utils.languages import parse_language
from utils.records import OUTPUT_FIELDS, REPORT_MARKS

OUTPUT_START = 2**16  # bytes of a file in which the marks of the scripts' outputs are looked for
METRICS_FIELDS = {"model", "doc_terms"}


class ScriptArguments(argparse.Namespace):
    """A script's arguments. `given` holds the names (`chunk_size`) of those on the command line, whatever their values;
    it is not one of the arguments itself, hence not in `vars`."""

    __slots__ = ("given",)


class ScriptParser(argparse.ArgumentParser):
    """argparse with the script's docstring, which has its examples, as the help's text, and one line for a bad
    argument. Defaults are shown in the help."""

    def __init__(self, doc: str) -> None:
        super().__init__(usage=f"{_command()} [flags]", description=doc, formatter_class=_HelpFormatter)
        self.add_argument("--debug", action="store_true", help="show the traceback of an error")

    def add_model_argument(self) -> None:
        """Add --model-dir, the model to encode with."""
        add = self.add_argument_group("model").add_argument
        add("--model-dir", default="./fine_tuned_splade", help="a model folder, a hub id, or splade-tiny")

    def add_device_arguments(self, *precisions: str, several: bool = False) -> None:
        """Add --device, --threads and, where there are any to choose from, --precision, one of `precisions`, or
        `several` of them, as a list."""
        add = self.add_argument_group("hardware").add_argument
        add("--device", default=None, help="cuda, mps or cpu; default: the best one here")
        threads = "processor threads; default: OMP_NUM_THREADS, or one a core; where processes share cores: 1"
        add("--threads", type=positive_int, default=None, help=threads)
        if precisions:
            kind = {"nargs": "+", "default": ["auto"]} if several else {"default": "auto"}
            add("--precision", choices=precisions, help="of the model's products" + "; a row each" * several, **kind)

    def parse_args(self, args: Sequence[str] | None = None) -> ScriptArguments:
        """Parse a command line, this process's by default. An empty text, such as of a variable that a shell does not
        know, is no argument."""
        parsed = super().parse_args(args, ScriptArguments())
        defaults = [action.default for action in self._actions]
        for action in self._actions:
            action.default = argparse.SUPPRESS
        parsed.given = set(vars(super().parse_args(args)))
        for action, default in zip(self._actions, defaults):
            action.default = default
        for name in sorted(parsed.given):
            value = getattr(parsed, name)
            values = value if isinstance(value, list) else [value]
            if any(isinstance(text, str) and not text.strip() for text in values):
                self.error(f"argument --{name.replace('_', '-')}: must not be empty")
        return parsed

    def error(self, message: str) -> None:
        """Print one line and exit with code 2."""
        self.exit(2, f"error: {message} (see: {_command()} --help)\n")


def _command() -> str:
    """Return the command that runs this script."""
    spec = getattr(sys.modules["__main__"], "__spec__", None)  # lost with a script that failed in a notebook
    return f"python -m {spec.name}" if spec else f"python {os.path.basename(sys.argv[0])}"


class _HelpFormatter(argparse.RawDescriptionHelpFormatter, argparse.ArgumentDefaultsHelpFormatter):
    def _get_help_string(self, action: argparse.Action) -> str | None:
        shown = not (action.default is None or action.default is False or action.default == [])
        return super()._get_help_string(action) if shown else action.help


def refuse_idle_flags(args: ScriptArguments, needs: Iterable[tuple[object, str, str]]) -> None:
    """Check that each flag of the command line has an effect beside the others.

    Args:
        needs: for each group of flags whether they have an effect, what they need to have one, and their names, such
            as (args.domain, "--domain", "bootstrap language").

    Raises:
        ValueError: one has none.
    """
    for effective, needed, names in needs:
        for name in names.split():
            if name in args.given and not effective:
                flag = f"--{name.replace('_', '-')}"
                raise ValueError(f"{flag} has no effect without {needed}; leave it out, or add that")


def refuse_overwriting(output: str | Path | None, *inputs: str | Path | None) -> None:
    """Check that the output file, if there is one, is none of the inputs, nor a file in a folder among them, unless a
    script wrote that file.

    Raises:
        ValueError: it is one.
    """
    file = Path(output).resolve() if output else None
    for name in inputs if file else ():
        path = Path(name).resolve() if name else None
        inside = path and path.is_dir() and file.is_relative_to(path) and file.is_file()
        if file == path or (inside and not _is_replaceable(file)):
            raise ValueError(f"{output}: it is read, too, and would be overwritten; name another output file")


def _is_replaceable(file: Path) -> bool:
    """Return whether a file is empty or begins as the outputs of the scripts do."""
    with file.open("rb") as content:
        start = content.read(OUTPUT_START)
    fields = (*OUTPUT_FIELDS, METRICS_FIELDS)
    report = any(mark in start for mark in REPORT_MARKS)
    return not start or report or any(all(f'"{n}":'.encode() in start for n in names) for names in fields)


def number_in_range(kind: type, low: float, high: float = float("inf")) -> Callable[[str], Any]:
    """Return an argparse type: a number of `kind` from `low` to `high`, both included."""

    def parse(text: str) -> Any:
        span = f"at least {low}" if high == float("inf") else f"from {low} to {high}"
        try:
            number = kind(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"must be a number {span}, not '{text}'") from None
        if not low <= number <= high:
            raise argparse.ArgumentTypeError(f"must be {span}, not {text}")
        return number

    return parse


positive_int = number_in_range(int, 1)


def auto_or_positive_int(text: str) -> int | None:
    """Parse, as an argparse type, a whole number of at least 1, or `auto`, which is None."""
    return None if text == "auto" else positive_int(text)


def language_code(text: str) -> str:
    """Parse, as an argparse type, a language; it is returned as its code."""
    try:
        return parse_language(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def check_positive(**arguments: int | None) -> None:
    """Check arguments by name, as Python gives them.

    Raises:
        ValueError: one is neither None nor a whole number of at least 1.
    """
    for name, value in arguments.items():
        if value is not None and not (isinstance(value, Integral) and value >= 1):
            raise ValueError(f"`{name}` must be a whole number of at least 1, not {value!r}")


def parse_weights(
    parts: Iterable[str],
    kind: str,
    known: Collection[str] = (),
    default: float = 1.0,
    maximum: float = float("inf"),
) -> dict[str, float]:
    """Parse `question=2 keyword` into {"question": 2.0, "keyword": default}.

    Args:
        parts: `name` or `name=weight` each.
        kind: what the names are of, for messages, such as "loss".
        known: the names there are; any where it is empty.
        default: the weight of a name without one.
        maximum: the largest weight allowed.

    Raises:
        ValueError: an unknown name, a name twice, or a weight that is not a number above 0 and up to `maximum`.
    """
    weights: dict[str, float] = {}
    for part in parts:
        name, equals, number = part.rpartition("=") if "=" in part else (part, "", "")
        if not name:
            raise ValueError(f"{kind} '{part}' has no name")
        if known and name not in known:
            raise ValueError(f"unknown {kind} '{name}': use {', '.join(known)}")
        if name in weights:
            raise ValueError(f"{kind} '{name}' is named twice")
        try:
            weight = float(number) if equals else default
        except ValueError:
            weight = 0.0
        if not 0 < weight <= maximum or weight == float("inf"):
            limit = f", {maximum:g} at most" if maximum < float("inf") else ""
            hint = "" if known else f"; a name that holds = needs a weight too, such as {part}=1"
            raise ValueError(f"{kind} '{part}': the weight after = must be a number above 0{limit}{hint}")
        weights[name] = weight
    return weights
