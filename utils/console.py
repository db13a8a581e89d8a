"""Output for people: progress bars, lines, tables, and one line for an error."""

import argparse
import contextlib
import logging
import os
import re
import sys
import traceback
import warnings
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import Any

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # a notebook without ipywidgets is advised to install them; text does it as well
    from tqdm.auto import tqdm

BROKEN_PIPE_EXIT = 128 + 13  # of a command that the signal SIGPIPE ends, as shells count it
LINE_SECONDS = 30  # between two lines about long work, where no progress bar can be shown


def run_script(main: Callable[[argparse.Namespace], None], args: argparse.Namespace) -> None:
    """Run `main(args)`; bad input (ValueError, OSError, ImportError) becomes one line and exit code 2."""
    quiet_libraries()
    try:
        main(args)
    except BrokenPipeError:  # the reader of a pipe, such as head, has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is left to flush goes nowhere
        sys.exit(BROKEN_PIPE_EXIT)
    except (ValueError, OSError, ImportError) as error:
        if args.debug:
            traceback.print_exc()
        sys.exit(report_error(error, vars(args)))
    except KeyboardInterrupt as stop:
        print("\n" + ": ".join(["interrupted", *map(str, stop.args)]), file=sys.stderr)
        sys.exit(130)


@contextlib.contextmanager
def on_interrupt(advice: Callable[[], str]) -> Iterator[None]:
    """Say, where the work in the block is interrupted, how to go on with it: what `advice` returns then, if that is
    anything."""
    try:
        yield
    except KeyboardInterrupt:
        raise KeyboardInterrupt(*filter(None, [advice()])) from None


def report_error(error: BaseException, arguments: Collection[str]) -> int:
    """Print an error as one line on stderr; return the exit code, 2.

    Messages name arguments as Python has them, `max_length` or `resume=True`, since notebooks show them too; those in
    `arguments`, which a script has, become its flags, --max-length and --resume.
    """
    message = str(error)
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        message = f"{error.filename}: {error.strerror}"
    message = re.sub(r"`(\w+)(?:=([^`]*))?`", lambda match: _as_flag(match, arguments), message)
    print(f"error: {' '.join(message.split()) or type(error).__name__}", file=sys.stderr)
    return 2


def _as_flag(match: re.Match, arguments: Collection[str]) -> str:
    name, value = match.groups()
    if name not in arguments:
        return match[0]
    flag = f"--{name.replace('_', '-')}"
    return flag if value in (None, "True") else f"{flag} {value.strip(chr(39))}"


def quiet_libraries() -> None:
    """Turn off the libraries' own notices and progress bars; errors still show."""
    from transformers.utils import logging as transformers_logging

    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    logging.getLogger("bm25s").setLevel(logging.WARNING)
    for name in ("accelerate", "huggingface_hub"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", category=FutureWarning)
    warnings.filterwarnings("ignore", message=".*pin_memory.*")


def progress_bar(items: Iterable | None = None, show: bool = True, **options: Any) -> tqdm:
    """Return a progress bar for a terminal or a notebook; elsewhere, such as in a log file, a line on stderr tells now
    and then how far the work is, if it takes longer than LINE_SECONDS."""
    if not show or not is_main_process():
        options["disable"] = True
    elif in_notebook():
        # Without ipywidgets the bar is text: stderr would look like an error, and there is no way up to another line.
        options |= {"file": sys.stdout, "position": 0}
    elif sys.stderr.isatty():
        options |= {"file": sys.stderr, "dynamic_ncols": True}
    else:
        times = dict.fromkeys(("delay", "mininterval", "maxinterval"), LINE_SECONDS)
        options |= {"file": _LogLines(), "leave": False, "ncols": 0, **times}  # 0 columns: figures without a bar
    return tqdm(items, **options)


class _LogLines:
    """A file that writes what a progress bar draws as lines on stderr."""

    def write(self, text: str) -> None:
        line = text.replace("\x1b[A", "").strip()  # "\x1b[A" takes the cursor up
        if line:
            print(line, file=sys.stderr)

    def flush(self) -> None:
        sys.stderr.flush()


def in_notebook() -> bool:
    """Return whether this is the kernel of a notebook (Jupyter, Colab, VS Code), where stderr is no terminal."""
    return "ipykernel.zmqshell" in sys.modules


def print_line(message: str) -> None:
    """Print a line on stdout at once, above any progress bar; of several processes, only the first prints."""
    if not is_main_process():
        return
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"  # it may have no place for a character of a document
    tqdm.write(message.encode(encoding, "replace").decode(encoding), file=sys.stdout)
    sys.stdout.flush()


def print_skipped(reasons: Sequence[str], limit: int = 20) -> None:
    """Print a line for each of the first `limit` files that were not read, and how many more there are."""
    for reason in reasons[:limit]:
        print_line(f"skipped {reason}")
    if len(reasons) > limit:
        print_line(f"skipped {len(reasons) - limit:,} more")


def print_truncated(count: int, total: int, kind: str, limit: int, model: str = "") -> None:
    """Print how many texts of a kind a model cut to its limit in tokens, if there are any."""
    if count:
        by = f" by {model}" if model else ""
        print_line(f"{count:,} of {total:,} {kind} are longer than {limit:,} tokens and are cut there{by}")


def print_long_documents(count: int, total: int, limit: int, model: str = "") -> None:
    """Print how many documents are longer than a model's limit in tokens, if there are any."""
    if count:
        by = f" with {model}" if model else ""
        print_line(
            f"{count:,} of {total:,} documents are longer than {limit:,} tokens and are searched by their passages{by}"
        )


def is_main_process() -> bool:
    """Return whether this is the first, or the only one, of the processes that torchrun started."""
    return os.environ.get("RANK", "0") == "0"


def format_table(rows: Sequence[dict[str, Any]]) -> str:
    """Return an aligned text table; columns are the first row's keys, floats below 2 have four decimals, others one."""
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
