"""The parser of the whole command line, as documentation is generated from it."""

import argparse
import subprocess
import sys

from sam_edge.cli import build_parser

OPTIONAL = [
    "torch", "onnx", "onnxruntime", "openvino", "coremltools", "PIL", "scipy", "matplotlib", "pycocotools",
    "requests", "safetensors", "starlette", "uvicorn", "tokenizers",
]  # fmt: skip


def commands(parser):
    (found,) = (a for a in parser._actions if isinstance(a, argparse._SubParsersAction))
    return found.choices


def test_every_argument_of_every_command_has_a_help_line():
    found = commands(build_parser())
    assert len(found) == 11
    for name, command in found.items():
        assert command.description.endswith("."), name
        assert len(command._actions) > 1, name
        for action in command._actions:
            assert action.help, (name, action.dest)
        command.format_help()


def test_only_the_commands_asked_for_get_their_options():
    found = commands(build_parser(["info"]))
    assert len(found) == 11 and "--json" in found["info"].format_help()
    assert "--json" not in found["predict"].format_help()


def test_all_commands_but_export_need_no_optional_package_for_their_parsers():
    code = f"""
import sys; sys.modules.update(dict.fromkeys({OPTIONAL!r}))
from sam_edge.cli import _COMMANDS, build_parser
build_parser(set(_COMMANDS) - {{"export"}})
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
