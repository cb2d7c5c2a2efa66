// Making elements, asking the server, and saying numbers and errors in words. Data only ever becomes text nodes and attributes, never
// markup. Knows none of the page's views.

/** An element. Attributes that are functions listen to the event of their name; `null` and `false` are left out. */
export function h(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (typeof value === "function") element.addEventListener(key, value);
    else if (value !== null && value !== undefined && value !== false) element.setAttribute(key, value === true ? "" : value);
  }
  return put(element, children);
}

/** Puts children, and lists of them, in the place of those that an element has. */
export function put(element, ...children) {
  element.replaceChildren(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

/** What went wrong, in a sentence, and what to do about it. */
export class Problem extends Error {
  constructor(sentence, hint) {
    super(sentence);
    this.hint = hint;
  }
}

/** The answer to `/api/PATH`; a field may be a list. */
export async function ask(path, fields = {}, signal = undefined) {
  const query = new URLSearchParams();
  for (const [name, value] of Object.entries(fields)) {
    for (const one of [value].flat()) if (one !== undefined && one !== null) query.append(name, one);
  }
  let response;
  try {
    response = await fetch(`/api/${path}?${query}`, { signal });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem("the server does not answer", "is `effigy serve` still running?");
  }
  if (!response.ok) {
    const told = await response.json().catch(() => ({}));
    throw new Problem(told.error ?? `the server answered ${response.status}`, told.hint);
  }
  return response;
}

/** The same as data. */
export const get = async (path, fields, signal) => (await ask(path, fields, signal)).json();

/** An error to look at. */
export function trouble(error) {
  if (!(error instanceof Problem)) console.error(error);
  return h("div", { class: "trouble", role: "alert" },
    h("p", {}, sentence(error.message)),
    error.hint ? h("p", { class: "faint" }, sentence(error.hint)) : null);
}

export function sentence(text) {
  const whole = text.charAt(0).toUpperCase() + text.slice(1);
  return /[.?!:]$/.test(whole) ? whole : `${whole}.`;
}

/** A drawing that the server made, as an element. It is parsed as XML, and the page's policy lets no script in it run. */
export function drawing(text) {
  const parsed = new DOMParser().parseFromString(text, "image/svg+xml").documentElement;
  return document.importNode(parsed, true);
}

/** A table with headings; a heading may be an element. */
export function table(headings, rows, attributes = {}) {
  return h("div", { class: "scroll" }, h("table", attributes,
    h("thead", {}, h("tr", {}, headings.map((one) => (one instanceof Element && one.tagName === "TH" ? one : h("th", {}, one))))),
    h("tbody", {}, rows)));
}

/** A cell with a number. */
export const number = (value) => h("td", { class: "number" }, value ?? "");

const PICTURES = ["png", "jpg", "jpeg", "webp", "gif", "bmp", "avif", "svg"];
const VIDEOS = ["mp4", "webm"];

export const isPicture = (cell) => Boolean(cell?.blob) && PICTURES.includes(cell.ext.toLowerCase());
export const isVideo = (cell) => Boolean(cell?.blob) && VIDEOS.includes(cell.ext.toLowerCase());

/** Where the file of a cell is found. */
export const address = (cell) => `/blob/${cell.blob}${cell.ext ? `.${cell.ext}` : ""}`;

/** A number as people read it; what stands before the point is never rounded. */
export function digits(value) {
  if (!Number.isFinite(value) || Number.isInteger(value)) return String(value);
  const size = Math.abs(value);
  if (size < 1e-3 || size >= 1e9) return value.toExponential(3);
  return size >= 1e4 ? value.toFixed(1) : String(Number(value.toPrecision(5)));
}

/** How the numbers of a column are written, one like the other: `largest` of them, and the most `decimals` that any has. */
export function alike({ largest, decimals } = {}) {
  if (typeof largest !== "number" || (largest > 0 && (largest < 1e-3 || largest >= 1e9))) return digits;
  const most = Math.max(1, 4 - Math.max(0, Math.floor(Math.log10(largest || 1))) + (largest < 1 ? 1 : 0));
  const places = Math.min(decimals, most);
  return (value) => (Number.isFinite(value) ? value.toFixed(places) : String(value));
}

export function bytes(length) {
  const units = ["B", "kB", "MB", "GB", "TB"];
  let unit = 0;
  for (; length >= 1000 && unit < units.length - 1; unit += 1) length /= 1000;
  return `${unit && length < 10 ? length.toFixed(1) : Math.round(length)} ${units[unit]}`;
}

const two = (value) => String(value).padStart(2, "0");

export function duration(seconds) {
  if (seconds < 0.05) return "";
  if (seconds < 9.95) return `${seconds.toFixed(1)} s`;
  // rounded before it is cut up: no minute has sixty seconds
  const whole = Math.round(seconds);
  if (whole < 60) return `${whole} s`;
  const minutes = Math.floor(whole / 60);
  return minutes < 60 ? `${minutes} min ${two(whole % 60)} s` : `${Math.floor(minutes / 60)} h ${two(minutes % 60)} min`;
}

export function moment(milliseconds) {
  const date = new Date(milliseconds);
  return `${date.getFullYear()}-${two(date.getMonth() + 1)}-${two(date.getDate())} ${two(date.getHours())}:${two(date.getMinutes())}:${two(date.getSeconds())}`;
}

/** `1 row`, `2 rows`. */
export const counted = (count, what) => `${count} ${what}${count === 1 ? "" : "s"}`;

/** An address of this page: `#/run/NAME?field=value`. */
export function link(parts, fields = {}) {
  const query = new URLSearchParams(Object.entries(fields).flatMap(([name, value]) => [value].flat().map((one) => [name, one])));
  const text = query.toString();
  return `#/${parts.map(encodeURIComponent).join("/")}${text ? `?${text}` : ""}`;
}

/** Writes down in the address what is shown, so that it can be kept and comes back when the page is loaded again. No view changes by it. */
export function keep(parts, fields) {
  history.replaceState(null, "", link(parts, Object.fromEntries(Object.entries(fields).filter(([, value]) => ![null, undefined, ""].includes(value) && !(Array.isArray(value) && !value.length)))));
}

/** A list to choose from: `[value, text]` each. */
export function choice(options, chosen, change, attributes = {}) {
  return h("select", { change: (event) => change(event.target.value), ...attributes },
    options.map(([value, text]) => h("option", { value, selected: value === chosen }, text)));
}
