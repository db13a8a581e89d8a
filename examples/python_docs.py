"""Write Python's own documentation as Markdown pages: a corpus that every user already has.

    python examples/python_docs.py --output-dir build/python_docs

The pages are the language topics behind `help("assert")` and the docstrings of the standard library's public modules,
classes, functions and methods. A page's file name is its id: `topic.assert.md`, `functools.lru_cache.md`. The same
interpreter always writes the same pages.
"""

import argparse
import contextlib
import importlib
import inspect
import io
import pkgutil
import re
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from pydoc_data.topics import topics

# Importing these prints, opens a browser or a window, or starts a program.
SIDE_EFFECTS = "antigravity this idlelib turtledemo test tests ensurepip lib2to3 pip venv"
# Present on some machines only, documented under another name (posix is os), or tables without prose.
NOT_EVERYWHERE = "tkinter turtle curses posix nt posixpath ntpath encodings"
# Dropped from the library since Python 3.10 (PEPs 594 and 632), so that the corpus is much the same everywhere.
REMOVED = (
    "aifc asynchat asyncore audioop binhex cgi cgitb chunk crypt distutils imghdr imp mailcap msilib nis nntplib "
    "ossaudiodev pipes smtpd sndhdr spwd sunau telnetlib uu xdrlib"
)
LEFT_OUT = set(f"{SIDE_EFFECTS} {NOT_EVERYWHERE} {REMOVED}".split())
MIN_DOCSTRING = 80  # characters; shorter ones ("Return self+value.") answer no question


def public_modules() -> Iterator[str]:
    """Names of the standard library's public modules and their submodules that import without side effects, sorted."""
    for name in sorted(sys.stdlib_module_names - LEFT_OUT):
        if name.startswith("_"):
            continue
        module = import_quietly(name)
        if module is None:
            continue
        yield name
        for child in sorted(pkgutil.iter_modules(getattr(module, "__path__", [])), key=lambda m: m.name):
            child_name = f"{name}.{child.name}"
            if child.name.startswith("_") or child.name in LEFT_OUT:
                continue
            if import_quietly(child_name) is not None:
                yield child_name


def import_quietly(name: str):
    """The module, or None where this platform or build does not have it."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        try:
            return importlib.import_module(name)
        except (ImportError, OSError, AttributeError):
            return None


def own_docstring(thing) -> str:
    """The docstring written for `thing` itself, not one inherited, generated, or tied to this run's addresses."""
    doc = thing.__dict__.get("__doc__") if inspect.isclass(thing) else getattr(thing, "__doc__", None)
    if not isinstance(doc, str) or " at 0x" in doc:
        return ""
    doc = inspect.cleandoc(doc).strip()
    if inspect.isclass(thing) and re.match(re.escape(thing.__name__) + r"\([^\n]*\)$", doc):
        return ""  # a dataclass' or named tuple's signature
    return doc if len(doc) >= MIN_DOCSTRING else ""


def signature(thing) -> str:
    if inspect.ismodule(thing):
        return ""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            text = str(inspect.signature(thing)).replace(sys.executable, "python3")  # the same wherever it is run
    except Exception:  # built-ins without one raise whatever evaluating their text signature does
        return ""
    return "" if " at 0x" in text else text


def members(module) -> Iterator[tuple[str, object]]:
    """Public (name, object) pairs that belong to `module` rather than to the module they were imported from."""
    listed = getattr(module, "__all__", None)
    for name in sorted(set(listed) if listed is not None else vars(module)):
        thing = vars(module).get(name)
        if name.startswith("_") or not (inspect.isclass(thing) or inspect.isroutine(thing)):
            continue
        home = getattr(thing, "__module__", None) or module.__name__
        if home.lstrip("_") == module.__name__ or (listed is not None and (home[0] == "_" or home in LEFT_OUT)):
            yield name, thing


def pages() -> Iterator[tuple[str, str]]:
    """(page id without suffix, Markdown) in a fixed order; a docstring that several names share is written once."""
    for topic in sorted(topics):
        body = re.sub(r"^(.+)\n[*=]{4,}$", r"# \1", topics[topic].strip(), count=1, flags=re.MULTILINE)
        body = re.sub(r"^(.+)\n[=\-^~]{4,}$", r"## \1", body, flags=re.MULTILINE)
        yield f"topic.{topic}", body if body.startswith("#") else f"# {topic}\n\n{body}"
    seen: set[str] = set()
    for module_name in public_modules():
        module = sys.modules[module_name]
        things: list[tuple[str, object]] = [(module_name, module)]
        for name, thing in members(module):
            things.append((f"{module_name}.{name}", thing))
            if inspect.isclass(thing):
                for method, function in sorted(vars(thing).items()):
                    if not method.startswith("_") and inspect.isroutine(function):
                        things.append((f"{module_name}.{name}.{method}", inspect.unwrap(getattr(thing, method))))
        for page, thing in things:
            doc = own_docstring(thing)
            if doc and doc not in seen:
                seen.add(doc)
                yield page, f"# {page}{signature(thing)}\n\n{doc}"


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Write Python's own documentation as Markdown pages.")
    parser.add_argument("--output-dir", type=Path, required=True, help="folder for the pages; made if missing")
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    try:
        args.output_dir.mkdir(parents=True, exist_ok=True)
        count = size = 0
        for page, text in pages():
            size += (args.output_dir / f"{page}.md").write_text(text + "\n", encoding="utf-8")
            count += 1
    except OSError as error:
        print(f"error: cannot write to {args.output_dir}: {error.strerror}", file=sys.stderr)
        sys.exit(2)
    print(f"{count:,} pages, {size / 1e6:.2f} million characters -> {args.output_dir}")


if __name__ == "__main__":
    main()
