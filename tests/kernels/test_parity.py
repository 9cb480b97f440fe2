"""The doctor's check of kernels: it tells right from wrong, from hanging and from dying."""

import sys

import jax
import jax.numpy as jnp
import pytest

from llama_jax.__main__ import main
from llama_jax.kernels import parity
from llama_jax.kernels.parity_processes import check_kernels

# Lists four kernels and two that are refused, then does what each is named for.
CHILD = """
import json, sys, time
if len(sys.argv) == 1:
    print("noise")
    print(json.dumps({"right": None, "wrong": None, "nan": None, "dies": None, "absent": "no GPU",
                      "away": "no TPU"}))
elif sys.argv[1] == "hangs":
    time.sleep(60)
elif sys.argv[1] == "dies":
    sys.exit("killed by the kernel")
else:
    error = {"right": 1e-5, "wrong": 0.5, "nan": float("nan")}[sys.argv[1]]
    print(json.dumps({"error": error, "tolerance": 1e-3}))
"""


def test_each_kernel_has_its_verdict(tmp_path):
    (tmp_path / "child.py").write_text(CHILD)
    lines = []
    command = (sys.executable, str(tmp_path / "child.py"))
    assert not check_kernels(lines.append, seconds=60, command=command)
    right, wrong, nan, dies, elsewhere = lines
    assert "right: 1.0e-05" in right and right.endswith("ok")
    assert "wrong: 5.0e-01" in wrong and "WRONG" in wrong
    assert "WRONG" in nan
    assert "code 1: killed by the kernel" in dies
    assert elsewhere.startswith("elsewhere         absent, away (why says python -m ")


def test_a_kernel_that_hangs_does_not_hang_the_doctor(tmp_path):
    (tmp_path / "child.py").write_text("import time; time.sleep(60)")
    lines = []
    command = (sys.executable, str(tmp_path / "child.py"))
    assert not check_kernels(lines.append, seconds=0.5, command=command)
    assert lines == ["kernels           WRONG: not done after 0.5 s"]


def test_chunked_is_right_on_a_cpu_and_kernels_of_other_devices_are_named():
    found = parity.checks(jax.devices("cpu")[0])
    result = parity.run(found["attention chunked"]())
    assert 0 < result["error"] <= result["tolerance"]
    for name in ("attention mosaic_gpu", "paged attention ragged_tpu", "weight_only_gpu int4"):
        assert isinstance(found[name], str)
    # A library of GPUs does not run here, and what no device does is not listed.
    assert isinstance(found["fp8_tensorwise by cublas"], str)
    assert "int8 by mosaic_gpu" not in found and callable(found["int8 by xla"])


def test_a_difference_is_seen():
    def times(factor):
        return lambda x: factor * x

    x = jnp.asarray([1.0, -2.0])
    assert parity.run((times(1.0), times(1.0), (x,), 0.1))["error"] == 0
    assert parity.run((times(1.5), times(1.0), (x,), 0.1))["error"] == pytest.approx(0.5)


def test_time_for_a_kernel_must_be_positive(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["doctor", "--kernel-seconds", "0"])
    assert stop.value.code == 2 and "--kernel-seconds" in capsys.readouterr().err
