// The rows of a stage: pages of a table with pictures, conditions, order, and one row in full. Knows nothing of what rows mean.

import { address, alike, bytes, counted, digits, get, h, isPicture, isVideo, link, put, table, trouble } from "./dom.js";

/** Rows of a page. */
const PAGE = 60;

/** How far to the right one was, and what had the focus, when the same rows were asked for in another way. */
let left = null;

/** The rows of a stage of a run. What is shown stands in the address, so that it can be kept and gone back to. */
export async function rows(place, [run, name], fields, signal) {
  const told = await get("run", { run }, signal);
  const stage = told.stages.find((one) => one.name === name);
  place.append(
    h("p", { class: "path" }, h("a", { href: link(["run", run]) }, told.recipe), " / ", name),
    h("h1", {}, name, " ", h("span", { class: "faint" }, stage?.kind ?? "")),
  );
  if (!stage?.table) {
    place.append(h("p", {}, "This run has no finished stage of this name."));
    return;
  }
  const state = { where: fields.getAll("where"), order: fields.get("order"), offset: Number(fields.get("offset") ?? 0) };
  const go = (change) => {
    const next = { ...state, offset: 0, ...change };
    left = { of: `${run}/${name}`, scroll: place.querySelector(".scroll")?.scrollLeft ?? 0, focus: document.activeElement?.dataset?.focus };
    location.hash = link(["rows", run, name], { where: next.where, ...(next.order ? { order: next.order } : {}), ...(next.offset ? { offset: next.offset } : {}) });
  };
  const shown = h("div", { class: "paged" });
  let columns = [];
  try {
    const page = await get("rows", { table: stage.table, ...state, order: state.order ?? undefined, limit: PAGE }, signal);
    columns = page.columns;
    shown.append(...paged(place, page, state, go, stage.table));
  } catch (error) {
    if (error.name === "AbortError") throw error;
    shown.append(trouble(error));
    // the names of the columns are worth knowing, above all if a condition was wrong
    columns = (await get("rows", { table: stage.table, limit: 1 }, signal)).columns;
  }
  place.append(conditions(state.where, columns, (where) => go({ where })), shown);
  if (left?.of === `${run}/${name}`) {
    const scroller = place.querySelector(".scroll");
    if (scroller) scroller.scrollLeft = left.scroll;
    if (left.focus) place.querySelector(`[data-focus="${CSS.escape(left.focus)}"]`)?.focus({ preventScroll: true });
  }
  left = null;
}

function conditions(where, columns, change) {
  const text = h("input", { name: "condition", "data-focus": "condition", placeholder: "psnr>=20, split=test, name*=mouth, note=~", list: "columns", autocomplete: "off", spellcheck: "false", "aria-label": "condition" });
  const add = (event) => {
    event.preventDefault();
    if (text.value.trim()) change([...where, text.value.trim()]);
  };
  const drop = (i) => change(where.filter((_, k) => k !== i));
  return h("form", { class: "conditions", submit: add },
    where.map((one, i) => h("button", { type: "button", class: "chip", title: "leave this condition out", click: () => drop(i) }, one, " ×")),
    text, h("datalist", { id: "columns" }, columns.map(([name]) => h("option", { value: `${name}=` }))),
    h("button", {}, "Add condition"));
}

function paged(place, page, state, go, digest) {
  const order = arranged(page.columns);
  const heading = ([name, type]) => {
    const down = state.order === `-${name}`;
    const up = state.order === name;
    const next = up ? `-${name}` : down ? null : name;
    const numeric = ["i64", "f64"].includes(type);
    const attributes = { class: numeric ? "number" : "", "aria-sort": up ? "ascending" : down ? "descending" : null };
    // lists and files of equal size have no order
    if (type.startsWith("floats")) return h("th", { ...attributes, title: type }, name);
    return h("th", attributes,
      h("button", { class: "heading", title: `${type}; sort by it`, "data-focus": `column ${name}`, click: () => go({ order: next }) }, name, up ? " ▴" : down ? " ▾" : ""));
  };
  const written = page.columns.map(([, type, facts]) => (type === "f64" ? alike(facts) : digits));
  const shownCell = (cell, i) => (typeof cell === "number" ? h("td", { class: "number" }, written[i](cell)) : h("td", {}, content(cell, false, page.columns[i][0])));
  // a click anywhere on a row shows it in full; its number is what the keyboard reaches
  const row = ([index, cells], i) => h("tr", { click: (event) => { if (!event.target.closest("a")) whole(place, digest, page, order, i); } },
    h("td", { class: "number" }, h("button", { class: "heading", "data-focus": `row ${i}`, "aria-label": `row ${index} in full`, "aria-haspopup": "dialog" }, index)),
    order.map((k) => shownCell(cells[k], k)));
  const last = Math.min(state.offset + PAGE, page.matching);
  const final = Math.max(0, Math.ceil(page.matching / PAGE) - 1) * PAGE;
  const turn = (text, offset, on) => h("button", { "data-focus": text, disabled: !on, click: () => go({ offset }) }, text);
  const [back, on] = [state.offset > 0, last < page.matching];
  const turning = h("p", { class: "turn" },
    page.matching === page.total ? counted(page.total, "row") : `${page.matching} of ${counted(page.total, "row")}`,
    page.matching > PAGE ? [`, ${state.offset + 1} to ${last}; page ${Math.floor(state.offset / PAGE) + 1} of ${final / PAGE + 1} `,
      turn("First", 0, back), " ", turn("Before", Math.max(0, state.offset - PAGE), back), " ",
      turn("Next", state.offset + PAGE, on), " ", turn("Last", final, on)] : null);
  if (!page.rows.length && page.matching) return [h("p", {}, `There are only ${counted(page.matching, "row")} here. `, turn("Last", final, true))];
  return [turning, table([h("th", { class: "number" }, "row"), ...order.map((i) => heading(page.columns[i]))], page.rows.map(row), { class: "rows" })];
}

