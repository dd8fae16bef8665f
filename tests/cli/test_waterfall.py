"""The page of a request: what is in it, what gets nowhere, and how much it can hold."""

import base64
import hashlib
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from cli.programs import Here
from node.timelines import Generation

from odsi_proto.cli.waterfall import PIECE_CHARS_MAX, Request, waterfall
from odsi_proto.node.result import GenerationResult

HOSTILE = "</script><img src=x onerror=alert(1)>{{script}}\x00\u202e\ud800&amp;"


def page(of: GenerationResult | None = None, **changes: Any) -> str:
    fields: dict[str, Any] = {"model": "tiny.gguf", "profile": "f16", "prompt": "Hello", "pieces": ["a", "b"]}
    return waterfall(of or generated(3), Request(**(fields | changes)))


def generated(tokens: int, *, stages: int = 3) -> GenerationResult:
    generation = Generation(stages, prompt=4, budgets=(1_000_000, 30_000))
    generation.first()
    for number in range(tokens - 1):
        generation.token(5_000 + number % 7, remaining_us=number % 5)
    return generation.result()


class Page(HTMLParser):
    """Tags, and the text of the places that have ids or matter."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.data = ""
        self.scripts: list[str] = []
        self.cells: list[list[str]] = []
        self._inside = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._inside = tag
        if tag == "tr":
            self.cells.append([])
        if tag in ("td", "th"):
            self.cells[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside == "script" and self.tags[-1][1].get("id") == "data":
            self.data = data
        elif self._inside == "script":
            self.scripts.append(data)
        elif self._inside in ("td", "th"):
            self.cells[-1][-1] += data.strip()


def content(text: str) -> dict[str, Any]:
    read: dict[str, Any] = json.loads(Page(text).data)
    return read


def test_the_page_needs_nothing_beside_it() -> None:
    parsed = Page(page())

    assert not {"link", "img", "iframe", "object", "embed", "base"} & {tag for tag, _ in parsed.tags}
    assert not [attrs for _, attrs in parsed.tags if {"src", "srcset", "onclick", "onload"} & set(attrs)]
    assert not re.search(r"url\(|@import|https?://(?!www\.w3\.org)", page())


def test_the_policy_allows_the_one_script_and_no_other() -> None:
    parsed = Page(page())
    (policy,) = (attrs["content"] for tag, attrs in parsed.tags if attrs.get("http-equiv"))
    (script,) = parsed.scripts

    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert policy == f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"


def test_every_step_is_in_the_page_with_its_hops() -> None:
    result = generated(4)

    read = content(page(result))

    assert [stage["layers"] for stage in read["stages"]] == ["0-10", "10-20", "20-30"]
    assert (read["budgets"], read["prompt_positions"]) == ([1_000_000, 30_000], 4)
    assert len(read["steps"]) == 4
    for step, row in zip(result.steps, read["steps"], strict=True):
        assert row[:5] == [step.position, step.positions, step.begun_us, step.embed_us, step.send_us]
        assert row[6] == step.arrived_us
        assert row[9] == step.done_us
        assert [hop[2] for hop in row[10]] == [hop.compute_us for hop in step.hops if hop is not None]


def test_the_columns_of_the_script_are_those_of_the_data() -> None:
    script = Page(page()).scripts[0]
    columns = re.search(r"const \[(POSITION.*?)\] = Array\((\d+)\)", script)

    assert columns is not None
    assert len(columns[1].split(", ")) == int(columns[2]) == len(content(page())["steps"][0])


def test_the_sums_are_there_without_the_script() -> None:
    rows = Page(page()).cells

    assert rows[0][:4] == ["stage", "part", "transfer", "queue"]
    assert [row[1] for row in rows[1:5]] == ["embed", "send", "0-10", "10-20"]
    assert rows[-1][0] == "token"
    assert "The clocks of the stages are not synchronised" in page()


@pytest.mark.parametrize("place", ["model", "profile", "prompt"])
def test_hostile_words_stay_words(place: str) -> None:
    text = page(**{place: HOSTILE})

    assert [tag for tag, _ in Page(text).tags] == [tag for tag, _ in Page(page()).tags]
    assert Page(text).scripts == Page(page()).scripts
    assert "&lt;/script&gt;&lt;img" in text
    assert not set(text) & set("\x00\u202e\ud800")


def test_hostile_tokens_stay_tokens() -> None:
    text = page(pieces=[HOSTILE, "x" * 1_000])

    assert [tag for tag, _ in Page(text).tags] == [tag for tag, _ in Page(page()).tags]
    first, second = content(text)["pieces"]
    assert first.startswith("</script><img src=x onerror=alert(1)>{{script}}")
    assert len(second) == PIECE_CHARS_MAX


def test_a_full_context_of_tokens_is_one_page_of_a_few_megabytes() -> None:
    tokens = 5_000
    text = page(generated(tokens), pieces=["token"] * tokens)

    assert len(content(text)["steps"]) == tokens
    assert len(text) < 2_000_000


def test_after_a_reroute_the_rows_have_the_tokens_of_the_last_path() -> None:
    generation = Generation(2, prompt=4)
    generation.first()
    generation.reroute()
    generation.send(5)
    generation.arrive(0, 30_000)
    generation.sample(1)
    generation.token(7_000)

    text = page(generation.result(reroutes=1), pieces=["a", "b", "c"])

    read = content(text)
    assert (read["prompt_positions"], read["pieces"], len(read["steps"])) == (5, ["b", "c"], 2)
    assert "1; drawn is what the last path did" in text


def test_one_token_alone_makes_a_page() -> None:
    assert len(content(page(generated(1)))["steps"]) == 1


@pytest.mark.parametrize("command", ["demo", "generate"])
def test_a_page_that_can_not_be_written_is_said_before_the_work(
    command: str, odsi: Here, tmp_path: Path
) -> None:
    nowhere = tmp_path / "missing" / "page.html"
    where = ("--path", f"{'a' * 51}q@127.0.0.1:1[0-3]", "--prompt=x") if command == "generate" else ()

    outcome = odsi(command, "--waterfall", nowhere, *where)

    assert outcome.code == 2
    assert outcome.message == f"can not write {nowhere}: there is no directory {nowhere.parent}"


def test_a_run_in_one_process_has_no_waterfall(odsi: Here, tmp_path: Path) -> None:
    outcome = odsi("generate", "--local", "--prompt=x", "--waterfall", tmp_path / "page.html")

    assert outcome.code == 2
    assert "--local excludes --waterfall" in outcome.message
