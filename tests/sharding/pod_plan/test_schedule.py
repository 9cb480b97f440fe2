"""What a device does in a step: traffic by hand, and when communication is waited for."""

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import PartitionSpec as P

from sharding.pod_plan.hlo import parse_program
from sharding.pod_plan.schedule import walk
from sharding.pod_plan.step_work import KERNEL_SHARE, StepWork

from .absent_machines import machine, program_on

# Two products of a second and a gather of two seconds beside them, then one that waits.
CYCLES = 1_500_000_000  # a second of v5e
OVERLAP = """ENTRY %main (a: f32[64,64]) -> f32[64,64] {{
  %a = f32[64,64]{{1,0}} parameter(0)
  %start = (f32[64,64], f32[64,{gathered}]) all-gather-start(%a), replica_groups=[2,2]<=[4], dimensions={{1}}
  %one = f32[64,64]{{1,0}} convolution(%a, %a), dim_labels=bf_io->bf, backend_config={{"estimated_cycles":"{cycles}"}}
  %done = f32[64,{gathered}]{{1,0}} all-gather-done(%start)
  ROOT %two = f32[64,64]{{1,0}} convolution(%one, %a), dim_labels=bf_io->bf, backend_config={{"estimated_cycles":"{cycles}"}}
}}
"""  # noqa: E501


def test_only_waiting_is_exposed():
    topology, mesh = machine("v5e:2x2")
    received = 64 * 64 * 4
    alone = topology.seconds(received, mesh.devices.reshape(-1)[:2])

    def exposed(cycles):
        return walk(parse_program(OVERLAP.format(gathered=128, cycles=cycles)), mesh, topology)

    hidden = exposed(CYCLES)
    assert hidden.exposed_seconds == 0.0 and hidden.seconds == pytest.approx(2.0)
    (gather,) = hidden.collectives.values()
    assert (gather.kind, gather.axes, gather.count) == ("all-gather", ("tensor",), 1)
    assert gather.bytes == received and gather.seconds == alone
    assert hidden.product_flops == 2 * 2 * 64**3
    # If the product is over at once, the device waits for the whole of it.
    waiting = exposed(0)
    assert waiting.exposed_seconds == waiting.seconds == pytest.approx(alone)
    assert hidden.range_seconds == (pytest.approx(2.0), pytest.approx(2.0 + alone))


def total(work: StepWork, kind: str, axes: tuple[str, ...]):
    return work.collectives[kind, axes]


@pytest.mark.parametrize("target", ["v5e:2x2", "h100:4"])
def test_traffic_of_a_scan_is_counted_by_its_turns(target):
    """Ten layers, each of which gathers its weight over fsdp and sums over tensor."""
    topology, mesh = machine(target)
    layers, size = 10, 512

    def function(weights, x):
        def layer(x, weight):
            whole = jax.lax.all_gather(weight, "fsdp", axis=0, tiled=True)
            return jax.lax.psum(jnp.tanh(x @ whole), "tensor"), None

        return jax.lax.scan(layer, x, weights)[0]

    specs = (P(None, "fsdp", None), P(None, None))
    sharded = jax.shard_map(
        function, mesh=mesh, in_specs=specs, out_specs=P(None, None), check_vma=False
    )
    arrays = [
        ((layers, size, size), jnp.bfloat16, specs[0]),
        ((64, size), jnp.bfloat16, specs[1]),
    ]
    work = walk(program_on(target, sharded, *arrays), mesh, topology)
    gather, reduce = (
        total(work, "all-gather", ("fsdp",)),
        total(work, "all-reduce", ("tensor",)),
    )
    assert gather.count == reduce.count == layers
    # Half of the weight comes from the other device; a sum goes around a ring of two twice.
    assert gather.bytes == layers * size * size * 2 / 2
    assert reduce.bytes == layers * 64 * size * 2
    assert work.product_flops == layers * 2 * 64 * size * size
    assert not work.unknown_loops and not work.unknown_kernels
    assert work.matrix_seconds > 0


def test_a_kernel_without_an_estimate_takes_its_products():
    """Splash attention: two products forward and five backward, over the causal blocks."""
    from llama_jax.kernels.attention import splash
    from llama_jax.kernels.attention.mask import IntervalMask, MaskForm

    topology, mesh = machine("v5e:1x1")
    B, N, K, T, H = 1, 4, 2, 2048, 128

    def loss(query, key, value):
        start = jnp.zeros((B, T), jnp.int32)
        end = jnp.broadcast_to(jnp.arange(1, T + 1, dtype=jnp.int32), (B, T))
        mask = IntervalMask(start, end, MaskForm.CAUSAL)
        return splash.attention(query, key, value, mask, scale=1.0).astype(jnp.float32).sum()

    arrays = [((B, heads, T, H), jnp.bfloat16, P()) for heads in (N, K, K)]
    work = walk(program_on("v5e:1x1", jax.grad(loss, argnums=(0, 1, 2)), *arrays), mesh, topology)
    blocks = (1 + 2) * 1024 * 1024  # of two times two, those on and below the diagonal
    assert work.kernel_flops == (2 + 5) * 2 * B * N * H * blocks
    peak = KERNEL_SHARE * topology.peaks.bf16_flops
    assert work.kernel_seconds == pytest.approx(work.kernel_flops / peak)
    assert not work.unknown_kernels
