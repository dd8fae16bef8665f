"""Chat templates: the shipped one against llama.cpp, and hostile ones against the clock."""

from pathlib import Path

import gguf
import pytest
from kernels.conftest import ReferenceCase

from odsi_proto.errors import ModelError
from odsi_proto.kernels.chat import TEMPLATE_CHARS_MAX, Message, render_chat
from odsi_proto.kernels.gguf import GgufFile
from odsi_proto.kernels.tokenizer import TextTokenizer


def render(path: Path, tokenizer: TextTokenizer, template: str | None) -> str:
    """What ``template`` makes of a short conversation."""
    writer = gguf.GGUFWriter(path / "t.gguf", "llama")
    if template is not None:
        writer.add_chat_template(template)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    with GgufFile(path / "t.gguf") as file:
        return render_chat(file, tokenizer, [Message("user", "Hello <b>\n")])


def test_prompts_are_rendered_as_llama_cpp_renders_them(
    shipped: GgufFile, tokenizer: TextTokenizer, reference: ReferenceCase
) -> None:
    rendered = (
        render_chat(shipped, tokenizer, [Message("user", reference.prompt)]) if reference.chat else None
    )
    assert rendered in (None, reference.rendered)


HONEST = {
    "{{ messages[0].role }}: {{ messages[0]['content'] }}": "user: Hello <b>\n",
    "{{ bos_token }}{{ eos_token }}": "<|im_start|><|im_end|>",
    "{% if add_generation_prompt %}\nyes\n{% endif %}\n": "yes\n",
    "{{ messages | tojson }}": '[{"role": "user", "content": "Hello <b>\\n"}]',
    "{% for i in range(9) %}{% if i > 2 %}{% break %}{% endif %}{{ i }}{% endfor %}": "012",
    "{{ undefined_name }}": "",
    "{% set ns = namespace(n=1) %}{% set ns.n = 2 %}{{ ns.n }}": "2",
}


@pytest.mark.parametrize(("template", "text"), HONEST.items(), ids=range(len(HONEST)))
def test_what_templates_in_use_need_is_there(
    tmp_path: Path, tokenizer: TextTokenizer, template: str, text: str
) -> None:
    assert render(tmp_path, tokenizer, template) == text


HOSTILE = {
    "a loop in a loop in a loop": (
        "{% for a in range(99999) %}{% for b in range(99999) %}{% for c in range(99999) %}"
        "{% endfor %}{% endfor %}{% endfor %}",
        "used more than 2 s of processor time",
    ),
    "padding of a gigabyte": ("{{ 'x'|center(10**9) }}", "needs more than 512 MiB"),
    "a product of a gigabyte": ("{{ 'x' * 10**9 }}", "needs more than 512 MiB"),
    "a power tower": ("{{ 9**(9**(9**9)) }}", "used more than 2 s of processor time"),
    "more text than allowed": (
        "{% for i in range(99999) %}{{ 'x' * 1000 }}{% endfor %}",
        "its output has more than 4194304 characters",
    ),
    "a large range": ("{% for i in range(10**9) %}{% endfor %}", "Range too big"),
    "the way out by attributes": ("{{ ''.__class__.__mro__[1].__subclasses__() }}", "is unsafe"),
    "the way out by format": ("{{ '{0.__class__.__mro__}'.format(1) }}", "is unsafe"),
    "the way out by globals": ("{{ cycler.__init__.__globals__.os.system('true') }}", "is unsafe"),
    "a changed list": ("{{ messages.append(1) }}", "'append' of 'list' object is unsafe"),
    "a file": ("{% include '/etc/passwd' %}", "no loader for this environment"),
    "a missing end": ("line one\n{% for x in y %}", "line 2: Unexpected end of template"),
    "a division by zero": ("{{ 1 / 0 }}", "ZeroDivisionError: division by zero"),
    "a wrong type": ("{{ 'a' + 1 }}", "TypeError: can only concatenate str"),
    "its own refusal": (
        "{{ raise_exception('no\x1b[31m\nsystem role') }}",
        "failed: no [31m system role; --raw",
    ),
    "nesting": ("{{ " + "(" * 5_000 + "1" + ")" * 5_000 + " }}", "RecursionError: "),
    "its own length": ("x" * (TEMPLATE_CHARS_MAX + 1), "has 262145 characters, expected at most 262144"),
    "nothing": (None, "has no chat template; use --raw"),
}


@pytest.mark.parametrize(("template", "message"), HOSTILE.values(), ids=HOSTILE.keys())
def test_a_hostile_template_is_one_line_that_names_the_file(
    tmp_path: Path, tokenizer: TextTokenizer, template: str | None, message: str
) -> None:
    with pytest.raises(ModelError) as caught:
        render(tmp_path, tokenizer, template)
    text = str(caught.value)
    assert text.startswith(f"{tmp_path / 't.gguf'}: ")
    assert message in text
    assert text.isprintable()
    assert len(text) < len(str(tmp_path)) + 320
