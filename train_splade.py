"""Fine-tune a SPLADE model on training examples.

    python train_splade.py --train-file training_data.json --output-dir ./fine_tuned_splade
    python train_splade.py --model-name splade-tiny --train-file training_data.json --epochs 1
    python train_splade.py --train-file training_data.json --target-doc-terms 120 --target-query-terms 20
    python train_splade.py --train-file training_data.json --resume
    python train_splade.py --train-file training_data.json --teacher minilm bm25
    torchrun --nproc-per-node 4 train_splade.py --train-file training_data.json

    from train_splade import SpladeTrainer
    SpladeTrainer(model_name="splade-tiny", train_file="training_data.json").train()

Each query is trained against its own document, its hard negatives and all other documents of the batch, while a
regularizer keeps the vectors sparse. The output folder opens with SpladeEmbedder and with transformers'
AutoModelForMaskedLM; README.md and training_history.json in it tell how the training went.
"""

import contextlib
import inspect
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError

from utils.arguments import (
    ScriptArguments,
    ScriptParser,
    auto_or_positive_int,
    language_code,
    number_in_range,
    positive_int,
)
from utils.console import is_main_process, on_interrupt, print_line, print_truncated, quiet_libraries, run_script
from utils.device import compute_dtype, process_place, resolve_device, use_own_device
from utils.documents.normalization import NORMALIZATIONS, normalizing_tokenizer
from utils.evaluation.collection import keep_nearest, pool_examples
from utils.files import check_writable, fingerprint, lock_folder, write_json, write_text
from utils.models import load_config
from utils.records import corpus_file, read_passages
from utils.splade.encoder import SpladeEncoder
from utils.splade.model_folder import check_original, read_model_folder
from utils.training.batches import StepBatchSampler
from utils.training.checkpoints import (
    CHECKPOINTS_FOLDER,
    HISTORY_NAME,
    find_checkpoint,
    remove_checkpoints,
    whole_checkpoints,
)
from utils.training.distillation import BatchTeacher, check_batch_teachers
from utils.training.examples import find_validation_file, read_usable_examples, sample_passages
from utils.training.guards import find_uncompared, starts_dense
from utils.training.lora import add_adapters, merge_adapters
from utils.training.losses import BATCH_TEACHER_LOSS, RankingLoss
from utils.training.model_card import model_card
from utils.training.neighborhoods import NeighborhoodSampler
from utils.training.refresh import NegativeRefresher
from utils.training.selection import copy_weights, describe_selection, keep_best
from utils.training.settings import (
    AUTO_BATCH_SIZE,
    BERT_WIDTH,
    JUDGED_LOSSES,
    MAX_PASSAGES,
    QUERY_ENCODERS,
    VAL_FILE,
    VALIDATION_METRIC,
    TrainingSettings,
    check_combination,
    training_arguments,
)
from utils.training.sparsity import REGULARIZERS
from utils.training.tokenization import TokenizedExamples, corpus_idf, tokenize_examples
from utils.training.trainer import EncoderTrainer
from utils.training_data.extractive import CUT_OUT_TYPES

LOGS_FOLDER = "runs"  # TensorBoard's, in the output folder
VALIDATION_PASSAGES = 256  # most passages whose examples validate where queries are cut out, drawn at random from more
VALIDATION_DOCUMENTS = 512  # documents that the validation queries search; each evaluation encodes them all
# A sparsity that was asked for is kept, whatever it costs.
SPARSITY_SETTINGS = {"target_doc_terms", "target_query_terms", "lambda_d", "lambda_q", "regulariser"}


