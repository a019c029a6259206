// From the steps of the last hour to what charts draw.

import { state } from "./live.js";

const STEPS = 360;

export function quantile(bins, share) {
  const total = bins.reduce((a, b) => a + b, 0);
  if (!total) return null;
  let left = share * total;
  for (let at = 0; at < bins.length; at++) {
    left -= bins[at];
    // Half a power of two each, from 10 ms on: the middle of the bin.
    if (left <= 0) return 10 * 2 ** ((at + 0.5) / 2);
  }
  return null;
}

// Answers that are under way: what has come of them, spread over the time since they began.
function addRunning(sums, model, first, seconds) {
  for (const request of state.requests.values()) {
    if (!request.output || (model && request.model !== model)) continue;
    const thinking = request.thinking ?? (request.phase === "thinking" ? request.output : 0);
    const begin = Math.max(0, Math.floor(request.began / seconds) - first), end = sums.length - 1;
    for (let at = begin; at <= end; at++) {
      const from = Math.max(request.began, (first + at) * seconds), to = Math.min(state.now, (first + at + 1) * seconds);
      const part = Math.max(0, to - from) / Math.max(1, state.now - request.began);
      sums[at].thinking += thinking * part;
      sums[at].answer += (request.output - thinking) * part;
    }
  }
}

// The sums of each step of the last hour, of one model or of all: `group` steps together.
export function hour(model, group = 3) {
  const { step, measures, bins, models } = state.history;
  const place = Object.fromEntries(measures.map((name, at) => [name, at + 1]));
  const last = Math.floor(state.now / step);
  const chosen = model ? [models.get(model) ?? new Map()] : [...models.values()];
  const count = STEPS / group;
  const first = Math.floor(last / group) - count + 1;
  const sums = Array.from({ length: count }, () => ({ requests: 0, errors: 0, thinking: 0, answer: 0, input: 0, waiting: 0, bins: new Array(bins).fill(0) }));
  for (const steps of chosen) {
    for (const [number, values] of steps) {
      const sum = sums[Math.floor(number / group) - first];
      if (!sum) continue;
      for (const name of ["requests", "errors", "thinking", "answer", "input"]) sum[name] += values[place[name]] ?? 0;
      sum.waiting = Math.max(sum.waiting, values[place.waiting] ?? 0);
      for (let at = 0; at < bins; at++) sum.bins[at] += values[measures.length + 1 + at] ?? 0;
    }
  }
  addRunning(sums, model, first, step * group);
  const seconds = step * group;
  // The step that is under way has had less time.
  const spent = sums.map((_, at) => (at === count - 1 ? Math.max(step, state.now - (first + at) * seconds) : seconds));
  return {
    times: sums.map((_, at) => (first + at) * seconds),
    requests: sums.map((sum, at) => sum.requests / spent[at]),
    errors: sums.map((sum, at) => (sum.errors / spent[at]) * 60),
    thinking: sums.map((sum, at) => sum.thinking / spent[at]),
    answer: sums.map((sum, at) => sum.answer / spent[at]),
    waiting: sums.map((sum) => sum.waiting),
    ttft: sums.map((sum) => quantile(sum.bins, 0.5)),
    ttft95: sums.map((sum) => quantile(sum.bins, 0.95)),
  };
}
