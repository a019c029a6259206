// Vercel's AI SDK: chat through openai-compatible, messages through anthropic, or responses through openai, which sends
// references to stored items in its tool loop. Reports as tests/clients/proof.py does.

import assert from "node:assert/strict";
import { appendFileSync, readFileSync } from "node:fs";

import { createAnthropic } from "@ai-sdk/anthropic";
import { createOpenAI } from "@ai-sdk/openai";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { generateText, jsonSchema, stepCountIs, streamText, tool } from "ai";

const { FLEETGATE_URL: URL, FLEETGATE_KEY: KEY, FLEETGATE_MODEL: MODEL, FLEETGATE_RESULTS: RESULTS } = process.env;
const QUESTION = "What is the capital of France? Tell me about it.";
const MESSAGES = process.argv[2] === "messages";
const RESPONSES = process.argv[2] === "responses";

function modelOf(key) {
  if (MESSAGES) return createAnthropic({ baseURL: `${URL}/v1`, apiKey: key })(MODEL);
  if (RESPONSES) return createOpenAI({ baseURL: `${URL}/v1`, apiKey: key })(MODEL);
  const provider = createOpenAICompatible({ name: "fleetgate", baseURL: `${URL}/v1`, apiKey: key, includeUsage: true });
  return provider(MODEL);
}

const model = modelOf(KEY);
const asked = { model, maxOutputTokens: 200, maxRetries: 0 };

async function plain() {
  const answer = await generateText({ ...asked, prompt: QUESTION });
  console.log(answer.reasoningText, answer.text, answer.usage);
  assert(RESPONSES || answer.reasoningText); // of responses this client reads OpenAI's summaries alone
  assert(answer.usage.outputTokens > 0);
}

async function streaming() {
  const kinds = [];
  const result = streamText({ ...asked, prompt: QUESTION });
  for await (const part of result.fullStream) kinds.push(part.type);
  assert(kinds.filter((kind) => kind === (RESPONSES ? "text-delta" : "reasoning-delta")).length > 1);
  assert.equal(kinds.at(-1), "finish");
  assert((await result.usage).outputTokens > 0);
}

async function tools() {
  const city = { type: "string", enum: ["Paris", "Rome"] };
  const inputSchema = jsonSchema({ type: "object", properties: { city }, required: ["city"], additionalProperties: false });
  const execute = async (input) => `Sunny in ${input.city}`;
  const weather = tool({ strict: true, description: "Get the weather of a city.", inputSchema, execute });
  const off = MESSAGES ? { anthropic: { thinking: { type: "disabled" } } } : { fleetgate: { reasoningEffort: "none" } };
  const once = ({ stepNumber }) => ({ toolChoice: stepNumber === 0 ? "required" : "none" });
  const answer = await generateText({
    ...asked,
    prompt: "What is the weather in Paris?",
    tools: { get_weather: weather },
    providerOptions: off,
    prepareStep: once,
    stopWhen: stepCountIs(2),
  });
  assert.equal(answer.steps[0].toolCalls[0].toolName, "get_weather");
  assert.match(answer.steps[0].toolResults[0].output, /^Sunny in/);
  assert.equal(answer.steps.length, 2);
  if (!RESPONSES) return;
  // It thought, within the gateway's budget, and the second step named the thought instead of sending it.
  assert(answer.steps[1].request.body.input.some((item) => item.type === "item_reference"));
  const inputs = [];
  const { responseId } = answer.steps[1].providerMetadata.openai;
  for (const previousResponseId of [undefined, responseId]) {
    const next = { ...asked, prompt: "And then?", providerOptions: { openai: { previousResponseId } } };
    inputs.push((await generateText(next)).usage.inputTokens);
  }
  assert(inputs[1] > inputs[0]);
}

async function wrong_key() {
  const stranger = modelOf("fg-this-key-is-nobodys");
  await assert.rejects(
    () => generateText({ model: stranger, prompt: QUESTION, maxRetries: 0 }),
    (error) => error.statusCode === 401 && error.isRetryable === false,
  );
}

function report(facts) {
  const line = JSON.stringify(facts);
  if (RESULTS) appendFileSync(RESULTS, `${line}\n`);
  else console.log(line);
}

const name = MESSAGES ? "@ai-sdk/anthropic" : RESPONSES ? "@ai-sdk/openai" : "@ai-sdk/openai-compatible";
const installed = JSON.parse(readFileSync(new globalThis.URL(`node_modules/${name}/package.json`, import.meta.url)));
const reasoning = RESPONSES ? "dropped by the client: it reads summaries alone" : "`reasoningText`, parts `reasoning-delta`";
report({ part: "client", package: name, version: installed.version, reasoning });
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
