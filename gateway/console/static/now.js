// The first page: what needs attention, three answers, and the last hour.

import { biggestSpender, longestSilent, needsAttention, slowest } from "./attention.js";
import { Chart } from "./charts.js";
import { DASH, dollars, h, milliseconds, say, short, span, whole } from "./dom.js";
import { silence } from "./requests.js";
import { hour } from "./series.js";
import { state } from "./live.js";

const rate = (value) => (value >= 100 ? short(Math.round(value)) : value >= 10 ? value.toFixed(0) : value.toFixed(value >= 0.05 || value === 0 ? 1 : 2));

class Figure {
  constructor(label) {
    this.value = h("div", { class: "figure-value" });
    this.note = h("div", { class: "figure-note" });
    this.element = h("div", { class: "figure" }, h("div", { class: "figure-label" }, label), this.value, this.note);
  }

  set(value, note = "") {
    say(this.value, value);
    say(this.note, note);
  }
}

class Answer {
  constructor(label) {
    this.name = h("span", { class: "answer-name" });
    this.value = h("span", { class: "answer-value" });
    this.note = h("span", { class: "answer-note" });
    this.open = null;
    this.element = h("button", { class: "answer", onclick: () => this.open?.() }, h("span", { class: "answer-label" }, label), this.name, this.value, this.note);
  }

  set(name, value, note, open) {
    say(this.name, name);
    say(this.value, value);
    say(this.note, note);
    this.open = open;
    this.element.disabled = !open;
  }
}

export class NowView {
  constructor({ open }) {
    this.open = open;
    this.figures = {
      running: new Figure("Under way"), waiting: new Figure("Waiting"), requests: new Figure("Requests/s"),
      tokens: new Figure("Tokens/s"), nodes: new Figure("Nodes ready"), cost: new Figure("Cost today"),
    };
    this.list = h("ul", { class: "attention" });
    this.well = h("p", { class: "well" }, "Nothing needs you now.");
    this.more = h("p", { class: "empty" });
    this.answers = { slow: new Answer("Slowest node"), spend: new Answer("Spends the most today"), stuck: new Answer("Silent for the longest time") };
    this.model = h("select", { "aria-label": "Model of the charts", onchange: () => this.drawCharts() }, h("option", { value: "" }, "All models"));
    const answerTone = { name: "answer", tone: "tone-answer" }, thinkingTone = { name: "thinking", tone: "tone-thinking" };
    this.charts = {
      requests: new Chart({ title: "Requests/s", about: "Requests that ended", series: [{ name: "requests", tone: "tone-main" }], unit: rate }),
      tokens: new Chart({ title: "Tokens/s", about: "Output tokens, spread over the time in which their answer came", series: [thinkingTone, answerTone], stacked: true, unit: rate }),
      ttft: new Chart({ title: "Time to the first token", about: "Of streams, within a factor of 1.4", series: [{ name: "p50", tone: "tone-main" }, { name: "p95", tone: "tone-second" }], unit: (value) => milliseconds(Math.round(value)) }),
      waiting: new Chart({ title: "Waiting for a place", about: "The most at once", series: [{ name: "waiting", tone: "tone-warn" }], unit: (value) => short(Math.round(value * 10) / 10) }),
      errors: new Chart({ title: "Errors a minute", about: "Requests that were refused or failed", series: [{ name: "errors", tone: "tone-bad" }], unit: rate }),
    };
    this.element = h("section", {},
      h("header", { class: "page" }, h("h1", {}, "Now")),
      h("div", { class: "figures" }, Object.values(this.figures).map((each) => each.element)),
      h("div", { class: "two" },
        h("div", { class: "card" }, h("h2", {}, "Needs attention"), this.well, this.list, this.more),
        h("div", { class: "answers" }, Object.values(this.answers).map((each) => each.element))),
      h("div", { class: "charts-head" }, h("h2", {}, "Last hour"), this.model),
      h("div", { class: "charts" }, Object.values(this.charts).map((each) => each.element)));
  }

  refresh() {
    this.showFigures();
    this.showAttention();
    this.showAnswers();
    this.drawCharts();
  }

