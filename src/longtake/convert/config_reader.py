"""Read config.json of a released checkpoint; remote code that it may name is never run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from huggingface_hub.errors import StrictDataclassError

from longtake.core.errors import CheckpointError, ConfigError
from longtake.models.configuration import MODEL_TYPE, VideoChatFlashConfig
from longtake.models.loaded import AnyConfig
from longtake.models.pvc_configuration import PVC_MODEL_TYPE, PvcConfig

CONFIG_FILE = "config.json"
MODEL_TYPES = (MODEL_TYPE, "llava_qwen", "llava_qwen_flash", "qwen2", PVC_MODEL_TYPE)
# Facts about the class that saved the file, not about the model.
_LEFT_OUT = ("model_type", "auto_map", "architectures", "quantization_config_path")


def config_from_dict(values: Mapping[str, object], where: str = "the configuration") -> AnyConfig:
    """Build the configuration from released keys; the model type says which.

    Raises: CheckpointError if the model type is another one, or the keys say that no video can be read.
    Source: released repositories were uploaded with several model types; `qwen2` counts only beside a connector.
    """
    model_type = values.get("model_type", MODEL_TYPE)
    if model_type not in MODEL_TYPES or (model_type == "qwen2" and "mm_projector_type" not in values):
        raise CheckpointError(
            f"{where} has model_type {model_type!r}{'' if model_type != 'qwen2' else ' and no mm_projector_type'}; "
            f"expected one of {', '.join(MODEL_TYPES)} with a connector; pass a VideoChat-Flash or PVC checkpoint"
        )
    plain: dict[str, Any] = {key: value for key, value in values.items() if key not in _LEFT_OUT}
    try:
        if model_type == PVC_MODEL_TYPE:
            config = PvcConfig(**plain)
        else:
            config = VideoChatFlashConfig(**plain)
            _ = config.vision_width
        config.check_supported()
    except ConfigError as error:
        raise CheckpointError(f"{where} is not usable: {error}") from error
    except (StrictDataclassError, TypeError, ValueError, KeyError, AttributeError) as error:
        raise CheckpointError(f"{where} holds a value of the wrong kind: {error}; correct it") from error
    return config


def read_config(folder: Path) -> AnyConfig:
    """Read a folder's config.json.

    Raises: CheckpointError if it is not there, is no JSON object, or describes another architecture.
    """
    path = folder / CONFIG_FILE
    if not path.is_file():
        raise CheckpointError(
            f"{folder} holds no {CONFIG_FILE}; expected the folder of a whole checkpoint; copy {CONFIG_FILE} from the "
            "model's repository beside the weights, or name a preset"
        )
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise CheckpointError(f"{path} is not valid JSON ({error}); expected an object; download it again") from error
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read ({error}); expected a readable file; check it") from error
    if not isinstance(values, dict):
        raise CheckpointError(f"{path} holds a {type(values).__name__}; expected a JSON object; download it again")
    return config_from_dict(values, str(path))
