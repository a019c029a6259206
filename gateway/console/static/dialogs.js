// Questions before something is changed, and what became of it.

import { h, say } from "./dom.js";

let toasts = null;

export function toast(words, tone = "good") {
  toasts ??= document.body.appendChild(h("div", { class: "toasts", role: "status", "aria-live": "polite" }));
  const element = h("div", { class: `toast ${tone}` }, words);
  toasts.append(element);
  setTimeout(() => element.remove(), tone === "bad" ? 12_000 : 5000);
}

// Asks, and runs `act(values)` once it is confirmed; the dialog stays open, and says why, where that fails.
export function confirm({ title, text, fields = [], label, danger = false, act }) {
  return new Promise((resolve) => {
    const problem = h("p", { class: "problem", role: "alert" });
    const inputs = fields.map((field) => ({ field, input: makeInput(field) }));
    const go = h("button", { type: "submit", class: danger ? "danger" : "primary" }, label);
    const form = h("form", { method: "dialog", novalidate: true },
      h("h2", { id: "dialog-title" }, title), ...[text].flat().map((each) => (each instanceof Node ? each : h("p", {}, each))),
      inputs.map(({ field, input }) => h("label", { class: "field" }, h("span", {}, field.label), input, field.hint ? h("small", {}, field.hint) : null)),
      problem, h("div", { class: "buttons" }, h("button", { type: "button", class: "quiet", onclick: () => dialog.close() }, "Cancel"), go));
    const dialog = h("dialog", { "aria-labelledby": "dialog-title" }, form);
    let result = null;
    form.addEventListener("submit", async (event) => {
      event.preventDefault();
      go.disabled = true;
      say(problem, "");
      try {
        result = await act(Object.fromEntries(inputs.map(({ field, input }) => [field.name, input.value])));
        dialog.close();
      } catch (error) {
        say(problem, error.message);
        go.disabled = false;
      }
    });
    dialog.addEventListener("close", () => {
      dialog.remove();
      resolve(result);
    });
    document.body.append(dialog);
    dialog.showModal();
    (inputs[0]?.input ?? go).focus();
  });
}

function makeInput(field) {
  if (field.options) {
    const options = field.options.map(([value, words]) => h("option", { value }, words));
    const select = h("select", { name: field.name }, options);
    select.value = field.value ?? field.options[0][0];
    return select;
  }
  return h("input", { name: field.name, type: field.type ?? "text", value: field.value ?? "", autocomplete: "off", maxlength: field.most ?? 200 });
}

// Shows something once that is not shown again.
export function reveal({ title, text, secret, extra }) {
  const copied = h("button", { type: "button", class: "quiet", onclick: async () => {
    await navigator.clipboard?.writeText(secret).catch(() => {});
    say(copied, "Copied");
  } }, "Copy");
  const dialog = h("dialog", { "aria-labelledby": "dialog-title" },
    h("form", { method: "dialog" }, h("h2", { id: "dialog-title" }, title), h("p", {}, text),
      h("div", { class: "secret" }, h("code", {}, secret), copied),
      h("div", { class: "buttons" }, extra ? h("button", { type: "submit", class: "quiet", onclick: () => extra.act() }, extra.label) : null,
        h("button", { type: "submit", class: "primary" }, "I have kept it"))));
  dialog.addEventListener("close", () => dialog.remove());
  document.body.append(dialog);
  dialog.showModal();
}
