"""What every script says to its user: arguments, progress, tables, and one line for an error."""

import argparse
import logging
import os
import sys
import traceback
import warnings
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from pydantic import ValidationError
from tqdm import tqdm


class ScriptParser(argparse.ArgumentParser):
    """argparse with the script's docstring as the help's text, `--debug`, and one line for a bad argument."""

    def __init__(self, doc: str) -> None:
        super().__init__(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
        self.add_argument("--debug", action="store_true", default=False, help="show the traceback of an error")

    def add_argument(self, *names: str, **options: Any) -> argparse.Action:
        """As argparse's, but a default is shown in the help text."""
        if options.get("default") not in (None, False, []):
            options["help"] = f"{options['help']} (default: {options['default']})"
        return super().add_argument(*names, **options)

    def add_device_arguments(self, *precisions: str) -> None:
        """--device, --threads and, where there are any to choose from, --precision, one of `precisions`."""
        add = self.add_argument
        add("--device", default=None, help="cuda, mps or cpu; default: the best one here")
        threads = "processor threads; default: OMP_NUM_THREADS, or one a core; where processes share cores: 1"
        add("--threads", type=positive_int, default=None, help=threads)
        if precisions:
            add("--precision", choices=precisions, default="auto", help="of the model's products")

    def error(self, message: str) -> None:
        self.exit(2, f"error: {message} (see: python {os.path.basename(sys.argv[0])} --help)\n")


def number_in_range(kind: type, low: float, high: float = float("inf")) -> Callable[[str], Any]:
    """An argparse type: a number of `kind` from `low` to `high`, both included."""

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
    """An argparse type: a whole number of at least 1, or `auto`, which is None."""
    return None if text == "auto" else positive_int(text)


def parse_shares(
    parts: Sequence[str], known: Iterable[str], what: str, usual: float = 1.0, most: float = float("inf")
) -> dict[str, float]:
    """`question=2 keyword` as {"question": 2, "keyword": usual}; `what` is what the names are of, for messages.

    Raises:
        ValueError: a name that is not known, or a share that is no number above 0, and `most` at most.
    """
    shares = {}
    for part in parts:
        name, _, share = part.partition("=")
        if name not in known:
            raise ValueError(f"{what} '{name}' is none of {', '.join(known)}")
        try:
            shares[name] = float(share or usual)
        except ValueError:
            shares[name] = 0.0
        if not 0 < shares[name] <= most or shares[name] == float("inf"):
            limit = f", {most:g} at most" if most < float("inf") else ""
            raise ValueError(f"{what} '{part}': the share must be a number above 0{limit}")
    return shares


def run_script(main: Callable[[argparse.Namespace], None], args: argparse.Namespace) -> None:
    """Run `main(args)`. Bad input (ValueError, OSError, ImportError) becomes one line and exit code 2."""
    quiet_libraries()
    try:
        main(args)
    except (ValueError, OSError, ImportError) as error:
        if args.debug:
            traceback.print_exc()
        sys.exit(report_error(error))
    except KeyboardInterrupt:
        print("\ninterrupted", file=sys.stderr)
        sys.exit(130)


def report_error(error: BaseException) -> int:
    """Print the error as one line; returns the exit code, 2."""
    message = str(error)
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        message = f"{error.filename}: {error.strerror}"
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        message = f"{first['loc'][0]}: {first['msg']}, not {first['input']}"
    print(f"error: {' '.join(message.split()) or type(error).__name__}", file=sys.stderr)
    return 2


def quiet_libraries() -> None:
    """Keep the libraries' own notices and progress bars off the screen; errors still show."""
    from transformers.utils import logging as transformers_logging

    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    logging.getLogger("bm25s").setLevel(logging.WARNING)
    for name in ("accelerate", "huggingface_hub"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", category=FutureWarning)
    warnings.filterwarnings("ignore", message=".*pin_memory.*")


def progress_bar(items: Iterable | None = None, show: bool = True, **options: Any) -> tqdm:
    """A progress bar on stderr; none where stderr is not a terminal."""
    return tqdm(
        items, file=sys.stderr, disable=None if show and is_main_process() else True, dynamic_ncols=True, **options
    )


def print_line(message: str) -> None:
    """One line of a stage's story, on stdout, at once."""
    if not is_main_process():
        return
    tqdm.write(message, file=sys.stdout)
    sys.stdout.flush()


def print_skipped(reasons: Sequence[str], most: int = 20) -> None:
    """A line for each of the first `most` files that could not be read, and how many more there are."""
    for reason in reasons[:most]:
        print_line(f"skipped {reason}")
    if len(reasons) > most:
        print_line(f"skipped {len(reasons) - most:,} more")


def is_main_process() -> bool:
    """Of several processes that torchrun started, the first tells the story."""
    return os.environ.get("RANK", "0") == "0"


def format_table(rows: Sequence[dict[str, Any]]) -> str:
    """Aligned text table; columns are the first row's keys, floats have up to four significant decimals."""
    columns = list(rows[0])
    cells = [columns] + [[_format_cell(row.get(column, "")) for column in columns] for row in rows]
    widths = [max(len(line[i]) for line in cells) for i in range(len(columns))]
    lines = []
    for line in cells:
        first, *rest = line
        lines.append("  ".join([first.ljust(widths[0])] + [c.rjust(w) for c, w in zip(rest, widths[1:])]).rstrip())
    return "\n".join(lines)


def _format_cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4f}" if abs(value) < 2 else f"{value:.1f}"
    return f"{value:,}" if isinstance(value, int) else str(value)
