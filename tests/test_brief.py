"""The code examples and commands that users were promised, as written but for the model's name and the data."""

import json
import shutil
import subprocess
import sys

import pytest
from conftest import ROOT

TRAINING = """
from train_splade import SpladeTrainer

# Initialize trainer
trainer = SpladeTrainer(
    model_name="splade-tiny",  # Base model
    output_dir="./fine_tuned_splade",
    train_file="training_data.json",
    val_file="validation_data.json",
    learning_rate=5e-5,
    batch_size=8,
    epochs=3
)

# Train model
trainer.train()
"""

ENCODING = """
from embedder import SpladeEmbedder

# Initialize embedder
embedder = SpladeEmbedder(model_dir="./fine_tuned_splade")

# Generate sparse embeddings
documents = ["Document content here", "Another document"]
embeddings = embedder.generate_sparse_embeddings(documents)
print(len(embeddings), sorted(embeddings[0]))
"""

SEARCHING = """
from test_queries import load_splade_model, retrieve_documents

# Load model
tokenizer, model, device = load_splade_model("./fine_tuned_splade")

# Load documents
documents = ["First document content", "Second document content", "Third document content"]

# Perform search
query = "What is the second document?"
results = retrieve_documents(query, documents, tokenizer, model, device, top_k=3)

# Display results
for result in results:
    print(f"Rank {result['rank']} (Score: {result['score']:.4f}):")
    print(f"  {result['snippet']}")
"""


WORDS = ("engine", "brake", "mirror", "window", "radio", "heater")


@pytest.fixture
def home(tmp_path):
    """A user's copy of the project with documents of their own."""
    folder = tmp_path / "project"
    folder.mkdir()
    for script in ROOT.glob("*.py"):
        shutil.copy(script, folder)
    shutil.copytree(ROOT / "utils", folder / "utils", ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "docs").mkdir()
    for word in WORDS:
        (folder / "docs" / f"{word}.md").write_text(
            f"# The {word}\n\nThis page is about the {word} of the truck. Check the {word} each week. "
            f"A broken {word} must be repaired by a workshop before you drive on."
        )
    (folder / "documents.json").write_text(json.dumps([f"How to repair the {word} of a truck" for word in WORDS]))
    return folder


def shell(home, command, stdin=""):
    done = subprocess.run(
        command.replace("python", sys.executable, 1), shell=True, cwd=home, input=stdin, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def python(home, code):
    done = subprocess.run([sys.executable, "-c", code], cwd=home, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_use_cases_run_as_written(home):
    shell(home, "python generate_training_data.py --input-dir ./docs --output-file training_data.json")
    assert json.loads((home / "training_data.json").read_text())
    assert json.loads((home / "validation_data.json").read_text())
    # The default base model lives on a hub; this one is a package.
    train = "python train_splade.py --train-file training_data.json --output-dir ./fine_tuned_splade"
    shell(home, f"{train} --model-name splade-tiny")

    out = shell(
        home, "python test_queries.py --model-dir ./fine_tuned_splade --docs-file documents.json", "radio\nquit\n"
    )
    assert "Rank 1" in out and "How to repair the radio" in out
    out = shell(home, "python test_evaluate.py --model-dir ./fine_tuned_splade --test-file validation_data.json")
    assert "nDCG@10" in out


def test_the_code_examples_run_as_written(home):
    for name in ("training", "validation"):
        rows = [
            {"query": f"{word} repair", "positive_document": f"How to repair the {word} of a truck"} for word in WORDS
        ]
        (home / f"{name}_data.json").write_text(json.dumps(rows))
    out = python(home, TRAINING + ENCODING + SEARCHING)
    assert (home / "fine_tuned_splade" / "splade_config.json").is_file()
    _, encoded, searched = out.partition("2 ['indices', 'values']\n")
    assert encoded and searched.startswith("Rank 1 (Score: ")
    assert "  Second document content" in searched.splitlines()[1]
