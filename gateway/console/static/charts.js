// Charts by hand: lines and stacked areas in SVG, with the values under the pointer.

import { h, s, say } from "./dom.js";

const HEIGHT = 120, BOTTOM = 18, TOP = 8, LEFT = 44, RIGHT = 8;

function nice(top) {
  if (!(top > 0)) return 1;
  const power = 10 ** Math.floor(Math.log10(top));
  return [1, 2, 2.5, 5, 10].map((part) => part * power).find((each) => each >= top);
}

export class Chart {
  // series: [{name, tone}], stacked: whether they are added up; unit(value) -> text
  constructor({ title, about, series, stacked = false, unit }) {
    Object.assign(this, { title, series, stacked, unit });
    this.now = h("span", { class: "chart-now" });
    this.svg = s("svg", { class: "plot", height: HEIGHT, role: "img", "aria-label": title });
    this.tip = h("div", { class: "tip", hidden: true });
    const legend = series.length > 1 ? h("span", { class: "legend" }, series.map((each) =>
      h("span", {}, h("i", { class: `swatch ${each.tone}`, "aria-hidden": "true" }), each.name))) : null;
    this.element = h("figure", { class: "chart" },
      h("figcaption", {}, h("span", { class: "chart-title", title: about }, title), legend, this.now),
      h("div", { class: "plot-box" }, this.svg, this.tip));
    this.svg.addEventListener("pointermove", (event) => this.point(event));
    this.svg.addEventListener("pointerleave", () => this.leave());
    // Its width is told: to ask for it between two drawings would have the page laid out each time.
    new ResizeObserver(([entry]) => { this.width = entry.contentRect.width; this.draw(); }).observe(this.element);
  }

  // times: seconds of each point; values: one list a series, null where nothing is known
  set(times, values) {
    this.times = times;
    this.values = values;
    this.draw();
  }

  draw() {
    const { width } = this;
    if (!this.times || !width) return;
    const count = this.times.length, inner = width - LEFT - RIGHT, deep = HEIGHT - TOP - BOTTOM;
    const sums = this.times.map((_, at) => {
      const all = this.values.map((list) => list[at] ?? 0);
      return this.stacked ? all.reduce((a, b) => a + b, 0) : Math.max(...all);
    });
    const top = nice(Math.max(...sums, 0));
    const x = (at) => LEFT + (count > 1 ? (inner * at) / (count - 1) : 0);
    const y = (value) => TOP + deep * (1 - value / top);
    this.x = x;
    const parts = [0, top / 2, top].map((value) => [
      s("line", { class: "grid", x1: LEFT, x2: width - RIGHT, y1: y(value), y2: y(value) }),
      s("text", { class: "axis", x: LEFT - 6, y: y(value) + 3.5, "text-anchor": "end" }, this.unit(value)),
    ]);
    for (const minutes of [60, 45, 30, 15, 0]) {
      const at = ((60 - minutes) / 60) * (count - 1);
      const anchor = minutes === 60 ? "start" : minutes === 0 ? "end" : "middle";
      parts.push(s("text", { class: "axis", x: x(at), y: HEIGHT - 4, "text-anchor": anchor }, minutes ? `-${minutes} min` : "now"));
    }
    const base = new Array(count).fill(0);
    this.series.forEach((each, number) => {
      const list = this.values[number];
      if (this.stacked) {
        const upper = list.map((value, at) => base[at] + (value ?? 0));
        const line = upper.map((value, at) => `${at ? "L" : "M"}${x(at).toFixed(1)} ${y(value).toFixed(1)}`).join("");
        const back = base.map((value, at) => `L${x(at).toFixed(1)} ${y(value).toFixed(1)}`).reverse().join("");
        parts.push(s("path", { class: `area ${each.tone}`, d: `${line}${back}Z` }), s("path", { class: `line ${each.tone}`, d: line }));
        upper.forEach((value, at) => (base[at] = value));
        return;
      }
      let path = "", gap = true;
      list.forEach((value, at) => {
        if (value === null) { gap = true; return; }
        path += `${gap ? "M" : "L"}${x(at).toFixed(1)} ${y(value).toFixed(1)}`;
        if (gap && (list[at + 1] ?? null) === null) path += "h0.1";
        gap = false;
      });
      parts.push(s("path", { class: `line ${each.tone}`, d: path }));
    });
    this.cross = s("line", { class: "cross", y1: TOP, y2: HEIGHT - BOTTOM, x1: 0, x2: 0, visibility: "hidden" });
    this.svg.setAttribute("width", width);
    this.svg.replaceChildren(...parts.flat(), this.cross);
    const last = this.values.map((list) => list.findLast((value) => value !== null) ?? null);
    const words = this.stacked ? this.unit(last.reduce((a, b) => a + (b ?? 0), 0)) : last[0] === null ? "–" : this.unit(last[0]);
    say(this.now, words);
    this.svg.setAttribute("aria-label", `${this.title}, last hour. Now ${words}.`);
  }

  point(event) {
    if (!this.times) return;
    const box = this.svg.getBoundingClientRect(), count = this.times.length;
    const at = Math.min(count - 1, Math.max(0, Math.round(((event.clientX - box.left - LEFT) / (box.width - LEFT - RIGHT)) * (count - 1))));
    const lines = this.series.map((each, number) => {
      const value = this.values[number][at];
      return h("div", {}, h("i", { class: `swatch ${each.tone}` }), `${each.name} `, h("b", {}, value === null || value === undefined ? "–" : this.unit(value)));
    });
    this.tip.replaceChildren(h("div", { class: "tip-time" }, new Date(this.times[at] * 1000).toLocaleTimeString("en-GB")), ...lines);
    this.tip.hidden = false;
    const left = this.x(at);
    this.tip.style.left = `${Math.min(box.width - this.tip.offsetWidth - 4, Math.max(0, left + 10))}px`;
    this.cross.setAttribute("x1", left);
    this.cross.setAttribute("x2", left);
    this.cross.setAttribute("visibility", "visible");
  }

  leave() {
    this.tip.hidden = true;
    this.cross?.setAttribute("visibility", "hidden");
  }
}
