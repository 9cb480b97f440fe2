"""What a run says of the kernels that it computes with."""

import logging

from llama_jax.kernels.kernel_log import kernels_told
from llama_jax.quantization.training_matmul import training_matmul


def test_a_chosen_kernel_is_told_with_what_is_gained():
    lines = []
    with kernels_told(lines.append):
        training_matmul("fp8_rowwise", platform="tpu", device_kind="TPU v5p")
        training_matmul("fp8_rowwise", platform="tpu", device_kind="TPU7x")
        training_matmul("bfloat16", platform="tpu", device_kind="TPU7x")
    assert lines == [
        "matmul fp8_rowwise by emulate on TPU v5p: rounded as 8-bit numbers, multiplied in "
        "bfloat16, and nothing is gained in speed",
        "matmul fp8_rowwise by xla on TPU7x",
        "matmul bfloat16 (unquantised, in the dtype of activations) on TPU7x",
    ]


def test_a_line_is_told_once_where_the_root_logger_tells_too():
    told, lines = [], []
    handler = logging.Handler()
    handler.emit = lambda record: told.append(record.getMessage())
    logging.getLogger().addHandler(handler)
    try:
        with kernels_told(lines.append):
            logging.getLogger("llama_jax.kernels").info("chosen")
        logging.getLogger("llama_jax.kernels").warning("later")
    finally:
        logging.getLogger().removeHandler(handler)
    assert (lines, told) == (["chosen"], ["later"])


def test_nothing_is_told_afterwards_and_levels_are_as_before():
    logger, lines = logging.getLogger("llama_jax.kernels"), []
    before = logger.level, list(logger.handlers)
    with kernels_told(lines.append):
        logger.info("chosen")
    logger.info("later")
    assert lines == ["chosen"] and (logger.level, logger.handlers) == before
