"""Mosaic GPU on every JAX from 0.10.2 on, and under its interpreter on a CPU.

Kernels for Hopper are written with `plgpu.kernel` (Pallas' Mosaic GPU back end) and take from here
what differs between JAX 0.10.2 and 0.11 or later, and what the interpreter of either cannot do. The
interpreter runs warpgroups, barriers, TMA copies and shared memory as a GPU would, but no product
with a transposed operand or with an operand in registers, and 0.10.2 has no layouts at all. Those
few instructions go through `Instructions`, which does them in jnp when it interprets, so that all
control flow of a kernel is tested where there is no GPU. The interpreter does a product at once: a
missing wait for one is not found there.

What else differs is met by writing in a way that all versions take: `out_type=` and
`scratch_types=`, `lax.axis_index` of `grid_names` and not `pl.program_id`,
`Barrier(num_barriers=...)` always given, `ref.transpose`, no FP8 product of e4m3 with e5m2
(0.11 on). Source: docs/pallas/CHANGELOG.md of JAX, and the code of 0.10.2, 0.11.2 and 0.12.0.
"""

import dataclasses
import threading
import weakref
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import mosaic_gpu as plgpu

# `plgpu.load(ref, index, layout=)` became `plgpu.load(ref, layout=)`, and the interpreter public.
_BEFORE_0_11 = jax.__version_info__ < (0, 11)

# Rows of 128 bytes in groups of 8, the layout in which the TMA writes and a WGMMA reads without
# bank conflicts ("128B swizzle", PTX ISA, asynchronous warpgroup level matrix instructions).
SWIZZLE_BYTES = 128


def gpu_kernel(
    body: Callable[..., None], *, interpret: bool, detect_races: bool = False, **arguments: Any
) -> Callable[..., Any]:
    """`plgpu.kernel(body, **arguments)` for a Hopper GPU, or interpreted on the CPU.

    Lowering semantics are pinned, because their default changed from Lane to Warpgroup in 0.11.

    Args:
      interpret: run on the CPU.
      detect_races: when interpreting, report unordered accesses to the same memory on stdout and
        in `races_found()`.
      arguments: `out_type`, `scratch_types`, `grid`, `grid_names`, `num_threads`, `thread_name`,
        and `approx_math` (hardware's exp2 and reciprocals, accurate to about 2 ulp).
    """
    params = plgpu.CompilerParams(
        approx_math=arguments.pop("approx_math", False),
        lowering_semantics=plgpu.LoweringSemantics.Lane,
    )
    if interpret:
        arguments["interpret"] = _interpreter().params.InterpretGPUParams(detect_races=detect_races)
    return plgpu.kernel(body, compiler_params=params, **arguments)


def races_found() -> bool:
    """Whether the last kernel that was interpreted with `detect_races` had a race."""
    return _interpreter().gpu_callbacks.get_races().races_found


def _interpreter():
    # Imported where it is used: private in 0.10.2, and no path to hardware needs it.
    from jax._src.pallas.mosaic.interpret import thread_map
    from jax._src.pallas.mosaic_gpu import interpret
    from jax._src.pallas.mosaic_gpu.interpret import gpu_callbacks, params  # noqa: F401

    if _BEFORE_0_11:
        # 0.10.2 means to compile a kernel once, but compiles it for each thread of each block: its
        # jitted function is a new one every time. Minutes become seconds.
        thread_map._run_jaxpr = _run_thread
    return interpret


def _run_thread(jaxpr, consts, *arguments) -> None:
    """`jaxpr`, what one thread of an interpreted kernel does, compiled at the first call."""
    with _compiling:
        program = _programs.get(jaxpr)
        if program is None:
            program = _programs[jaxpr] = (
                jax.jit(lambda consts, *x: jax.core.eval_jaxpr(jaxpr, consts, *x))
                .lower(consts, *arguments)
                .compile()
            )
    program(consts, *arguments)


_compiling = threading.Lock()
_programs = weakref.WeakKeyDictionary()


def swizzled(*shape: int, dtype: jnp.dtype) -> plgpu.SMEM:
    """Shared memory `[..., rows, columns]` for operands of products, in rows of 128 bytes."""
    bits = 4 if dtype == jnp.int4 else 8 * jnp.dtype(dtype).itemsize
    columns = SWIZZLE_BYTES * 8 // bits
    assert shape[-1] % columns == 0 and shape[-2] % 8 == 0, shape
    transforms = (plgpu.TilingTransform((8, columns)), plgpu.SwizzleTransform(SWIZZLE_BYTES))
    return plgpu.SMEM(shape, dtype, transforms=transforms)


