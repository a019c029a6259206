"""Tool calls as the fake node's own parser reads them."""

from hypothesis import given
from hypothesis import strategies as st

from tests.resume.test_raw_answer import call, keys, names, read, words
from workers.fake.toolcalls import ToolReader, parameter_types

TOOLS = [{"function": {"name": name}} for name in ("weather", "clock")]


@given(calls=st.lists(st.tuples(names, st.dictionaries(keys, words, max_size=3)), min_size=1, max_size=3))
def test_as_the_fake_node_reads(calls: list[tuple[str, dict[str, str]]]) -> None:
    text = "Let me look.\n" + "\n".join(call(name, *known.items()) for name, known in calls)
    node = ToolReader(parameter_types([tool["function"] for tool in TOOLS]))
    node.feed(text, last=True)
    assert read({"tools": TOOLS}, text)[1] == [(known["name"], known["arguments"]) for known in node.calls]
