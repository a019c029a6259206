// Elements and words. All text goes in as text: nothing that a tenant, a model or a node said is ever parsed as markup.

const SVG = "http://www.w3.org/2000/svg";

function put(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "class") element.setAttribute("class", value);
    else if (name in element && typeof value === "boolean") element[name] = value;
    else if (name === "value") element.value = value;
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  element.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

export function h(tag, attributes, ...children) {
  return put(document.createElement(tag), attributes, children);
}

export function s(tag, attributes, ...children) {
  return put(document.createElementNS(SVG, tag), attributes, children);
}

// Sets an element's text where it differs, so that what is selected stays selected.
export function say(element, text) {
  const wanted = text === null || text === undefined ? "" : String(text);
  if (element.textContent !== wanted) element.textContent = wanted;
}

export function fill(element, ...children) {
  element.replaceChildren(...children.flat(Infinity).filter(Boolean));
  return element;
}

export const DASH = "–";

const GROUPED = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });

export function whole(value) {
  return value === null || value === undefined ? DASH : GROUPED.format(value);
}

export function short(value) {
  if (value === null || value === undefined) return DASH;
  const size = Math.abs(value);
  if (size >= 999_500_000) return `${(value / 1e9).toFixed(1)} G`;
  if (size >= 999_500) return `${(value / 1e6).toFixed(size >= 1e7 ? 0 : 1)} M`;
  if (size >= 10_000) return `${(value / 1e3).toFixed(size >= 1e5 ? 0 : 1)} k`;
  if (size >= 100 || Number.isInteger(value)) return GROUPED.format(value);
  return value.toFixed(size >= 10 ? 0 : 1);
}

export function percent(value) {
  return value === null || value === undefined ? DASH : `${value}%`;
}

export function dollars(value) {
  if (value === null || value === undefined) return DASH;
  const size = Math.abs(value);
  if (size >= 1000) return `$${GROUPED.format(value)}`;
  return `$${value.toFixed(size > 0 && size < 0.01 ? 4 : 2)}`;
}

export function milliseconds(value) {
  if (value === null || value === undefined) return DASH;
  if (value < 1000) return `${value} ms`;
  return value < 10_000 ? `${(value / 1000).toFixed(2)} s` : `${(value / 1000).toFixed(value < 100_000 ? 1 : 0)} s`;
}

export function span(seconds) {
  if (seconds === null || seconds === undefined) return DASH;
  const value = Math.max(0, Math.round(seconds));
  if (value < 60) return `${value} s`;
  if (value < 3600) return `${Math.floor(value / 60)} min ${value % 60 ? `${value % 60} s` : ""}`.trim();
  if (value < 86_400) return `${Math.floor(value / 3600)} h ${Math.floor((value % 3600) / 60)} min`;
  return `${Math.floor(value / 86_400)} d ${Math.floor((value % 86_400) / 3600)} h`;
}

// The same in one unit, for columns.
export function brief(seconds) {
  if (seconds === null || seconds === undefined) return DASH;
  const value = Math.max(0, Math.round(seconds));
  if (value < 100) return `${value} s`;
  if (value < 6000) return `${Math.round(value / 60)} min`;
  return value < 172_800 ? `${Math.round(value / 3600)} h` : `${Math.round(value / 86_400)} d`;
}

export function clock(seconds) {
  return new Date(seconds * 1000).toLocaleTimeString("en-GB");
}

export function plural(count, one, many = `${one}s`) {
  return `${whole(count)} ${count === 1 ? one : many}`;
}
