// What the gateway tells once a second: a snapshot first, then what has changed.

export const state = {
  link: "connecting",
  facts: {},
  now: 0,
  heard: 0,
  nodes: new Map(),
  models: new Map(),
  tenants: new Map(),
  requests: new Map(),
  errors: new Map(),
  history: { step: 10, measures: [], bins: 0, models: new Map() },
};

const TABLES = ["nodes", "models", "tenants", "requests", "errors"];
const KEPT_STEPS = 360;
const columns = {};
const listeners = new Set();
let source = null;
let watchdog = 0;

function read(name, row) {
  const found = {};
  columns[name].forEach((column, at) => (found[column] = row[at]));
  return found;
}

function takeSteps(models) {
  for (const [model, steps] of Object.entries(models)) {
    const known = state.history.models.get(model) ?? new Map();
    for (const step of steps) known.set(step[0], step);
    state.history.models.set(model, known);
  }
  const oldest = Math.floor(state.now / state.history.step) - KEPT_STEPS;
  for (const [model, steps] of state.history.models) {
    for (const number of steps.keys()) if (number <= oldest) steps.delete(number);
    if (!steps.size) state.history.models.delete(model);
  }
}

function takeSnapshot(told) {
  state.now = told.now;
  state.facts = told.facts;
  for (const name of TABLES) {
    columns[name] = told[name].columns;
    state[name] = new Map(told[name].rows.map((row) => [row[0], read(name, row)]));
  }
  const { step, measures, bins, models } = told.history;
  state.history = { step, measures, bins, models: new Map() };
  takeSteps(models);
}

function takeDelta(told) {
  state.now = told.now;
  if (told.facts) state.facts = told.facts;
  for (const name of TABLES) {
    const changed = told[name];
    if (!changed) continue;
    for (const key of changed.gone ?? []) state[name].delete(key);
    for (const row of changed.set ?? []) state[name].set(row[0], read(name, row));
  }
  takeSteps(told.history ?? {});
}

function tell(name) {
  for (const listener of listeners) listener(name);
}

function take(event, how) {
  performance.mark("told");
  how(JSON.parse(event.data));
  state.heard = Date.now();
  state.link = "live";
  tell(event.type);
  performance.measure("refresh", "told");
}

export function watch(listener) {
  listeners.add(listener);
  return () => listeners.delete(listener);
}

export function connect() {
  disconnect();
  state.link = "connecting";
  source = new EventSource("/console/live");
  source.addEventListener("snapshot", (event) => take(event, takeSnapshot));
  source.addEventListener("delta", (event) => take(event, takeDelta));
  source.onerror = () => {
    state.link = "lost";
    if (source && source.readyState === EventSource.CLOSED) window.dispatchEvent(new Event("link-closed"));
    tell("lost");
  };
  watchdog = setInterval(() => {
    if (state.link === "live" && Date.now() - state.heard > 8000) {
      state.link = "lost";
      tell("lost");
    }
  }, 1000);
}

export function disconnect() {
  clearInterval(watchdog);
  source?.close();
  source = null;
}