class SpladeTrainer:
    """Fine-tunes a SPLADE model, or any masked language model, into `output_dir`.

    A training that was interrupted has its last checkpoint and its best epoch as model folders in
    output_dir/checkpoints.

    Args:
        settings: as utils.training.settings.TrainingSettings explains them: model_name, output_dir, train_file,
            val_file, learning_rate, batch_size, epochs, lambda_d, lambda_q, max_length and many more.

    Attributes:
        encoder: the model; None until it is loaded.
        history: one record an epoch, see `train`.
        selection: after a training with validation examples, see utils.training.selection.keep_best.

    Raises:
        ValueError, OSError: a setting, a file or a model's name that cannot work; it is checked before anything is
            loaded.
    """

    def __init__(self, *settings: Any, **named_settings: Any) -> None:
        quiet_libraries()
        names = inspect.signature(TrainingSettings).parameters
        by_position = dict(zip(names, settings))
        try:
            given = TrainingSettings(**by_position, **named_settings)
        except ValidationError as error:
            first = error.errors()[0]
            raise ValueError(f"`{first['loc'][0]}`: {first['msg']}, not {first['input']}") from None
        self.given = {name for name in (*by_position, *named_settings) if getattr(given, name) is not None}
        if given.precision == "int8":
            raise ValueError("precision 'int8' is for encoding; train in auto, bfloat16, float16 or float32")
        self.objective = RankingLoss(given.losses, given.temperature)
        if (BATCH_TEACHER_LOSS in self.objective.weights) != bool(given.teachers):
            raise ValueError(f"loss '{BATCH_TEACHER_LOSS}' and a teacher need each other: name both or none")
        if given.refresh_negatives and self.objective.teacher_losses:
            name = self.objective.teacher_losses[0]
            raise ValueError(f"loss '{name}' needs stored scores, which refreshed negatives lack; use kl-batch")
        check_batch_teachers(given.teachers)
        self.device = _training_device(given.device)
        self.dtype = compute_dtype(self.device, given.precision)
        self.examples = read_usable_examples(given.train_file, self.objective.teacher_losses)
        processes = process_place()[1]
        found = find_uncompared(self.examples, self.objective.weights, processes * min(given.batch_sizes))
        if found.by_setting and found.count == len(self.examples):
            raise ValueError(f"{given.train_file}: {found.reason}")
        if found.count:
            print_line(f"{given.train_file}: {found.reason}; they train sparsity alone")
        val_file = find_validation_file(given.val_file, "val_file" in self.given, given.train_file)
        self.validation = read_usable_examples(val_file, self.objective.teacher_losses) if val_file else []
        if given.best_by == "loss" and self.validation:
            found = find_uncompared(self.validation, self.objective.weights, processes * given.batch_sizes[-1])
            if found.count == len(self.validation):
                print_line(f"no validation: {val_file}: {found.reason}, or use --best-by {VALIDATION_METRIC}")
                self.validation = []
        self.validation_passages = read_passages(val_file, self.validation) if self.validation else []
        check_combination(given, self.given, bool(self.validation))
        self.output_dir = Path(given.output_dir)
        check_writable(self.output_dir, folder=True)
        if (self.output_dir / "README.md").is_file() and not (self.output_dir / "config.json").is_file():
            raise ValueError(f"{self.output_dir}: has a README.md and is no model; name a new `output_dir`")
        folder = read_model_folder(given.model_name)
        check_original(given.model_name, folder.config)
        if folder.config.pooling != "max":
            raise ValueError(f"model '{given.model_name}': its pooling is {folder.config.pooling}; only max is trained")
        config = load_config(given.model_name, folder.subfolder)
        self.settings = given.with_learning_rate(getattr(config, "hidden_size", BERT_WIDTH))
        self.data = {"train_file": fingerprint(given.train_file), "val_file": fingerprint(val_file)}
        if self.validation_passages:
            self.data["val_corpus"] = fingerprint(corpus_file(val_file))
        self.encoder: SpladeEncoder | None = None
        self.history: list[dict[str, Any]] = []
        self.selection: dict[str, Any] | None = None
        with self._locked():  # else the checkpoints of a training at work would look like those of a killed one
            checkpoint = self._find_checkpoint()
        if given.resume and not checkpoint:
            print_line(f"{self.output_dir}: nothing to resume; training from the beginning")

    def load(self) -> SpladeEncoder:
        """Load the model to start from, and prepare it as the settings say. `train` calls it if needed.

        Raises:
            ValueError, OSError: see SpladeEncoder.from_pretrained.
        """
        settings = self.settings
        encoder = SpladeEncoder.from_pretrained(
            settings.model_name, self.device, settings.max_length, settings.precision, settings.threads
        )
        encoder.query_max_length = min(settings.query_max_length, encoder.max_length)
        encoder.base_model = str(settings.model_name)
        before = encoder.training_notes.get("normalize", "none")
        if "normalize" in self.given and len(NORMALIZATIONS[settings.normalize]) < len(NORMALIZATIONS[before]):
            raise ValueError(
                f"`normalize={settings.normalize}` has no effect: {settings.model_name} keeps its {before}"
            )
        encoder.tokenizer = normalizing_tokenizer(encoder.tokenizer, settings.normalize)
        if settings.query_encoder == "model":
            encoder.query_weights = None
        set_dropout(encoder.model, settings.dropout)
        if settings.gradient_checkpointing:
            encoder.model.gradient_checkpointing_enable({"use_reentrant": False})
        if encoder.query_weights is not None:
            check_combination(replace(settings, query_encoder="idf"), self.given, bool(self.validation))
        limits = {"max_length", "query_max_length"} & self.given
        encoder.check_positions(**{name: getattr(settings, name) for name in sorted(limits)})
        self.encoder = encoder
        return encoder

    def train(self) -> list[dict[str, Any]]:
        """Train, keep the best epoch on the validation examples, and write the model folder. A second call goes on from
        the tuned weights; after an interruption, with `resume`, from the last checkpoint.

        Returns:
            One record an epoch, as in training_history.json: epoch, step, loss (the ranking loss, without the
            regularizers), query_terms, doc_terms, lambda_q, lambda_d, seconds, and where there are validation examples
            val_loss, val_nDCG@10, val_query_terms, val_doc_terms.

        Raises:
            ValueError: the training went wrong: the loss is NaN or infinite, vectors are all empty or all dense; or
                another process trains into the folder.
            ValueError, OSError, ImportError: the model or a teacher cannot be loaded.
        """
        with self._locked():
            return self._train()

    def _locked(self) -> contextlib.AbstractContextManager[None]:
        """Keep other trainings out of the output folder; the first of several processes does so for all."""
        return lock_folder(self.output_dir) if is_main_process() else contextlib.nullcontext()

    def _find_checkpoint(self) -> Path | None:
        """Return the checkpoint to go on from; None to begin, which another call has to where the first has ended."""
        resume = self.settings.resume and not self.history
        return find_checkpoint(self.output_dir, self.settings.to_json(), self.data, resume)

    def _losses_and_teachers(self, dense: bool) -> tuple[list[str], list[str]]:
        """Return the losses and the teachers of this training, of a model whose vectors are `dense` before it."""
        settings = self.settings
        if settings.loss is None and settings.teacher is None and dense:
            print_line(f"{settings.model_name} makes no sparse vectors yet: training with the loss contrastive alone")
            return ["contrastive"], []
        made = sum(example.query_type in (*CUT_OUT_TYPES, "keywords") for example in self.examples)
        if settings.loss is None and settings.teachers and made < len(self.examples) / 2:
            return JUDGED_LOSSES, settings.teachers
        return settings.losses, settings.teachers

    def _train(self) -> list[dict[str, Any]]:
        settings = self.settings
        checkpoint = self._find_checkpoint()
        if checkpoint:
            print_line(f"resuming from {checkpoint}")
        encoder = self.encoder if self.encoder and not checkpoint else self.load()
        self.history, self.selection = [], None
        dense = starts_dense(encoder, self.examples)
        losses, teachers = self._losses_and_teachers(dense)
        self.objective = RankingLoss(losses, settings.temperature)
        # What a teacher says of a passage does not depend on the query that was cut out of it.
        by_passage = list(self.objective.weights) == [BATCH_TEACHER_LOSS]
        limit = settings.max_passages or (MAX_PASSAGES if by_passage else None)
        chosen = sample_passages(self.examples, limit, settings.seed, "training") if limit else self.examples
        validating = self.validation
        if by_passage:
            validating = sample_passages(validating, VALIDATION_PASSAGES, settings.seed, "validating")
        tokenized = tokenize_examples([*chosen, *validating], encoder, share_passages=by_passage)
        documents, queries = tokenized.documents, tokenized.queries
        print_truncated(documents.truncated, len(documents.texts), "documents", encoder.max_length)
        print_truncated(queries.truncated, len(queries.texts), "queries", encoder.query_max_length)
        examples, validation = tokenized.split(len(chosen))
        if not examples:
            raise ValueError(f"`max_length={encoder.max_length}` leaves no token of any example's document or query")
        teacher = refresher = None
        if teachers:
            texts = queries.texts, documents.texts
            options = settings.device, settings.threads, settings.language
            teacher = BatchTeacher(teachers, None if dense else encoder, *texts, *options)
            self.objective.teacher = teacher
        if settings.query_encoder == "idf" and encoder.query_weights is None:
            encoder.query_weights = torch.nn.Parameter(corpus_idf(examples, encoder).to(self.device))
        if settings.refresh_negatives:
            refresher = NegativeRefresher(encoder, examples, settings.refresh_negatives, teacher and teacher.scorer)

        checkpoints = self.output_dir / CHECKPOINTS_FOLDER
        arguments = training_arguments(settings, checkpoints, self.device, self.dtype, bool(validation))
        rank_and_world = arguments.process_index, arguments.world_size

        def sample(part: TokenizedExamples, sizes: Sequence[int], epochs: int) -> StepBatchSampler:
            options = sizes, epochs, settings.seed, *rank_and_world
            if by_passage and part:
                return NeighborhoodSampler(part, teacher.document_vectors, *options)
            return StepBatchSampler(part.keys, *options)

        collection = keep_nearest(
            pool_examples(validating, self.validation_passages), VALIDATION_DOCUMENTS, settings.language
        )
        compared = validation and not dense and settings.query_encoder != "idf"
        untuned_weights = copy_weights(encoder) if compared else None
        if settings.lora_rank:
            torch.manual_seed(settings.seed)
            add_adapters(encoder.model, settings.lora_rank)
            encoder.forget_trace()
        # A number of terms that is asked for may need some that no text has yet.
        targets = settings.target_doc_terms or settings.target_query_terms
        terms = teacher.terms(tokenized) if teacher and not targets else None
        if arguments.world_size > 1:  # a weight near 0 may be above it in one process alone
            received = [terms]
            torch.distributed.broadcast_object_list(received)
            (terms,) = received
        trainer = EncoderTrainer(
            encoder,
            arguments,
            settings,
            sample(examples, settings.batch_sizes, settings.epochs),
            sample(validation, settings.batch_sizes[-1:], 1),
            examples,
            validation,
            collection,
            self.objective,
            refresher,
            self.data,
            terms,
        )
        # Imported late: before the console is set up, it would print tqdm's advice in a notebook.
        from transformers.integrations import TensorBoardCallback, is_tensorboard_available

        if is_tensorboard_available() and arguments.process_index == 0:
            from torch.utils.tensorboard import SummaryWriter

            if not checkpoint:
                shutil.rmtree(self.output_dir / LOGS_FOLDER, ignore_errors=True)  # an earlier model's
            trainer.add_callback(TensorBoardCallback(SummaryWriter(self.output_dir / LOGS_FOLDER)))
        try:
            trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        finally:
            if settings.lora_rank:
                merge_adapters(encoder.model)
                encoder.forget_trace()
        encoder.eval()
        self.history = trainer.history
        if validation:  # in every process, as a second call of `train` goes on from what is kept
            free = not self.given & SPARSITY_SETTINGS
            self.selection = keep_best(encoder, untuned_weights, collection, free, settings.language, trainer.best_run)
            print_line(describe_selection(self.selection))
        if arguments.should_save:
            notes = settings.to_json() | {"loss": losses, "teacher": teachers, "max_passages": limit}
            write_model_folder(self.output_dir, trainer, notes, len(chosen), self.selection)
            remove_checkpoints(checkpoints)
        return self.history


