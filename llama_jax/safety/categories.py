"""What a guard looks for: Llama Guard 3's fourteen categories, or an operator's own.

Codes and names are those of the prompt that the model was tuned with. The model card names some of
them otherwise (S3 Sex-Related Crimes, S4 Child Sexual Exploitation, S11 Suicide & Self-Harm), and
the 1B model knows S1 to S13 only. A description is the first sentence of the published policy.
"""

import re
from dataclasses import dataclass
from pathlib import Path

from llama_jax.errors import InputError
from llama_jax.json_file import read_json

# A verdict lists codes between commas.
_CODE = re.compile(r"[A-Za-z][A-Za-z0-9_\-]{0,31}", re.ASCII)


@dataclass(frozen=True)
class Category:
    """One kind of harm.

    Attributes:
      code: how a verdict calls it, such as `S1`.
      name: one line, without a full stop.
      description: what belongs to it; may be empty.
    """

    code: str
    name: str
    description: str = ""

    def __post_init__(self):
        if not isinstance(self.code, str) or not _CODE.fullmatch(self.code):
            raise InputError(
                f"category {str(self.code)[:40]!r}: a code is a letter and then letters and digits"
            )
        if not isinstance(self.name, str) or not self.name.strip() or "\n" in self.name:
            raise InputError(f"category {self.code}: name must be one line of text")
        if not isinstance(self.description, str):
            raise InputError(f"category {self.code}: description must be text")


_CRIMES = "AI models should not create content that enables, encourages, or excuses the commission"

LLAMA_GUARD_3: tuple[Category, ...] = (
    Category("S1", "Violent Crimes", f"{_CRIMES} of violent crimes."),
    Category("S2", "Non-Violent Crimes", f"{_CRIMES} of non-violent crimes."),
    Category("S3", "Sex Crimes", f"{_CRIMES} of sex crimes."),
    Category(
        "S4",
        "Child Exploitation",
        "AI models should not create content that depicts child nudity or that enables, "
        "encourages, excuses, or depicts the sexual abuse of children.",
    ),
    Category(
        "S5",
        "Defamation",
        "AI models should not create content about a real, living person that is verifiably false "
        "and likely to injure the person's reputation.",
    ),
    Category(
        "S6",
        "Specialized Advice",
        "AI models should not create content that contains specialized financial, medical, or "
        "legal advice.",
    ),
    Category(
        "S7",
        "Privacy",
        "AI models should not create content that contains sensitive, personal information about "
        "private individuals.",
    ),
    Category(
        "S8",
        "Intellectual Property",
        "AI models should not create content that violates the intellectual property rights of "
        "third parties.",
    ),
    Category(
        "S9",
        "Indiscriminate Weapons",
        "AI models should not create content that enables the creation of weapons of mass "
        "destruction.",
    ),
    Category(
        "S10",
        "Hate",
        "AI models should not create content that is hateful toward people on the basis of their "
        "protected characteristics (race, color, ethnicity, national origin, disability, religious "
        "affiliation, caste, sexual orientation, sex, gender identity and serious disease).",
    ),
    Category(
        "S11",
        "Self-Harm",
        "AI models should not create content that enables, encourages, or excuses acts of "
        "intentional self-harm.",
    ),
    Category(
        "S12",
        "Sexual Content",
        "AI models should not create depictions of nude adults or content that contains erotic "
        "descriptions or explicit depictions of sex acts.",
    ),
    Category(
        "S13",
        "Elections",
        "AI models should not create content that contain factually incorrect information about "
        "electoral systems and processes, including in the time, place, or manner of voting in "
        "civic elections.",
    ),
    Category(
        "S14",
        "Code Interpreter Abuse",
        "AI models should not create content that attempts to abuse code interpreters.",
    ),
)


def read_categories(path: Path) -> tuple[Category, ...]:
    """Categories of a JSON file `{"C1": {"name": "...", "description": "..."}, ...}`, in its order.

    Raises `InputError` that names the file and the category.
    """
    if not path.is_file():
        raise InputError(f"{path}: there is no such file of categories")
    categories = []
    for code, fields in read_json(path).items():
        if not isinstance(fields, dict) or not {"name"} <= set(fields) <= {"name", "description"}:
            raise InputError(
                f"{path}: {code[:40]!r} must be an object with name and, if wanted, description"
            )
        try:
            categories.append(Category(code, **fields))
        except InputError as error:
            raise InputError(f"{path}: {error}") from error
    if not categories:
        raise InputError(f"{path}: has no category")
    return tuple(categories)
