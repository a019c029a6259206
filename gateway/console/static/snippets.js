// What was just done in the playground, as lines to copy. The key is never in them.

const quoted = (text) => `'${text.replaceAll("'", "'\\''")}'`;

export function snippets(base, body) {
  const json = JSON.stringify(body);
  const pretty = JSON.stringify(body, null, 2);
  const { model, messages, stream, stream_options, max_tokens, temperature, ...extra } = body;
  const known = { model, messages, max_tokens, temperature };
  const python = Object.entries(known).filter(([, value]) => value !== undefined).map(([name, value]) => `    ${name}=${py(value)},`).join("\n");
  return {
    curl: `curl -N ${base}/v1/chat/completions \\\n  -H "Authorization: Bearer $FLEETGATE_KEY" \\\n  -H 'Content-Type: application/json' \\\n  -d ${quoted(json)}`,
    Python: `import os\n\nfrom openai import OpenAI\n\nclient = OpenAI(base_url=${py(`${base}/v1`)}, api_key=os.environ["FLEETGATE_KEY"])\nstream = client.chat.completions.create(\n${python}\n    stream=True,\n    stream_options={"include_usage": True},\n    extra_body=${py(extra)},\n)\nfor chunk in stream:\n    for choice in chunk.choices:\n        thinking = getattr(choice.delta, "reasoning", None)\n        print(thinking or choice.delta.content or "", end="", flush=True)`,
    TypeScript: `import OpenAI from "openai";\n\nconst client = new OpenAI({ baseURL: ${JSON.stringify(`${base}/v1`)}, apiKey: process.env.FLEETGATE_KEY });\nconst stream = await client.chat.completions.create(${pretty} as OpenAI.ChatCompletionCreateParamsStreaming);\nfor await (const chunk of stream) {\n  const delta = chunk.choices[0]?.delta as { content?: string; reasoning?: string } | undefined;\n  process.stdout.write(delta?.reasoning ?? delta?.content ?? "");\n}`,
  };
}

// A value as Python writes it. JSON's strings are Python's, but for lone surrogates and the words below.
function py(value) {
  if (value === true) return "True";
  if (value === false) return "False";
  if (value === null || value === undefined) return "None";
  if (Array.isArray(value)) return `[${value.map(py).join(", ")}]`;
  if (typeof value === "object") return `{${Object.entries(value).map(([name, each]) => `${JSON.stringify(name)}: ${py(each)}`).join(", ")}}`;
  return JSON.stringify(value);
}
