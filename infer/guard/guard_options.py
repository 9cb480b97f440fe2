"""What a guard looks for and how it is asked, as a command line says it."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from llama_jax.safety import GuardPolicy, LlamaGuard, read_categories
from llama_jax.safety.llama_guard import guard_form

Form = Literal["huggingface", "huggingface_1b", "cookbook", "llama_stack"]


@dataclass(frozen=True)
class GuardOptions:
    """The guard's prompt.

    Attributes:
      form: which published prompt is written: that of the chat template of Llama-Guard-3-8B or of
        -1B, of llama-cookbook, or of llama-stack.
      categories: a JSON file of categories in place of Llama Guard 3's, {"C1": {"name": "...",
        "description": "..."}, ...}.
      exclude_category: code of a category that is not judged; give the option again for more.
      descriptions: say in the prompt what belongs to each category, and not its name alone.
    """

    form: Form = "huggingface"
    categories: Path | None = None
    exclude_category: tuple[str, ...] = ()
    descriptions: bool = False

    def guard(self) -> LlamaGuard:
        """The prompt. Raises `InputError` for a file or a code that is wrong."""
        categories = guard_form(self.form).categories
        if self.categories is not None:
            categories = read_categories(self.categories)
        policy = GuardPolicy(categories, frozenset(self.exclude_category), self.descriptions)
        return LlamaGuard(policy, form=self.form)

    @property
    def of_answers(self) -> dict[str, Any]:
        """Those that a verdict may depend on, as a manifest has them: all. The file of categories
        stands there with its hash."""
        categories = None
        if self.categories is not None:
            digest = hashlib.sha256(self.categories.read_bytes()).hexdigest()
            categories = f"{self.categories} (SHA-256 {digest[:12]})"
        return {
            "form": self.form,
            "categories": categories,
            "exclude_category": ", ".join(sorted(self.exclude_category)) or None,
            "descriptions": self.descriptions,
        }
