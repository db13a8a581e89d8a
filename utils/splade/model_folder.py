"""The files of a model folder that say how its model encodes: splade_config.json, and those of sentence-transformers,
which are written too, so that it opens the folder and makes the same vectors.

A model of sentence-transformers that encodes in a way that SpladeEncoder does not is refused by name.
"""

import json
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from pydantic import BaseModel, FiniteFloat, PositiveInt, TypeAdapter, ValidationError
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer, PreTrainedTokenizerBase
from transformers.utils import cached_file

from utils.models import loading, resolve_model, save_tokenizer
from utils.records import describe_error

CONFIG_NAME = "splade_config.json"
IDF_NAME = "idf.json"  # beside the models of OpenSearch that do not encode queries: their weights by token
IDF_FOLDER = "query_idf"  # subfolder with the query weights
POOLING_FOLDER = "pooling"  # subfolder for the settings of sentence-transformers' pooling
MODEL_FILES = (  # patterns of files that would make another model of a folder, were they left from an earlier one
    "model*.safetensors*",
    "pytorch_model*.bin*",
    "model*.onnx*",
    "model*.xml",
    "model*.bin",
    "optimization.*",
    "generation_config.json",
    "vocab.*",
    "merges.txt",
    "special_tokens_map.json",
    "added_tokens.json",
    "modules.json",
    "router_config.json",
    "config_sentence_transformers.json",
    "sentence_bert_config.json",
    f"{IDF_FOLDER}/*",
    f"{POOLING_FOLDER}/*",
)
PEER_ACTIVATIONS = {"log1p_relu": "relu", "log1p_log1p_relu": "log1p_relu"}  # ours -> sentence-transformers' name
PEER_MODULES = "sentence_transformers.sparse_encoder.models"
PROMPTED = ("query", "document", "passage", "corpus")  # names of prompts that sentence-transformers applies by itself
SUPPORTED = "here a model is one masked language model with max or sum pooling, for queries also SparseStaticEmbedding"


class ModelConfig(BaseModel):
    """Content of splade_config.json.

    Attributes:
        pooling: over a text's tokens; the maximum (SPLADE v2, arXiv 2109.10086) or the sum (v1, arXiv 2107.05720).
        activation: log1p_relu is log(1 + relu(x)), log1p_log1p_relu log(1 + log(1 + relu(x))) (arXiv 2504.14839).
        max_active_dims: how many of a text's terms are kept, the heaviest; None for all.
        query_encoder: model, or idf, where a query's vector is the weights of its own tokens.
        max_length, query_max_length: limits in tokens; None where the model does not say.
        base_model: name of the model that this one was fine-tuned from.
        training: how it was trained.
        weights: float32 for model.safetensors as transformers writes it; int8, see `utils.splade.int8_weights`; onnx
            or openvino for a graph, see `utils.splade.onnx_encoder`.
        fingerprint: of the model that `optimize_model.py` made this one from, whose indexes are good for this one.
        optimization: what `optimize_model.py` did.
    """

    pooling: Literal["max", "sum"] = "max"
    activation: Literal["log1p_relu", "log1p_log1p_relu"] = "log1p_relu"
    max_active_dims: PositiveInt | None = None
    query_encoder: Literal["model", "idf"] = "model"
    max_length: PositiveInt | None = None
    query_max_length: PositiveInt | None = None
    base_model: str | None = None
    training: dict[str, Any] = {}
    weights: Literal["float32", "int8", "onnx", "openvino"] = "float32"
    fingerprint: str | None = None
    optimization: dict[str, Any] = {}


class ModelFolder(NamedTuple):
    """What the files of a model folder or hub repository say."""

    config: ModelConfig
    subfolder: str = ""  # that holds the masked language model
    query_weights: torch.Tensor | None = None  # [vocabulary], where queries do not pass the model


def read_model_folder(name: str | Path) -> ModelFolder:
    """Read how the model called `name` encodes; one that does not say so is taken for a SPLADE model as of v2, with
    query weights where it has an idf.json, as OpenSearch's have.

    Raises:
        ValueError: a file is broken, or the model encodes in a way that is not supported.
        OSError: a file is missing.
    """
    source = resolve_model(name)
    with loading(name):  # fails for a repository out of reach, before each file of it is looked for in vain
        cached_file(source, "config.json")
    own = _read_json(name, CONFIG_NAME)
    if own is not None:
        try:
            config = ModelConfig.model_validate(own)
        except ValidationError as error:
            raise ValueError(f"model '{name}': {CONFIG_NAME}: {describe_error(error)}") from None
        weights = _load_query_weights(name, IDF_FOLDER) if config.query_encoder == "idf" else None
        return ModelFolder(config, query_weights=weights)
    modules = _read_json(name, "modules.json")
    if modules is None:
        idf = _read_json(name, IDF_NAME)
        if idf is None:
            return ModelFolder(ModelConfig())
        weights = _weights_by_id(name, IDF_NAME, idf, _load_tokenizer(name, ""))
        return ModelFolder(ModelConfig(query_encoder="idf"), query_weights=weights)
    try:
        return _read_modules(name, modules)
    except ValidationError as error:
        raise ValueError(f"model '{name}': {describe_error(error)}") from None
    except (KeyError, TypeError, AttributeError, IndexError):
        raise ValueError(f"model '{name}': its modules.json is not as sentence-transformers writes it") from None