SpladeTrainer.__signature__ = inspect.signature(TrainingSettings)  # what help() and notebooks show


def set_dropout(model: torch.nn.Module, probability: float) -> None:
    """Set the dropout of hidden states, and turn off that of attention probabilities."""
    for parent in model.modules():
        is_attention = hasattr(parent, "num_attention_heads") or hasattr(parent, "n_heads")
        for part in parent.children():
            if isinstance(part, torch.nn.Dropout):
                part.p = 0.0 if is_attention else probability


def write_model_folder(
    folder: Path,
    trainer: EncoderTrainer,
    settings: dict[str, Any],
    examples: int,
    selection: dict[str, Any] | None,
) -> None:
    """Write the model with its card, its history and the curves of its training on `examples` examples; for
    `selection` see utils.training.selection.keep_best."""
    from utils.training.curves import save_curves  # matplotlib takes half a second to import

    history, best = trainer.history, trainer.best_epoch
    trainer.model.training_notes = {**settings, "examples": examples, "best_epoch": best, "selection": selection}
    trainer.model.save_pretrained(folder)
    write_json(folder / HISTORY_NAME, {"settings": settings, "epochs": history, "selection": selection})
    steps = [record for record in trainer.state.log_history if "doc_terms" in record]
    same_sizes = {*trainer.batches.sizes} == {*trainer.validation_batches.sizes}
    save_curves(folder / "training_curves.png", steps, history, VALIDATION_METRIC, same_sizes)
    write_text(folder / "README.md", model_card(settings, history, best, examples, trainer.model.activation, selection))


