"""The house itself: which room may import which, where flax may appear, how long a file may be."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILES = sorted(path for room in ("llama_jax", "infer") for path in (ROOT / room).rglob("*.py"))

# Room -> the rooms it may import from, besides itself. `OPEN` is open to all.
OPEN = {"llama_jax.errors", "llama_jax.json_file", "llama_jax.command_line"}
ARROWS = {
    "llama_jax.config": set(),
    "llama_jax.costs": {"llama_jax.config"},
    "llama_jax.kernels": set(),
    "llama_jax.model": {"llama_jax.config", "llama_jax.kernels"},
    "llama_jax.tokenizers": set(),
    "llama_jax.chat": {"llama_jax.tokenizers"},
    "llama_jax.checkpoints": {
        "llama_jax.config", "llama_jax.model", "llama_jax.tokenizers", "llama_jax.chat",
    },
    "llama_jax.accelerators": set(),
    "llama_jax.machine_description": set(),
    "llama_jax.machine_roofline": set(),
    "llama_jax.doctor": {"llama_jax.config", "llama_jax.model"},
    "llama_jax.__main__": set(),
    "llama_jax.__init__": set(),
    "llama_jax.errors": set(),
    "llama_jax.json_file": set(),
    "llama_jax.command_line": set(),
}  # fmt: skip

# What a file may hold: style says 250 lines, 400 for a kernel.
MAX_LINES = 250

LINEN_NAMES = {
    "Module", "compact", "with_logical_partitioning", "with_logical_constraint", "scan", "remat",
    "unbox", "get_partition_spec", "logical_to_mesh_sharding", "logical_axis_rules",
    # nn.scan's own vocabulary
    "broadcast", "PARTITION_NAME",
}  # fmt: skip


def room_of(module: str) -> str:
    return ".".join(module.split(".")[:2])


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts)


def imports_of(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: relative import"
            found.add(node.module)
    return found


@pytest.mark.parametrize("path", FILES, ids=module_of)
def test_arrows(path):
    module = module_of(path)
    imports = imports_of(path)
    assert not any(name.split(".")[0] in ("train", "configs") for name in imports)
    if module.startswith("infer"):
        return
    assert not any(name.split(".")[0] == "infer" for name in imports), "llama_jax imports infer"
    rooms = {room_of(name) for name in imports if name.startswith("llama_jax.")}
    assert rooms <= ARROWS[room_of(module)] | {room_of(module)} | OPEN


@pytest.mark.parametrize("path", FILES, ids=module_of)
def test_flax_stays_in_the_model(path):
    uses_flax = any(name.split(".")[0] == "flax" for name in imports_of(path))
    assert not uses_flax or module_of(path).startswith("llama_jax.model.")
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            assert node.value.id != "nn" or node.attr in LINEN_NAMES, f"nn.{node.attr}"


@pytest.mark.parametrize("path", FILES, ids=module_of)
def test_files_are_short_and_documented(path):
    text = path.read_text()
    assert len(text.splitlines()) <= MAX_LINES
    assert ast.get_docstring(ast.parse(text)) or not text
    assert not {"utils", "common", "helpers", "misc"} & set(module_of(path).split("."))


def test_base_import_needs_only_jax_and_flax():
    import subprocess
    import sys

    code = (
        "import sys, llama_jax; llama_jax.forward, llama_jax.init_params, llama_jax.ModelConfig;"
        "print(*{name.split('.')[0] for name in sys.modules})"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    heavy = {"torch", "transformers", "tokenizers", "tiktoken", "tyro", "safetensors", "gguf"}
    assert not heavy & set(run.stdout.split())
