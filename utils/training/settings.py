"""The settings of a training: their types, defaults and meaning."""

import os
from collections.abc import Collection, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import AfterValidator, ConfigDict, Field, NonNegativeFloat, PositiveFloat, PositiveInt
from pydantic.dataclasses import dataclass
from transformers import TrainingArguments

from utils.arguments import parse_weights
from utils.documents.normalization import NORMALIZATIONS
from utils.languages import parse_language
from utils.training.losses import BATCH_TEACHER_LOSS
from utils.training.sparsity import REGULARIZERS

VAL_FILE = "validation_data.json"
QUERY_ENCODERS = ("model", "idf")
VALIDATION_METRIC = "nDCG@10"
AUTO_BATCH_SIZE = 32  # queries per step
MAX_PASSAGES = 2048  # of a large collection, so that a training takes minutes whatever its size
DEFAULT_TEACHERS = ["bm25"]  # beside the model as it comes
# The default where a teacher's view is not all that the examples tell: their queries have been judged by someone.
JUDGED_LOSSES = ["contrastive=0.5", f"{BATCH_TEACHER_LOSS}=0.5"]
TEMPERED_LOSSES = {BATCH_TEACHER_LOSS, "kl"}  # that `temperature` is for
IDF_QUERIES = "idf queries have their own tokens, and nothing makes them sparser"
BERT_RATE, BERT_WIDTH = 2.5e-5, 768  # learning rate and hidden size of BERT-base, from which other widths are scaled
LORA_RATE_FACTOR = 5  # learning rate of adapters over that of all weights


