"""The index of documents, killed at random moments while it is built, changed and emptied: what a call has done when it
returns is there, and of a call that was cut short each document is as before or as after it."""

import json
import random
import signal
import time

import pytest

from utils.records import Document
from utils.search import ingestion
from utils.search.document_index import DocumentIndex
from utils.splade.encoder import SpladeEncoder

pytestmark = pytest.mark.slow
KILLS = 20
DOCUMENTS = 60


def change_until_killed(folder, log, seed):
    """Add, change and remove documents at random. The log has a line of what a call is about to do, the version by
    document, None to remove it, and an empty one once it has returned."""
    ingestion.COMMIT_PASSAGES = 8
    model = SpladeEncoder.from_pretrained("splade-tiny", "cpu", precision="float32", threads=1)
    choices = random.Random(seed)
    with DocumentIndex(model, folder, write=True, language="en") as index, log.open("a", buffering=1) as lines:
        while True:
            chosen = choices.sample(range(DOCUMENTS), choices.randint(1, DOCUMENTS // 2))
            remove = choices.random() < 0.3
            versions = {f"d{number}": None if remove else choices.randrange(1, 10**6) for number in chosen}
            lines.write(json.dumps(versions) + "\n")
            if remove:
                index.remove(versions)
            else:
                index.add([Document(id=name, text=text_of(version)) for name, version in versions.items()])
            lines.write("\n")


def text_of(version):
    return " ".join(f"word{version}x{i} of the manual." for i in range(version % 3 * 30 + 1))


def test_an_index_that_is_killed_holds_what_was_acknowledged(processes, tmp_path):
    folder, log, moments = tmp_path / "index", tmp_path / "log", random.Random(3)
    acknowledged, doubtful = {}, {}  # version by document; versions that it may have, None for no document
    whole_calls = cut_short = 0
    for kill in range(KILLS):
        log.write_text("")
        process = processes.Process(target=change_until_killed, args=(folder, log, kill))
        process.start()
        begun = time.monotonic()
        while not log.read_text() and process.is_alive() and time.monotonic() - begun < 60:
            time.sleep(0.01)
        time.sleep(moments.uniform(0, 2))
        process.kill()
        process.join()
        assert process.exitcode == -signal.SIGKILL
        for line in log.read_text().splitlines():
            if line:
                call = json.loads(line)
                doubtful = {name: {version, acknowledged.get(name)} for name, version in call.items()}
            else:
                acknowledged |= call
                doubtful, whole_calls = {}, whole_calls + 1
        with DocumentIndex(None, folder) as index:
            held = dict.fromkeys(f"d{number}" for number in range(DOCUMENTS))
            for name in index.ids():
                (held[name],) = versions_found(index, name)
            for name, version in held.items():
                assert version in doubtful.get(name, {acknowledged.get(name)}), f"{name} after {kill} kills"
            known = set(filter(None, acknowledged.values()))
            assert searched(index, known) == {version: name for name, version in held.items() if version in known}
        acknowledged = held
        cut_short += bool(doubtful)
    assert whole_calls > KILLS // 2 < cut_short


def versions_found(index, name):
    """Return the versions of a document's text that its passages are of."""
    passages = index.passages(index.passages_of(index.find(name).number)).values()
    return {int(passage.text.split("x")[0].removeprefix("word")) for passage in passages}


def searched(index, versions):
    """Return the ids of the documents that are found by the first word of these versions."""
    found = {}
    for version in versions:
        hits = index.search(words=f"word{version}x0", top_k=5)
        for document in index.documents(hit.document for hit in hits).values():
            assert version not in found
            found[version] = document.id
    return found
