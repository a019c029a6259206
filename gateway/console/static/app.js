// The console: sign in, then one view at a time, all fed by one stream of events.

import { ask } from "./api.js";
import { ChangesView } from "./changes.js";
import { h, say, whole } from "./dom.js";
import { ErrorsView, openError } from "./errors.js";
import { FleetView, openNode } from "./fleet.js";
import { connect, disconnect, state, watch } from "./live.js";
import { NowView } from "./now.js";
import { panel } from "./panel.js";
import { PlaygroundView } from "./playground.js";
import { RequestsView, openRequest } from "./requests.js";
import { TenantsView, openTenant } from "./tenants.js";

const app = document.getElementById("app");
const THEMES = ["auto", "light", "dark"];

function applyTheme(theme) {
  if (theme === "auto") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme;
}

let theme = THEMES.includes(localStorage.getItem("theme")) ? localStorage.getItem("theme") : "auto";
applyTheme(theme);

function logo() {
  return h("span", { class: "logo" }, h("img", { src: "/console/static/icon.svg", alt: "", width: 22, height: 22 }), "fleetgate");
}

function signIn(needsToken, words = "") {
  disconnect();
  panel.close();
  const name = h("input", { name: "name", autocomplete: "name", maxlength: 60, required: true });
  const token = h("input", { name: "token", type: "password", autocomplete: "current-password", required: true });
  const problem = h("p", { class: "problem", role: "alert" }, words);
  const go = h("button", { class: "primary", type: "submit" }, "Sign in");
  const form = h("form", { class: "sign-in card", novalidate: true },
    logo(), h("h1", {}, "Console"),
    h("label", { class: "field" }, h("span", {}, "Your name"), name, h("small", {}, "The audit shows it beside what you change.")),
    needsToken ? h("label", { class: "field" }, h("span", {}, "Admin token"), token) : null, problem, go);
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    go.disabled = true;
    say(problem, "");
    try {
      const answer = await ask("POST", "/console/session", { name: name.value, token: needsToken ? token.value : "" });
      token.value = "";
      start(answer.session, needsToken);
    } catch (error) {
      say(problem, error.message);
      token.select();
    } finally {
      go.disabled = false;
    }
  });
  document.title = "Sign in · fleetgate";
  app.replaceChildren(h("main", { id: "main", class: "sign-in-page" }, form));
  name.focus();
}

function start(session, needsToken) {
  const open = (kind, key) => {
    const doors = { node: openNode, tenant: (name) => openTenant(name, play), request: openRequest, error: openError, view: show };
    doors[kind](key);
  };
  const playground = new PlaygroundView();
  const play = (key) => { playground.useKey(key); show("playground"); };
  const views = {
    now: ["Now", new NowView({ open })], fleet: ["Fleet", new FleetView()], tenants: ["Tenants", new TenantsView({ play })],
    requests: ["Requests", new RequestsView()], errors: ["Errors", new ErrorsView()], playground: ["Playground", playground], changes: ["Changes", new ChangesView()],
  };
  const counts = Object.fromEntries(Object.keys(views).map((name) => [name, h("span", { class: "nav-count" })]));
  const links = Object.fromEntries(Object.entries(views).map(([name, [label]]) => [name, h("a", { href: `#${name}` }, h("span", {}, label), counts[name])]));
  const main = h("main", { id: "main", tabindex: "-1" });
  const link = h("span", { class: "link-state", role: "status" });
  const themeButton = h("button", { class: "quiet", onclick: () => {
    theme = THEMES[(THEMES.indexOf(theme) + 1) % THEMES.length];
    localStorage.setItem("theme", theme);
    applyTheme(theme);
    say(themeButton, `Theme: ${theme}`);
  } }, `Theme: ${theme}`);
  const leave = async () => {
    playground.forget();
    stopWatching();
    disconnect();
    await ask("DELETE", "/console/session").catch(() => {});
    signIn(needsToken);
  };
  app.replaceChildren(h("div", { class: "frame" },
    h("nav", { class: "side", "aria-label": "Console" }, logo(), h("div", { class: "links" }, Object.values(links)),
      h("div", { class: "side-foot" }, link, h("div", { class: "person" }, session.name), themeButton, h("button", { class: "quiet", onclick: leave }, "Sign out"))),
    main, panel.element));

  let current = "";
  function show(name) {
    const wanted = views[name] ? name : "now";
    if (location.hash !== `#${wanted}`) history.replaceState(null, "", `#${wanted}`);
    if (current === wanted) return;
    current = wanted;
    const [label, view] = views[wanted];
    panel.close();
    main.replaceChildren(view.element);
    document.title = `${label} · fleetgate`;
    for (const [each, element] of Object.entries(links)) {
      if (each === wanted) element.setAttribute("aria-current", "page");
      else element.removeAttribute("aria-current");
    }
    links[wanted].scrollIntoView({ block: "nearest", inline: "nearest" });
    view.enter?.();
    refresh();
  }

  function refresh() {
    const { facts } = state;
    const words = { live: "Live", connecting: "Connecting…", lost: "Not connected" }[state.link];
    link.dataset.state = state.link;
    say(link, state.link === "live" && facts.gateways > 1 ? `Live · ${facts.views} of ${facts.gateways} processes` : words);
    if (!state.now) return;
    app.removeAttribute("aria-busy");
    const sick = [...state.nodes.values()].filter((node) => node.state === "out" || node.state === "failing").length;
    say(counts.fleet, sick ? whole(sick) : "");
    counts.fleet.className = sick ? "nav-count bad" : "nav-count";
    say(counts.requests, whole((facts.running ?? 0) + (facts.waiting ?? 0)));
    const fresh = [...state.errors.values()].filter((group) => state.now - group.last < 300).length;
    say(counts.errors, fresh ? whole(fresh) : "");
    views[current]?.[1].refresh();
    panel.refresh();
  }

  const stopWatching = watch(refresh);
  const onHash = () => show(location.hash.slice(1));
  window.addEventListener("hashchange", onHash);
  const signedOut = async () => {
    window.removeEventListener("signed-out", signedOut);
    window.removeEventListener("link-closed", closed);
    window.removeEventListener("hashchange", onHash);
    playground.forget();
    stopWatching();
    signIn(needsToken, "Your session has ended: sign in again.");
  };
  const closed = async () => {
    const told = await ask("GET", "/console/session").catch(() => null);
    if (told && !told.session) signedOut();
    else setTimeout(connect, 3000);
  };
  window.addEventListener("signed-out", signedOut);
  window.addEventListener("link-closed", closed);
  show(location.hash.slice(1) || "now");
  connect();
}

async function begin() {
  try {
    const told = await ask("GET", "/console/session");
    if (told.session) start(told.session, told.needs_token);
    else signIn(told.needs_token);
  } catch (error) {
    app.replaceChildren(h("main", { id: "main", class: "sign-in-page" }, h("p", { class: "problem" }, error.message)));
  }
}

begin();
