// The rows of a stage: pages of a table with pictures, conditions, order, and one row in full. Knows nothing of what rows mean.

import { address, bytes, counted, digits, get, h, isPicture, isVideo, link, table, trouble } from "./dom.js";

/** Rows of a page. */
const PAGE = 60;

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
    location.hash = link(["rows", run, name], { where: next.where, ...(next.order ? { order: next.order } : {}), ...(next.offset ? { offset: next.offset } : {}) });
  };
  const shown = h("div");
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
}

function conditions(where, columns, change) {
  const text = h("input", { name: "condition", placeholder: "psnr>=20, split=test, name*=mouth, note=~", list: "columns", autocomplete: "off", spellcheck: "false", "aria-label": "condition" });
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
  // what one asks for, one wants to see
  const asked = [...state.where, (state.order ?? "").replace(/^-/, "")];
  const order = arranged(page, (name) => asked.some((text) => text.startsWith(name) && !/\w/.test(text.charAt(name.length))));
  const heading = ([name, type]) => {
    const down = state.order === `-${name}`;
    const up = state.order === name;
    const next = up ? `-${name}` : down ? null : name;
    const numeric = ["i64", "f64"].includes(type);
    return h("th", { class: numeric ? "number" : "", "aria-sort": up ? "ascending" : down ? "descending" : null },
      h("button", { class: "heading", title: `${type}; sort by it`, click: () => go({ order: next }) }, name, up ? " ↑" : down ? " ↓" : ""));
  };
  // a click anywhere on a row shows it in full; its number is what the keyboard reaches
  const row = ([index, cells]) => h("tr", { click: (event) => { if (!event.target.closest("a")) whole(place, digest, index, page.columns); } },
    h("td", { class: "number" }, h("button", { class: "heading", "aria-label": `row ${index} in full`, "aria-haspopup": "dialog" }, index)),
    order.map((i) => shownCell(cells[i])));
  const last = Math.min(state.offset + PAGE, page.matching);
  const turn = h("p", { class: "turn" },
    page.matching === page.total ? counted(page.total, "row") : `${page.matching} of ${counted(page.total, "row")}`,
    page.matching > PAGE ? `, ${state.offset + 1} to ${last} ` : " ",
    state.offset > 0 ? h("button", { click: () => go({ offset: Math.max(0, state.offset - PAGE) }) }, "Before") : null, " ",
    last < page.matching ? h("button", { click: () => go({ offset: last }) }, "Next") : null);
  return [turn, table([h("th", { class: "number" }, "row"), ...order.map((i) => heading(page.columns[i]))], page.rows.map(row), { class: "rows" })];
}

/** In which order columns stand: names and what is wanted, pictures, numbers, other files, lists, and last what is the same in all rows. What was added last comes
    first among its like, being the stage's own. */
function arranged(page, wanted) {
  const rank = (i) => {
    const all = page.rows.map(([, cells]) => cells[i]);
    const [name, type] = page.columns[i];
    if (wanted(name)) return 0;
    if (all.some(isPicture)) return 1;
    if (all.every((cell) => JSON.stringify(cell) === JSON.stringify(all[0])) && (all.length > 1 || all[0] === null)) return 7;
    return { str: 0, f64: 2, i64: 3, bool: 3 }[type] ?? (all.some(isVideo) ? 4 : all.some((cell) => cell?.blob) ? 5 : 6);
  };
  const ranks = page.columns.map((_, i) => rank(i));
  return page.columns.map((_, i) => i).sort((a, b) => ranks[a] - ranks[b] || (ranks[a] === 0 ? a - b : b - a));
}

function shownCell(cell) {
  if (typeof cell === "number") return h("td", { class: "number" }, digits(cell));
  return h("td", {}, content(cell, false));
}

/** A value as it is seen, small or large. */
export function content(cell, large) {
  if (cell === null) return h("span", { class: "faint" }, "~");
  if (isPicture(cell)) {
    const image = h("img", { src: address(cell), loading: large ? null : "lazy", alt: "", class: large ? "large" : "thumbnail", title: bytes(cell.len) });
    // small pictures are enlarged as they are, pixel by pixel
    image.addEventListener("load", () => image.classList.toggle("pixels", image.naturalWidth < 200));
    return large ? h("a", { href: address(cell), target: "_blank", rel: "noopener" }, image) : image;
  }
  if (isVideo(cell)) return h("video", { src: address(cell), controls: large, muted: true, preload: "metadata", class: large ? "large" : "thumbnail" });
  if (cell?.blob) return h("a", { href: address(cell), target: "_blank", rel: "noopener" }, `${cell.ext || "file"}, ${bytes(cell.len)}`);
  if (cell?.floats) return h("span", { class: "faint" }, `${cell.floats} numbers: ${cell.first.map(digits).join(", ")}, …`);
  if (Array.isArray(cell)) return h("span", {}, `[${cell.map((value) => (typeof value === "number" ? digits(value) : String(value))).join(", ")}]`);
  return String(cell);
}

/** One row in full, above the page. */
async function whole(place, digest, index, columns) {
  const body = h("div", {}, "…");
  const box = h("dialog", { click: (event) => { if (event.target === box) box.close(); }, close: () => box.remove() },
    h("form", { method: "dialog" }, h("strong", {}, `Row ${index}`), h("button", {}, "Close")), body);
  // it goes with the view
  place.append(box);
  box.showModal();
  try {
    // a row is found again by its number in the table, which no condition changes
    const page = await get("rows", { table: digest, offset: index, limit: 1, whole: 1 });
    const [, cells] = page.rows[0];
    body.replaceChildren(h("dl", {}, columns.flatMap(([name, type], i) => [h("dt", { title: type }, name), h("dd", {}, content(cells[i], true))])));
  } catch (error) {
    body.replaceChildren(trouble(error));
  }
}