def _read_modules(name: str | Path, modules: list[dict[str, str]]) -> ModelFolder:
    """Read the layout of sentence-transformers: modules.json, and the settings of each module in its subfolder."""
    documents = queries = [(_kind(module["type"]), module["path"]) for module in modules]
    if documents[0][0] in ("Router", "Asym"):
        router = _read_json(name, "router_config.json", documents[0][1])
        routes = {
            task: [(_kind(router["types"][path]), Path(documents[0][1], path).as_posix()) for path in paths]
            for task, paths in router["structure"].items()
        }
        documents, queries = routes["document"] + documents[1:], routes["query"] + documents[1:]
    kinds, query_kinds = ([kind for kind, _ in route] for route in (documents, queries))
    if kinds not in (["MLMTransformer", "SpladePooling"], ["Transformer", "SpladePooling"]):
        raise _unsupported(name, f"documents pass {', '.join(kinds)}")
    if queries != documents and query_kinds != ["SparseStaticEmbedding"]:
        raise _unsupported(name, f"queries pass {', '.join(query_kinds)} of their own")

    (_, subfolder), (_, pooling_folder) = documents
    pooling = _read_json(name, "config.json", pooling_folder) or {}
    activations = {peer: own for own, peer in PEER_ACTIVATIONS.items()}
    activation = pooling.get("activation_function", "relu")
    strategy = pooling.get("pooling_strategy", "max")
    if strategy not in ("max", "sum"):
        raise _unsupported(name, f"its pooling is {strategy}")
    if activation not in activations:
        raise _unsupported(name, f"its activation is {activation}")
    settings = _read_json(name, "config_sentence_transformers.json") or {}
    prompts = settings.get("prompts") or {}
    for prompt in filter(prompts.get, (*PROMPTED, settings.get("default_prompt_name"))):
        raise _unsupported(name, f"it puts '{prompts[prompt]}' before texts")
    if settings.get("similarity_fn_name") not in (None, "dot"):
        raise _unsupported(name, f"it compares by {settings['similarity_fn_name']}, not by dot product")
    transformer = _read_json(name, "sentence_bert_config.json", subfolder) or {}
    if kinds[0] == "Transformer" and transformer.get("transformer_task") != "fill-mask":
        raise _unsupported(name, "its transformer does not predict masked tokens")
    tokenizer = _load_tokenizer(name, subfolder)
    if transformer.get("do_lower_case") and tokenizer.tokenize("A") != tokenizer.tokenize("a"):
        raise _unsupported(name, "it lowercases texts before its tokenizer")

    limit = transformer.get("max_seq_length") or tokenizer.model_max_length
    config = ModelConfig(
        pooling=strategy,
        activation=activations[activation],
        max_active_dims=settings.get("max_active_dims") or None,
        max_length=limit,
        query_max_length=limit,
    )
    if queries == documents:
        return ModelFolder(config, subfolder)
    query_folder = queries[0][1]
    query_tokenizer = _load_tokenizer(name, query_folder)
    if query_tokenizer.get_vocab() != tokenizer.get_vocab():
        raise _unsupported(name, "queries have a vocabulary of their own")
    file = (_read_json(name, "config.json", query_folder) or {}).get("path")
    if file and file.endswith(".json"):
        weights = _weights_by_id(name, file, _read_named_json(name, file, query_folder), query_tokenizer)
    else:
        weights = _load_query_weights(name, query_folder)
        if (weights < 0).any():
            raise _unsupported(name, "some of its query weights are negative")
    config.query_encoder, config.query_max_length = "idf", query_tokenizer.model_max_length
    return ModelFolder(config, subfolder, weights)


def check_original(name: str | Path, config: ModelConfig) -> None:
    """Check that the model called `name` has not been optimized, so that it can be trained or optimized.

    Raises:
        ValueError: it has; its weights are rounded, or parts of it are gone.
    """
    if config.fingerprint:
        done = config.optimization.get("summary", config.weights)
        origin = config.optimization.get("model", "the model that it was made from")
        raise ValueError(f"model '{name}' is optimized already ({done}); take its original, {origin}")


