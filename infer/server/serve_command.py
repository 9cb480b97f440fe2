"""`llama-jax serve`: a model behind OpenAI's interface, with a chat page."""

import dataclasses
import importlib.util
import logging
import os
import sys
from pathlib import Path

import tyro

from infer.load_engine import EngineFlags, EngineOptions
from infer.server.server_guard_options import ServerGuardFlags, ServerGuardOptions
from llama_jax.errors import InputError


def serve(
    model: tyro.conf.Positional[str],
    *,
    served_model_name: tyro.conf.UseAppendAction[tuple[str, ...]] = (),
    host: str = "127.0.0.1",
    port: int = 8000,
    engine: EngineFlags = EngineOptions(),  # noqa: B008
    guard: ServerGuardFlags = ServerGuardOptions(),  # noqa: B008
    prompt_logprobs: bool = False,
    max_queue: int = 256,
    request_timeout: float = 600.0,
    drain_timeout: float = 60.0,
    max_body_bytes: int = 4_000_000,
    api_key_file: Path | None = None,
    cors_origin: tyro.conf.UseAppendAction[tuple[str, ...]] = (),
    quiet: bool = False,
) -> int:
    """Serves a model: OpenAI's chat and completion interface, a chat page at /, /metrics, /health.

    Everything is compiled before the server listens; then it prints its address. SIGTERM and Ctrl-C
    let the answers that run finish and refuse new ones; once more, and it leaves at once. Clients
    need a key if there is an --api-key-file or the environment has LLAMA_JAX_API_KEY. A server is
    one process on one host; `llama-jax batch` can use several.

    With a --guard every prompt is judged, and every answer before any of it is sent: a stream then
    comes in one piece. A prompt that is unsafe is refused with status 400 and the code
    content_filter; an answer that is, is withheld, with the finish reason content_filter.

    Beyond OpenAI's, a request may have the fields top_k, min_p, repetition_penalty,
    allowed_token_ids, stop_token_ids, min_tokens, ignore_eos, include_stop_str_in_output,
    skip_special_tokens, prompt_logprobs, and structured_outputs with one of json, json_object,
    regex, choice and grammar (Lark).

    Example: llama-jax serve llama-8b-instruct --port 8000 --rows 64

    Args:
      model: a checkpoint folder, a .gguf file, or a Hugging Face repository id.
      served_model_name: what requests call the model; give the option again for more names. By
        default the last part of MODEL.
      host: address to listen at; 0.0.0.0 lets other machines in.
      port: 0 takes any that is free.
      prompt_logprobs: compile what computes log-probabilities of prompts too, for requests that ask
        for them.
      max_queue: answers that may wait; one more is refused with status 429.
      request_timeout: seconds for one request, waiting included.
      drain_timeout: seconds that running answers get to finish after SIGTERM.
      max_body_bytes: the longest request.
      api_key_file: keys that open the server, one a line.
      cors_origin: a page of this origin may call the server (* for any); give the option again for
        more.
      quiet: print the address, warnings and errors only.
    """
    for package in ("fastapi", "uvicorn", "prometheus_client", "llguidance"):
        if importlib.util.find_spec(package) is None:
            raise InputError(f"serving needs {package}: pip install '.[serve]'")

    from infer.answers import Answering
    from infer.api_keys import read_api_keys
    from infer.compilation_cache import keep_compiled_programs
    from infer.load_engine import load_engine
    from infer.protocol import ServedModel
    from infer.server.listener import open_socket
    from infer.server.load_guard import load_guard
    from infer.server.run_server import SIGNALLED, run
    from infer.server.settings import ServerSettings
    from llama_jax.checkpoints.huggingface_repo import resolve_source
    from sharding.multihost import check_alone

    check_alone("serve a model")
    logging.basicConfig(format="%(asctime)s %(message)s", stream=sys.stderr)
    log = logging.getLogger("infer.server")
    log.setLevel(logging.WARNING if quiet else logging.INFO)
    # All that can be wrong with the command line is told before the weights are read.
    settings = ServerSettings(
        model_names=served_model_name or (default_name(model),),
        rows=engine.rows or 1,
        max_queue=max_queue,
        request_timeout=request_timeout,
        drain_timeout=drain_timeout,
        max_body_bytes=max_body_bytes,
        api_keys=read_api_keys(api_key_file, os.environ),
        cors_origins=cors_origin,
    )
    if guard.guard is not None:
        guard.prompt()
    keep_compiled_programs()
    with open_socket(host, port) as opened:
        guarding, beside = None, None
        if guard.guard is not None:
            guarding, beside = load_guard(guard, engine, say=log.info)
        loaded, started = load_engine(
            resolve_source(model),
            engine,
            prompt_logprobs=prompt_logprobs,
            beside=beside,
            # Someone reads along: first tokens soon, and then a few at a time.
            prefill_calls=2,
            decode_steps=4,
            say=log.info,
        )
        for note in loaded.notes:
            log.warning(note)
        log.info("compiling; the server listens when that is done")
        started.compile(log.info)
        code = run(
            opened,
            settings=dataclasses.replace(settings, rows=started.settings.num_rows),
            model=ServedModel.of(
                loaded, names=settings.model_names, max_length=started.settings.max_length
            ),
            answering=Answering(started, loaded.tokenizer),
            usage=started.usage,
            guard=guarding,
            say_serving=lambda address: print(
                f"serving {settings.model_names[0]} at {address}", flush=True
            ),
        )
    if code >= SIGNALLED:
        # The engine is in the middle of a step, which an orderly end would have to wait for.
        sys.stderr.flush()
        os._exit(code)
    return code


def default_name(model: str) -> str:
    """What a model is called if nobody says: the last part of its path, links left as they are, or
    of its repository id."""
    path = os.path.abspath(model) if Path(model).exists() else model
    name = path.rpartition("/")[2]
    return name.removesuffix(".gguf")
