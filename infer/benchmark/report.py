"""The result of `llama-jax bench infer` as tables on the terminal."""

from typing import Any


def print_report(result: dict[str, Any]) -> None:
    from rich.console import Console

    console = Console()
    if offline := result.get("offline"):
        job = offline["workload"]
        console.print(
            f"offline: {job['prompts']} prompts of {job['prompt_lengths'][0]} to "
            f"{job['prompt_lengths'][-1]} tokens, {job['new_tokens_each']} new ones each",
            highlight=False,
        )
        console.print(_offline_table(offline))
        for peer, ratios in offline["ratios"].items():
            words = ", ".join(f"{ratio:.2f} ({name})" for name, ratio in ratios.items())
            console.print(f"ours / {peer}: {words}", highlight=False)
        for row in offline["rows"]:
            if "error" in row:
                console.print(f"{row['side']}, {row['dtype']}: {row['error']}", markup=False)
    if served := result.get("served"):
        console.print("served: milliseconds, p50 / p90 / p99")
        console.print(_served_table(served))
    if steps := result.get("steps"):
        console.print("steps: prefill and decode of Generator by themselves")
        console.print(_steps_table(steps))
    flops = ", ".join(
        f"{rate / 1e9:,.0f} GFLOP/s {dtype}"
        for dtype, rate in result["peak_flops_per_second"].items()
    )
    console.print(f"peaks: {result['peak_bytes_per_second'] / 1e9:.1f} GB/s read, {flops}")


def _offline_table(offline: dict[str, Any]):
    from rich.table import Table

    table = Table("side", "dtype", "tokens/s", "of FLOPs", "same tokens", "settings", box=None)
    for row in offline["rows"]:
        if "error" in row:
            continue
        table.add_row(
            row["side"],
            row["dtype"],
            f"{row['tokens_per_second']:,.1f}",
            f"{row['fraction_of_flops']:.0%}",
            f"{row['same_tokens']:.0%}",
            ", ".join(f"{name} {value}" for name, value in row["settings"].items()),
        )
    return table


def _served_table(rows: list[dict[str, Any]]):
    from rich.table import Table

    names = ("ttft_seconds", "tpot_seconds", "latency_seconds")
    columns = ("server", "clients", "tokens/s", "TTFT", "TPOT", "latency", "errors")
    table = Table(*columns, box=None)
    for row in rows:
        cells = ["/".join(f"{1e3 * x:.0f}" for x in row.get(name, {}).values()) for name in names]
        rate = f"{row['tokens_per_second']:,.1f}" if "tokens_per_second" in row else ""
        name = " ".join(filter(None, (row["server"], row["dtype"])))
        table.add_row(name, str(row["concurrency"]), rate, *cells, str(row["errors"]))
    return table


def _steps_table(steps: dict[str, Any]):
    from rich.table import Table

    table = Table("case", "side", "dtype", "tokens/s", "of peak", "ratio of bests", box=None)
    for row in steps["rows"]:
        table.add_row(
            row["case"],
            row["side"],
            row["dtype"],
            f"{row['tokens_per_second']:,.1f}",
            f"{row['fraction_of_peak']:.0%}",
            f"{steps['ratio_of_bests'][row['case']]:.2f}" if row["side"] == "llama-jax" else "",
        )
    return table
