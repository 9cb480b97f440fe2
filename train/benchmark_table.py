"""The results of `llama-jax bench train` as a table, narrow enough for 80 columns."""

from typing import Any


def print_table(result: dict[str, Any]) -> None:
    """Prints the rows, the devices, the peaks they are held against and the ratios."""
    from rich.console import Console
    from rich.table import Table

    table = Table("side", "dtype", "step, s", "tokens/s", "MFU causal", "full", "GiB", box=None)
    for row in result["rows"]:
        memory = row.get("memory_bytes")
        table.add_row(
            row["side"],
            row["dtype"],
            f"{row['step_seconds_p50']:.4g}",
            f"{row['tokens_per_second']:,.0f}",
            *(f"{row[name]:.1%}" if name in row else "" for name in ("mfu_causal", "mfu_full")),
            f"{memory['total'] / 2**30:.2f}" if memory else "",
        )
    console = Console()
    console.print(table)
    for row in result["rows"]:
        if "compile_seconds" in row:
            each = row["tokens_per_second_per_device"]
            used = row.get("device_peak_bytes")
            console.print(
                f"{row['dtype']}: {each:,.0f} tokens/s/device on {row['devices']} x "
                f"{row['device_kind']}, compiled in {row['compile_seconds']:.1f} s"
                + (f", {used / 2**30:.2f} GiB used at most" if used else ""),
                highlight=False,
            )
    for dtype, peak in result.get("peak_flops_per_second", {}).items():
        console.print(f"{dtype}: peak {peak / 1e12:,.4g} TFLOP/s", highlight=False)
    for dtype, ratio in result.get("ratio_of_bests", {}).items():
        console.print(f"{dtype}: {ratio:.2f} times the better peer", highlight=False)
    for dtype, ratio in result.get("ratio_to_plain", {}).items():
        console.print(
            f"{dtype}: {ratio:.2f} times plain attention and {dtype} products", highlight=False
        )
