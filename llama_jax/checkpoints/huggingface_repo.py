"""A source named on the command line: a path, or the id of a Hugging Face repository."""

import re
from pathlib import Path

from llama_jax.checkpoints.training_layout import finished_weights
from llama_jax.errors import InputError

_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.\-]*/[A-Za-z0-9][\w.\-]*", re.ASCII)
# What a conversion reads; repositories often hold the same weights again in other formats.
_WANTED = (
    "model*.safetensors",
    "*.json",
    "*.jinja",
    "merges.txt",
    "tokenizer.model",
    "original/tokenizer.model",
    "LICENSE*",
    "USE_POLICY*",
    "NOTICE*",
)


def resolve_source(text: str) -> Path:
    """The local path of a source: `text` itself if it exists (of a training run that has come to
    its end, its final weights), else the downloaded repository `org/name`, which huggingface_hub
    keeps in its cache and shows the progress of.

    Raises `InputError` when there is neither, saying what to do.
    """
    path = Path(text)
    if path.exists():
        return finished_weights(path) or path
    if not _REPOSITORY.fullmatch(text):
        raise InputError(f"{text}: no such file or folder")

    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HFValidationError,
        HTTPError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
    )

    try:
        return Path(snapshot_download(text, allow_patterns=list(_WANTED)))
    except GatedRepoError as error:
        raise InputError(
            f"{text}: this repository is gated; accept its terms on its page and set HF_TOKEN to "
            "a token of your account"
        ) from error
    except RepositoryNotFoundError as error:
        raise InputError(
            f"{text}: no such path here and no such repository on Hugging Face; correct the name, "
            "or set HF_TOKEN if it is private"
        ) from error
    except (LocalEntryNotFoundError, OfflineModeIsEnabled) as error:
        raise InputError(
            f"{text}: no such path here, and Hugging Face cannot be reached; connect (and unset "
            "HF_HUB_OFFLINE), or download the repository elsewhere and give its folder"
        ) from error
    except HFValidationError as error:
        raise InputError(f"{text}: no such file or folder") from error
    except (HTTPError, OSError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise InputError(
            f"{text}: Hugging Face did not deliver it ({reason}); try again"
        ) from error
