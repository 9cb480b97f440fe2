"""Operators of one device as operators of a mesh, by `shard_map`.

The compiler partitions plain products by itself. Attention is wrapped: a device has whole rows and
whole heads, so it can run any kernel on them, and a loop whose length depends on the mask is its
own affair.
"""

import dataclasses

import jax
from jax.sharding import Mesh

from llama_jax.errors import InputError
from llama_jax.kernels.attention.mask import IntervalMask
from llama_jax.kernels.paged_attention.pages import KVPages
from llama_jax.model import Operators
from llama_jax.model.axes import ACTIVATION_HEADS, ACTIVATION_KV_HEADS, BATCH, HEAD_DIM, SEQUENCE
from sharding.divisibility import check_divides
from sharding.mesh import CONTEXT, STAGE
from sharding.rules import SERVING, TRAINING, Rules, mesh_spec


def shard_operators(operators: Operators, mesh: Mesh, rules: Rules = TRAINING) -> Operators:
    """`operators` for arrays that lie on `mesh` as `rules` say.

    Raises `InputError` for a mesh that splits tokens or layers, which no operator here can do; the
    operators raise it, with the numbers, for arrays that the mesh does not divide.
    """
    for axis in (CONTEXT, STAGE):
        if mesh.shape[axis] > 1:
            raise InputError(
                f"mesh: {axis} {mesh.shape[axis]} is not supported in training yet; make it 1"
            )
    queries = mesh_spec((BATCH, ACTIVATION_HEADS, SEQUENCE, HEAD_DIM), rules)
    keys = mesh_spec((BATCH, ACTIVATION_KV_HEADS, SEQUENCE, HEAD_DIM), rules)
    log_sums = mesh_spec((BATCH, ACTIVATION_HEADS, SEQUENCE), rules)
    intervals = mesh_spec((BATCH, SEQUENCE), rules)

    def attention(query, key, value, mask: IntervalMask, *, scale, return_lse=False):
        for heads, x, spec in (("query heads", query, queries), ("key-value heads", key, keys)):
            names = ("rows", heads, "tokens of a row", "dims of a head")
            check_divides(mesh, dict(zip(names, x.shape, strict=True)), spec)

        def local(query, key, value, mask):
            return operators.attention(query, key, value, mask, scale=scale, return_lse=return_lse)

        sharded = jax.shard_map(
            local,
            mesh=mesh,
            in_specs=(queries, keys, keys, intervals),
            out_specs=(queries, log_sums) if return_lse else queries,
            # The check cannot see through custom gradients and kernels.
            check_vma=False,
        )
        return sharded(query, key, value, mask)

    return dataclasses.replace(operators, attention=attention)


def shard_paged_operators(operators: Operators, mesh: Mesh, rules: Rules = SERVING) -> Operators:
    """`operators` for a cache in pages whose heads lie on `mesh` as `rules` say.

    Each device attends with the query heads and for the rows that it has, to the key heads of its
    pages; a loop over a row's pages is as long as its own rows need. `paged_attention` raises
    `InputError`, with the numbers, for arrays that the mesh does not divide.
    """
    queries = mesh_spec((BATCH, ACTIVATION_HEADS, None, None), rules)
    heads_of_pages = mesh_spec((None, None, ACTIVATION_KV_HEADS, None), rules)
    heads_of_scales = mesh_spec((None, ACTIVATION_KV_HEADS, None), rules)
    rows, tables = mesh_spec((BATCH,), rules), mesh_spec((BATCH, None), rules)

    def paged_attention(query, pages: KVPages, page_table, lengths, *, scale):
        names = ("rows", "query heads", "tokens of a row", "dims of a head")
        check_divides(mesh, dict(zip(names, query.shape, strict=True)), queries)
        names = ("pages", "tokens of a page", "key-value heads", "dims of a head")
        num_pages, page_size, _, head_dim = pages.pages.shape
        sizes = (num_pages, page_size, pages.num_kv_heads, head_dim)
        check_divides(mesh, dict(zip(names, sizes, strict=True)), heads_of_pages)

        def local(query, pages, page_table, lengths):
            return operators.paged_attention(query, pages, page_table, lengths, scale=scale)

        specs = KVPages(heads_of_pages, None if pages.scales is None else heads_of_scales)
        sharded = jax.shard_map(
            local,
            mesh=mesh,
            in_specs=(queries, specs, tables, rows),
            out_specs=queries,
            # The check cannot see through kernels.
            check_vma=False,
        )
        return sharded(query, pages, page_table, lengths)

    return dataclasses.replace(operators, paged_attention=paged_attention)