def _training_device(name: str | None) -> torch.device:
    device = resolve_device(name)
    use_own_device(device)
    if device.index is not None:
        raise ValueError(f"to train on {device}, set CUDA_VISIBLE_DEVICES={device.index} and `device='cuda'`")
    return device


def main(args: ScriptArguments) -> None:
    trainer = SpladeTrainer(**{name: getattr(args, name) for name in args.given - {"debug"}})
    print_line(f"{len(trainer.examples):,} examples, {len(trainer.validation):,} for validation, on {trainer.device}")
    with on_interrupt(
        lambda: "with --resume the same command goes on" if whole_checkpoints(trainer.output_dir) else ""
    ):
        trainer.train()
    print_line(f"model -> {trainer.output_dir}")


def parse_args() -> ScriptArguments:
    parser = ScriptParser(__doc__)
    add = parser.add_argument_group("files").add_argument
    add("--model-name", default="prithivida/Splade_PP_en_v1", help="splade-tiny, a model folder or a hub id")
    add("--train-file", default="training_data.json", help="training examples, .json or .jsonl")
    validation = "validation examples; by default those generated with the train file, or a file of this name"
    add("--val-file", default=VAL_FILE, help=validation)
    add("--output-dir", default="./fine_tuned_splade", help="model folder to write")
    add("--resume", action="store_true", help="go on with an interrupted training")
    minutes = "longest time between two checkpoints; the end of an epoch has one too"
    add("--checkpoint-minutes", type=number_in_range(float, 0), default=10.0, metavar="MINUTES", help=minutes)

    add = parser.add_argument_group("optimization").add_argument
    add("--epochs", type=positive_int, default=3, help="passes over the training examples")
    rate = "peak learning rate; default: 2.5e-5 for a model as wide as BERT-base, more for narrower ones"
    add("--learning-rate", type=number_in_range(float, 0), default=None, help=rate)
    passages = "passages to train on, drawn at random from more; "
    passages += f"default: {MAX_PASSAGES:,} where queries are cut out of them, else all"
    add("--max-passages", type=number_in_range(int, 2), default=None, metavar="N", help=passages)
    add("--warmup-ratio", type=number_in_range(float, 0, 1), default=0.1, help="share of the steps that warm up")
    add("--batch-size", type=auto_or_positive_int, default="auto", help=f"queries per step; auto: {AUTO_BATCH_SIZE}")
    schedule = "sizes to grow through, such as 8 16 32, in place of --batch-size"
    add("--batch-size-schedule", type=positive_int, nargs="+", default=None, metavar="SIZE", help=schedule)
    add("--dropout", type=number_in_range(float, 0, 0.9), default=0, help="dropout of hidden states in training")
    add("--lora-rank", type=positive_int, default=None, metavar="RANK", help="train adapters of this rank (needs peft)")
    add("--seed", type=int, default=42, help="seed of the order of examples and of dropout")

    add = parser.add_argument_group("ranking loss").add_argument
    losses = "losses to sum: contrastive, margin; kl-batch, which learns from --teacher; margin-mse, kl, which need "
    losses += f"'scores' in the examples; default: {BATCH_TEACHER_LOSS}, unless queries are not cut from documents: "
    losses += " ".join(JUDGED_LOSSES)
    add("--loss", nargs="+", default=None, metavar="NAME[=WEIGHT]", help=losses)
    teachers = (
        "what scores a batch's documents to learn from, fused with the model as it comes: bm25 (default), minilm "
        "(all-MiniLM-L6-v2), a model"
    )
    add("--teacher", nargs="+", default=None, metavar="NAME[=WEIGHT]", help=teachers)
    temperature = "divides the teacher's scores in kl and kl-batch; default: 1"
    add("--temperature", type=float, default=None, help=temperature)
    refresh = "hard negatives per example, mined with the current model before each epoch but the first"
    add("--refresh-negatives", type=positive_int, default=None, metavar="N", help=refresh)

    add = parser.add_argument_group("sparsity").add_argument
    add("--regulariser", choices=list(REGULARIZERS), default=None, help="what keeps vectors sparse; default: flops")
    weight = "weight of the regularizer on {}; default: 1e-4"
    add("--lambda-d", type=number_in_range(float, 0), default=None, help=weight.format("documents"))
    add("--lambda-q", type=number_in_range(float, 0), default=None, help=weight.format("queries"))
    target = "mean active terms per {} to arrive at, in place of {}"
    for_documents, for_queries = target.format("document", "--lambda-d"), target.format("query", "--lambda-q")
    add("--target-doc-terms", type=float, default=None, metavar="N", help=for_documents)
    add("--target-query-terms", type=float, default=None, metavar="N", help=for_queries)

    add = parser.add_argument_group("texts").add_argument
    add("--max-length", type=positive_int, default=None, help="maximum tokens per document; default: 512")
    add("--query-max-length", type=positive_int, default=None, help="maximum tokens per query; default: 128")
    language = "of the texts, for the teacher bm25: de, german; default: detected"
    add("--language", type=language_code, default=None, help=language)
    normalize = "of documents and queries, by the tokenizer; default: nfkc"
    add("--normalize", choices=list(NORMALIZATIONS), default=None, help=normalize)
    encoders = "idf: queries are weighted tokens, and do not pass the model; default: as the model has it"
    add("--query-encoder", choices=QUERY_ENCODERS, default=None, help=encoders)

    add = parser.add_argument_group("best epoch").add_argument
    best = "validation measure that picks the best epoch; default: loss"
    add("--best-by", choices=["loss", VALIDATION_METRIC], default=None, help=best)
    patience = "stop after this many epochs without improvement"
    add("--early-stopping-patience", type=positive_int, default=None, metavar="EPOCHS", help=patience)

    add = parser.add_argument_group("memory").add_argument
    micro_batch = "texts in the model at a time; default: as many as fit the memory"
    add("--micro-batch-size", type=positive_int, default=None, metavar="TEXTS", help=micro_batch)
    add("--gradient-checkpointing", action="store_true", help="less memory for more time")
    parser.add_device_arguments("auto", "bfloat16", "float16", "float32")
    return parser.parse_args()


if __name__ == "__main__":
    run_script(main, parse_args())
