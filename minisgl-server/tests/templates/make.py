"""Renders the templates in this folder with Python's Jinja, set up as Hugging Face's tools set it up, and
writes cases.json: what went in, and what came out. The templates use what those of well-known families use.

    pip install jinja2==3.1.6
    python make.py
"""

import json
from pathlib import Path

from jinja2 import TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment

HERE = Path(__file__).parent

TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "weather",
            "description": "How it is <outside>",
            "parameters": {
                "type": "object",
                "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
                "required": ["city"],
            },
        },
    },
    {
        "type": "function",
        "function": {"name": "time", "description": "", "parameters": {"type": "object", "properties": {}}},
    },
]
CALL = {
    "id": "call12345",
    "type": "function",
    "function": {"name": "weather", "arguments": {"city": "Zürich", "days": 2}},
}
MESSAGES = [
    {"role": "system", "content": " Be kind. "},
    {"role": "user", "content": "Weather?"},
    {"role": "assistant", "content": "", "tool_calls": [CALL], "reasoning_content": "look it up"},
    {"role": "tool", "content": '{"rain": true}', "tool_call_id": "call12345"},
    {"role": "assistant", "content": "<think>\nwet\n</think>\n\nIt rains."},
    {"role": "user", "content": "Thanks\r\n"},
]
DOCUMENTS = [{"title": "one", "text": "first 'text'"}, {"title": "two", "text": "second"}]
TWICE = [{**message, "tool_calls": [CALL, CALL]} if "tool_calls" in message else message for message in MESSAGES]
SHORT = {**CALL, "id": "c"}

CASES = [
    {"template": "turns", "tools": TOOLS},
    {"template": "turns", "messages": MESSAGES[:4]},
    {"template": "turns", "messages": TWICE, "variables": {"enable_thinking": False}},
    {"template": "built_in", "tools": TOOLS},
    {"template": "built_in", "variables": {"built_in": ["python", "weather", "search"]}},
    {"template": "built_in", "messages": TWICE},
    {"template": "alternating", "tools": TOOLS},
    {"template": "alternating"},
    {"template": "alternating", "messages": MESSAGES + MESSAGES[1:2]},
    {"template": "alternating", "messages": [{"role": "assistant", "content": "", "tool_calls": [SHORT]}]},
    {"template": "documents", "documents": DOCUMENTS},
    {"template": "documents"},
]


def raise_exception(message):
    raise TemplateError(message)


def tojson(value, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )


def main():
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
    )
    environment.filters["tojson"] = tojson
    environment.globals["raise_exception"] = raise_exception
    # Templates here look at its length only.
    environment.globals["strftime_now"] = lambda format: "01 Feb 2026"
    for case in CASES:
        case.setdefault("messages", MESSAGES)
        source = (HERE / f"{case['template']}.jinja").read_text()
        context = {
            "messages": case["messages"],
            "tools": case.get("tools"),
            "documents": case.get("documents"),
            "add_generation_prompt": True,
            "bos_token": "<s>",
            "eos_token": "</s>",
            **case.get("variables", {}),
        }
        try:
            case["expected"] = environment.from_string(source).render(**context)
        except TemplateError as error:
            case["raised"] = str(error)
    text = json.dumps(CASES, ensure_ascii=False, indent=1)
    (HERE / "cases.json").write_text(text + "\n")


if __name__ == "__main__":
    main()
