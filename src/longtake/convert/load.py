"""Load a checkpoint by name or folder, build a model from a state dict, save a model so that nothing is ever half."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from longtake.convert.config_reader import config_from_dict, read_config
from longtake.convert.integrity import WeightFiles, check_checkpoint, weights_identity
from longtake.convert.key_map import head_names, rename_to_ours, rename_to_released
from longtake.convert.pvc_roles import explain_names
from longtake.convert.tuned import attach_methods, check_preset, check_tuned
from longtake.core.errors import CheckpointError, StorageError
from longtake.core.files import flush
from longtake.core.protocols import LayerCompressor
from longtake.models.evidence_threshold import read_threshold
from longtake.models.gate import check_names, check_values
from longtake.models.loaded import AnyConfig, AnyModel, LoadedModel, model_class
from longtake.models.presets import PRESETS
from longtake.models.presets import preset as find_preset
from longtake.models.pvc_configuration import PvcConfig

HUB_TIMEOUT_S = 10.0
HUB_FILES = ["*.json", "*.safetensors", "*.bin", "*.txt", "*.jinja", "*.model"]
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "vocab.json")


def load(
    name_or_folder: str | Path,
    *,
    preset: str | None = None,
    reducer: LayerCompressor | None = None,
    untuned: bool = False,
    names: Path | None = None,
    dtype: str | torch.dtype = "auto",
    device: str | torch.device | None = None,
    device_map: str | dict[str, Any] | None = None,
    quantization_config: Any = None,
) -> LoadedModel:
    """Load a model with its tokenizer from a local folder, a hub repository, or by a preset's name.

    Every tensor is checked by name, shape and value; nothing is initialised at random. dtype, device_map and
    quantization_config mean what they mean in transformers; device moves the model after loading. preset takes the
    architecture and methods from a released preset instead of the folder's config.json. reducer replaces what the
    configuration says about dropping tokens. untuned: accept methods that the weights were not tuned for. names: a
    table of the names of PVC's tensors, else `pvc_names.json` of the folder, where shapes do not explain them.

    Raises: CheckpointError if the checkpoint is not on this machine and the hub is out of reach, if any file or
        tensor of it is missing, renamed, wrongly shaped, empty or not finite, or if the weights were tuned for other
        methods than the preset's or the given reducer, or an `evidence.json` beside them cannot be read.

    Example: `longtake.load("OpenGVLab/VideoChat-Flash-Qwen2_5-2B_res448", dtype="bfloat16", device="cuda")`
    """
    if device is not None and device_map is not None:
        raise CheckpointError("device and device_map arrived together; expected one of the two; drop one")
    folder = _local_folder(str(name_or_folder))
    config = read_config(folder) if preset is None else find_preset(preset).config()
    if not untuned:
        if preset is not None:
            check_preset(folder, preset, config)
        check_tuned(config, reducer)
    weights = check_checkpoint(folder, config, names)
    tokenizer = load_tokenizer(folder, config)
    options: dict[str, Any] = {"dtype": _check_dtype(dtype), "local_files_only": True}
    if device_map is not None:
        options["device_map"] = device_map
    if quantization_config is not None:
        options["quantization_config"] = quantization_config
    if weights.renamed:
        options["key_mapping"] = {f"^{re.escape(theirs)}$": ours for theirs, ours in weights.renamed.items()}
    try:
        model = model_class(config).from_pretrained(folder, config=config, **options)
    except (OSError, RuntimeError, ValueError, ImportError) as error:
        if isinstance(error, torch.OutOfMemoryError):
            raise
        raise CheckpointError(
            f"the weights in {folder} passed the checks but could not be loaded: {error}; expected options that "
            "transformers accepts; change dtype, device_map or quantization_config"
        ) from error
    if weights.renamed:
        del model._weight_conversions  # which would save under the names of the file again
    if device is not None:
        model = model.to(torch.device(device))
    attach_methods(model)
    if reducer is not None:
        model.reducer = reducer
    identity = _fingerprint(config, weights, model.dtype, quantization_config)
    return LoadedModel(model.eval(), tokenizer, model.config, identity, read_threshold(folder))


def from_state_dict(state: Mapping[str, Tensor], config: Mapping[str, object]) -> AnyModel:
    """Build a float32 model from a state dict with reference key names and a dict of configuration keys.

    Tensors of any floating dtype are cast to float32. Without a head, or with one equal to the embedding, the head is
    tied. PVC's tensors may have InternVL's names, ours, or names that their shapes explain.

    Raises: CheckpointError on a missing, unexpected, wrongly shaped, zero or non-finite tensor.
    """
    settings = config_from_dict(config)
    if isinstance(settings, PvcConfig):
        match = explain_names(settings, {name: tuple(value.shape) for name, value in state.items()})
        match.require_whole()
        state = {match.to_ours(name): value for name, value in state.items()}
    head, embedding = head_names(settings)
    settings.tie_word_embeddings = head not in state or (
        embedding in state
        and state[head].shape == state[embedding].shape
        and torch.equal(state[head], state[embedding])
    )
    model = model_class(settings)(settings).float()  # pyright: ignore[reportArgumentType]
    expected = {name: tuple(value.shape) for name, value in rename_to_released(model.state_dict(), settings).items()}
    check_names(expected, {name: tuple(value.shape) for name, value in state.items()}, optional=(head,))
    check_values(state.items())
    ours = rename_to_ours({name: value.float() for name, value in state.items()}, settings)
    if head not in state:
        ours["lm_head.weight"] = ours["language.embed_tokens.weight"]
    model.load_state_dict(ours)
    return model.eval()


def load_tokenizer(folder: Path, config: AnyConfig) -> PreTrainedTokenizerBase:
    """Load the tokenizer that lies beside the weights; code that it may name is never run.

    Raises: CheckpointError if there is none, or it cannot be read.
    """
    if isinstance(config, PvcConfig) and not (folder / TOKENIZER_FILES[0]).is_file():
        raise CheckpointError(
            f"{folder} holds no tokenizer.json; expected one, since InternLM2's tokenizer.model is read by code of its "
            "repository alone, which is never run here; write it once with transformers (convert_slow_tokenizer) where "
            "you trust that code, and put it beside the weights"
        )
    if not any((folder / name).is_file() for name in TOKENIZER_FILES):
        raise CheckpointError(
            f"{folder} holds no tokenizer; expected tokenizer.json or vocab.json; copy the tokenizer files of the "
            "model's repository beside the weights"
        )
    try:
        return AutoTokenizer.from_pretrained(folder, config=config, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"the tokenizer in {folder} cannot be read ({error}); expected tokenizer.json; download its files again"
        ) from error


def save(loaded: LoadedModel | AnyModel, folder: str | Path) -> Path:
    """Save a model (and its tokenizer) under the released parameter names; the folder appears whole or not at all.

    Raises: StorageError if the folder is there already, or the disk is full or read-only; nothing is left behind.
    """
    target = Path(folder)
    if target.exists():
        raise StorageError(f"{target} is there already; expected a new folder; choose another, or remove it")
    model = loaded.model if isinstance(loaded, LoadedModel) else loaded
    aside: Path | None = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        aside = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
        model.save_pretrained(aside)
        if isinstance(loaded, LoadedModel):
            loaded.tokenizer.save_pretrained(aside)
        for path in aside.iterdir():
            path.chmod(0o644)  # safetensors leaves it to its owner alone, and nobody else could read an installed model
            flush(path)
        aside.chmod(0o755)
        aside.rename(target)
        flush(target.parent)
    except OSError as error:
        raise StorageError(
            f"the model could not be saved to {target} ({error}); expected room and permission to write; free some "
            "space or choose another folder"
        ) from error
    finally:
        if aside is not None and aside.exists():
            shutil.rmtree(aside, ignore_errors=True)
    return target


def _check_dtype(dtype: str | torch.dtype) -> str | torch.dtype:
    if isinstance(dtype, str) and dtype != "auto":
        found = getattr(torch, dtype, None)
        if not isinstance(found, torch.dtype) or not found.is_floating_point:
            raise CheckpointError(f"dtype is {dtype!r}; expected auto, float32, bfloat16 or float16; choose one")
        return found
    return dtype


def _fingerprint(config: AnyConfig, weights: WeightFiles, dtype: torch.dtype, quantization: Any) -> str:
    text = json.dumps([_of_the_model(config.to_dict()), str(dtype), repr(quantization)], sort_keys=True, default=str)
    return hashlib.sha256((text + weights_identity(weights)).encode()).hexdigest()


def _of_the_model(values: Mapping[Any, Any]) -> dict[Any, Any]:
    """Leave out, at every level, what says how a model was saved or loaded."""
    return {
        key: _of_the_model(value) if isinstance(value, Mapping) else value
        for key, value in values.items()
        if key not in ("transformers_version", "architectures", "_name_or_path", "dtype", "quantization_config")
    }


def _local_folder(name: str) -> Path:
    """Find the checkpoint on this machine, or fetch it from the hub.

    Raises: CheckpointError.
    """
    folder = Path(name).expanduser()
    if folder.is_dir():
        return folder
    if folder.is_file():
        raise CheckpointError(f"{name} is a file; expected the folder of a checkpoint; pass the folder that holds it")
    if name in PRESETS:
        return _from_hub(_repository(name))
    parts = name.split("/")
    if len(parts) != 2 or not all(parts) or name.startswith((".", "~")):
        raise CheckpointError(
            f"there is no folder {name}; expected a local folder, a hub name such as "
            f"{_repository('videochat_flash_2b')} or one of {', '.join(PRESETS)}; check the spelling"
        )
    return _from_hub(name)


def _repository(name: str) -> str:
    """Return where a preset's checkpoint lives.

    Raises: CheckpointError if no hub holds it.
    """
    repository = PRESETS[name].repository
    if repository is None:
        raise CheckpointError(
            f"{name} is no hub repository: its weights are released as an archive; expected a folder on this machine; "
            f"unpack model.safetensors beside the tokenizer files and pass that folder with the preset {name}"
        )
    return repository


def _hub_errors() -> tuple[type[Exception], ...]:
    """Return what the hub's library raises where the hub or a file is out of reach.

    Its HTTP library changes its name between versions; that library's error is the first base of the hub's own.
    """
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled

    return (OfflineModeIsEnabled, LocalEntryNotFoundError, OSError, HfHubHTTPError.__bases__[0])


def _from_hub(repository: str) -> Path:
    """Fetch a repository's files; the hub's cache is used where the hub is out of reach.

    Raises: CheckpointError within about ten seconds if the hub does not answer and the cache lacks the files.
    """
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError

    unreachable = _hub_errors()
    reachable = True
    try:
        HfApi().repo_info(repository, timeout=HUB_TIMEOUT_S)
    except unreachable as error:
        if (
            isinstance(error, HfHubHTTPError)
            and error.response is not None
            and error.response.status_code in (401, 404)
        ):
            raise CheckpointError(
                f"the hub knows no repository {repository}, or it needs a login; expected a public one; check the name"
            ) from error
        reachable = False
    try:
        return Path(snapshot_download(repository, allow_patterns=HUB_FILES, local_files_only=not reachable))
    except unreachable as error:
        raise CheckpointError(
            f"the checkpoint {repository} is not on this machine and the hub cannot be reached; expected its files; "
            "pass a local folder, or connect and try again"
        ) from error
