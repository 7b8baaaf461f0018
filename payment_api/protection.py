"""The headers that tell a browser what it may not do with an answer, whoever asked for it."""

import base64
import hashlib
import re

import flask

# Nothing of the API is to be run, embedded or kept.
NOTHING = "default-src 'none'; frame-ancestors 'none'"
HSTS = "max-age=31536000"
DOCS = "/docs"
_INLINE_SCRIPT = re.compile(r"<script>(.*?)</script>", re.DOTALL)


def protect(response: flask.Response) -> flask.Response:
    """Add the headers to any answer, errors included."""
    headers = response.headers
    headers["X-Content-Type-Options"] = "nosniff"
    headers["X-Frame-Options"] = "DENY"  # for browsers that do not know frame-ancestors
    headers["Referrer-Policy"] = "no-referrer"
    headers["Cross-Origin-Resource-Policy"] = "same-origin"
    is_page = flask.request.path == DOCS and response.mimetype == "text/html"
    headers["Content-Security-Policy"] = page_policy(response.get_data(as_text=True)) if is_page else NOTHING
    if "Cache-Control" not in headers:
        headers["Cache-Control"] = "no-store"
    # Over plain HTTP browsers ignore it. Whether it was HTTPS a trusted proxy says.
    if flask.request.is_secure:
        headers["Strict-Transport-Security"] = HSTS
    return response


def page_policy(page: str) -> str:
    """A policy for the documentation page: our own files and exactly the scripts that stand in it."""
    digests = [hashlib.sha256(each.encode()).digest() for each in _INLINE_SCRIPT.findall(page)]
    scripts = " ".join(f"'sha256-{base64.b64encode(each).decode()}'" for each in digests)
    return "; ".join(
        (
            "default-src 'none'",
            f"script-src 'self' {scripts}",
            "style-src 'self' 'unsafe-inline'",  # Swagger UI writes styles into its elements
            "img-src 'self' data:",
            "connect-src 'self'",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
        )
    )