@dataclass(config=ConfigDict(extra="forbid"))
class TrainingSettings:
    """All that a training can be told.

    Args:
        model_name: what to start from: `splade-tiny`, a model folder or a hub id.
        output_dir: where the model folder goes, with training_history.json and a model card, README.md.
        train_file, val_file: examples (utils.records.TrainingExample). By default the validation file is the one that
            was generated with the training file, else one of the default name beside it or in the current folder;
            without any, the last epoch's weights are kept rather than the best epoch's.
        learning_rate: peak of AdamW's, after a linear warm-up over `warmup_ratio` of the steps, then linear to 0. None
            for 2.5e-5 times 768 over the model's hidden size (the rate that keeps is one over the width, Yang et al.,
            arXiv 2203.03466): 2.5e-5 for BERT-base, 1.5e-4 for SPLADE-tiny; with `lora_rank`, five times as much.
        batch_size: queries per step and process; each brings its positive and its negatives. None for AUTO_BATCH_SIZE.
        max_passages: most passages whose examples are trained on, at least 2, drawn at random from more. None for
            MAX_PASSAGES where the loss is `kl-batch` alone, which learns from a passage's neighbors whatever its
            queries, and for all of them elsewhere.
        lambda_d, lambda_q: weights of the regularizer on documents and queries, reached over the first third of the
            steps.
        max_length, query_max_length: limits in tokens.
        normalize: Unicode normalization of all texts, queries too, in training and by whoever opens the model: nfkc
            (compatibility form), nfkc-lowercase, or none.
        dropout: probability for hidden states, in place of the model's own; attention probabilities have none.
        batch_size_schedule: batch sizes one after the other, each for an equal share of the examples.
        micro_batch_size: texts that pass through the model at a time, None for as many of a step's as fit the memory.
            Less memory for more time, and the same gradient: all documents of the batch stay negatives (GradCache, Gao
            et al., arXiv 2101.06983).
        gradient_checkpointing: keep only each layer's input and recompute the layer in the backward pass: less memory
            for more time.
        lora_rank: train low-rank adapters of this rank instead of all weights; they are merged when the model is saved.
        query_encoder: `model`, or `idf` for queries that do not pass the model: a query's vector is the weights of its
            own tokens, which start as inverse document frequencies and are trained. None for what the model has.
        teacher: names, or `name=weight`, of the scorers whose scores of all documents of a batch the loss `kl-batch`
            learns from, see utils.search.scorers; the model as it comes is always one more, see
            utils.training.distillation. None for `bm25` where the loss is `kl-batch`; none of them, an empty list, for
            the loss `contrastive`.
        language: of the texts, for the teacher bm25, such as `de` or `german`; None to detect it.
        refresh_negatives: hard negatives per example, mined with the current model before each epoch but the first;
            where there is a teacher, none that it takes for an answer.
        loss: a sum of losses by weight, such as ["contrastive=0.5", "kl=0.5"]; see
            utils.training.losses.RankingLoss. None for `kl-batch` where the queries were cut out of the documents, for
            half of it and half of `contrastive` where they were not, and for `contrastive` alone where the model is no
            SPLADE model yet and no teacher is named.
        temperature: divides the teacher's scores in the losses `kl` and `kl-batch`.
        regulariser: flops or l1.
        target_doc_terms, target_query_terms: mean number of active terms of a document and of a query to arrive at;
            the regularizer's weight is then steered, in place of lambda_d or lambda_q.
        best_by: what makes an epoch the best on the validation examples: their `loss`, or `nDCG@10` in retrieval among
            their documents and the passages nearest to their queries. With a target number of terms it also has to be
            within 10 % of that.
        early_stopping_patience: epochs without a better one after which to stop; None for never.
        resume: go on with a training that was interrupted, from its last checkpoint, to the same weights.
        checkpoint_minutes: write a checkpoint when this time has passed since the last one, besides those at the end
            of each epoch; 0 for one after each step.
        device: None for the best one here, or cuda, mps, cpu.
        precision: bfloat16, float32 or, on CUDA and MPS, float16 with loss scaling; auto takes bfloat16 where the
            device is fast at it.
        threads: of the processor; None for OMP_NUM_THREADS, or one a core.

    Raises:
        pydantic.ValidationError: a value of the wrong type or out of range.
    """

    model_name: str | Path = "prithivida/Splade_PP_en_v1"
    output_dir: str | Path = "./fine_tuned_splade"
    train_file: str | Path = "training_data.json"
    val_file: str | Path | None = VAL_FILE
    learning_rate: PositiveFloat | None = None
    batch_size: PositiveInt | None = None
    epochs: PositiveInt = 3
    max_passages: Annotated[int, Field(ge=2)] | None = None
    lambda_d: NonNegativeFloat = 1e-4
    lambda_q: NonNegativeFloat = 1e-4
    max_length: PositiveInt = 512
    query_max_length: PositiveInt = 128
    normalize: Literal[tuple(NORMALIZATIONS)] = "nfkc"
    warmup_ratio: Annotated[float, Field(ge=0, le=1)] = 0.1
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    batch_size_schedule: Sequence[PositiveInt] | None = None
    micro_batch_size: PositiveInt | None = None
    gradient_checkpointing: bool = False
    lora_rank: PositiveInt | None = None
    query_encoder: Literal[QUERY_ENCODERS] | None = None
    teacher: Sequence[str] | None = None
    language: Annotated[str, AfterValidator(parse_language)] | None = None
    refresh_negatives: PositiveInt | None = None
    loss: Sequence[str] | None = None
    temperature: PositiveFloat = 1.0
    regulariser: Literal[tuple(REGULARIZERS)] = "flops"
    target_doc_terms: PositiveFloat | None = None
    target_query_terms: PositiveFloat | None = None
    best_by: Literal["loss", VALIDATION_METRIC] = "loss"
    early_stopping_patience: PositiveInt | None = None
    resume: bool = False
    checkpoint_minutes: NonNegativeFloat = 10.0
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 42
    device: str | None = None
    precision: str = "auto"
    threads: PositiveInt | None = None

    @property
    def losses(self) -> list[str]:
        """The ranking losses, those of a SPLADE model and queries cut out of the documents where none are named."""
        without_teacher = self.teacher is not None and not self.teacher
        return list(self.loss or (["contrastive"] if without_teacher else [BATCH_TEACHER_LOSS]))

    @property
    def teachers(self) -> list[str]:
        """The teachers beside the model as it comes, the default ones where none are named and the loss has one."""
        if self.teacher is None:
            return DEFAULT_TEACHERS if BATCH_TEACHER_LOSS in parse_weights(self.losses, "loss") else []
        return list(self.teacher)

    @property
    def batch_sizes(self) -> list[int]:
        """The batch sizes to go through, one where there is no schedule."""
        return list(self.batch_size_schedule or [self.batch_size or AUTO_BATCH_SIZE])

    def with_learning_rate(self, hidden_size: int) -> "TrainingSettings":
        """Return these settings with the default learning rate for a model of this hidden size, if none is set."""
        if self.learning_rate is not None:
            return self
        rate = BERT_RATE * BERT_WIDTH / hidden_size * (LORA_RATE_FACTOR if self.lora_rank else 1)
        return replace(self, learning_rate=round(rate, 8))

    def to_json(self) -> dict[str, Any]:
        """Return the settings by name but for `resume`, in types that JSON has, as a model and its checkpoints store
        them."""
        values = asdict(self)
        del values["resume"]
        return {
            name: str(value) if isinstance(value, Path) else list(value) if isinstance(value, tuple) else value
            for name, value in values.items()
        }


