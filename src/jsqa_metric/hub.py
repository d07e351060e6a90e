"""Finding, checking and loading models: embedded in the package, in a local folder, or on the Hugging Face Hub.

A model is a folder with `config.json` and `model.safetensors`. Nothing else is ever read, so that loading a
model never runs code that came with it. Older revisions of an embedded model lie in folders of their names in its own.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import warnings
from functools import lru_cache
from pathlib import Path
from threading import RLock
from typing import Any

import torch
from huggingface_hub import snapshot_download
from safetensors import SafetensorError
from safetensors.torch import load, save_file
from torch import Tensor

from jsqa_metric.model import JSQAModel, ModelConfig
from jsqa_metric.prefetch import prefetched

CONFIG_NAME, WEIGHTS_NAME, CARD_NAME = "config.json", "model.safetensors", "README.md"
_EMBEDDED = Path(__file__).parent / "weights"
_REVISION = re.compile(r"\d[\w.-]*")
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
_DIGEST = "sha256"
"""Where a file of weights says what they were when it was written."""
_lock = RLock()


def available_models() -> list[str]:
    """Names of the models inside the package.

    Returns:
        Names that `load_model` takes.

    >>> available_models()
    ['default', 'light']
    """
    return sorted(folder.name for folder in _EMBEDDED.iterdir() if (folder / CONFIG_NAME).is_file())


def load_model(
    model: str | os.PathLike[str] = "default",
    device: str | torch.device = "cpu",
    revision: str | None = None,
    local_files_only: bool = False,
) -> JSQAModel:
    """Load a frozen model in evaluation mode. The same arguments give the same object, with what you did to it.

    Args:
        model: A name of `available_models()`, a local folder, or a Hub id ("owner/name").
        device: Where the model is to be, or "auto" for a GPU if there is one.
        revision: For the Hub, the commit or tag to load (without one, the newest, with a warning). For embedded
            models, the revision to load (by default the newest); for a folder, the one that is expected.
        local_files_only: Use the Hub's cache only (as with the environment variable `HF_HUB_OFFLINE=1`).

    Returns:
        The model; its parameters need no gradient.

    Raises:
        ValueError: If `model` is none of the three, or its files do not fit this version of the package.
        FileNotFoundError: If the files are neither in the folder nor to be had from the Hub.

    >>> load_model("default", revision="2026.11").sample_rate
    16000
    """
    with _lock:  # two threads that ask at once share one model
        return _load(resolve_name(model), str(resolve_device(device)), check_revision(revision), local_files_only)


def load_scorer(model: str | os.PathLike[str], device: str | torch.device, revision: str | None = None) -> JSQAModel:
    """The model that scores by a name: nobody else has it, so that no `train()` or `half()` of a user reaches it."""
    with _lock:
        return _load(resolve_name(model), str(resolve_device(device)), check_revision(revision), False, private=True)


_WEIGHT_TYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.int64)
"""The last one is for the counts of batches that a batch norm has seen."""
_KEPT_BYTES = 31 * 2**20
"""glibc keeps no more than twice 32 MB for later."""


@lru_cache(maxsize=8)
def _load(name: str, device: str, revision: str | None, local_files_only: bool, private: bool = False) -> JSQAModel:
    # glibc gives a clip's memory back to the system, and the next clip pays for the pages again,
    # until a larger block was freed once; this one is never touched, so it takes no memory
    torch.empty(_KEPT_BYTES, dtype=torch.uint8, device="cpu")
    folder = fetch(name, revision, local_files_only)
    # a thread has none of its caller's modes (inference, a transform of `torch.func`), which would stick to the weights
    (model,) = prefetched(_read_to(place, device, private) for place in (folder,))
    if revision and not _is_hub_id(name) and model.config.revision != revision:
        raise ValueError(f"model {name!r} has revision {model.config.revision!r}, not {revision!r}")
    return model


def _read_to(folder: Path, device: str, private: bool) -> JSQAModel:
    model = read_folder(folder).to(device)
    if private:  # a user's own model keeps its weights as they are in the file
        model.fold()
    return model


def check_revision(revision: str | None) -> str | None:
    """Return the revision.

    Raises:
        ValueError: If it is no text.
    """
    if revision is not None and not isinstance(revision, str):
        raise ValueError(f"`revision` must be text, got {revision!r}")
    return revision


def resolve_name(model: str | os.PathLike[str]) -> str:
    """The name; a folder's path in full, as the same name may be another folder, or none, in another working folder.

    Raises:
        ValueError: If it is neither text nor a path.
    """
    if not isinstance(model, (str, os.PathLike)):
        raise ValueError(f"`model` must be a name, a folder or a Hub id, got {type(model).__name__}")
    name = os.fspath(model)
    # what is asked in each call is cheap: few names are those of folders
    return os.path.abspath(name) if os.path.isdir(name) and name not in available_models() else name


def identity(model: JSQAModel) -> str:
    """Revision and a digest of weights and configuration, such as "2027.01+5f0c2a91": the same for the same scores."""
    both = _digest(model.state_dict()) + json.dumps(model.config.to_dict(), sort_keys=True)
    return f"{model.config.revision}+{hashlib.sha256(both.encode()).hexdigest()[:8]}"


def _digest(weights: dict[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(weights.items()):
        stored = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)  # NumPy has no bfloat16
        digest.update(name.encode() + stored.numpy().tobytes())
    return digest.hexdigest()


def resolve_device(device: str | torch.device) -> torch.device:
    """Return the device; "auto" is the first GPU if there is one, else the CPU.

    Raises:
        ValueError: If torch cannot use it here.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        place = torch.device(device)
        if place.type == "cuda" and place.index is None:  # the caller's, which another thread does not know
            place = torch.device("cuda", torch.cuda.current_device())
        torch.zeros(1, device=place).cpu()  # a GPU that is not there, or "meta", would only fail later
    except (RuntimeError, TypeError, AssertionError) as error:
        reason = str(error).partition("\n")[0]
        raise ValueError(f"`device` must be 'auto' or one that torch can use here, got {device!r}: {reason}") from error
    return place


