"""Reads what libtpu made of a Pallas kernel: instruction bundles, branches, VMEM.

A TPU core issues one bundle a cycle, in order, from a schedule that the compiler made with all
latencies of its units; empty bundles are waits that it foresaw. So a stretch of code takes as many
cycles as it has bundles, apart from waits for memory transfers, which the schedule cannot know. The
listing is taken before those empty bundles are folded (pass `packed-bundles-post-ra`):

    LIBTPU_INIT_ARGS="--xla_jf_dump_to=FOLDER --xla_jf_dump_llo_text=true
        --xla_jf_dump_llo_pass_label_regex=.*post-ra.*"

writes it for every fusion and kernel of what the process compiles.
"""

import re
from dataclasses import dataclass
from pathlib import Path

DUMP_FLAGS = (
    "--xla_jf_dump_to={folder} --xla_jf_dump_llo_text=true "
    "--xla_jf_dump_llo_pass_label_regex=.*post-ra.*"
)
_BUNDLE = re.compile(r"(?m)^ *(0x[0-9a-f]+|0) +(?:[A-Z]{2})? *:(?: >)* *\{(.*)")
_BRANCH = re.compile(r"sbr\.rel \(!?(%\w+)\) target bundleno = (\d+)")
_PRODUCT = re.compile(r"vmatmul")
# Shorter stretches are transfers being started and waited for.
_SHORTEST = 60


@dataclass(frozen=True)
class Kernel:
    """A kernel's loop over its grid.

    Attributes:
      before: bundles of conditional stretches before the products: what begins a row or a head.
      products: of those with matrix products, in the order of the source.
      after: of those after the products.
      rest: bundles of every turn: transfers, addresses, the loop.
      on_one_core: skipped by the second core of a chip that has two (v4, v5p).
      matrix_products: `vmatmul` instructions of each of `products`.
      vmem_bytes: of windows, scratch and spilled registers.
    """

    before: tuple[int, ...]
    products: tuple[int, ...]
    after: tuple[int, ...]
    rest: int
    on_one_core: bool
    matrix_products: tuple[int, ...]
    vmem_bytes: int


def read_kernel(folder: Path, name: str) -> Kernel:
    """The kernel whose name holds `name`, from what the compiler wrote to `folder`."""
    (listing,) = folder.glob(f"*{name}*-packed-bundles-post-ra.txt")
    bundles = {int(number, 16): text for number, text in _BUNDLE.findall(listing.read_text())}
    conditions = {
        (at, int(target)): condition
        for at, text in bundles.items()
        for condition, target in _BRANCH.findall(text)
    }
    branches = list(conditions)
    skips = [(at, target) for at, target in branches if target - at >= _SHORTEST]

    def products_in(stretch: tuple[int, int]) -> int:
        return sum(len(_PRODUCT.findall(bundles[at])) for at in range(*stretch))

    with_products = [stretch for stretch in skips if products_in(stretch)]
    innermost = [
        stretch
        for stretch in with_products
        if not any(_inside(other, stretch) for other in with_products)
    ]
    whole = _text(bundles, (0, len(bundles)))
    second_core = {
        condition
        for core in re.findall(r"(%\w+) = sld [^;}]*/\* core id", whole)
        for condition in re.findall(rf"(%\w+) = scmp\.ne\.s32\.totalorder {core}, 0", whole)
    }
    loops = [(target, at) for at, target in branches if target < at]
    loop = min((x for x in loops if _inside(innermost[0], x)), key=lambda x: x[1] - x[0])
    in_loop = [x for x in skips if _inside(x, loop) and not any(_inside(y, x) for y in innermost)]
    # What begins and finishes a row stands beside the products, in what no transfer is part of.
    beside = [x for x in in_loop if x not in innermost and "vst" in _text(bundles, x)]
    before = [x for x in beside if x[1] <= innermost[0][0]]
    after = [x for x in beside if x[0] >= innermost[-1][1]]
    outside = [x for x in with_products if x not in innermost and _inside(x, loop)]
    if outside:
        before = [x for x in before if _inside(x, outside[0])]
    conditional = sum(at - target for target, at in (*before, *innermost, *after))
    return Kernel(
        before=tuple(_length(x) for x in before),
        products=tuple(_length(x) for x in innermost),
        after=tuple(_length(x) for x in after),
        rest=_length(loop) - conditional,
        on_one_core=any(_inside(loop, x) and conditions[x] in second_core for x in skips),
        matrix_products=tuple(products_in(x) for x in innermost),
        vmem_bytes=_vmem_bytes(folder, name),
    )


def _vmem_bytes(folder: Path, name: str) -> int:
    (path,) = (
        path
        for path in folder.glob(f"*{name}*-post-ra.txt")
        if not re.search(r"bundle|schedule", path.name)
    )
    return sum(int(x, 16) for x in re.findall(r"space=vmem, size = (0x\w+)", path.read_text()))


def _inside(inner: tuple[int, int], outer: tuple[int, int]) -> bool:
    return inner != outer and outer[0] <= inner[0] and inner[1] <= outer[1]


def _length(stretch: tuple[int, int]) -> int:
    return stretch[1] - stretch[0]


def _text(bundles: dict[int, str], stretch: tuple[int, int]) -> str:
    return " ".join(bundles[at] for at in range(*stretch))
