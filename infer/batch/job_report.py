"""What is said at the end of a job."""

from infer.batch.device_peaks import device_peaks
from infer.batch.job import Job
from infer.batch.run_job import JobRun
from infer.engine.engine import Engine
from infer.loaded_model import LoadedModel
from llama_jax.costs import kv_bytes_per_token, stored_bytes


def job_lines(job: Job) -> list[str]:
    """Of a finished job as a whole, whoever did it."""
    done = job.manifest.finished
    failed = f", {done['failed']:,} failed: see {job.errors}" if done["failed"] else ", none failed"
    return [
        f"{job.output}: {done['rows'] - done['failed']:,} of {done['rows']:,} rows answered"
        f"{failed}",
        f"tokens of all rows: {done['prompt_tokens']:,} in, {done['new_tokens']:,} out",
    ]


def run_line(run: JobRun, *, num_processes: int = 1) -> str:
    """Of what this process did, or the processes of its mesh together."""
    work = run.work
    who = "this process" if num_processes == 1 else f"these {num_processes} processes"
    return (
        f"{who}: {work.rows:,} rows, {work.prompt_tokens:,} tokens in, "
        f"{work.new_tokens:,} out, {run.seconds:.1f} s, "
        f"{work.new_tokens / max(run.seconds, 1e-9):,.1f} tokens/s out"
    )


def roofline_line(run: JobRun, loaded: LoadedModel, engine: Engine, *, num_devices: int = 1) -> str:
    """How near this process came to what its devices could do at most."""
    peaks = device_peaks(loaded.params, num_devices=num_devices)
    if peaks is None:
        return "share of the roofline: unknown, as the peaks of this device are"
    usage, settings = engine.usage(), engine.settings
    cache_dtype = settings.cache_dtype or loaded.params["embedding"].dtype
    least = run.work.seconds_at_peak(
        loaded.config,
        peaks,
        weight_bytes=stored_bytes(loaded.params),
        bytes_per_key=kv_bytes_per_token(loaded.config, cache_dtype),
        slots=settings.num_rows,
        share_of_prompts=usage.prompt_tokens / max(usage.prompt_tokens + usage.shared_tokens, 1),
    )
    return f"share of the roofline: {least / run.seconds:.0%} ({peaks})"
