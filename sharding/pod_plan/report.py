"""A plan for the terminal, narrow enough for 80 columns, and as a file."""

import json
import shlex
import sys
from collections.abc import Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from llama_jax.errors import InputError
from sharding.pod_plan.plan import Plan
from sharding.pod_plan.plan_fields import sorted_collectives

GIB = 2**30


def print_plan(plan: Plan) -> None:
    """Prints the verdict last, where a terminal shows it."""
    from rich.console import Console

    console = Console(highlight=False)
    subject, topology = plan.subject, plan.topology
    mesh = " x ".join(f"{axis} {size}" for axis, size in plan.mesh.shape.items() if size > 1)
    console.print(
        f"[bold]{subject.name}[/bold], {subject.program} on {topology.name}: {plan.mesh.size} x "
        f"{topology.device_kind}, mesh {mesh or 'of one device'}"
    )
    console.print(", ".join(_setting(*pair) for pair in subject.settings.items() if _says(*pair)))
    console.print(f"compiled in {plan.compile_seconds.elapsed:.0f} s\n")
    _print_memory(console, plan)
    if plan.work is not None:
        _print_work(console, plan)
        _print_collectives(console, plan)
        _print_time(console, plan)
    for note in plan.notes:
        console.print(f"[yellow]note:[/yellow] {note}")
    console.print(verdict(plan))


def verdict(plan: Plan) -> str:
    """One line: whether it fits, or by how much it does not, and what takes most."""
    name = f"{plan.subject.name} on {plan.topology.name}"
    if plan.fits:
        share = plan.memory.peak / plan.memory.capacity
        return f"fits: {name}, {share:.0%} of a device's memory"
    largest = sorted(plan.subject.groups.items(), key=lambda group: -group[1])[:3]
    named = ", ".join(f"{group} {size / GIB:.1f} GiB" for group, size in largest)
    return (
        f"does not fit: {name}, by {plan.missing_bytes / GIB:.1f} GiB on each device; the most is "
        f"{named}"
    )


def write_whole(path: Path, fields: dict[str, Any]) -> None:
    """Plans as JSON, there whole or not at all."""
    half = path.with_name(f".{path.name}")
    half.write_text(json.dumps(fields, indent=2) + "\n", encoding="utf-8")
    half.replace(path)


def recorded_command(name: str, arguments: Sequence[str]) -> str:
    """`llama-jax plan` as it was typed, without where the file goes and how much is printed."""
    words = iter(arguments)
    kept = []
    for word in words:
        if word == "--json":
            next(words, None)
        elif word != "--quiet" and not word.startswith("--json="):
            kept.append(word)
    return shlex.join(["llama-jax", "plan", name, *kept])


def check_output(option: str, path: Path | None) -> None:
    """Raises `InputError` for a file whose folder is not there, before minutes of compiling."""
    if path is not None and not path.resolve().parent.is_dir():
        raise InputError(f"{option} {path}: its folder does not exist")


def parse_options(words: tuple[str, ...]) -> dict[str, str]:
    """Flags of the compiler, each NAME=VALUE. Raises `InputError` for another form."""
    options = {}
    for word in words:
        name, equals, value = word.lstrip("-").partition("=")
        if not equals or not name:
            raise InputError(f"--compiler-options {word}: must be NAME=VALUE")
        options[name] = value
    return options


@contextmanager
def compiling(what: str, *, quiet: bool):
    """Says that the compiler is at work, which takes a minute or two and tells nothing."""
    if quiet or not sys.stderr.isatty():
        yield
        return
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        progress.add_task(f"compiling {what}", total=None)
        yield


def _says(name: str, value: Any) -> bool:
    return value not in (None, {}, [], "", ["auto"])


def _setting(name: str, value: Any) -> str:
    words = name.replace("_", " ")
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{words} {value:,}"
    if isinstance(value, dict):
        return f"{words} " + " ".join(f"{key}={one}" for key, one in value.items())
    return f"{words} {' '.join(value) if isinstance(value, list) else value}"


def _table(*columns: str):
    from rich.table import Table

    table = Table(box=None, header_style="dim", pad_edge=False)
    for index, column in enumerate(columns):
        table.add_column(column, justify="left" if index == 0 else "right")
    return table


def _print_memory(console, plan: Plan) -> None:
    memory, groups = plan.memory, plan.subject.groups
    table = _table("memory of a device", "GiB")
    if memory is None:
        for name, size in groups.items():
            table.add_row(f"  {name}", f"{size / GIB:.2f}")
        wanted, there = plan.wanted
        table.add_row("peak, as the compiler says", f"{wanted / GIB:.2f}")
        table.add_row("capacity", f"{there / GIB:.2f}")
    else:
        for name in ("arguments", "temporaries", "host", "peak", "capacity"):
            table.add_row(name, f"{getattr(memory, name) / GIB:.2f}")
        table.add_row("of the peak:", "")
        for name, size in memory.groups.items():
            table.add_row(f"  {name}", f"{size / GIB:.2f}")
    console.print(table)
    console.print()


def _print_work(console, plan: Plan) -> None:
    subject, work, size = plan.subject, plan.work, plan.mesh.size
    table = _table("work of a device and step", "TFLOP")
    for name, flops in (
        ("model, causal attention", subject.flops_causal / size),
        ("model, full attention", subject.flops_full / size),
        ("executed: matrix products", work.product_flops),
        ("executed: attention kernels", work.kernel_flops),
    ):
        table.add_row(name, f"{flops / 1e12:,.2f}")
    console.print(table)
    console.print()


def _print_collectives(console, plan: Plan) -> None:
    moved = [one for one in sorted_collectives(plan.work) if one.bytes]
    if not moved:
        return
    table = _table("communication", "axes", "times", "GB in", "s", "exposed")
    for one in moved:
        table.add_row(
            one.kind,
            " ".join(one.axes),
            f"{one.count:,}",
            f"{one.bytes / 1e9:,.3f}",
            f"{one.seconds:.4g}",
            f"{one.exposed_seconds:.4g}",
        )
    console.print(table)
    console.print()


def _print_time(console, plan: Plan) -> None:
    work, subject = plan.work, plan.subject
    table = _table("predicted step", "s", "share")
    parts = {
        "matrix unit": work.matrix_seconds,
        "vector unit": work.vector_seconds,
        "kernels": work.kernel_seconds,
        "exposed communication": work.exposed_seconds,
        "exposed copies from the host": work.host_seconds,
    }
    for name, seconds in parts.items():
        if seconds:
            table.add_row(name, f"{seconds:.4g}", f"{seconds / work.seconds:.0%}")
    if subject.least_seconds:
        table.add_row("at least, by what it reads", f"{subject.least_seconds:.4g}", "")
    quick, slow = (max(each, subject.least_seconds) for each in work.range_seconds)
    table.add_row("all", f"{plan.seconds:.4g}", f"({quick:.4g} to {slow:.4g})")
    console.print(table)
    rate = subject.tokens / plan.seconds
    console.print(
        f"{rate:,.0f} tokens/s, {rate / plan.mesh.size:,.0f} a device; MFU "
        f"{plan.mfu(subject.flops_causal):.1%} causal, {plan.mfu(subject.flops_full):.1%} full, of "
        f"{plan.topology.peaks.bf16_flops / 1e12:,.0f} TFLOP/s\n"
    )
