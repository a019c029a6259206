// The fleet: one row a node.

import { drain, undrain } from "./actions.js";
import { DASH, brief, clock, h, milliseconds, percent, short, span, whole } from "./dom.js";
import { state } from "./live.js";
import { panel } from "./panel.js";
import { Table } from "./table.js";

export const TONES = { ready: "good", "warming up": "warn", draining: "warn", failing: "bad", out: "bad", unknown: "dim" };
const RANK = { out: 0, failing: 1, unknown: 2, draining: 3, "warming up": 4, ready: 5 };
const CAUSES = {
  refused: "refuses connections", failing: "fails requests", silent: "its answers stand still", probes: "misses its probes",
  new: "has not answered a probe yet",
};

export function badge(word, tone, more = "") {
  const element = h("span", { class: `badge ${tone}` }, word, more);
  element.dataset.mark = `${word}|${tone}|${more}`;
  return element;
}

export function meter(value, text, tone = "") {
  if (value === null || value === undefined) return DASH;
  const bar = h("i", { class: `fill ${tone}` });
  bar.style.width = `${Math.min(100, Math.max(0, value))}%`;
  const element = h("span", { class: "meter" }, h("span", { class: "track", "aria-hidden": "true" }, bar), h("span", {}, text));
  element.dataset.mark = `${value}|${text}|${tone}`;
  return element;
}

export const toneOf = (value, warn, bad) => (value >= bad ? "bad" : value >= warn ? "warn" : "");

export function causeOf(node) {
  if (node.state === "draining") return "drained";
  const cause = node.cause && node.cause !== "new" ? CAUSES[node.cause] ?? node.cause : null;
  return cause ?? node.error ?? (node.state === "unknown" ? CAUSES.new : "");
}

const out = (node) => node.state === "out" || node.state === "failing" || node.state === "unknown" || node.state === "draining";

// `since` is the breaker's: a drain does not tell when it began.
const why = (node) => causeOf(node) + (node.since && node.state !== "draining" ? `, for ${brief(state.now - node.since)}` : "");

const COLUMNS = [
  { key: "name", label: "Node" },
  { key: "state", label: "State", show: (node) => badge(node.state, TONES[node.state] ?? "dim", node.seen ? " (differs)" : ""), order: (node) => RANK[node.state] ?? 9 },
  { key: "in_flight", label: "In flight", number: true, title: "Requests of all gateways there, of its places", show: (node) => (node.places === null ? whole(node.in_flight) : `${node.in_flight} / ${node.places}`) },
  { key: "waiting", label: "Queued", number: true, wide: true, title: "Requests that wait in the node itself", show: (node) => whole(node.waiting) },
  { key: "kv", label: "KV cache", number: true, show: (node) => meter(node.kv, percent(node.kv), toneOf(node.kv, 85, 95)) },
  { key: "hits", label: "Hit rate", number: true, wide: true, title: "Prompt tokens that were found in its prefix cache", show: (node) => percent(node.hits) },
  { key: "tokens", label: "Tokens/s", number: true, show: (node) => short(node.tokens) },
  { key: "ttft", label: "TTFT p50", number: true, title: "Time to the first token, median of the last ten minutes", show: (node) => milliseconds(node.ttft) },
  { key: "ttft99", label: "p99", number: true, wide: true, show: (node) => milliseconds(node.ttft99) },
  { key: "broke_off", label: "Broke off", number: true, wide: true, title: "Answers that broke off there in the last ten minutes", show: (node) => whole(node.broke_off) },
  { key: "version", label: "vLLM", wide: true },
  { key: "error", label: "Why", class: "why", wide: true, show: (node) => (out(node) ? why(node) : ""), order: (node) => (out(node) ? node.since ?? 0 : null) },
];

export class FleetView {
  constructor() {
    this.table = new Table({
      name: "nodes", columns: COLUMNS, key: "name", sort: { key: "state", down: false },
      search: (node) => `${node.name} ${node.state} ${node.models.join(" ")} ${node.version ?? ""} ${Object.entries(node.labels).flat().join(" ")}`,
      open: (node) => openNode(node.name), empty: "No node is configured, and none has registered.",
      urgent: (node) => (node.state === "out" || node.state === "failing" ? "urgent" : ""),
    });
    this.summary = h("p", { class: "lead" });
    this.element = h("section", {}, h("header", { class: "page" }, h("h1", {}, "Fleet"), this.summary), this.table.element);
  }

  refresh() {
    const nodes = [...state.nodes.values()];
    const counted = {};
    for (const node of nodes) counted[node.state] = (counted[node.state] ?? 0) + 1;
    const words = Object.entries(counted).sort(([a], [b]) => RANK[b] - RANK[a]).map(([word, count]) => `${whole(count)} ${word}`);
    const text = words.join(" · ");
    if (this.summary.textContent !== text) this.summary.textContent = text;
    this.table.refresh(nodes);
  }
}

export function openNode(name) {
  panel.open("node", name, () => {
    const node = state.nodes.get(name);
    if (!node) return null;
    const drained = node.state === "draining";
    const seen = node.seen ? Object.entries(node.seen).map(([word, count]) => `${count} see it ${word}`).join(", ") : null;
    return {
      title: node.name,
      badge: [node.state, TONES[node.state]],
      facts: [
        ["Why", out(node) ? causeOf(node) : null],
        ["Last error", node.error],
        [node.breaker === "open" ? "Out since" : "As it is since", node.since ? `${clock(node.since)}, for ${span(state.now - node.since)}` : null],
        ["Breaker", node.breaker + (node.cause ? ` (${node.cause})` : "")],
        ["Gateways", seen],
        ["Models", node.models.join(", ") || null],
        ["In flight", node.places === null ? whole(node.in_flight) : `${node.in_flight} of ${node.places} places`],
        ["Running, queued", `${whole(node.running)}, ${whole(node.waiting)} by its own count`],
        ["KV cache", percent(node.kv)],
        ["Prefix cache hits", percent(node.hits)],
        ["Tokens a second", whole(node.tokens)],
        ["TTFT p50, p99", `${milliseconds(node.ttft)}, ${milliseconds(node.ttft99)}`],
        ["Prompts not begun", `${short(node.pending)} tokens`],
        ["Broke off", `${whole(node.broke_off)} answers in ten minutes`],
        ["vLLM", node.version],
        ["Thinking budgets", { true: "held by the node", false: "held by the gateway" }[String(node.budgets)] ?? "not known yet"],
        ["Price", node.price === null ? null : `$${node.price} an hour`],
        ["Weight", node.weight === 1 ? null : String(node.weight)],
        ["Labels", Object.entries(node.labels).map(([key, value]) => `${key}=${value}`).join(", ") || null],
        ["GPUs", node.troubles.length ? node.troubles.join("; ") : node.gpus.length ? node.gpus.map((gpu) => `${gpu[0]}: ${gpu[1] === null ? "?" : Math.round(gpu[1] * 100)}%`).join("  ") : null],
        ["URL", node.url],
      ],
      actions: [
        drained ? { label: "Undrain", act: () => undrain(node) } : { label: "Drain…", danger: true, act: () => drain(node) },
      ],
    };
  });
}
