"""LangGraph: a graph of ChatOpenAI and a tool node."""

import openai
from langchain_openai import ChatOpenAI
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode, tools_condition

from tests.clients.proof import CALM, KEY, MODEL, QUESTION, URL, WEATHER, WEATHER_QUESTION, WRONG_KEY, prove
from tests.clients.proof import get_weather as weather_of


def get_weather(city: str) -> str:
    """Get the weather of a city."""
    return weather_of(city)


def graph_of(first, then):
    """A graph that asks `first`, runs what it calls, and asks `then` about the result."""

    def ask(state: MessagesState):
        llm = first if len(state["messages"]) == 1 else then
        return {"messages": [llm.invoke(state["messages"])]}

    graph = StateGraph(MessagesState)
    graph.add_node("ask", ask)
    graph.add_node("tools", ToolNode([get_weather]))
    graph.add_edge(START, "ask")
    graph.add_conditional_edges("ask", tools_condition)
    graph.add_edge("tools", "ask")
    return graph.compile()


def plain() -> None:
    """One node that answers."""
    llm = ChatOpenAI(base_url=f"{URL}/v1", api_key=KEY, model=MODEL, max_tokens=200, temperature=0)

    def answer(state: MessagesState):
        return {"messages": [llm.invoke(state["messages"], extra_body={"thinking_token_budget": 32})]}

    graph = StateGraph(MessagesState).add_node("answer", answer).add_edge(START, "answer").compile()
    result = graph.invoke({"messages": [("user", QUESTION)]})
    print(result["messages"][-1].content)
    assert result["messages"][-1].content
    assert result["messages"][-1].usage_metadata["output_tokens"] > 0


def streaming() -> None:
    """The tokens of a node's model come while it answers."""
    body = {"thinking_token_budget": 32}
    llm = ChatOpenAI(base_url=f"{URL}/v1", api_key=KEY, model=MODEL, max_tokens=200, temperature=0, extra_body=body)
    graph = graph_of(llm, llm)
    chunks = [chunk for chunk, _ in graph.stream({"messages": [("user", QUESTION)]}, stream_mode="messages")]
    assert sum(bool(chunk.content) for chunk in chunks) > 1


def tools() -> None:
    """Call, result, answer, by the graph's own loop."""
    llm = ChatOpenAI(base_url=f"{URL}/v1", api_key=KEY, model=MODEL, max_tokens=100, temperature=0, extra_body=CALM)
    tool = {"type": "function", "function": WEATHER}
    called = llm.bind_tools([tool], tool_choice="get_weather")
    result = graph_of(called, llm.bind_tools([tool], tool_choice="none")).invoke(
        {"messages": [("user", WEATHER_QUESTION)]}
    )
    kinds = [message.type for message in result["messages"]]
    assert kinds == ["human", "ai", "tool", "ai"], kinds
    assert result["messages"][2].tool_call_id == result["messages"][1].tool_calls[0]["id"]
    assert result["messages"][-1].content


def wrong_key() -> None:
    """OpenAI's error goes through the graph."""
    llm = ChatOpenAI(base_url=f"{URL}/v1", api_key=WRONG_KEY, model=MODEL)
    try:
        graph_of(llm, llm).invoke({"messages": [("user", QUESTION)]})
    except openai.AuthenticationError as error:
        assert error.code == "invalid_api_key"
    else:
        raise AssertionError("a wrong key was taken")


if __name__ == "__main__":
    where = "as in LangChain"
    prove("langgraph", reasoning=where, plain=plain, streaming=streaming, tools=tools, wrong_key=wrong_key)
