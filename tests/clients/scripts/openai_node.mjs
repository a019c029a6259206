// OpenAI's package for Node: chat completions and responses. Reports as tests/clients/proof.py does.

import assert from "node:assert/strict";
import { appendFileSync, readFileSync } from "node:fs";

import OpenAI from "openai";

const { FLEETGATE_URL: URL, FLEETGATE_KEY: KEY, FLEETGATE_MODEL: MODEL, FLEETGATE_RESULTS: RESULTS } = process.env;
const QUESTION = "What is the capital of France? Tell me about it.";
const CITY = {
  type: "object",
  properties: { city: { type: "string", enum: ["Paris", "Rome"] } },
  required: ["city"],
  additionalProperties: false,
};
const WEATHER = { name: "get_weather", description: "Get the weather of a city.", parameters: CITY, strict: true };
const BRIEF = { model: MODEL, input: QUESTION, max_output_tokens: 60, temperature: 0 };

const client = new OpenAI({ baseURL: `${URL}/v1`, apiKey: KEY });

async function plain() {
  const messages = [{ role: "user", content: QUESTION }];
  const asked = { model: MODEL, messages, max_tokens: 200, temperature: 0, thinking_token_budget: 32 };
  const answer = await client.chat.completions.create(asked);
  console.log(answer.choices[0].message.reasoning, answer.choices[0].message.content, answer.usage);
  assert(answer.choices[0].message.reasoning);
  assert(answer.choices[0].message.content);
  assert(answer.usage.completion_tokens_details.reasoning_tokens > 0);
  assert(answer._request_id);
  const response = await client.responses.create(BRIEF);
  assert.equal(response.output[0].type, "reasoning");
}

async function streaming() {
  const messages = [{ role: "user", content: QUESTION }];
  const asked = { model: MODEL, messages, max_tokens: 200, temperature: 0, thinking_token_budget: 32 };
  Object.assign(asked, { stream: true, stream_options: { include_usage: true } });
  const stream = await client.chat.completions.create(asked);
  const chunks = [];
  for await (const chunk of stream) chunks.push(chunk);
  const deltas = chunks.flatMap((chunk) => chunk.choices.map((choice) => choice.delta));
  assert(deltas.filter((delta) => delta.reasoning).length > 1);
  assert(deltas.filter((delta) => delta.content).length > 1);
  assert(chunks.at(-1).usage.completion_tokens > 0);
  const kinds = [];
  const events = await client.responses.create({ ...BRIEF, stream: true });
  for await (const event of events) kinds.push(event.type);
  assert.equal(kinds[0], "response.created");
  assert.equal(kinds.at(-1), "response.completed");
}

async function tools() {
  const messages = [{ role: "user", content: "What is the weather in Paris?" }];
  const asked = { model: MODEL, max_tokens: 100, temperature: 0, tools: [{ type: "function", function: WEATHER }] };
  Object.assign(asked, { chat_template_kwargs: { enable_thinking: false }, min_tokens: 8 });
  const forced = await client.chat.completions.create({ ...asked, messages, tool_choice: "required" });
  const called = forced.choices[0].message;
  const call = called.tool_calls[0];
  assert.equal(call.function.name, "get_weather");
  const helper = client.chat.completions.stream({ ...asked, messages, tool_choice: "required" });
  const streamed = (await helper.finalChatCompletion()).choices[0].message.tool_calls[0];
  assert.equal(streamed.function.arguments, call.function.arguments);
  const result = `Sunny in ${JSON.parse(call.function.arguments).city}`;
  messages.push(called, { role: "tool", tool_call_id: call.id, content: result });
  const final = await client.chat.completions.create({ ...asked, messages, tool_choice: "none" });
  assert(final.choices[0].message.content);
}

async function wrong_key() {
  const stranger = new OpenAI({ baseURL: `${URL}/v1`, apiKey: "fg-this-key-is-nobodys" });
  await assert.rejects(
    () => stranger.models.list(),
    (error) => error instanceof OpenAI.AuthenticationError && error.code === "invalid_api_key",
  );
}

function report(facts) {
  const line = JSON.stringify(facts);
  if (RESULTS) appendFileSync(RESULTS, `${line}\n`);
  else console.log(line);
}

const installed = JSON.parse(readFileSync(new globalThis.URL("node_modules/openai/package.json", import.meta.url)));
report({ part: "client", package: "openai (npm)", version: installed.version, reasoning: "`message.reasoning`" });
for (const part of [plain, streaming, tools, wrong_key]) {
  try {
    await part();
    report({ part: part.name, result: "ok", why: "" });
  } catch (error) {
    console.error(error);
    report({ part: part.name, result: "failed", why: String(error).slice(0, 300) });
    process.exitCode = 1;
  }
}
