"""``odsi generate``: which options go together, and what a run in one process prints."""

import io
from pathlib import Path

import pytest
from cli.programs import Here, Outcome
from docs.json_page import documented

PEER = "a" * 51 + "q@127.0.0.1:4433"
STAGE_FIELDS = documented("result", after="A stage")


class Standard(io.TextIOWrapper):
    """A standard input with the given bytes."""

    def __init__(self, data: bytes) -> None:
        super().__init__(io.BytesIO(data), encoding="utf-8")


def locally(odsi: Here, model: Path, *arguments: str) -> Outcome:
    return odsi("generate", "--local", "--model", model, "--json", "--max-tokens=8", *arguments)


def test_a_local_run_ends_with_the_documented_result(odsi: Here, tiny: Path) -> None:
    outcome = locally(odsi, tiny, "--prompt=hello", "--raw", "--stages=3")

    result = outcome.events[-1]
    assert outcome.code == 0
    assert outcome.err == ""
    assert result["event"] == "result"
    assert set(result) == documented("result") - {"single_process"} | {"event"}
    assert [set(stage) for stage in result["stages"]] == [STAGE_FIELDS] * 3
    assert [stage["layers"] for stage in result["stages"]] == ["0-1", "1-2", "2-3"]
    assert set(result["client"]) == documented("result", after="The client")
    whole = result["token"]["mean_us"] - result["unaccounted"]["mean_us"]
    parts = [part["mean_us"] for one in (result["client"],) for part in one["parts"].values()]
    parts += [stage["total_us"] for stage in result["stages"]]
    assert whole == pytest.approx(sum(parts), abs=len(parts) + 2)  # each is rounded


def test_every_token_is_an_event_before_the_result(odsi: Here, tiny: Path) -> None:
    *tokens, result = locally(odsi, tiny, "--prompt=hello", "--raw").events

    assert [token["event"] for token in tokens] == ["token"] * len(tokens)
    assert [token["token_id"] for token in tokens] == result["token_ids"]
    assert [token["position"] for token in tokens] == [
        result["prompt_positions"] + index for index in range(len(tokens))
    ]


def test_people_get_the_text_on_standard_output_and_the_rest_beside_it(odsi: Here, tiny: Path) -> None:
    text = locally(odsi, tiny, "--prompt=hello", "--raw").events[-1]["text"]

    outcome = odsi("generate", "--local", "--model", tiny, "--max-tokens=8", "--raw", "--prompt=hello")

    assert outcome.out.removesuffix("\n") == text.removesuffix("\n")
    assert "tokens/s" in outcome.err


def test_cuts_do_not_change_tokens_in_the_exact_profile(odsi: Here, tiny: Path) -> None:
    uncut = locally(odsi, tiny, "--prompt=hello", "--raw", "--profile=exact").events[-1]
    cut = locally(odsi, tiny, "--prompt=hello", "--raw", "--profile=exact", "--cuts=1,2").events[-1]

    assert uncut["token_ids"] == cut["token_ids"]


def test_chat_is_the_default_and_adds_the_template(odsi: Here, tiny: Path) -> None:
    chat = locally(odsi, tiny, "--prompt=hello").events[-1]
    raw = locally(odsi, tiny, "--prompt=hello", "--raw").events[-1]

    assert chat["prompt_positions"] > raw["prompt_positions"]


def test_the_same_seed_gives_the_same_tokens(odsi: Here, tiny: Path) -> None:
    arguments = ("--prompt=hello", "--raw", "--temperature=2", "--top-p=0.95")
    drawn = locally(odsi, tiny, *arguments).events[-1]
    again = locally(odsi, tiny, *arguments, f"--seed={drawn['seed']}").events[-1]

    assert drawn["token_ids"] == again["token_ids"]


def test_greedy_has_no_seed(odsi: Here, tiny: Path) -> None:
    assert locally(odsi, tiny, "--prompt=hello", "--raw", "--greedy").events[-1]["seed"] is None


def test_standard_input_is_a_prompt_without_its_last_line_feed(
    odsi: Here, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = locally(odsi, tiny, "--prompt=hello\nhello", "--raw").events[-1]
    monkeypatch.setattr("sys.stdin", Standard(b"hello\nhello\n"))

    assert (
        locally(odsi, tiny, "--prompt=-", "--raw").events[-1]["prompt_positions"]
        == expected["prompt_positions"]
    )


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "the prompt is empty"),
        (b"\n", "the prompt is empty"),
        (b"\xff", "the prompt on standard input is not UTF-8: invalid start byte"),
        (b"x" * ((1 << 20) + 1), "the prompt on standard input is longer than 1048576 bytes"),
    ],
)
def test_a_bad_prompt_on_standard_input_is_refused(
    odsi: Here, monkeypatch: pytest.MonkeyPatch, data: bytes, reason: str
) -> None:
    monkeypatch.setattr("sys.stdin", Standard(data))

    outcome = odsi("generate", "--local", "--prompt=-")

    assert (outcome.code, outcome.message) == (2, reason)


