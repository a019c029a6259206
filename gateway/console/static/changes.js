// The audit: who changed what.

import { reload } from "./actions.js";
import { ask } from "./api.js";
import { h, say } from "./dom.js";
import { state } from "./live.js";
import { Table } from "./table.js";

const COLUMNS = [
  { key: "at", label: "When", show: (line) => line.at.slice(0, 19).replace("T", " ") },
  { key: "who", label: "Who" },
  { key: "what", label: "What" },
  { key: "subject", label: "To what" },
  { key: "detail", label: "Detail", wide: true, class: "why", show: (line) => JSON.stringify(line.detail) },
];

export class ChangesView {
  constructor() {
    this.lead = h("p", { class: "lead" });
    this.table = new Table({
      name: "changes", columns: COLUMNS, key: "number", sort: { key: "at", down: true },
      search: (line) => `${line.who} ${line.what} ${line.subject} ${JSON.stringify(line.detail)}`, open: () => {}, empty: "Nothing has been changed.",
    });
    this.reload = h("button", { class: "plain", onclick: async () => { await reload(); this.read(); } }, "Reload the configuration…");
    this.element = h("section", {}, h("header", { class: "page" }, h("h1", {}, "Changes"), this.lead, h("div", { class: "spacer" }), this.reload), this.table.element);
  }

  enter() {
    this.read();
  }

  async read() {
    try {
      const lines = await ask("GET", "/admin/audit?limit=200");
      this.lines = lines.map((line, number) => ({ ...line, number }));
      say(this.lead, state.facts.redis === null ? "Without Redis the audit stands in the log alone." : "The last 200, the newest first");
      this.table.refresh(this.lines);
    } catch (error) {
      say(this.lead, error.message);
    }
  }

  refresh() {
    this.reload.hidden = !state.facts.has_file;
  }
}
