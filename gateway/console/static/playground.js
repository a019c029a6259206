// The playground: one request, as any client sends it, with what came of it. The key is held in this page's memory only.

import { DASH, dollars, h, milliseconds, say, whole } from "./dom.js";
import { toast } from "./dialogs.js";
import { snippets } from "./snippets.js";
import { state } from "./live.js";

const BUDGETS = [0, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16_384, null];

function labelled(label, input, hint) {
  return h("label", { class: "field" }, h("span", {}, label), input, hint ?? null);
}

export class PlaygroundView {
  constructor() {
    this.key = h("input", { type: "password", autocomplete: "off", spellcheck: "false", placeholder: "fg-…", name: "tenant-key", "data-1p-ignore": "" });
    this.keyHint = h("small", {}, "A tenant's key. It stays in this page's memory.");
    this.model = h("select", { name: "model" });
    this.system = h("textarea", { rows: 2, name: "system", placeholder: "None" });
    this.prompt = h("textarea", { rows: 5, name: "prompt" });
    this.prompt.value = "Which is larger, 9.11 or 9.9? Explain in one sentence.";
    this.budget = h("input", { type: "range", min: 0, max: BUDGETS.length - 1, value: 5, step: 1, name: "budget", oninput: () => this.showBudget() });
    this.budgetWords = h("output", { class: "budget-words" });
    this.tokens = h("input", { type: "number", min: 1, max: 1_000_000, value: "2048", name: "max_tokens", inputmode: "numeric" });
    this.send = h("button", { class: "primary", type: "submit" }, "Send");
    this.stop = h("button", { class: "danger", type: "button", hidden: true, onclick: () => this.abort?.abort() }, "Stop");
    this.thinking = h("div", { class: "speech", tabindex: "0", role: "log", "aria-label": "Thinking" });
    this.answer = h("div", { class: "speech", tabindex: "0", role: "log", "aria-label": "Answer" });
    this.thinkingCount = h("span", { class: "count" });
    this.answerCount = h("span", { class: "count" });
    this.problem = h("p", { class: "problem", role: "alert" });
    this.facts = h("dl", { class: "inline" });
    this.headers = h("dl", { class: "mono" });
    this.code = h("pre", { tabindex: "0" });
    this.tabs = h("div", { class: "tabs", role: "tablist", "aria-label": "Lines of what was done" });
    this.lines = h("div", { hidden: true }, h("div", { class: "charts-head" }, h("h2", {}, "The same from your own code"), this.tabs), this.code);
    this.copy = h("button", { class: "quiet", type: "button", onclick: async () => { await navigator.clipboard?.writeText(this.code.textContent).catch(() => {}); toast("Copied."); } }, "Copy");
    const form = h("form", { class: "play-form card", onsubmit: (event) => { event.preventDefault(); this.ask(); } },
      labelled("Key", this.key, this.keyHint), labelled("Model", this.model), labelled("System", this.system), labelled("Prompt", this.prompt),
      labelled(h("span", { class: "spread" }, "Thinking budget", this.budgetWords), this.budget), labelled("Most tokens of the answer", this.tokens),
      h("div", { class: "buttons left" }, this.send, this.stop));
    this.prompt.addEventListener("keydown", (event) => { if (event.key === "Enter" && (event.metaKey || event.ctrlKey)) this.ask(); });
    this.element = h("section", {}, h("header", { class: "page" }, h("h1", {}, "Playground"), h("p", { class: "lead" }, "A request as any client sends it: limits, budgets and costs apply.")),
      h("div", { class: "play" }, form, h("div", { class: "play-out" },
        this.problem,
        h("div", { class: "card thought" }, h("h2", {}, "Thinking ", this.thinkingCount), this.thinking),
        h("div", { class: "card" }, h("h2", {}, "Answer ", this.answerCount), this.answer),
        h("div", { class: "card" }, h("h2", {}, "What was applied"), this.facts, this.headers))),
      this.lines);
    this.showBudget();
  }

  useKey(key) {
    this.key.value = key;
  }

  forget() {
    this.key.value = "";
    this.abort?.abort();
  }

  refresh() {
    const names = [...new Set([...state.models.keys(), ...(state.facts.aliases ?? [])])].sort();
    const mark = names.join("\n");
    if (mark !== this.known) {
      this.known = mark;
      const chosen = this.model.value;
      this.model.replaceChildren(...names.map((name) => h("option", { value: name }, name)));
      if (names.includes(chosen)) this.model.value = chosen;
    }
    if (state.facts.keys_needed === false) say(this.keyHint, "This gateway needs no key.");
  }

  showBudget() {
    const value = BUDGETS[this.budget.value];
    const words = value === null ? "no limit" : value === 0 ? "no thinking" : `${whole(value)} tokens`;
    say(this.budgetWords, words);
    this.budget.setAttribute("aria-valuetext", words);
  }

  body() {
    const budget = BUDGETS[this.budget.value];
    const messages = [{ role: "user", content: this.prompt.value }];
    if (this.system.value.trim()) messages.unshift({ role: "system", content: this.system.value });
    const body = { model: this.model.value, messages, max_tokens: Number(this.tokens.value) || 2048, stream: true, stream_options: { include_usage: true } };
    if (budget === 0) body.chat_template_kwargs = { enable_thinking: false };
    else if (budget !== null) body.thinking_token_budget = budget;
    return body;
  }

