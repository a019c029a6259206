// A table that is kept up to date in place: a refresh changes the cells that differ, and sorts the rows that are shown.

import { h, say } from "./dom.js";

const SHOWN = 50;

export class Table {
  // columns: {key, label, title, number, wide, show(row) -> text or node, order(row), first: "desc"}
  constructor({ name, columns, key, sort, search, open, empty, urgent }) {
    Object.assign(this, { name, columns, key, search, openRow: open, empty, urgent });
    this.sort = { ...sort };
    this.limit = SHOWN;
    this.rows = new Map();
    this.filter = "";
    this.held = false;
    this.head = h("tr");
    this.body = h("tbody");
    this.more = h("button", { class: "quiet", hidden: true, onclick: () => this.showMore() });
    this.none = h("p", { class: "empty" });
    this.count = h("span", { class: "count", "aria-live": "polite" });
    this.input = h("input", {
      type: "search", placeholder: `Filter ${name}`, "aria-label": `Filter ${name}`,
      oninput: () => { this.filter = this.input.value.trim().toLowerCase(); this.limit = SHOWN; this.refresh(this.data ?? [], true); },
    });
    this.table = h("table", { class: "rows" }, h("caption", { class: "hidden" }, name), h("thead", {}, this.head), this.body);
    // A row that somebody points at stays where it is.
    this.body.addEventListener("pointerenter", () => (this.held = true));
    this.body.addEventListener("pointerleave", () => (this.held = false));
    this.element = h("div", { class: "table" },
      h("div", { class: "tools" }, this.input, this.count),
      h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": `${name}, table` }, this.table), this.none, this.more);
    this.writeHead();
  }

  writeHead() {
    this.head.replaceChildren(...this.columns.map((column) => {
      const sorted = this.sort.key === column.key;
      const button = h("button", { class: "sort", title: column.title, onclick: () => this.sortBy(column) },
        column.label, h("span", { class: "arrow", "aria-hidden": "true" }, sorted ? (this.sort.down ? " ↓" : " ↑") : ""));
      return h("th", {
        scope: "col", class: this.classOf(column), "aria-sort": sorted ? (this.sort.down ? "descending" : "ascending") : null,
      }, button);
    }));
  }

  classOf(column) {
    return [column.number ? "number" : "", column.wide ? "wide" : "", column.class ?? ""].join(" ").trim() || null;
  }

  sortBy(column) {
    const down = this.sort.key === column.key ? !this.sort.down : Boolean(column.number);
    this.sort = { key: column.key, down };
    this.writeHead();
    this.refresh(this.data ?? [], true);
  }

  showMore() {
    this.limit += 100;
    this.refresh(this.data ?? [], true);
  }

  ordered(data) {
    const column = this.columns.find((each) => each.key === this.sort.key) ?? this.columns[0];
    const by = column.order ?? ((row) => row[column.key]);
    const sign = this.sort.down ? -1 : 1;
    const keyed = data.map((row) => [by(row), row]);
    keyed.sort(([a, left], [b, right]) => {
      const missing = (a === null || a === undefined) - (b === null || b === undefined);
      if (missing) return missing;
      if (a < b) return -sign;
      if (a > b) return sign;
      return String(left[this.key]) < String(right[this.key]) ? -1 : 1;
    });
    return keyed.map(([, row]) => row);
  }

  refresh(data, forced = false) {
    this.data = data;
    const found = this.filter ? data.filter((row) => this.search(row).toLowerCase().includes(this.filter)) : data;
    const keep = !forced && (this.held || this.body.contains(document.activeElement)) && this.order;
    let rows = this.ordered(found);
    if (keep) {
      const place = new Map(this.order.map((key, at) => [key, at]));
      rows.sort((a, b) => (place.get(a[this.key]) ?? 1e9) - (place.get(b[this.key]) ?? 1e9));
    }
    rows = rows.slice(0, this.limit);
    this.order = rows.map((row) => row[this.key]);
    const wanted = new Set(this.order);
    for (const [key, line] of this.rows) {
      if (!wanted.has(key)) {
        line.element.remove();
        this.rows.delete(key);
      }
    }
    let before = this.body.firstChild;
    for (const row of rows) {
      let line = this.rows.get(row[this.key]);
      if (!line) {
        line = this.newLine();
        this.rows.set(row[this.key], line);
      }
      this.write(line, row);
      if (line.element === before) before = before.nextSibling;
      else this.body.insertBefore(line.element, before);
    }
    const total = data.length, match = found.length;
    say(this.count, match === total ? `${total.toLocaleString("en")}` : `${match.toLocaleString("en")} of ${total.toLocaleString("en")}`);
    this.more.hidden = match <= this.limit;
    say(this.more, `Show ${Math.min(100, match - this.limit)} more of ${(match - this.limit).toLocaleString("en")}`);
    this.none.hidden = match > 0;
    say(this.none, total ? "Nothing matches the filter." : this.empty);
    this.table.hidden = match === 0;
  }

  newLine() {
    const cells = this.columns.map((column, at) => {
      const tag = at === 0 ? "th" : "td";
      return h(tag, { class: this.classOf(column), scope: at === 0 ? "row" : null });
    });
    const line = { cells, shown: [], element: null, row: null };
    line.button = h("button", { class: "name", onclick: (event) => { event.stopPropagation(); this.openRow(line.row); } });
    cells[0].append(line.button);
    line.element = h("tr", { onclick: () => this.openRow(line.row) }, cells);
    return line;
  }

  write(line, row) {
    line.row = row;
    this.columns.forEach((column, at) => {
      const value = column.show ? column.show(row) : row[column.key];
      if (value instanceof Node) {
        const mark = value.dataset?.mark ?? value.textContent;
        if (line.shown[at] !== mark) {
          line.shown[at] = mark;
          (at === 0 ? line.button : line.cells[at]).replaceChildren(value);
        }
        return;
      }
      const text = value === null || value === undefined ? "–" : String(value);
      if (line.shown[at] !== text) {
        line.shown[at] = text;
        (at === 0 ? line.button : line.cells[at]).textContent = text;
      }
    });
    const urgent = this.urgent?.(row) ?? "";
    if (line.urgent !== urgent) {
      line.urgent = urgent;
      line.element.className = urgent;
    }
  }
}
