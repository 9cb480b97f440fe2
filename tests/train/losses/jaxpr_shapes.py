"""What a traced function computes."""

import jax


def shapes_in(jaxpr):
    """Shapes of all that a jaxpr computes, loops and custom gradients included."""
    for equation in jaxpr.eqns:
        yield from (variable.aval.shape for variable in (*equation.invars, *equation.outvars))
        for inner in jax.tree.leaves(
            list(equation.params.values()),
            is_leaf=lambda leaf: hasattr(leaf, "eqns") or hasattr(leaf, "jaxpr"),
        ):
            if hasattr(inner, "eqns") or hasattr(inner, "jaxpr"):
                yield from shapes_in(getattr(inner, "jaxpr", inner))
