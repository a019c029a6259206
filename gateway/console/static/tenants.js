// Tenants: who uses what, and what is left of it.

import { block, createKey, revokeKey, rotateKey, unblock } from "./actions.js";
import { ask } from "./api.js";
import { DASH, dollars, h, percent, plural, short, whole } from "./dom.js";
import { badge, meter, toneOf } from "./fleet.js";
import { state } from "./live.js";
import { panel } from "./panel.js";
import { Table } from "./table.js";

export const limitWords = (limit) => limit.replace(/^tenant\./, "").replaceAll("_", " ");

const COLUMNS = [
  { key: "name", label: "Tenant", show: (tenant) => (tenant.blocked ? badge(tenant.name, "bad", " (blocked)") : tenant.name) },
  { key: "running", label: "Running", number: true, title: "Requests under way", show: (tenant) => whole(tenant.running) },
  { key: "waiting", label: "Waiting", number: true, title: "Requests that wait for a place", show: (tenant) => whole(tenant.waiting) },
  { key: "used", label: "Tightest limit", number: true, title: "How much of the limit is used that has the least left", show: (tenant) => (tenant.used === null ? DASH : meter(tenant.used, percent(tenant.used), toneOf(tenant.used, 80, 95))) },
  { key: "tightest", label: "Which", wide: true, show: (tenant) => (tenant.tightest ? limitWords(tenant.tightest) : "") },
  { key: "cost", label: "Today", number: true, title: "Cost since midnight, UTC", show: (tenant) => dollars(tenant.cost) },
  { key: "month", label: "This month", number: true, show: (tenant) => dollars(tenant.month) },
  { key: "requests", label: "Requests", number: true, wide: true, title: "Today", show: (tenant) => short(tenant.requests) },
  { key: "errors", label: "Errors", number: true, wide: true, title: "Today", show: (tenant) => short(tenant.errors) },
  { key: "output", label: "Output", number: true, wide: true, title: "Tokens today", show: (tenant) => short(tenant.output) },
  { key: "share", label: "Thinking", number: true, title: "The part of the output that is thinking", show: (tenant) => percent(tenant.share) },
];

export class TenantsView {
  constructor({ play }) {
    this.play = play;
    this.table = new Table({
      name: "tenants", columns: COLUMNS, key: "name", sort: { key: "cost", down: true }, search: (tenant) => tenant.name,
      open: (tenant) => openTenant(tenant.name, play), empty: "No tenant is configured.",
      urgent: (tenant) => (tenant.used !== null && tenant.used >= 95 ? "urgent" : ""),
    });
    this.note = h("p", { class: "lead" });
    this.element = h("section", {}, h("header", { class: "page" }, h("h1", {}, "Tenants"), this.note), this.table.element);
    this.sorted = false;
  }

  refresh() {
    const tenants = [...state.tenants.values()];
    const priced = tenants.some((tenant) => tenant.cost !== null);
    if (!this.sorted && tenants.length) {
      this.sorted = true;
      if (!priced) this.table.sort = { key: "output", down: true };
      this.table.writeHead();
    }
    const total = tenants.reduce((sum, tenant) => sum + (tenant.cost ?? 0), 0), month = tenants.reduce((sum, tenant) => sum + (tenant.month ?? 0), 0);
    const words = [priced ? `${dollars(total)} today, ${dollars(month)} this month` : "No model has a price, so no costs are known",
      state.facts.stores_usage ? "" : " · as these processes saw it since they began: set usage.stored for all gateways and days"].join("");
    if (this.note.textContent !== words) this.note.textContent = words;
    this.table.refresh(tenants);
  }
}

export function openTenant(name, play) {
  const keys = h("div", {}, h("h3", {}, "Keys"), h("p", { class: "empty" }, "Reading…"));
  const limits = h("div", {});
  const show = () => {
    const tenant = state.tenants.get(name);
    if (!tenant) return null;
    showLimits(limits, tenant);
    const actions = [];
    if (state.facts.stores_tenants) actions.push({ label: "New key…", act: async () => (await createKey(name, play)) && showKeys(keys, name, play) });
    if (state.facts.redis !== null) actions.push(tenant.blocked ? { label: "Unblock…", act: () => unblock(name) } : { label: "Block…", danger: true, act: () => block(name) });
    return {
      title: name, badge: tenant.blocked ? ["blocked", "bad"] : null, actions,
      facts: [
        ["Under way", `${whole(tenant.running)} running, ${whole(tenant.waiting)} waiting`],
        ["Cost", tenant.cost === null ? null : `${dollars(tenant.cost)} today, ${dollars(tenant.month)} this month`],
        ["Today", `${plural(tenant.requests, "request")}, ${plural(tenant.errors, "error")}`],
        ["Output", `${whole(tenant.output)} tokens`],
        ["Of that thinking", tenant.share === null ? null : `${whole(tenant.thinking)} tokens, ${tenant.share}%`],
        ["Service class", tenant.class],
      ],
    };
  };
  panel.open("tenant", name, show, [limits, keys]);
  showKeys(keys, name, play);
}

function showLimits(box, tenant) {
  const mark = JSON.stringify(tenant.limits);
  if (box.dataset.mark === mark) return;
  box.dataset.mark = mark;
  const lines = tenant.limits.map(([limit, model, of, left]) => {
    const used = of ? Math.round(100 * (1 - left / of)) : 100;
    return h("div", { class: "limit" }, h("div", { class: "limit-name" }, limitWords(limit), model ? h("small", {}, ` on ${model}`) : null),
      meter(used, `${short(Math.max(0, left))} of ${short(of)} left`, toneOf(used, 80, 95)));
  });
  box.replaceChildren(h("h3", {}, "Limits"), ...(lines.length ? lines : [h("p", { class: "empty" }, "It has no limits.")]));
}

async function showKeys(box, name, play) {
  let keys;
  try {
    keys = await ask("GET", `/admin/keys?tenant=${encodeURIComponent(name)}`);
  } catch (error) {
    box.replaceChildren(h("h3", {}, "Keys"), h("p", { class: "problem" }, error.message));
    return;
  }
  const again = () => showKeys(box, name, play);
  const lines = keys.map((key) => h("div", { class: "key" },
    h("div", {}, h("code", {}, key.id), key.label ? ` ${key.label}` : "", " ", badge(key.state, key.state === "active" ? "good" : "dim")),
    h("small", {}, [key.origin === "file" ? "from the config file" : "made at run time", key.expires ? `until ${key.expires.slice(0, 16).replace("T", " ")}` : "", key.last_used ? `last used ${key.last_used.slice(0, 13).replace("T", " ")}h` : ""].filter(Boolean).join(" · ")),
    key.origin === "redis" ? h("div", { class: "buttons left" },
      h("button", { class: "plain", onclick: async () => (await rotateKey(key, play)) && again() }, "Rotate…"),
      h("button", { class: "danger", onclick: async () => (await revokeKey(key)) && again() }, "Revoke…")) : null));
  box.replaceChildren(h("h3", {}, "Keys"), ...(lines.length ? lines : [h("p", { class: "empty" }, "It has no keys.")]));
}