def check_combination(settings: TrainingSettings, given: Collection[str], validated: bool) -> None:
    """Check that no setting is without effect beside the others.

    Args:
        given: names of the settings that were asked for.
        validated: whether there are validation examples.

    Raises:
        ValueError: one is; it is named.
    """
    targets = settings.target_doc_terms, settings.target_query_terms
    unregularized = not (settings.lambda_d or settings.lambda_q or any(targets))
    losses = parse_weights(settings.losses, "loss").keys()
    patience = settings.early_stopping_patience or 0
    idle = [  # name, whether it has no effect, why
        ("target_query_terms", settings.query_encoder == "idf", IDF_QUERIES),
        ("lambda_q", settings.query_encoder == "idf", IDF_QUERIES),
        ("lambda_d", targets[0], "`target_doc_terms` steers it"),
        ("lambda_q", targets[1], "`target_query_terms` steers it"),
        ("regulariser", unregularized, "`lambda_d` and `lambda_q` are 0"),
        ("batch_size", settings.batch_size_schedule, "`batch_size_schedule` sets it"),
        ("temperature", not losses & TEMPERED_LOSSES, f"it is for the losses {' and '.join(sorted(TEMPERED_LOSSES))}"),
        ("language", "bm25" not in parse_weights(settings.teachers, "teacher"), "it is for the teacher bm25"),
        ("refresh_negatives", settings.epochs == 1, "it is done before each epoch but the first, and there is one"),
        ("best_by", not validated, "there are no validation examples"),
        ("early_stopping_patience", not validated, "there are no validation examples"),
        ("early_stopping_patience", patience >= settings.epochs, f"there are no more than {settings.epochs} epochs"),
    ]
    for name, has_no_effect, reason in idle:
        if name in given and has_no_effect:
            raise ValueError(f"`{name}` has no effect: {reason}; leave it out")


def training_arguments(
    settings: TrainingSettings, folder: Path, device: torch.device, dtype: torch.dtype, validate: bool
) -> TrainingArguments:
    """Return transformers' arguments for these settings, with checkpoints in `folder`."""
    arguments = TrainingArguments(
        output_dir=str(folder),
        num_train_epochs=settings.epochs,
        learning_rate=settings.learning_rate,
        weight_decay=0.01,
        bf16=dtype == torch.bfloat16,
        fp16=dtype == torch.float16,
        use_cpu=device.type == "cpu",
        ddp_broadcast_buffers=False,
        ddp_find_unused_parameters=False,
        ddp_backend="gloo" if device.type == "cpu" and "WORLD_SIZE" in os.environ else None,
        seed=settings.seed,
        eval_strategy="epoch" if validate else "no",
        save_strategy="epoch",
        load_best_model_at_end=validate,
        metric_for_best_model="score",
        greater_is_better=True,
        prediction_loss_only=True,
        disable_tqdm=True,
        report_to="none",
        remove_unused_columns=False,
        dataloader_pin_memory=device.type == "cuda",
    )
    arguments._n_gpu = min(1, arguments.n_gpu)  # several devices mean several processes, never DataParallel
    return arguments
