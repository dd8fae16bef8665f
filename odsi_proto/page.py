"""A page of HTML that needs nothing beside it, made of hostile text: one file, one script, no network.

Whatever peers, models and prompts say enters it as escaped HTML, or as JSON whose ``<``, ``>`` and ``&``
are escaped and which the script shows as text only. A content security policy allows no other script than
the page's own, by its digest.
"""

import base64
import hashlib
import html
import json
import re

_HEAD = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; \
script-src 'sha256-{{script_digest}}'">
<meta name="color-scheme" content="light dark">
<title>{{title}}</title>
<style>
{{style}}
</style>
</head>
"""

_PLACE = re.compile(r"\{\{(\w+)\}\}")

_UNFIT = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
"""Control characters, marks of direction and halves of surrogate pairs."""


def page(body: str, *, title: str, style: str, script: str, data: object, **parts: str) -> str:
    """The whole file. ``body`` has places in double braces for the title, data, script and ``parts``.

    ``title`` is text; ``parts`` are HTML already; ``data`` is what the script reads as JSON.
    """
    content = json.dumps(data, separators=(",", ":"))
    places = {
        "title": shown(title),
        "style": style,
        "script": script,
        "script_digest": base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        "data": content.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e"),
        **parts,
    }
    # One pass, so that a name in braces inside the data is never taken for a place.
    return _PLACE.sub(lambda place: places[place[1]], _HEAD + body)


def shown(text: str) -> str:
    """Text as HTML that shows it."""
    return html.escape(clean(text))


def clean(text: str) -> str:
    """``text`` without what HTML can not hold or what turns the order of reading round."""
    return _UNFIT.sub("\N{REPLACEMENT CHARACTER}", text)
