"""The chat page: one file, served under a policy that lets nothing else in.

The policy names the hashes of the page's own style and script, so that even text of a model that
found its way into the page as HTML could neither run nor fetch anything.
Reference: W3C Content Security Policy Level 3.
"""

import base64
import hashlib
import re
from pathlib import Path

from fastapi.responses import HTMLResponse

PAGE = Path(__file__).with_name("chat_page.html")


def chat_page() -> HTMLResponse:
    """The page with its headers; the same for every request."""
    text = PAGE.read_text(encoding="utf-8")
    policy = {
        "default-src": "'none'",
        "script-src": _hash_of("script", text),
        "style-src": _hash_of("style", text),
        "img-src": "data:",
        "connect-src": "'self'",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
    }
    headers = {
        "Content-Security-Policy": "; ".join(f"{name} {value}" for name, value in policy.items()),
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        "Cache-Control": "no-cache",
    }
    return HTMLResponse(text, headers=headers)


def _hash_of(tag: str, text: str) -> str:
    (content,) = re.findall(rf"<{tag}>(.*?)</{tag}>", text, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
    return f"'sha256-{digest}'"
