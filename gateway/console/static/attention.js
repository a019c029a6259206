// What an operator should look at first, and what to do about it.

import { milliseconds, percent, plural, span, whole } from "./dom.js";
import { causeOf } from "./fleet.js";
import { isStuck, silence } from "./requests.js";
import { state } from "./live.js";
import { limitWords } from "./tenants.js";

const MOST = 8;

function median(values) {
  const sorted = values.toSorted((a, b) => a - b);
  return sorted.length ? sorted[Math.floor(sorted.length / 2)] : null;
}

export function slowest() {
  const known = [...state.nodes.values()].filter((node) => node.ttft !== null);
  if (!known.length) return null;
  const node = known.reduce((a, b) => (b.ttft > a.ttft ? b : a));
  return { node, median: median(known.map((each) => each.ttft)) };
}

export function biggestSpender() {
  const tenants = [...state.tenants.values()];
  const priced = tenants.filter((tenant) => tenant.cost);
  if (priced.length) return { tenant: priced.reduce((a, b) => (b.cost > a.cost ? b : a)), priced: true };
  const used = tenants.filter((tenant) => tenant.output);
  return used.length ? { tenant: used.reduce((a, b) => (b.output > a.output ? b : a)), priced: false } : null;
}

export function longestSilent() {
  const quiet = [...state.requests.values()].filter((request) => silence(request));
  return quiet.length ? quiet.reduce((a, b) => (silence(b) > silence(a) ? b : a)) : null;
}

// Each: {tone, title, text, open: [kind, key]}; the worst first.
export function needsAttention() {
  const found = [];
  const add = (rank, tone, title, text, open) => found.push({ rank, tone, title, text, open });
  const { facts } = state;
  for (const trouble of facts.redis_troubles ?? []) add(0, "bad", "Redis", trouble, null);
  if (facts.redis === false && !(facts.redis_troubles ?? []).length) add(0, "bad", "Redis is down", "Limits and drains are held by each gateway alone.", null);
  if (facts.views < facts.gateways) add(3, "warn", "Not all gateways are heard", `This page shows ${facts.views} of ${facts.gateways} processes.`, null);
  for (const model of state.models.values()) {
    if (!model.ready) add(0, "bad", `No node can serve ${model.name}`, model.error ?? `${plural(model.nodes, "node")} have it.`, null);
    const waits = model.waiting + model.elsewhere;
    if (waits) add(3, "warn", `${plural(waits, "request")} wait for ${model.name}`, model.expected_wait === null ? "How long is not known yet." : `A new one waits about ${span(model.expected_wait)}.`, ["view", "requests"]);
    if (model.factor !== null && model.factor < 1) add(4, "warn", `Thinking budgets of ${model.name} are at ${Math.round(model.factor * 100)}%`, "There is pressure: requests wait for places.", null);
  }
  const all = [...state.nodes.values()];
  const sick = all.filter((node) => node.state === "out" || node.state === "failing" || (node.state === "unknown" && node.error));
  for (const node of sick) {
    add(1, "bad", `${node.name} is ${node.state === "unknown" ? "not known" : node.state}${node.since ? ` for ${span(state.now - node.since)}` : ""}`, [causeOf(node), node.error].filter((each, at, list) => each && list.indexOf(each) === at).join(": "), ["node", node.name]);
  }
  for (const node of all) {
    if (node.troubles.length) add(2, "bad", `GPUs of ${node.name}`, node.troubles.join("; "), ["node", node.name]);
    if (node.kv >= 95) add(4, "warn", `KV cache of ${node.name} is at ${node.kv}%`, "New prompts wait in the node, or push others out.", ["node", node.name]);
  }
  const slow = slowest();
  if (slow && slow.node.ttft > 3 * slow.median && slow.node.ttft > 500) add(4, "warn", `${slow.node.name} is slow`, `Its first token takes ${milliseconds(slow.node.ttft)}, the median node's ${milliseconds(slow.median)}.`, ["node", slow.node.name]);
  const stuck = [...state.requests.values()].filter(isStuck).sort((a, b) => silence(b) - silence(a));
  for (const request of stuck.slice(0, 3)) {
    add(2, "warn", `A request of ${request.tenant ?? "nobody"} is silent for ${span(silence(request))}`, `${request.phase}${request.node ? ` on ${request.node}` : ""}, ${request.model ?? "no model"}`, ["request", request.row]);
  }
  if (stuck.length > 3) add(2, "warn", `${stuck.length - 3} more requests are silent`, "", ["view", "requests"]);
  for (const tenant of state.tenants.values()) {
    if (tenant.used !== null && tenant.used >= 95) add(5, "warn", `${tenant.name} has used ${percent(tenant.used)} of its ${limitWords(tenant.tightest ?? "")}`, "Further requests are refused until it has room.", ["tenant", tenant.name]);
  }
  for (const group of state.errors.values()) {
    if (group.status >= 500 && state.now - group.last < 120) add(3, "bad", `${group.code}, ${whole(group.times)} times`, `${group.text || `Status ${group.status}`}${group.node !== "-" ? ` (${group.node})` : ""}`, ["error", group.name]);
  }
  found.sort((a, b) => a.rank - b.rank);
  return { shown: found.slice(0, MOST), more: Math.max(0, found.length - MOST) };
}
