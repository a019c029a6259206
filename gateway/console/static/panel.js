// The panel at the side: everything about one thing, kept up to date while it is open.

import { h, say } from "./dom.js";

class Panel {
  constructor() {
    this.make = null;
    this.title = h("h2", {});
    this.badge = h("span", { class: "badge" });
    this.facts = h("dl", {});
    this.extra = h("div", { class: "panel-extra" });
    this.actions = h("div", { class: "buttons left" });
    this.element = h("aside", { class: "panel", hidden: true, role: "dialog", "aria-label": "Details", tabindex: "-1" },
      h("div", { class: "panel-head" }, this.title, this.badge, h("button", { class: "quiet close", "aria-label": "Close the details", onclick: () => this.close() }, "Close")),
      this.actions, this.facts, this.extra);
    document.addEventListener("keydown", (event) => {
      if (event.key === "Escape" && !this.element.hidden && !document.querySelector("dialog[open]")) this.close();
    });
  }

  open(kind, key, make, extra) {
    this.back = document.activeElement;
    this.kind = kind;
    this.key = key;
    this.make = make;
    this.lines = new Map();
    this.acts = "";
    this.actions.replaceChildren();
    this.facts.replaceChildren();
    this.extra.replaceChildren(...[extra].flat().filter(Boolean));
    this.element.hidden = false;
    document.body.classList.add("with-panel");
    this.refresh();
    this.element.focus();
  }

  close() {
    this.make = null;
    this.element.hidden = true;
    document.body.classList.remove("with-panel");
    if (this.back?.isConnected) this.back.focus();
  }

  refresh() {
    if (!this.make) return;
    const told = this.make();
    if (!told) {
      this.badge.className = "badge dim";
      say(this.badge, "gone");
      this.actions.replaceChildren();
      this.acts = "";
      return;
    }
    say(this.title, told.title);
    this.badge.className = `badge ${told.badge?.[1] ?? "dim"}`;
    say(this.badge, told.badge?.[0] ?? "");
    this.badge.hidden = !told.badge;
    const shown = told.facts.filter(([, value]) => value !== null && value !== undefined && value !== "");
    const names = new Set(shown.map(([name]) => name));
    for (const [name, pair] of this.lines) {
      if (!names.has(name)) {
        pair.forEach((each) => each.remove());
        this.lines.delete(name);
      }
    }
    for (const [name, value] of shown) {
      if (!this.lines.has(name)) {
        const pair = [h("dt", {}, name), h("dd", {})];
        this.lines.set(name, pair);
        this.facts.append(...pair);
      }
      say(this.lines.get(name)[1], value);
    }
    const acts = told.actions.map((action) => action.label).join("|");
    if (acts !== this.acts) {
      this.acts = acts;
      this.actions.replaceChildren(...told.actions.map((action, at) =>
        h("button", { class: action.danger ? "danger" : "plain", onclick: () => this.make?.()?.actions[at]?.act() }, action.label)));
    }
  }
}

export const panel = new Panel();
