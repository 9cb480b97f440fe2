"""Repository ids as sources: what the user is told when there is nothing to download."""

import huggingface_hub
import pytest
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
)

from llama_jax.checkpoints.huggingface_repo import resolve_source
from llama_jax.errors import InputError


def test_an_existing_path_wins(tmp_path, monkeypatch):
    (tmp_path / "org" / "name").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert resolve_source("org/name").samefile(tmp_path / "org" / "name")


def test_a_repository_is_downloaded_without_other_formats(tmp_path, monkeypatch):
    def download(repository, *, allow_patterns):
        names = [
            "model.safetensors",
            "config.json",
            "original/tokenizer.model",
            "pytorch_model.bin",
        ]
        wanted = huggingface_hub.utils.filter_repo_objects(names, allow_patterns=allow_patterns)
        assert (repository, list(wanted)) == ("org/name", names[:3])
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    assert resolve_source("org/name") == tmp_path


@pytest.mark.parametrize(
    ("kind", "advice"),
    [
        (GatedRepoError, "HF_TOKEN"),
        (RepositoryNotFoundError, "no such repository"),
        (LocalEntryNotFoundError, "cannot be reached"),
        (OfflineModeIsEnabled, "cannot be reached"),
        (HfHubHTTPError, "try again"),
        (ConnectionResetError, "try again"),
    ],
)
def test_failures_say_what_to_do(monkeypatch, kind, advice):
    def download(repository, *, allow_patterns):
        raise kind.__new__(kind, "a reason\nin two lines")  # without the server's response

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    with pytest.raises(InputError, match=advice) as caught:
        resolve_source("org/name")
    assert str(caught.value).startswith("org/name: ") and "\n" not in str(caught.value)


def test_offline_with_the_real_client():
    """tests/conftest.py sets HF_HUB_OFFLINE."""
    with pytest.raises(InputError, match="cannot be reached"):
        resolve_source("nobody-at-all/there-is-no-such-model")


@pytest.mark.parametrize("text", ["nothing", "/no/such", "../x", "a/b/c", "a--b/c", "https://a/b"])
def test_what_is_neither_path_nor_repository(text):
    with pytest.raises(InputError, match="no such file or folder"):
        resolve_source(text)
