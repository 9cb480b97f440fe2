"""The results of `llama-jax bench kernels` as tables, narrow enough for 100 columns."""

from typing import Any

_ABOUT = ("layer", "product", "length", "mask", "tokens", "format", "name", "pass", "quantisation")


def one_line(row: dict[str, Any]) -> str:
    """A row in words, for those who wait."""
    if "failed" in row:
        return f"{_about(row)}: failed: {row['failed']}"
    if "seconds" in row:
        return f"{_about(row)}: {row['seconds'] * 1e6:,.1f} us"
    if "bytes_per_second" in row:
        return f"{_about(row)}: {row['bytes_per_second'] / 1e9:,.1f} GB/s"
    return f"{row['name']}: compiled"


def print_measured(result: dict[str, Any]) -> None:
    """Prints a table of each suite, and below it what was refused, each reason once."""
    from rich.console import Console
    from rich.table import Table

    console = Console()
    rows = result["rows"]
    for suite in dict.fromkeys(row["suite"] for row in rows):
        here = [row for row in rows if row["suite"] == suite]
        rate = "GB/s" if suite == "decode" else "TFLOP/s"
        ratio = {"attention": "to peer", "gemm": "to bf16", "decode": "of copy"}[suite]
        table = Table(suite, "kernel", "us", rate, "of peak", ratio, box=None)
        for row in here:
            if "refused" not in row:
                table.add_row(*_cells(row))
        console.print(table)
        reasons: dict[tuple[str, str], None] = dict.fromkeys(
            (row["name"], row["refused"]) for row in here if "refused" in row
        )
        for name, reason in reasons:
            console.print(f"not measured: {name}: {reason}", highlight=False, markup=False)
    console.print(f"device: {result['device']}", highlight=False)


def _cells(row: dict[str, Any]) -> list[str]:
    where = [row.get(name) for name in ("layer", "product", "length", "mask", "tokens", "format")]
    kernel = [row.get(name) for name in ("name", "pass", "quantisation")]
    names = [" ".join(str(word) for word in words if word is not None) for words in (where, kernel)]
    if "failed" in row:
        return [*names, "failed", "", "", ""]
    bytes_per_second = row.get("bytes_per_second")
    rate = row["tflops"] if bytes_per_second is None else bytes_per_second / 1e9
    ratio = row.get("ratio_to_peer", row.get("ratio_to_bfloat16"))
    of_copy = row.get("fraction_of_copy_bandwidth")
    return [
        *names,
        f"{row['seconds'] * 1e6:,.1f}" if "seconds" in row else "",
        f"{rate:,.4g}",
        f"{row['fraction_of_peak']:.1%}" if "fraction_of_peak" in row else "",
        f"{of_copy:.1%}" if of_copy is not None else f"{ratio:.2f}" if ratio is not None else "",
    ]


def print_compiled(result: dict[str, Any]) -> None:
    """Prints a table of what the compiler says, its complaints, and what did not compile."""
    from rich.console import Console
    from rich.table import Column, Table

    console = Console()
    compiled = [row for row in result["kernels"] if "failed" not in row]
    on_gpu = any("registers" in row for row in compiled)
    if on_gpu:
        counted = compiled[0]["instructions"]
        instructions = [n for n in counted if any(row["instructions"][n] for row in compiled)]
        short = [
            name.removesuffix(".mma_async").removesuffix(".bulk.tensor") for name in instructions
        ]
        columns = [
            Column(name, no_wrap=True) for name in ("kernel", "regs", "spills", "KiB", *short)
        ]
        table = Table(*columns, box=None)
        for row in compiled:
            sizes = (row["registers"], row["spill_bytes"], row["shared_memory_bytes"] // 1024)
            counts = (row["instructions"][name] for name in instructions)
            table.add_row(row["name"], *map(str, sizes), *map(str, counts))
    else:
        table = Table("kernel", "compiled", "temporary memory, MiB", box=None)
        for row in compiled:
            table.add_row(row["name"], "yes", f"{row['temporary_bytes'] / 2**20:,.1f}")
    console.print(table)
    for row in result["kernels"]:
        for line in [*row.get("warnings", ()), *([row["failed"]] if "failed" in row else [])]:
            console.print(f"{row['name']}: {line}", highlight=False, markup=False)
    console.print(f"target: {result['target']}; nothing was run", highlight=False)


def _about(row: dict[str, Any]) -> str:
    return ", ".join(str(row[name]) for name in _ABOUT if name in row)
