"""What is not an answer: models, health, tokens, keys, pages that do not exist."""

import pytest

from infer.api_keys import read_api_keys
from infer.server.settings import ServerSettings
from infer.server.text_routes import detokenize, tokenize
from llama_jax.errors import InputError


def test_models_are_listed_and_described(serve_script):
    server = serve_script()
    status, _, models = server.request("GET", "/v1/models")
    assert status == 200 and [model["id"] for model in models["data"]] == ["tiny", "other/name"]
    for model in models["data"]:
        assert server.request("GET", f"/v1/models/{model['id']}")[2] == model
        assert model["object"] == "model" and model["max_model_len"] == 256
    status, _, body = server.request("GET", "/v1/models/gpt-4")
    assert status == 404 and body["error"]["code"] == "model_not_found"
    assert "served: tiny, other/name" in body["error"]["message"]


def test_what_does_not_exist_is_an_error_object(serve_script):
    server = serve_script()
    status, _, body = server.request("GET", "/v2/models")
    assert status == 404 and body["error"]["message"] == "there is no GET /v2/models"
    status, headers, body = server.request("GET", "/v1/completions")
    assert status == 405 and headers["allow"] == "POST" and "Not Allowed" in str(body["error"])
    status, _, body = server.request("POST", "/v1/embeddings", {"input": "x", "model": "tiny"})
    assert status == 400 and "embeddings are not served" in body["error"]["message"]
    for path in ("/docs", "/redoc", "/openapi.json"):
        assert server.request("GET", path)[0] == 404


def test_text_to_ids_and_back(serve_script, served_model):
    server = serve_script()
    text = "Grüße, 日本 <user>"
    status, _, body = server.request("POST", "/tokenize", {"prompt": text, "model": "other/name"})
    assert status == 200 and body["tokens"] == served_model.tokenizer.encode(text)
    assert body["count"] == len(body["tokens"]) and body["max_model_len"] == 256
    status, _, back = server.request("POST", "/detokenize", {"tokens": body["tokens"]})
    assert status == 200 and back == {"prompt": text}
    messages = [{"role": "user", "content": "Hi"}]
    status, _, body = server.request("POST", "/tokenize", {"messages": messages})
    specials = served_model.tokenizer.special_tokens
    assert body["tokens"][:2] == [specials["<bos>"], specials["<user>"]]
    assert body["tokens"][-1] == specials["<assistant>"]


@pytest.mark.parametrize(
    "path, body, message",
    [
        ("/tokenize", {}, "either prompt or messages"),
        ("/tokenize", {"prompt": "x", "messages": []}, "either prompt or messages"),
        ("/tokenize", {"prompt": 3}, "prompt: must be a text"),
        ("/tokenize", {"prompt": "\ud800"}, "prompt: must be a text"),
        ("/tokenize", {"prompt": "x", "add_bos": True}, "add_bos: unknown field"),
        ("/tokenize", {"prompt": "x", "add_special_tokens": 1}, "must be true or false"),
        ("/tokenize", {"messages": []}, "messages: must be a non-empty list"),
        ("/tokenize", {"messages": [{"role": "king"}]}, "role: 'king' is unknown"),
        ("/tokenize", {"messages": [{"role": "user", "content": "x"}], "tools": 3}, "tools: must"),
        ("/detokenize", {"tokens": [261]}, "ids from 0 to 260"),
        ("/detokenize", {"tokens": [True]}, "ids from 0 to 260"),
        ("/detokenize", {"tokens": "x"}, "ids from 0 to 260"),
        ("/detokenize", {}, "ids from 0 to 260"),
    ],
)
def test_bad_text_requests_name_the_field(served_model, path, body, message):
    with pytest.raises(InputError, match=message):
        {"/tokenize": tokenize, "/detokenize": detokenize}[path](body, served_model)


def test_bad_text_requests_are_told(serve_script):
    server = serve_script()
    status, _, body = server.request("POST", "/detokenize", {"tokens": [-1]})
    assert status == 400 and body["error"]["param"] == "tokens"
    status, _, body = server.request("POST", "/tokenize", {"prompt": "x", "model": "gpt-4"})
    assert status == 404 and "'gpt-4' is not served here; served: tiny" in body["error"]["message"]


