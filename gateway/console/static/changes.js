// The audit: who changed what; and who is signed in.

import { endSession, reload } from "./actions.js";
import { ask } from "./api.js";
import { h, say } from "./dom.js";
import { state } from "./live.js";
import { Table } from "./table.js";

const moment = (at) => at.slice(0, 19).replace("T", " ");

const SESSION_COLUMNS = [
  { key: "person", label: "Who" },
  { key: "token", label: "Admin token" },
  { key: "began", label: "Since", show: (session) => moment(session.began) },
  { key: "used", label: "Last used", wide: true, show: (session) => moment(session.used) },
  { key: "address", label: "From" },
];

const COLUMNS = [
  { key: "at", label: "When", show: (line) => moment(line.at) },
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
    this.sessions = new Table({
      name: "sessions", columns: SESSION_COLUMNS, key: "id", sort: { key: "began", down: true },
      search: (session) => `${session.person} ${session.token} ${session.address}`, empty: "Nobody is signed in.",
      open: async (session) => { if (await endSession(session)) this.read(); },
    });
    this.reload = h("button", { class: "plain", onclick: async () => { await reload(); this.read(); } }, "Reload the configuration…");
    this.element = h("section", {}, h("header", { class: "page" }, h("h1", {}, "Changes"), this.lead, h("div", { class: "spacer" }), this.reload), this.table.element,
      h("header", { class: "page" }, h("h2", {}, "Signed in"), h("p", { class: "lead" }, "Choose a session to end it.")), this.sessions.element);
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
      this.sessions.refresh(await ask("GET", "/admin/console/sessions"));
    } catch (error) {
      say(this.lead, error.message);
    }
  }

  refresh() {
    this.reload.hidden = !state.facts.has_file;
  }
}
