"""Members of a node's events by which thinking and the answer are told apart, without parsing.

They cannot stand in generated text, where quotes are escaped. All dialects of nodes:

    dialect       thinking                                 answer
    chat          reasoning, reasoning_content             content, tool_calls
    completions   -                                        text
    messages      thinking_delta                           text_delta, input_json_delta
    responses     response.reasoning_text.delta            response.output_text.delta, function_call_arguments.delta
"""

import re
from typing import Final

THINKING: Final = re.compile(
    rb'"reasoning(?:_content)?": ?"[^"]|"type": ?"thinking_delta"'
    rb'|"type": ?"response\.reasoning_(?:text|summary_text)\.delta"'
)
ANSWER: Final = re.compile(
    rb'"content": ?"[^"]|"text": ?"[^"]|"tool_calls": ?\[\{|"type": ?"(?:text_delta|input_json_delta)"'
    rb'|"type": ?"response\.(?:output_text|function_call_arguments)\.delta"'
)

_BLOCK: Final = re.compile(rb'"type": ?"(?:content_block_start|response\.output_item\.added)"')
_THINKING_BLOCK: Final = re.compile(rb'"type": ?"(?:thinking|redacted_thinking|reasoning)"')


def ends_in_thinking(events: bytes) -> bool | None:
    """Whether the last text of `events`, or what was begun behind it, is thinking; None where there is neither."""
    thinking = answer = -1
    for found in THINKING.finditer(events):
        thinking = found.start()
    for found in ANSWER.finditer(events):
        answer = found.start()
    for found in _BLOCK.finditer(events):
        if _THINKING_BLOCK.search(events, found.end()) is not None:
            thinking = max(thinking, found.start())
        else:
            answer = max(answer, found.start())
    return None if thinking == answer else thinking > answer