  async ask() {
    if (this.abort) return;
    const body = this.body(), abort = (this.abort = new AbortController());
    const run = { began: performance.now(), first: null, thinkingEnd: null, usage: null, events: { thinking: 0, answer: 0 }, finish: null, model: body.model };
    for (const element of [this.thinking, this.answer]) element.replaceChildren();
    say(this.problem, "");
    this.headers.replaceChildren();
    this.facts.replaceChildren();
    this.send.hidden = true;
    this.stop.hidden = false;
    this.showLines(body);
    try {
      const headers = { "content-type": "application/json" };
      if (this.key.value.trim()) headers.authorization = `Bearer ${this.key.value.trim()}`;
      const response = await fetch("/console/playground/v1/chat/completions", { method: "POST", headers, body: JSON.stringify(body), signal: abort.signal, credentials: "same-origin" });
      this.showHeaders(response);
      if (!response.ok) throw new Error(await refusal(response));
      await this.read(response, run);
    } catch (error) {
      say(this.problem, error.name === "AbortError" ? "Stopped." : error.message);
    } finally {
      this.abort = null;
      this.send.hidden = false;
      this.stop.hidden = true;
      this.showFacts(run, true);
    }
  }

  async read(response, run) {
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    let rest = "";
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      rest += value;
      const events = rest.split("\n\n");
      rest = events.pop();
      for (const event of events) this.take(event, run);
      this.showFacts(run, false);
    }
  }

  take(event, run) {
    const line = event.split("\n").find((each) => each.startsWith("data: "));
    if (!line || line === "data: [DONE]") return;
    const told = JSON.parse(line.slice(6));
    if (told.error) {
      say(this.problem, told.error.message ?? "The stream ended with an error.");
      return;
    }
    run.usage = told.usage ?? run.usage;
    for (const choice of told.choices ?? []) {
      const thought = choice.delta?.reasoning ?? choice.delta?.reasoning_content, said = choice.delta?.content;
      if ((thought || said) && run.first === null) run.first = performance.now();
      if (thought) { this.append(this.thinking, thought); run.events.thinking++; }
      if (said) { this.append(this.answer, said); run.events.answer++; }
      run.finish = choice.finish_reason ?? run.finish;
    }
  }

  append(element, text) {
    const low = element.scrollHeight - element.scrollTop - element.clientHeight < 30;
    if (element.firstChild) element.firstChild.appendData(text);
    else element.append(document.createTextNode(text));
    if (low) element.scrollTop = element.scrollHeight;
  }

  showFacts(run, over) {
    const { usage } = run, now = performance.now();
    const thinking = usage?.completion_tokens_details?.reasoning_tokens ?? run.events.thinking;
    const output = usage?.completion_tokens ?? run.events.thinking + run.events.answer;
    say(this.thinkingCount, thinking ? `${whole(thinking)} tokens` : "");
    say(this.answerCount, output - thinking > 0 ? `${whole(output - thinking)} tokens` : "");
    const seconds = run.first === null ? null : (now - run.first) / 1000;
    const pairs = [
      ["First token", run.first === null ? DASH : milliseconds(Math.round(run.first - run.began))],
      [over ? "Took" : "So far", milliseconds(Math.round(now - run.began))],
      ["Tokens/s", seconds && output > 1 ? (output / seconds).toFixed(0) : DASH],
      ["Prompt", usage ? `${whole(usage.prompt_tokens)} tokens` : DASH],
      ["Output", output ? `${whole(output)} tokens` : DASH],
      ["Of that thinking", thinking ? whole(thinking) : DASH],
      ["Cost", costOf(run)],
      ["Ended", run.finish ?? DASH],
    ];
    this.facts.replaceChildren(...pairs.map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value))));
  }

  showHeaders(response) {
    const shown = [...response.headers].filter(([name]) => name.startsWith("x-fleetgate") || name.startsWith("x-ratelimit") || name === "x-request-id" || name === "retry-after");
    this.headers.replaceChildren(...[["status", String(response.status)], ...shown].flatMap(([name, value]) => [h("dt", {}, name), h("dd", {}, value)]));
  }

  showLines(body) {
    const { port, tls } = state.facts.public ?? { port: 8080, tls: false };
    const host = location.hostname.includes(":") ? `[${location.hostname}]` : location.hostname;
    const found = snippets(`${tls ? "https" : "http"}://${host}:${port || 8080}`, body);
    const choose = (name) => {
      this.chosen = name;
      this.code.textContent = found[name];
      for (const tab of this.tabs.querySelectorAll("[role=tab]")) tab.setAttribute("aria-selected", String(tab.textContent === name));
    };
    this.tabs.replaceChildren(...Object.keys(found).map((name) => h("button", { type: "button", role: "tab", class: "tab", onclick: () => choose(name) }, name)), this.copy);
    this.lines.hidden = false;
    choose(this.chosen ?? "curl");
  }
}

async function refusal(response) {
  const text = await response.text();
  try {
    const told = JSON.parse(text);
    return told.error?.message ?? told.detail ?? text;
  } catch {
    return text.slice(0, 500) || `Status ${response.status}`;
  }
}

function costOf({ usage, model }) {
  const price = state.facts.prices?.[model];
  if (!price || !usage) return DASH;
  const cached = usage.prompt_tokens_details?.cached_tokens ?? 0;
  return dollars(((usage.prompt_tokens - cached) * price.input + cached * price.cached + usage.completion_tokens * price.output) / 1e6);
}