def write_model_folder(
    folder: Path, config: ModelConfig, tokenizer: PreTrainedTokenizerBase, query_weights: torch.Tensor | None
) -> None:
    """Write tokenizer, splade_config.json and, where it can open the weights, sentence-transformers' layout beside the
    weights of a model.

    Args:
        query_weights: [vocabulary] weights for queries that do not pass the model, None for others; a negative one
            counts as 0, and is written so, since sentence-transformers would subtract it.
    """
    save_tokenizer(tokenizer, folder, config.max_length)
    files: dict[str, Any] = {CONFIG_NAME: config.model_dump()}
    if query_weights is not None:
        save_tokenizer(tokenizer, folder / IDF_FOLDER, config.query_max_length)
        weights = query_weights.detach().relu().cpu().contiguous()
        save_file({"weight": weights}, folder / IDF_FOLDER / "model.safetensors")
        files[f"{IDF_FOLDER}/config.json"] = {"frozen": False}
    if config.weights == "float32":
        (folder / POOLING_FOLDER).mkdir()
        files |= _peer_files(config)
    for name, value in files.items():
        (folder / name).write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


def _peer_files(config: ModelConfig) -> dict[str, Any]:
    """Return the content of the files by which sentence-transformers opens a model folder, by name."""
    settings: dict[str, Any] = {"model_type": "SparseEncoder", "similarity_fn_name": "dot"}
    if config.max_active_dims:
        settings["max_active_dims"] = config.max_active_dims
    files: dict[str, Any] = {
        "config_sentence_transformers.json": settings,
        f"{POOLING_FOLDER}/config.json": {
            "pooling_strategy": config.pooling,
            "activation_function": PEER_ACTIVATIONS[config.activation],
        },
    }
    if config.query_encoder == "model":
        modules = {"": f"{PEER_MODULES}.MLMTransformer", POOLING_FOLDER: f"{PEER_MODULES}.SpladePooling"}
    else:
        modules = {"": "sentence_transformers.models.Router"}
        files["router_config.json"] = {
            "types": {
                IDF_FOLDER: f"{PEER_MODULES}.SparseStaticEmbedding",
                ".": f"{PEER_MODULES}.MLMTransformer",
                POOLING_FOLDER: f"{PEER_MODULES}.SpladePooling",
            },
            "structure": {"query": [IDF_FOLDER], "document": [".", POOLING_FOLDER]},
            "parameters": {"default_route": "document", "allow_empty_key": True},
        }
    files["modules.json"] = [
        {"idx": i, "name": str(i), "path": path, "type": kind} for i, (path, kind) in enumerate(modules.items())
    ]
    return files


def _kind(module_type: str) -> str:
    """Return the class of a module, whose package differs between versions of sentence-transformers."""
    return module_type.rpartition(".")[2]


def _unsupported(name: str | Path, reason: str) -> ValueError:
    return ValueError(f"model '{name}': {reason}; {SUPPORTED}")


def _load_tokenizer(name: str | Path, subfolder: str) -> PreTrainedTokenizerBase:
    with loading(name):
        return AutoTokenizer.from_pretrained(resolve_model(name), subfolder=subfolder, trust_remote_code=False)


def _load_query_weights(name: str | Path, subfolder: str) -> torch.Tensor:
    with loading(name, "query weights"):
        return load_file(cached_file(resolve_model(name), "model.safetensors", subfolder=subfolder))["weight"]


def _weights_by_id(name: str | Path, file: str, idf: Any, tokenizer: PreTrainedTokenizerBase) -> torch.Tensor:
    """Return [vocabulary] query weights from those by token, the content of `file`; other tokens have the weight 0.

    Raises:
        ValueError: these are no weights of tokens of the vocabulary.
    """
    vocabulary = tokenizer.get_vocab()
    try:
        idf = TypeAdapter(dict[str, FiniteFloat]).validate_python(idf)
        weights = torch.zeros(max(vocabulary.values()) + 1)
        ids = torch.tensor([vocabulary[token] for token in idf], dtype=torch.long)
        weights[ids] = torch.tensor([*idf.values()])
    except ValidationError as error:
        raise ValueError(f"model '{name}': {file}: {describe_error(error)}") from None
    except KeyError as error:
        raise ValueError(f"model '{name}': {file}: the model's vocabulary has no token {error}") from None
    if (weights < 0).any():
        raise _unsupported(name, f"some weights in {file} are negative")
    return weights


def _read_named_json(name: str | Path, file: str, subfolder: str) -> Any:
    """Return the content of a JSON file that a module's settings name: in the module's folder, beside the model, or, as
    sentence-transformers takes it, a path.

    Raises:
        ValueError: there is none, or it is not valid JSON.
    """
    for folder in (subfolder, ""):
        if (found := _read_json(name, file, folder)) is not None:
            return found
    if not Path(file).is_file():
        raise ValueError(f"model '{name}': its query weights are missing: {file}")
    return _parse_json(file)


def _read_json(name: str | Path, file: str, subfolder: str = "") -> Any:
    """Return the content of a JSON file of the model called `name`, None where it has no such file.

    Raises:
        ValueError: the file is not valid JSON.
    """
    # A missing file, a gated repository and a hub out of reach all count as no file.
    path = cached_file(
        resolve_model(name),
        file,
        subfolder=subfolder,
        _raise_exceptions_for_gated_repo=False,
        _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_connection_errors=False,
    )
    return None if path is None else _parse_json(path)


def _parse_json(path: str) -> Any:
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: not valid JSON: {error}") from None
