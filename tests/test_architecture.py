"""The house itself: which room may import which, where flax may appear, how long a file may be."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("llama_jax", "sharding", "train", "infer", "configs")
FILES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))

# Package -> those it may import from, besides itself: `train` and `infer` never meet.
PACKAGE_ARROWS = {
    "llama_jax": set(),
    "sharding": {"llama_jax"},
    "train": {"llama_jax", "sharding"},
    "infer": {"llama_jax", "sharding"},
    "configs": {"llama_jax", "sharding", "train", "infer"},
}
# Room of llama_jax -> the rooms it may import from, besides itself. `OPEN` is open to all.
OPEN = {
    "llama_jax.errors",
    "llama_jax.whole_file",
    "llama_jax.json_file",
    "llama_jax.command_line",
}
ARROWS = {
    "llama_jax.config": set(),
    "llama_jax.costs": {"llama_jax.config", "llama_jax.quantization"},
    "llama_jax.kernels": {
        "llama_jax.quantization", "llama_jax.compile_targets", "llama_jax.accelerators",
        # Of the benchmarks among them.
        "llama_jax.config", "llama_jax.machine_description",
    },
    "llama_jax.quantization": {
        "llama_jax.config", "llama_jax.kernels", "llama_jax.accelerators",
    },
    "llama_jax.model": {"llama_jax.config", "llama_jax.kernels", "llama_jax.quantization"},
    "llama_jax.tokenizers": set(),
    "llama_jax.chat": {"llama_jax.tokenizers"},
    "llama_jax.safety": {
        "llama_jax.chat", "llama_jax.tokenizers",
        # How its classifier's files are read.
        "llama_jax.checkpoints",
    },
    "llama_jax.checkpoints": {
        "llama_jax.config", "llama_jax.costs", "llama_jax.kernels", "llama_jax.model",
        "llama_jax.tokenizers", "llama_jax.chat", "llama_jax.quantization",
    },
    "llama_jax.compile_targets": set(),
    "llama_jax.accelerators": set(),
    "llama_jax.machine_description": set(),
    "llama_jax.machine_roofline": set(),
    "llama_jax.doctor": {"llama_jax.config", "llama_jax.model", "llama_jax.kernels"},
    "llama_jax.plan_command": {"llama_jax.config"},
    "llama_jax.commands": set(),
    "llama_jax.__main__": {"llama_jax.command_overview", "llama_jax.commands"},
    "llama_jax.__init__": set(),
    "llama_jax.batch_files": set(),
    "llama_jax.verifiers": set(),
    "llama_jax.errors": set(),
    "llama_jax.whole_file": set(),
    "llama_jax.json_file": set(),
    "llama_jax.command_line": set(),
    "llama_jax.command_overview": set(),
}  # fmt: skip

HEAVY = {
    "torch", "transformers", "tokenizers", "tiktoken", "tyro", "safetensors", "gguf", "orbax",
    "grain", "array_record", "tensorboardX", "matplotlib", "pyarrow", "reasoning_gym",
}  # fmt: skip

# What a file may hold.
MAX_LINES = 250
MAX_KERNEL_LINES = 400

LINEN_NAMES = {
    "Module", "compact", "with_logical_partitioning", "with_logical_constraint", "scan",
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
    package = module.split(".")[0]
    packages = {name.split(".")[0] for name in imports} & set(PACKAGES)
    assert packages <= PACKAGE_ARROWS[package] | {package}
    if package != "llama_jax":
        return
    rooms = {room_of(name) for name in imports if name.startswith("llama_jax.")}
    assert rooms <= ARROWS[room_of(module)] | {room_of(module)} | OPEN


@pytest.mark.parametrize("path", FILES, ids=module_of)
def test_flax_stays_in_the_model(path):
    uses_flax = any(name.split(".")[0] == "flax" for name in imports_of(path))
    module = module_of(path)
    homes = ("llama_jax.model.", "llama_jax.safety.deberta_v2.")
    assert not uses_flax or module.startswith(homes) or module == "sharding.placement"
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            assert node.value.id != "nn" or node.attr in LINEN_NAMES, f"nn.{node.attr}"


@pytest.mark.parametrize("path", FILES, ids=module_of)
def test_files_are_short_and_documented(path):
    text = path.read_text()
    kernel = module_of(path).startswith("llama_jax.kernels.")
    assert len(text.splitlines()) <= (MAX_KERNEL_LINES if kernel else MAX_LINES)
    assert ast.get_docstring(ast.parse(text)) or not text
    assert not {"utils", "common", "helpers", "misc"} & set(module_of(path).split("."))


MESH_AXES = {"data", "stage", "fsdp", "context", "tensor"}


@pytest.mark.parametrize("path", FILES, ids=module_of)
def test_only_sharding_names_mesh_axes(path):
    """As an argument of a PartitionSpec or of a collective; the same word may name other things."""
    if module_of(path).startswith("sharding."):
        return
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call):
            function = getattr(node.func, "attr", getattr(node.func, "id", ""))
            if function in (
                "PartitionSpec",
                "P",
                "psum",
                "all_gather",
                "psum_scatter",
                "axis_index",
            ):
                constants = {n.value for n in ast.walk(node) if isinstance(n, ast.Constant)}
                assert not constants & MESH_AXES


def test_the_model_and_its_sharding_need_only_jax_and_flax():
    code = (
        "import sys, llama_jax; llama_jax.forward, llama_jax.init_params, llama_jax.ModelConfig;"
        "import sharding.mesh, sharding.multihost, sharding.placement, sharding.rules;"
        "import sharding.sharded_log_probs, sharding.sharded_operators;"
        "print(*{name.split('.')[0] for name in sys.modules})"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not HEAVY & set(run.stdout.split())


def test_the_step_needs_no_more_than_optax():
    code = (
        "import sys; import train.config, train.schedules, train.network, train.optimizer;"
        "import train.state, train.step, train.losses.cross_entropy, train.losses.token_log_probs;"
        "import train.losses.dpo, train.losses.bradley_terry;"
        "print(*{name.split('.')[0] for name in sys.modules})"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not HEAVY & set(run.stdout.split())