/** In which order columns stand, whatever rows and conditions: what rows are called by, texts, pictures, numbers, films, other files, lists, and
    last what is the same in all rows of the table; each kind in the order of the table. */
function arranged(columns) {
  const rank = ([, type, { constant, ext, names }]) => {
    if (ext && isPicture({ blob: true, ext })) return 2;
    if (constant) return 8;
    if (names) return 0;
    return { str: 1, f64: 3, i64: 4, bool: 4 }[type] ?? (ext ? (isVideo({ blob: true, ext }) ? 5 : 6) : 7);
  };
  const ranks = columns.map(rank);
  return columns.map((_, i) => i).sort((a, b) => ranks[a] - ranks[b] || a - b);
}

/** A value as it is seen, small or large. */
export function content(cell, large, name = "") {
  if (cell === null) return h("span", { class: "faint" }, "~");
  if (isPicture(cell)) {
    const image = h("img", { src: address(cell), loading: large ? null : "lazy", alt: name, class: large ? "large" : "thumbnail", title: bytes(cell.len) });
    // small pictures are enlarged as they are, pixel by pixel
    image.addEventListener("load", () => image.classList.toggle("pixels", image.naturalWidth < 200));
    return large ? h("a", { href: address(cell), target: "_blank", rel: "noopener" }, image) : image;
  }
  if (isVideo(cell)) {
    const film = h("video", { src: address(cell), controls: large, muted: true, preload: "metadata", class: large ? "large" : "thumbnail", "aria-label": "film" });
    return large ? film : h("span", { class: "film" }, film);
  }
  if (cell?.blob) return h("a", { href: address(cell), target: "_blank", rel: "noopener" }, `${cell.ext || "file"}, ${bytes(cell.len)}`);
  if (cell?.floats) return h("span", { class: "faint" }, `${cell.floats} numbers: ${cell.first.map(digits).join(", ")}, …`);
  if (Array.isArray(cell)) return h("span", {}, `[${cell.map((value) => (typeof value === "number" ? digits(value) : String(value))).join(", ")}]`);
  return String(cell);
}

/** The rows of a page in full, one at a time, above it; `at`: which of them. */
function whole(place, digest, page, order, at) {
  const body = h("div", {}, "…");
  const title = h("strong");
  const to = (step) => () => show(at + step);
  const [before, after] = [h("button", { type: "button", click: to(-1) }, "Before"), h("button", { type: "button", click: to(1) }, "Next")];
  const box = h("dialog", {
    "aria-label": "a row in full",
    click: (event) => { if (event.target === box) box.close(); },
    close: () => { box.remove(); place.querySelector(`[data-focus="row ${at}"]`)?.focus(); },
    keydown: (event) => {
      const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      // arrows move within films
      if (step && event.target.tagName !== "VIDEO") { event.preventDefault(); show(at + step); }
    },
  }, h("form", { method: "dialog" }, title, h("span", {}, before, " ", after, " ", h("button", {}, "Close"))), body);
  const show = async (next) => {
    if (!page.rows[next]) return;
    at = next;
    const [index] = page.rows[at];
    title.textContent = `Row ${index}`;
    [before.disabled, after.disabled] = [!page.rows[at - 1], !page.rows[at + 1]];
    try {
      // a row is found again by its number in the table, which no condition changes
      const told = await get("rows", { table: digest, offset: index, limit: 1, whole: 1 });
      if (at !== next) return;
      const [, cells] = told.rows[0];
      const line = (i) => [h("dt", { title: page.columns[i][1] }, page.columns[i][0]), h("dd", {}, content(cells[i], true, page.columns[i][0]))];
      put(body, h("dl", {}, order.map(line)));
      box.scrollTop = 0;
    } catch (error) {
      body.replaceChildren(trouble(error));
    }
  };
  // it goes with the view
  place.append(box);
  box.showModal();
  return show(at);
}