@dataclasses.dataclass(frozen=True)
class Instructions:
    """Instructions of one warpgroup that the interpreter does not know.

    Matrices of float32 in registers are spread over the 128 threads as WGMMA leaves them
    (`plgpu.Layout.WGMMA`): 64 rows, each in four neighbouring threads. Vectors over its rows are
    `reduce(1)` of that layout, vectors over its columns `reduce(0)`.

    Attributes:
      interpret: do them in jnp.
    """

    interpret: bool

    def product(
        self,
        left: Any,
        right: Any,
        *,
        transpose_right: bool = False,
        meanwhile: Callable[[], None] | None = None,
    ) -> jax.Array:
        """`left @ right`, float32 `[M, N]` in registers, when it is done.

        Args:
          left: `[M, K]`, in shared memory or, as a value, in registers. M is a multiple of 64.
          right: `[K, N]` in shared memory; `[N, K]` with `transpose_right`.
          meanwhile: called when the product has been issued and is running.
        """
        if self.interpret:
            return self._done(left, right, transpose_right, meanwhile)
        right = right.transpose((1, 0)) if transpose_right else right

        def multiply(accumulator):
            plgpu.wgmma(accumulator, left, right)
            if meanwhile is not None:
                meanwhile()
            return accumulator[...]

        shape = (left.shape[0], right.shape[1])
        return pl.run_scoped(multiply, plgpu.ACC(shape, jnp.float32))

    def add_product(
        self,
        total: jax.Array,
        left: Any,
        right: Any,
        *,
        transpose_right: bool = False,
        meanwhile: Callable[[], None] | None = None,
    ) -> jax.Array:
        """`total + left @ right`, with arguments as in `product`; `total` `[M, N]` in registers."""
        if self.interpret:
            return total + self._done(left, right, transpose_right, meanwhile)
        right = right.transpose((1, 0)) if transpose_right else right

        def multiply(accumulator):
            plgpu.wgmma(accumulator, left, right)
            if meanwhile is not None:
                meanwhile()

        return pl.run_state(multiply)(plgpu.ACC.init(total))

    def add_product_during(
        self,
        total: jax.Array,
        left: jax.Array,
        right: Any,
        *,
        transpose_right: bool = False,
        first: tuple[Any, Any],
        between: Callable[[], None],
        issued: Callable[[], None],
        then: Callable[[jax.Array, Any], Any],
        state: Any,
    ) -> tuple[jax.Array, Any]:
        """`total + left @ right`, computed while `then` works on another product.

        The tensor cores get two products at once, `first` and then this one. As soon as `first` is
        done, `then` runs beside the second.

        Args:
          total: `[M, N]` in registers.
          left, right, transpose_right: as in `product`.
          first: the operands of the other product, `[M, K]` and `[N, K]` in shared memory.
          between: called when the first product has been issued, and before the second is.
          issued: called when both have been issued.
          then: `first's product, state -> state`, a tree of arrays in registers.
          state: the arrays to begin with.

        Returns:
          The sum, and what `then` returned.
        """
        if self.interpret:
            scores = self._done(*first, True, between)
            total = total + self._done(left, right, transpose_right, issued)
            return total, then(scores, state)
        right = right.transpose((1, 0)) if transpose_right else right
        leaves, structure = jax.tree.flatten(state)

        def multiply(refs):
            total_ref, *state_refs = refs

            def issue(accumulator):
                plgpu.wgmma(accumulator, first[0], first[1].transpose((1, 0)))
                between()
                plgpu.wgmma(total_ref, left, right)
                issued()
                return plgpu.wgmma_accumulator_load(accumulator, wait_n=1)

            shape = (first[0].shape[0], first[1].shape[0])
            scores = pl.run_scoped(issue, plgpu.ACC(shape, jnp.float32))
            # The compiler knows the values of a product from the moment it is issued: nothing that
            # reads them may move to before the wait.
            scores = jax.lax.optimization_barrier(scores)
            new_leaves = jax.tree.leaves(then(scores, state))
            # Nor may what `then` does sink to after the wait for the second product.
            new_leaves = jax.lax.optimization_barrier(new_leaves)
            for ref, x in zip(state_refs, new_leaves, strict=True):
                ref[...] = x

        total, *leaves = pl.run_state(multiply)((plgpu.ACC.init(total), *leaves))
        return total, jax.tree.unflatten(structure, leaves)

    def _done(self, left, right, transpose_right, meanwhile) -> jax.Array:
        equation = "MK,NK->MN" if transpose_right else "MK,KN->MN"
        result = jnp.einsum(equation, left[...], right[...], preferred_element_type=jnp.float32)
        if meanwhile is not None:
            meanwhile()
        return result

    def load(self, ref: Any, *, layout: Any, shared: bool = True) -> jax.Array:
        """What `ref` holds, in registers in `layout`.

        Args:
          shared: `ref` is in shared memory; in global memory otherwise, which is for few numbers.
        """
        if self.interpret:
            return ref[...]
        index = ((),) if _BEFORE_0_11 else ()
        return plgpu.load(ref, *index, layout=layout, optimized=shared)

    def layout_cast(self, x: jax.Array, layout: Any) -> jax.Array:
        """`x` spread over the threads as `layout` says."""
        return x if self.interpret else plgpu.layout_cast(x, layout)

    def full(self, shape: tuple[int, ...], value: float, *, layout: Any) -> jax.Array:
        """float32 `shape` filled with `value`, in registers in `layout`."""
        return self.layout_cast(jnp.full(shape, value, jnp.float32), layout)

    def iota(self, shape: tuple[int, ...], dim: int, *, layout: Any) -> jax.Array:
        """int32 `shape` that counts along `dim`, in registers in `layout`."""
        return self.layout_cast(jax.lax.broadcasted_iota(jnp.int32, shape, dim), layout)
