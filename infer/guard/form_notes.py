"""Whether a guard is asked in the words that it was published with.

Its checkpoint carries a chat template that writes the prompt for the published categories. Where
that is another than the chosen form, verdicts may be worse without a sign of it.
"""

from infer.loaded_model import LoadedModel
from llama_jax.chat import Message
from llama_jax.errors import InputError
from llama_jax.safety import FORMS, GuardPolicy, LlamaGuard, Turn


def form_notes(form: str, loaded: LoadedModel) -> list[str]:
    """A line if the checkpoint's own template does not write what `form` does, and which form does.
    None of a checkpoint without a template, nor of one whose template takes no plain texts."""
    if loaded.chat_format is None or loaded.chat_format.name != "template":
        return []
    try:
        own = loaded.chat_format.encode_prompt([Message("user", "Hi")])
        prompts = {name: _prompt(name, loaded) for name in FORMS}
    except InputError:
        return []
    if own == prompts[form]:
        return []
    same = [name for name, prompt in prompts.items() if own == prompt]
    hint = f"it writes --form {same[0]}" if same else "see that the form is the model's"
    return [
        f"note: the checkpoint's chat template writes another prompt than --form {form}: {hint}"
    ]


def _prompt(form: str, loaded: LoadedModel) -> list[int]:
    """Of the same dialog, for the categories that the form was published with."""
    guard = LlamaGuard(GuardPolicy(FORMS[form].categories), form=form)
    return guard.encode([Turn("user", "Hi")], loaded.tokenizer)