  showFigures() {
    const { facts, nodes, tenants } = state, found = hour("", 6), last = found.times.length - 1;
    const ready = [...nodes.values()].filter((node) => node.state === "ready" || node.state === "warming up").length;
    const nodeTokens = [...nodes.values()].reduce((sum, node) => sum + (node.tokens ?? 0), 0);
    const costs = [...tenants.values()].filter((tenant) => tenant.cost !== null);
    this.figures.running.set(whole(facts.running ?? 0));
    this.figures.waiting.set(whole(facts.waiting ?? 0));
    this.figures.requests.set(rate(last > 0 ? found.requests[last - 1] : 0), "the last minute");
    this.figures.tokens.set(short(nodeTokens), "as the nodes count");
    this.figures.nodes.set(`${whole(ready)} / ${whole(nodes.size)}`);
    this.figures.cost.set(costs.length ? dollars(costs.reduce((sum, tenant) => sum + tenant.cost, 0)) : DASH, costs.length ? "" : "no model has a price");
  }

  showAttention() {
    const { shown, more } = needsAttention();
    const mark = JSON.stringify([shown, more]);
    this.well.hidden = shown.length > 0;
    if (mark === this.mark) return;
    this.mark = mark;
    const focused = this.list.contains(document.activeElement) ? document.activeElement.dataset.open : null;
    this.list.replaceChildren(...shown.map((item) => {
      const inner = [h("span", { class: `dot ${item.tone}`, "aria-hidden": "true" }), h("span", { class: "attention-words" }, h("span", { class: "attention-title" }, item.title), h("span", { class: "attention-text" }, item.text))];
      const key = item.open?.join(" ");
      return h("li", {}, item.open ? h("button", { class: "attention-item", "data-open": key, onclick: () => this.open(...item.open) }, inner) : h("div", { class: "attention-item" }, inner));
    }));
    if (focused) [...this.list.querySelectorAll("[data-open]")].find((each) => each.dataset.open === focused)?.focus();
    say(this.more, more ? `and ${more} more: see Fleet, Tenants, Requests and Errors` : "");
  }

  showAnswers() {
    const slow = slowest(), spend = biggestSpender(), stuck = longestSilent();
    if (slow) this.answers.slow.set(slow.node.name, milliseconds(slow.node.ttft), `median TTFT; of all nodes ${milliseconds(slow.median)}`, () => this.open("node", slow.node.name));
    else this.answers.slow.set(DASH, "", "no stream in the last ten minutes", null);
    if (spend) this.answers.spend.set(spend.tenant.name, spend.priced ? dollars(spend.tenant.cost) : `${short(spend.tenant.output)} tokens`, spend.tenant.share === null ? "" : `${spend.tenant.share}% of its output is thinking`, () => this.open("tenant", spend.tenant.name));
    else this.answers.spend.set(DASH, "", "nobody has used anything today", null);
    if (stuck) this.answers.stuck.set(stuck.tenant ?? stuck.id, span(silence(stuck)), `${stuck.phase}${stuck.node ? ` on ${stuck.node}` : ""}`, () => this.open("request", stuck.row));
    else this.answers.stuck.set(DASH, "", "all streams move", null);
  }

  drawCharts() {
    const names = [...state.history.models.keys()].filter((name) => name !== "-").sort();
    const mark = names.join("\n");
    if (mark !== this.models) {
      this.models = mark;
      const chosen = this.model.value;
      this.model.replaceChildren(h("option", { value: "" }, "All models"), ...names.map((name) => h("option", { value: name }, name)));
      this.model.value = names.includes(chosen) ? chosen : "";
    }
    // Every two seconds, or at once for another model.
    if (this.drawn && this.drawn.model === this.model.value && state.now - this.drawn.at < 2) return;
    this.drawn = { model: this.model.value, at: state.now };
    const found = hour(this.model.value);
    this.charts.requests.set(found.times, [found.requests]);
    this.charts.tokens.set(found.times, [found.thinking, found.answer]);
    this.charts.ttft.set(found.times, [found.ttft, found.ttft95]);
    this.charts.waiting.set(found.times, [found.waiting]);
    this.charts.errors.set(found.times, [found.errors]);
  }
}
