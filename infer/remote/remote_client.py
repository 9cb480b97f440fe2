"""One request to a server behind a URL, tried again where the server may be well again.

Three ends beside an answer: the row cannot be answered as it stands (400, 413, 422 and the like),
the server failed at it again and again (5xx, a response that is none, a full queue for an hour), or
nothing can be asked there at all: no connection, no such model, no right to it or no money left for
it (402, or OpenAI's `insufficient_quota`, which is 429), or another address (3xx). The last ends
the job, which goes on from there when that is put right; the others end the row.
"""

import asyncio
import email.utils
import json
import random
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from infer.protocol.request_error import RequestError
from llama_jax.errors import InputError
from llama_jax.json_file import parse_json

if TYPE_CHECKING:
    import httpx

MAX_RESPONSE_BYTES = 1 << 27
LONGEST_WAIT = 600.0
"""Seconds that one `Retry-After` may ask for."""
LONGEST_QUEUE = 3600.0
"""Seconds that a request waits in all for a full queue, which is 429 with `Retry-After`: that is no
failure, and no try is lost by it."""

_FIRST_WAIT, _LONGEST_BACKOFF = 0.5, 60.0
_MAX_REASON = 1000  # characters of what a server says
# No key or none that may ask this, nothing left on the account, no such API or model there.
_NO_ACCESS = (401, 402, 403, 404, 405)
_NO_QUOTA = "insufficient_quota"


class NoServer(InputError):
    """Nothing can be asked there, for a reason that all rows have in common."""


@dataclass(frozen=True)
class RemoteClient:
    """Sends requests.

    Attributes:
      http: the connections.
      url: of the API, without a slash at its end.
      tries: of one request, at least 1.
      first_wait: seconds before the second try where the server does not say; doubled each time.
    """

    http: "httpx.AsyncClient"
    url: str
    tries: int
    first_wait: float = _FIRST_WAIT

    async def ask(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """The JSON object that the server answers.

        Raises:
          RequestError: the row failed; with the server's status, code, field and reason.
          NoServer: nothing can be asked there.
        """
        import httpx

        content = json.dumps(body, ensure_ascii=False).encode(errors="surrogatepass")
        wait = queued = 0.0
        tried = 0
        while tried < self.tries:
            await asyncio.sleep(wait)
            wait = min(self.first_wait * 2**tried, _LONGEST_BACKOFF) * random.uniform(0.5, 1.5)
            tried += 1
            try:
                status, headers, text = await self._send(path, content)
            except httpx.TimeoutException:
                failure = RequestError(f"{self.url}: did not answer in time", status=504)
                continue
            except httpx.TransportError as error:
                failure = NoServer(f"{self.url}: does not answer: {_line(str(error))}")
                continue
            except httpx.DecodingError as error:  # of what a Content-Encoding promised
                failure = RequestError(f"{self.url}: {_line(str(error))}", status=502)
                continue
            if status == 200:
                try:
                    return parse_json(text, "the response")
                except InputError as error:
                    failure = RequestError(f"{self.url}: {_line(str(error))}", status=502)
                    continue
            said = _error_of(text)
            reason = f"{self.url}: status {status}: {said.message}"
            if status in _NO_ACCESS or 300 <= status < 400 or said.code == _NO_QUOTA:
                raise NoServer(reason)
            failure = RequestError(reason, status=status, code=said.code, param=said.param)
            if status not in (408, 409, 425, 429) and status < 500:
                raise failure
            told = _retry_after(headers.get("retry-after"))
            if told is None:
                continue
            # Those that were refused together do not all come back together.
            wait = told * random.uniform(1.0, 1.5)
            if status == 429 and queued < LONGEST_QUEUE:
                queued += wait
                tried -= 1
        raise failure

    async def _send(self, path: str, content: bytes) -> tuple[int, Any, bytes]:
        """Status, headers and body. Raises `RequestError` for a body that is too long."""
        headers = {"Content-Type": "application/json"}
        request = self.http.build_request(
            "POST", f"{self.url}{path}", content=content, headers=headers
        )
        response = await self.http.send(request, stream=True)
        try:
            pieces, num_bytes = [], 0
            async for piece in response.aiter_bytes():
                pieces.append(piece)
                num_bytes += len(piece)
                if num_bytes > MAX_RESPONSE_BYTES:
                    raise RequestError(
                        f"{self.url}: the response is over {MAX_RESPONSE_BYTES:,} bytes", status=502
                    )
            return response.status_code, response.headers, b"".join(pieces)
        finally:
            await response.aclose()


def _retry_after(value: str | None) -> float | None:
    """Seconds, of a number of them or a date (RFC 9110, 10.2.3); None for what is neither."""
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = email.utils.parsedate_to_datetime(value).timestamp() - time.time()
        except (ValueError, OverflowError):
            return None
    # Not a number fails both comparisons.
    return min(seconds, LONGEST_WAIT) if seconds > 0 else None


class _ServerError(NamedTuple):
    """What a server says of a failure, as far as it does."""

    message: str
    code: str | None = None
    param: str | None = None


def _error_of(text: bytes) -> _ServerError:
    """OpenAI's error object, or else the text itself."""
    said = text.decode(errors="replace")
    try:
        error = json.loads(said)["error"]
        if isinstance(error, str):
            return _ServerError(_line(error))
        # Some give the status again as the code, which is no name, and some the name as the type.
        names = [error.get(name) for name in ("code", "param", "type")]
        code, param, kind = [name if isinstance(name, str) and name else None for name in names]
        code = _NO_QUOTA if kind == _NO_QUOTA else code
        return _ServerError(_line(str(error["message"])), code, param)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return _ServerError(_line(said))


def _line(text: str) -> str:
    line = " ".join(text.split())
    return (line if len(line) <= _MAX_REASON else f"{line[:_MAX_REASON]} ...") or "nothing said"