def _is_hub_id(name: str) -> bool:
    embedded = name in available_models()
    return not embedded and not os.path.isdir(name) and _HUB_ID.fullmatch(name) is not None


def fetch(name: str, revision: str | None = None, local_files_only: bool = False, **access: Any) -> Path:
    """Folder of a model; from the Hub, its two files are downloaded to the Hub's cache (or found there).

    Args:
        name: See `load_model`.
        revision: The same.
        local_files_only: The same.
        access: What else `huggingface_hub.snapshot_download` is to be told, such as a token.

    Raises:
        ValueError: If the name is neither embedded, a folder nor a Hub id.
        FileNotFoundError: If the Hub cannot be reached and the files are not in its cache.
    """
    if name in available_models():
        older = _EMBEDDED / name / revision if revision and _REVISION.fullmatch(revision) else None
        return older if older is not None and older.is_dir() else _EMBEDDED / name
    if os.path.isdir(name):
        return Path(name)
    if not _is_hub_id(name):
        raise ValueError(
            f"no model {name!r}: expected one of {available_models()}, an existing folder, or a Hub id 'owner/name'"
        )
    try:
        folder = Path(
            snapshot_download(
                name,
                revision=revision,
                local_files_only=local_files_only,
                allow_patterns=[CONFIG_NAME, WEIGHTS_NAME],
                **access,
            )
        )
    except Exception as error:  # those of the client, of its versions' HTTP libraries, and of the file system
        raise FileNotFoundError(
            f"cannot get model {name!r} (revision {revision or 'main'}) from the Hub or its cache: {error}\n"
            f"Without network, copy {CONFIG_NAME} and {WEIGHTS_NAME} of that revision into a folder and pass "
            f"the folder as `model`, or use an embedded model: {available_models()}."
        ) from error
    if revision is None:
        warnings.warn(
            f"no `revision` given for {name!r}: scores may change when it is updated; pin revision={folder.name!r}",
            stacklevel=4,
        )
    return folder


def read_folder(folder: Path) -> JSQAModel:
    """Read a model, strictly: every weight there, none left over, shapes as configured.

    Raises:
        FileNotFoundError: If a file is missing.
        ValueError: If a file is damaged, or does not fit the other or this version.
    """
    for name in (CONFIG_NAME, WEIGHTS_NAME):
        if not (folder / name).is_file():
            raise FileNotFoundError(f"no {name} in {folder}: a model is a folder with {CONFIG_NAME} and {WEIGHTS_NAME}")
    try:
        values = json.loads((folder / CONFIG_NAME).read_text(encoding="utf-8"))
        # without memory for initial weights, and without drawing them from the caller's random numbers
        with torch.device("meta"):
            model = JSQAModel(ModelConfig.from_dict(values))
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"{folder / CONFIG_NAME} is no configuration that can be used: {error}") from error
    try:
        content = (folder / WEIGHTS_NAME).read_bytes()  # mapped weights would change with the file
        with torch.device("cpu"):  # whatever the caller's default is
            weights: dict[str, Any] = load(content)
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
        expected = (header.get("__metadata__") or {}).get(_DIGEST)
        if expected and _digest(weights) != expected:
            raise ValueError("they have changed since they were saved")
        if not all(w.dtype in _WEIGHT_TYPES and w.isfinite().all() for w in weights.values()):
            raise ValueError("some weights are NaN, infinite or of another type than float")
        model.load_state_dict(weights, strict=True, assign=True)
    except (SafetensorError, RuntimeError, ValueError) as error:
        raise ValueError(f"{folder / WEIGHTS_NAME} does not hold the weights of its {CONFIG_NAME}: {error}") from error
    return model.float().eval().requires_grad_(False)


def write_folder(model: JSQAModel, folder: Path) -> None:
    """Write `config.json`, `model.safetensors` and, if there is none, a stub of a model card."""
    folder.mkdir(parents=True, exist_ok=True)
    config = json.dumps(model.config.to_dict(), indent=2) + "\n"
    (folder / CONFIG_NAME).write_text(config, encoding="utf-8")
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    save_file(weights, folder / WEIGHTS_NAME, metadata={_DIGEST: _digest(weights)})
    shutil.copymode(folder / CONFIG_NAME, folder / WEIGHTS_NAME)  # which nobody else could read
    if not (folder / CARD_NAME).exists():
        card = "---\nlibrary_name: jsqa_metric\ntags: [speech-quality, mos]\n---\n\n# A jsqa_metric model\n"
        (folder / CARD_NAME).write_text(card, encoding="utf-8")