@pytest.mark.parametrize("prompt", ["", "  ", "\n"])
def test_an_empty_prompt_is_refused(odsi: Here, prompt: str) -> None:
    outcome = odsi("generate", "--local", f"--prompt={prompt}")

    assert (outcome.code, outcome.message) == (2, "the prompt is empty")


def test_an_argument_in_another_encoding_is_refused(odsi: Here) -> None:
    outcome = odsi("generate", "--local", "--prompt=caf\udce9")

    assert (outcome.code, outcome.message) == (2, "the prompt is not UTF-8")


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ([], "where to run is missing: give --path, --peer or --local"),
        (["--local", f"--peer={PEER}"], "--peer excludes --local"),
        ([f"--path={PEER}[0-10]", f"--peer={PEER}"], "--path excludes --peer"),
        ([f"--peer={PEER}", "--stages=2"], "--stages and --cuts need --local"),
        (["--local", "--stages=2", "--cuts=10"], "--stages excludes --cuts"),
        (["--local", "--identity=x.json"], "--local excludes --identity"),
        (["--local", "--greedy", "--seed=1"], "--greedy excludes --temperature, --top-p and --seed"),
        (["--local", "--greedy", "--top-p=0.5"], "--greedy excludes --temperature, --top-p and --seed"),
        (["--local", "--cuts=20,10"], "'20,10' is not a list of cuts"),
        (["--local", "--cuts=0,10"], "'0,10' is not a list of cuts"),
        (["--local", "--cuts=ten"], "'ten' is not a list of cuts"),
        (["--local", "--max-tokens=0"], "'--max-tokens'"),
        (["--local", "--temperature=-1"], "'--temperature'"),
        (["--local", "--top-p=0"], "'--top-p'"),
        (["--local", "--profile=f8"], "'--profile'"),
        (["--local", "--total-ms=1000"], "--local excludes --first-token-ms"),
        (["--local", "--late=reroute"], "--local excludes --first-token-ms"),
        ([f"--peer={PEER}", "--per-token-ms=0"], "'--per-token-ms'"),
        ([f"--peer={PEER}", "--late=never"], "'--late'"),
        ([f"--path={PEER},{PEER}[0-10"], "is not a peer"),
        (["--peer=here"], "'here' is not a peer: expected ID@HOST:PORT"),
        (["--peer=abc@127.0.0.1:4433"], "'abc' is not a participant id"),
    ],
)
def test_options_that_make_no_sense_are_usage_errors(odsi: Here, arguments: list[str], reason: str) -> None:
    outcome = odsi("generate", "--prompt=hello", *arguments)

    assert outcome.code == 2
    assert reason in outcome.message
    assert outcome.message.endswith("(see `odsi generate --help`)")


def test_a_prompt_is_required(odsi: Here) -> None:
    assert "Missing option '--prompt'" in odsi("generate", "--local").message


def test_a_prompt_longer_than_the_context_names_both_numbers(odsi: Here, tiny: Path) -> None:
    outcome = odsi("generate", "--local", "--model", tiny, "--raw", f"--prompt={'x' * 65}")

    assert outcome.code == 2
    assert outcome.message == "the prompt has 65 tokens, the model's context is 64"


def test_a_cut_beyond_the_model_is_refused(odsi: Here, tiny: Path) -> None:
    outcome = odsi("generate", "--local", "--model", tiny, "--prompt=x", "--cuts=1,3")

    assert (outcome.code, outcome.message) == (2, "a cut at layer 3: the model has layers 0-3")


def test_more_stages_than_layers_are_refused(odsi: Here, tiny: Path) -> None:
    outcome = odsi("generate", "--local", "--model", tiny, "--prompt=x", "--stages=4")

    assert (outcome.code, outcome.message) == (2, "3 layers can not be cut into 4 stages")


def test_a_missing_model_is_named(odsi: Here, tmp_path: Path) -> None:
    outcome = odsi("generate", "--local", "--model", tmp_path / "none.gguf", "--prompt=x")

    assert (outcome.code, outcome.message) == (4, f"{tmp_path}/none.gguf: no such file")
