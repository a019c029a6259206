// Requests that are under way, the one that is silent for the longest time first.

import { endRequest } from "./actions.js";
import { DASH, brief, h, say, short, span, whole } from "./dom.js";
import { badge, meter, toneOf } from "./fleet.js";
import { state } from "./live.js";
import { panel } from "./panel.js";
import { Table } from "./table.js";

export const PHASES = { reading: "dim", waiting: "warn", prefill: "info", thinking: "think", answering: "good", resuming: "warn", working: "info" };
export const STUCK = 20;

export const silence = (request) => (request.quiet ? request.quiet : request.phase === "waiting" || request.phase === "reading" ? Math.round(state.now - request.began) : 0);
export const isStuck = (request) => silence(request) >= STUCK && request.phase !== "working";

const COLUMNS = [
  { key: "id", label: "Request", show: (request) => request.id, class: "id" },
  { key: "phase", label: "Phase", show: (request) => badge(request.phase, PHASES[request.phase] ?? "dim") },
  { key: "quiet", label: "Silent", number: true, title: "For how long nothing has come", show: (request) => (silence(request) ? brief(silence(request)) : ""), order: silence },
  { key: "began", label: "Age", number: true, show: (request) => brief(state.now - request.began), order: (request) => -request.began },
  { key: "tenant", label: "Tenant", show: (request) => request.tenant ?? DASH },
  { key: "node", label: "Node", wide: true, show: (request) => request.node ?? DASH },
  { key: "model", label: "Model", wide: true, show: (request) => request.model ?? DASH },
  { key: "thinking", label: "Thinking", number: true, title: "Tokens of thinking so far, of its budget", show: thinkingOf },
  { key: "output", label: "Output", number: true, wide: true, title: "Tokens of the answer so far", show: (request) => short(request.output) },
];

function thinkingOf(request) {
  if (request.thinking === null) return request.budget === null ? DASH : `${DASH} / ${short(request.budget)}`;
  if (request.budget === null) return short(request.thinking);
  const used = request.budget ? (100 * request.thinking) / request.budget : 100;
  return meter(used, `${short(request.thinking)} / ${short(request.budget)}`, toneOf(used, 101, 102) || "think");
}

export class RequestsView {
  constructor() {
    this.lead = h("p", { class: "lead" });
    this.table = new Table({
      name: "requests", columns: COLUMNS, key: "row", sort: { key: "quiet", down: true },
      search: (request) => `${request.id} ${request.tenant} ${request.node} ${request.model} ${request.phase} ${request.dialect} ${request.agent} ${request.class}`,
      open: (request) => openRequest(request.row), empty: "Nothing is under way.", urgent: (request) => (isStuck(request) ? "urgent" : ""),
    });
    this.element = h("section", {}, h("header", { class: "page" }, h("h1", {}, "Requests"), this.lead), this.table.element);
  }

  refresh() {
    const rows = [...state.requests.values()], { running = 0, waiting = 0 } = state.facts;
    const all = running + waiting;
    const beyond = all > rows.length ? ` · the ${whole(rows.length)} oldest of each process are listed` : "";
    say(this.lead, `${whole(running)} running · ${whole(waiting)} waiting for a place${beyond}`);
    this.table.refresh(rows);
  }
}

export function openRequest(row) {
  panel.open("request", row, () => {
    const request = state.requests.get(row);
    if (!request) return null;
    return {
      title: request.id, badge: [request.phase, PHASES[request.phase]],
      actions: [{ label: "End this request…", danger: true, act: () => endRequest(request, state.now) }],
      facts: [
        ["Tenant", request.tenant], ["Key", request.key], ["Model", request.model], ["Node", request.node],
        ["Age", span(state.now - request.began)], ["Silent for", silence(request) ? span(silence(request)) : null],
        ["Thinking", request.thinking === null ? null : `${whole(request.thinking)} tokens${request.budget === null ? "" : ` of ${whole(request.budget)}`}`],
        ["Thinking budget", request.budget === null ? null : `${whole(request.budget)} tokens`],
        ["Output so far", request.output === null ? null : `${whole(request.output)} tokens`],
        ["Prompt", request.input === null ? null : `about ${whole(request.input)} tokens`],
        ["Attempts", String(request.attempts)], ["Resumed", request.resumes ? `${request.resumes} times` : null],
        ["Dialect", `${request.dialect}${request.stream ? ", streamed" : ", whole"}`], ["Class", request.class],
        ["Client", request.address], ["User agent", request.agent],
      ],
    };
  });
}
