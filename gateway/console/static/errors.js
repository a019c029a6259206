// The last errors, alike ones together.

import { ask } from "./api.js";
import { DASH, brief, clock, h, plural, say, span, whole } from "./dom.js";
import { badge } from "./fleet.js";
import { state } from "./live.js";
import { panel } from "./panel.js";
import { Table } from "./table.js";

const tone = (group) => (group.status >= 500 ? "bad" : "warn");

// What a client did wrong is told to the client alone: the text may quote the request. Its code says this much.
const MEANINGS = {
  body_too_large: "The body is larger than requests.max_body.",
  client_gone: "The client closed its connection.",
  headers_too_large: "The head is larger than requests.max_headers.",
  invalid_api_key: "The key is missing, unknown, expired or revoked.",
  invalid_request: "A field is not valid: its client was told which.",
  method_not_allowed: "The path has no such method.",
  model_not_found: "There is no such model, or the tenant may not use it.",
  node_error: "The node refused or failed the request: its client has its words.",
  not_found: "There is no such thing, or it is another tenant's.",
  request_too_slow: "The request came too slowly.",
  unknown_path: "There is no such path.",
  unsupported_content_encoding: "The body is compressed in a way that is not read.",
};
const KEPT_FROM_US = "Its client was told: the text may quote the request.";
const words = (group) => group.text || MEANINGS[group.code] || KEPT_FROM_US;

const COLUMNS = [
  { key: "code", label: "Error", show: (group) => group.code },
  { key: "status", label: "Status", number: true, show: (group) => badge(String(group.status || DASH), tone(group)) },
  { key: "times", label: "Times", number: true, show: (group) => whole(group.times) },
  { key: "last", label: "Last", number: true, show: (group) => `${brief(state.now - group.last)} ago` },
  { key: "node", label: "Node", wide: true, show: (group) => (group.node === "-" ? DASH : group.node) },
  { key: "model", label: "Model", wide: true, show: (group) => (group.model === "-" ? DASH : group.model) },
  { key: "tenants", label: "Tenants", wide: true, class: "cut", show: (group) => group.tenants.join(", "), order: (group) => group.tenants.join() },
  { key: "text", label: "What was said", class: "why", wide: true, show: words },
];

export class ErrorsView {
  constructor() {
    this.lead = h("p", { class: "lead" });
    this.table = new Table({
      name: "errors", columns: COLUMNS, key: "name", sort: { key: "last", down: true },
      search: (group) => `${group.code} ${group.status} ${group.node} ${group.model} ${group.tenants.join(" ")} ${words(group)}`,
      open: (group) => openError(group.name), empty: "No request has failed since these processes began.",
    });
    this.element = h("section", {}, h("header", { class: "page" }, h("h1", {}, "Errors"), this.lead), this.table.element);
  }

  refresh() {
    const groups = [...state.errors.values()];
    const recent = groups.filter((group) => state.now - group.last < 300);
    say(this.lead, groups.length ? `${plural(groups.length, "kind")}; ${recent.length} of them in the last five minutes` : "");
    this.table.refresh(groups);
  }
}

export function openError(name) {
  const record = h("div", {});
  const look = h("button", { class: "plain", onclick: async () => {
    const group = state.errors.get(name);
    if (!group) return;
    try {
      const [found] = await ask("GET", `/admin/requests/${encodeURIComponent(group.request_id)}`);
      record.replaceChildren(h("h3", {}, "Record of the last one"), h("pre", {}, JSON.stringify(found, null, 2)));
    } catch (error) {
      record.replaceChildren(h("p", { class: "problem" }, error.message));
    }
  } }, "Show the record of the last one");
  panel.open("error", name, () => {
    const group = state.errors.get(name);
    if (!group) return null;
    return {
      title: group.code, badge: [String(group.status || DASH), tone(group)], actions: [],
      facts: [
        ["Times", whole(group.times)], ["First", clock(group.first)], ["Last", `${clock(group.last)}, ${span(state.now - group.last)} ago`],
        ["Node", group.node === "-" ? null : group.node], ["Model", group.model === "-" ? null : group.model],
        ["Tenants", group.tenants.join(", ")], ["What was said", words(group)], ["Last request", group.request_id], ["Its client", group.agent],
      ],
    };
  }, [h("div", { class: "buttons left" }, look), record]);
}