def test_a_key_opens_everything_but_the_page_and_health(serve_script):
    server = serve_script(api_keys=("first-key", "second"))
    for path in ("/", "/health"):
        assert server.request("GET", path)[0] == 200
    guarded = [("GET", "/v1/models"), ("GET", "/metrics"), ("POST", "/tokenize")]
    guarded += [("POST", "/v1/chat/completions"), ("POST", "/v1/embeddings")]
    wrong = [None, "", "Bearer", "Bearer ", "Bearer first", "Basic first-key", "Bearer first-keyy"]
    wrong += ["first-key", "Bearer first-key second"]
    for method, path in guarded:
        for value in wrong:
            headers = {} if value is None else {"Authorization": value}
            status, answered, body = server.request(method, path, headers=headers)
            assert status == 401 and body["error"]["code"] == "invalid_api_key"
            assert answered["www-authenticate"] == "Bearer"
    for key in ("first-key", "second"):
        headers = {"Authorization": f"Bearer {key}"}
        assert server.request("GET", "/v1/models", headers=headers)[0] == 200


def test_keys_come_from_a_file_and_the_environment(tmp_path):
    path = tmp_path / "keys"
    path.write_text("# ours\nab-1\n\n  cd=2  \n")
    environment = {"LLAMA_JAX_API_KEY": "ef"}
    assert read_api_keys(path, environment) == ("ab-1", "cd=2", "ef")
    assert read_api_keys(None, environment) == ("ef",)
    assert read_api_keys(None, {}) == ()


@pytest.mark.parametrize(
    "content", [b"", b"# only this\n", b"two words", b"caf\xe9", "né".encode()]
)
def test_a_bad_file_of_keys_leaves_no_open_server(tmp_path, content):
    path = tmp_path / "keys"
    path.write_bytes(content)
    with pytest.raises(InputError, match="key"):
        read_api_keys(path, {})
    with pytest.raises(InputError, match="LLAMA_JAX_API_KEY"):
        read_api_keys(None, {"LLAMA_JAX_API_KEY": ""})


@pytest.mark.parametrize(
    "change, message",
    [
        ({"max_queue": -1}, "--max-queue"),
        ({"request_timeout": 0}, "--request-timeout"),
        ({"request_timeout": float("nan")}, "--request-timeout"),
        ({"drain_timeout": float("inf")}, "--drain-timeout"),
        ({"max_body_bytes": 0}, "--max-body-bytes"),
        ({"cors_origins": ("example.org",)}, "--cors-origin"),
        ({"model_names": ("a\n",)}, "--served-model-name"),
    ],
)
def test_settings_out_of_range_are_named(change, message):
    right = {"model_names": ("m",), "rows": 1, "max_queue": 0, "request_timeout": 1}
    right |= {"drain_timeout": 0, "max_body_bytes": 1}
    ServerSettings(**right)
    with pytest.raises(InputError, match=message):
        ServerSettings(**{**right, **change})


def test_pages_of_other_origins_are_let_in_only_on_demand(serve_script):
    origin = {"Origin": "https://example.org"}
    preflight = {**origin, "Access-Control-Request-Method": "POST"}
    server = serve_script()
    assert "access-control-allow-origin" not in server.request("GET", "/health", None, origin)[1]
    assert server.request("OPTIONS", "/v1/completions", None, preflight)[0] == 405
    server = serve_script(cors_origins=("https://example.org",))
    status, headers, _ = server.request("OPTIONS", "/v1/completions", None, preflight)
    assert status == 200 and headers["access-control-allow-origin"] == "https://example.org"
    headers = server.request("GET", "/health", None, {"Origin": "https://other.org"})[1]
    assert "access-control-allow-origin" not in headers


def test_metrics_are_prometheus_text(serve_script):
    status, headers, text = serve_script().request("GET", "/metrics")
    assert status == 200 and headers["content-type"].startswith("text/plain; version=0.0.4")
    lines = text.decode().splitlines()
    assert "llama_jax_pages_used 0.0" in lines and "llama_jax_pages 100.0" in lines
    assert "llama_jax_time_to_first_token_seconds_count 0.0" in lines
