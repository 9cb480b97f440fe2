"""The reader of the TPU compiler's listings, on a listing of a made-up kernel."""

import importlib.util
import sys
from pathlib import Path

import pytest

_spec = importlib.util.spec_from_file_location(
    "tpu_bundles", Path(__file__).with_name("tpu_bundles.py")
)
tpu_bundles = importlib.util.module_from_spec(_spec)
sys.modules["tpu_bundles"] = tpu_bundles  # its dataclass looks its module up
_spec.loader.exec_module(tpu_bundles)

# The loop goes from 10 to 900: a row begins in 80 bundles, products take 300 or 200, a row ends in
# 100; 70 bundles of transfers are part of every turn.
BRANCHES = {
    12: "%p1 = sbr.rel (%p9) target bundleno = 82",  # transfers: no vector is stored
    90: "%p2 = sbr.rel (%p8) target bundleno = 170",
    180: "%p3 = sbr.rel (!%p7_p0) target bundleno = 480",
    500: "%p4 = sbr.rel (%p6) target bundleno = 700",
    710: "%p5 = sbr.rel (%p5) target bundleno = 810",
    900: "%p6 = sbr.rel (%p4) target bundleno = 10",
}
WORK = {100: "vst [vmem:x]", 200: "vmatmul.bf16 ;; vmatmul.bf16", 600: "vmatmul.bf16", 750: "vst y"}


def write_listing(folder: Path, extra: dict[int, str]) -> None:
    work = {**BRANCHES, **WORK, **extra}
    lines = [f" {hex(at) if at else 0}   : > {{ {work.get(at, '')} }}" for at in range(950)]
    (folder / "1-flash.1-65-packed-bundles-post-ra.txt").write_text("\n".join(lines))
    allocations = "#a1 [shape, space=vmem, size = 0x1000, scoped]\n#a2 [space=smem, size = 0x4]\n"
    (folder / "1-flash.1-54-post-ra.txt").write_text(allocations)


@pytest.mark.parametrize("one_core", [False, True])
def test_a_kernel_is_read_by_its_branches(tmp_path, one_core):
    core = {
        0: "%s1_s2 = sld [smem:[#allocation0]] /* core id */",
        1: "%p77_p0 = scmp.ne.s32.totalorder %s1_s2, 0",
        2: "%x = sbr.rel (%p77_p0) target bundleno = 940",
    }
    write_listing(tmp_path, core if one_core else {})
    kernel = tpu_bundles.read_kernel(tmp_path, "flash")
    assert kernel.before == (80,) and kernel.after == (100,)
    assert kernel.products == (300, 200) and kernel.matrix_products == (2, 1)
    assert kernel.rest == 890 - 80 - 300 - 200 - 100
    assert kernel.on_one_core == one_core
    assert kernel.vmem_bytes == 0x1000
