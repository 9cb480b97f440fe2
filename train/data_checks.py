"""Whether all the data of a run is there and fits it, asked of the manifests before a device is
touched: that the last stage's rows have another length is better known now than when it begins."""

from pathlib import Path

from llama_jax.errors import InputError
from llama_jax.tokenizers import load_tokenizer
from llama_jax.tokenizers.tokenizer_hash import tokenizer_hash
from sharding.mesh import MeshShape
from train.config import RunConfig
from train.data.manifest import PREPARE_COMMANDS, Manifest, read_manifest
from train.losses.loss import Loss
from train.run_chat_format import run_chat_format


def check_data(run: RunConfig, mesh: MeshShape, *, begins: bool) -> None:
    """Raises `InputError` that names the field whose file or folder is missing, or whose data has
    other rows, another tokenizer, another chat template or a larger vocabulary than the run, or
    rows that `mesh`, which is `run.mesh` for the devices at hand, cannot split.

    Args:
      begins: the run has no checkpoint yet, and so will read its initial weights; later, only a
        stage that compares with them does.
    """
    if not Path(run.tokenizer).exists():
        raise InputError(f"tokenizer: {run.tokenizer}: no such file or folder")
    compares = any(
        stage.loss.reference != "none" and stage.reference is None for stage in run.stages
    )
    weights = run.initial_weights if begins or compares else None
    if weights is not None and not Path(weights).exists():
        raise InputError(f"initial_weights: {weights}: no such file or folder")
    for i, stage in enumerate(run.stages):
        if stage.reference is not None and not Path(stage.reference).exists():
            raise InputError(f"stages[{i}].reference: {stage.reference}: no such file or folder")
    sha256 = tokenizer_hash(load_tokenizer(run.tokenizer))
    for i, stage in enumerate(run.stages):
        if stage.loss.has_teacher and stage.reference is not None:
            _check_teacher(run, stage.reference, sha256, f"stages[{i}].reference")
    for i, stage in enumerate(run.stages):
        for j, source in enumerate(stage.mixture):
            field = f"stages[{i}].mixture[{j}].path"
            manifest = _manifest(run, source.path, sha256, field)
            _check_kind(manifest, source.path, stage.loss, field)
            if manifest.row_length != stage.row_length:
                raise InputError(
                    f"{field}: {source.path} has rows of {manifest.row_length} tokens, and "
                    f"stages[{i}].row_length is {stage.row_length}; prepare it with --row-length "
                    f"{stage.row_length}"
                )
    for i, held_out in enumerate(run.evaluations):
        field = f"evaluations[{i}]"
        manifest = _manifest(run, held_out.path, sha256, f"{field}.path")
        for stage in run.stages:
            loss = held_out.loss or stage.loss
            _check_kind(manifest, held_out.path, loss, f"{field}.path")
        if manifest.row_length > run.model.context_length:
            raise InputError(
                f"{field}.path: {held_out.path} has rows of {manifest.row_length} tokens, over "
                f"model.context_length {run.model.context_length}"
            )
        if manifest.row_length % (parts := mesh.context * mesh.tensor):
            raise InputError(
                f"{field}.path: {held_out.path} has rows of {manifest.row_length} tokens, which do "
                f"not divide among mesh.context {mesh.context} x mesh.tensor {mesh.tensor}; "
                f"prepare it with a --row-length that is a multiple of {parts}"
            )
        if manifest.num_rows < held_out.num_rows:
            raise InputError(
                f"{field}.num_rows: {held_out.num_rows} is over the {manifest.num_rows} rows of "
                f"{held_out.path}"
            )
    run_chat_format(run)


def _check_teacher(run: RunConfig, path: str, sha256: str, field: str) -> None:
    """Raises `InputError` if the teacher at `path` has another tokenizer, or none."""
    try:
        same = tokenizer_hash(load_tokenizer(path)) == sha256
    except InputError as error:
        raise InputError(f"{field}: {error}") from error
    if not same:
        raise InputError(
            f"{field}: the teacher {path} has another tokenizer than {run.tokenizer}, so its ids "
            "are other words; give a teacher with the same tokenizer"
        )


def _check_kind(manifest: Manifest, path: str, loss: Loss, field: str) -> None:
    """Raises `InputError` if `loss` is not for such rows."""
    if manifest.kind not in loss.row_kinds:
        commands = " or ".join(f"llama-jax {PREPARE_COMMANDS[kind]}" for kind in loss.row_kinds)
        raise InputError(
            f"{field}: {path} has rows of {manifest.kind}, and {type(loss).__name__} is for "
            f"{' or '.join(loss.row_kinds)}, which {commands} makes"
        )


def _manifest(run: RunConfig, path: str, sha256: str, field: str) -> Manifest:
    try:
        manifest = read_manifest(path)
    except InputError as error:
        raise InputError(f"{field}: {error}") from error
    if manifest.tokenizer_sha256 != sha256:
        raise InputError(
            f"{field}: {path} was prepared with another tokenizer than {run.tokenizer}; name the "
            "one it was prepared with, or prepare it again"
        )
    if manifest.vocab_size > run.model.vocab_size:
        raise InputError(
            f"model.vocab_size: {run.model.vocab_size} is less than the {manifest.vocab_size} ids "
            f"of {run.tokenizer}"
        )
    return manifest
