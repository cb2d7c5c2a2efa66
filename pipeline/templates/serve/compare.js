// Two runs side by side: which stages differ, which rows of a stage, and their pictures under a slider. Knows nothing of stages' kinds.

import { address, choice, counted, digits, get, h, isPicture, keep, link, moment, sentence, table, trouble } from "./dom.js";

/** So many of the last runs can be chosen from; an address may name any. */
const RUNS = 500;

/** Two runs; without any in the address, the last one that was finished and the one of the same recipe before it. */
export async function compare(place, _parts, fields, signal) {
  const { runs } = await get("runs", { limit: RUNS }, signal);
  place.append(h("h1", {}, "Compare"));
  if (!runs.length) {
    place.append(h("p", {}, "There is no run to compare yet."));
    return;
  }
  const whole = (one) => one.outcome === "done";
  const chosen = { new: fields.get("new") ?? (runs.find(whole) ?? runs[0]).run, stage: fields.get("stage") };
  const at = runs.findIndex((one) => one.run === chosen.new);
  const alike = runs.slice(at + 1).filter((one) => one.recipe === runs[at]?.recipe && one.profile === runs[at]?.profile);
  const before = alike.find(whole) ?? alike[0];
  chosen.old = fields.get("old") ?? (before ?? runs[at + 1] ?? runs[0]).run;
  const go = (change) => {
    const next = Object.entries({ ...chosen, ...change }).filter(([, value]) => value);
    location.hash = link(["compare"], Object.fromEntries(next));
  };
  const options = runs.map((one) => [one.run, `${moment(one.started)} · ${one.recipe}${one.profile ? ` · ${one.profile}` : ""}`]);
  for (const name of [chosen.new, chosen.old]) if (!options.some(([known]) => known === name)) options.push([name, name]);
  place.append(h("p", { class: "choose" },
    h("label", {}, "Old ", choice(options, chosen.old, (old) => go({ old }), { name: "old" })), " ",
    h("label", {}, "New ", choice(options, chosen.new, (next) => go({ new: next }), { name: "new" })), " ",
    h("button", { click: () => go({ old: chosen.new, new: chosen.old }) }, "Exchange")));
  const [old, next] = await Promise.all([get("run", { run: chosen.old }, signal), get("run", { run: chosen.new }, signal)]);
  const pairs = together(old, next);
  if (!chosen.stage) {
    const differ = pairs.filter((pair) => !["equal", "unfinished"].includes(pair.state));
    const open = pairs.filter((pair) => pair.state === "unfinished");
    const compared = pairs.length - open.length;
    const verb = differ.length === 1 ? "differs" : "differ";
    place.append(h("p", { class: "summary" }, sentence([
      !compared ? "no stage was finished in both runs" : differ.length ? `${counted(differ.length, "stage")} of ${compared} ${verb}` : "all stages that both finished put out the same rows",
      open.length ? `${counted(open.length, "stage")} not finished in one of them` : "",
    ].filter(Boolean).join("; "))));
    const [was, is] = [old, next].map((run) => Object.fromEntries(run.params ?? []));
    const own = different(was, is, (value) => value);
    if (own) place.append(h("p", {}, h("span", { class: "faint" }, "Parameters of the recipe: "), own));
    const stageAt = (stage) => link(["compare"], { old: chosen.old, new: chosen.new, stage });
    const same = pairs.filter((pair) => pair.state === "equal");
    if (differ.length) place.append(overview(differ, stageAt));
    if (open.length) place.append(h("details", {}, h("summary", {}, counted(open.length, "stage"), " not finished in one of the runs"), overview(open, stageAt)));
    if (same.length) place.append(h("details", {}, h("summary", {}, counted(same.length, "stage"), " with equal rows"), overview(same, stageAt)));
    return;
  }
  place.append(h("h2", {}, choice(pairs.filter((pair) => pair.both).map((pair) => [pair.name, pair.name]), chosen.stage, (stage) => go({ stage }), { name: "stage", "aria-label": "stage" }),
    " ", h("a", { class: "aside", href: link(["compare"], { old: chosen.old, new: chosen.new }) }, "all stages")));
  const pair = pairs.find((one) => one.name === chosen.stage);
  if (!pair?.both) {
    place.append(h("p", {}, "The rows of this stage are kept of one of the two runs at most: tables of the last 50 runs are, within 512 MB."));
    return;
  }
  const tables = { old: pair.old.table, new: pair.new.table };
  const changes = h("div", {}, h("p", { class: "faint" }, "comparing…"));
  const pictures = h("div");
  place.append(changes, pictures);
  await Promise.all([
    fill(changes, async () => told(await get("diff", tables, signal), pair.state)),
    fill(pictures, () => sliders(tables, chosen, fields, signal)),
  ]);
}

async function fill(place, make) {
  try {
    place.replaceChildren(...(await make()));
  } catch (error) {
    if (error.name === "AbortError") throw error;
    place.replaceChildren(trouble(error));
  }
}

/** Stages of both runs by name, in the new one's order. */
function together(old, next) {
  const names = [...new Set([...next.stages, ...old.stages].map((stage) => stage.name))];
  return names.map((name) => {
    const [a, b] = [old, next].map((run) => run.stages.find((stage) => stage.name === name));
    const state = !a ? "added" : !b ? "removed" : !a.table || !b.table ? "unfinished" : a.table === b.table ? "equal" : "differs";
    return { name, old: a, new: b, state, both: Boolean(a?.kept && b?.kept) };
  });
}

/** Parameters that differ, with both values as `write` has them. */
function different(a = {}, b = {}, write = JSON.stringify) {
  const all = [...new Set([...Object.keys(a), ...Object.keys(b)])];
  const text = (value) => (value === undefined ? "nothing" : write(value));
  return all.filter((key) => JSON.stringify(a[key]) !== JSON.stringify(b[key])).map((key) => `${key}: ${text(a[key])} → ${text(b[key])}`).join(", ");
}

function overview(pairs, stageAt) {
  const told = (pair) => different(pair.old?.params, pair.new?.params);
  const any = pairs.some(told);
  const row = (pair) => h("tr", { class: pair.state },
    h("td", {}, pair.both ? h("a", { href: stageAt(pair.name) }, pair.name) : pair.name),
    h("td", {}, h("span", { class: `state ${pair.state}` }, pair.state)),
    h("td", { class: "number" }, pair.old?.rows ?? ""), h("td", { class: "number" }, pair.new?.rows ?? ""),
    any ? h("td", { class: "faint" }, told(pair)) : null);
  return table(["Stage", "Rows", numeral("Old rows"), numeral("New rows"), any ? "Parameters that differ" : null].filter(Boolean), pairs.map(row));
}

/** What the server found of the rows. */
function told(diff, state) {
  if (state === "equal") return [h("p", { class: "summary" }, `All ${counted(diff.same, "row")} are equal.`)];
  const parts = [[diff.same, "equal"], [diff.changed, "changed"], [diff.added, "added"], [diff.removed, "removed"]];
  const columns = [...diff.columns_added.map((name) => `column ${name} came`), ...diff.columns_removed.map((name) => `column ${name} went`),
    ...diff.columns_retyped.map(([name, a, b]) => `column ${name} was ${a} and is ${b}`), ...(diff.reordered ? ["rows stand in another order"] : [])];
  const column = (one) => h("tr", {}, h("td", {}, one.column), h("td", { class: "number" }, one.rows),
    h("td", { class: "number" }, one.mean ? `${digits(one.mean[0])} → ${digits(one.mean[1])}` : ""), h("td", { class: "number" }, one.largest === null ? "" : digits(one.largest)));
  const example = (one) => h("tr", {}, h("td", {}, one.row), h("td", {}, one.cells.map(([name, a, b]) => h("div", {}, h("span", { class: "faint" }, `${name} `), `${a} → ${b}`))));
  return [
    h("p", { class: "summary" }, parts.filter(([count]) => count).map(([count, word]) => `${count} ${word}`).join(", ") || "no rows", columns.length ? `; ${columns.join(", ")}` : ""),
    diff.columns.length ? table(["Column", numeral("Rows that differ"), numeral("Their mean"), numeral("Largest difference")], diff.columns.map(column)) : null,
    diff.examples.length ? h("details", {}, h("summary", {}, `Rows that changed${diff.examples.length < diff.changed ? ` (the first ${diff.examples.length})` : ""}`), table(["Row", "Old → new"], diff.examples.map(example))) : null,
    alone("Rows that came", diff.came), alone("Rows that went", diff.went),
  ].filter(Boolean);
}

const numeral = (text) => h("th", { class: "number" }, text);

const alone = (title, names) => (names.length ? h("details", {}, h("summary", {}, title), h("ul", {}, names.map((name) => h("li", {}, name)))) : null);

/** Pictures of rows that belong together. Any column with pictures can be laid on any other, so that a run is compared with its targets, too. */
async function sliders(tables, chosen, fields, signal) {
  const state = { offset: Number(fields.get("offset") ?? 0), left: fields.get("left"), right: fields.get("right") };
  const change = (next) => {
    Object.assign(state, next);
    keep(["compare"], { ...chosen, ...state, offset: state.offset || null });
    return draw();
  };
  const place = h("div");
  const draw = async () => {
    const page = await get("pairs", { ...tables, offset: state.offset }, signal);
    const seen = (side, i) => page.files[i].filter((name) => page.pairs.some((pair) => isPicture(pair[side][name])));
    const [left, right] = [seen("left", 0), seen("right", 1)];
    if (!page.pairs.length && page.total) return change({ offset: 0 });
    if (!left.length || !right.length) return place.replaceChildren();
    // what is in both runs, and of that what differs, is what one wants to see first
    const differs = (name) => page.pairs.some((pair) => pair.left[name]?.blob !== pair.right[name]?.blob);
    const common = left.filter((name) => right.includes(name));
    // what was chosen of another stage need not be here
    if (!left.includes(state.left)) state.left = null;
    if (!right.includes(state.right)) state.right = null;
    state.left ??= common.find(differs) ?? common[0] ?? left[0];
    state.right ??= common.includes(state.left) ? state.left : right[0];
    const pick = (side, names) => choice(names.map((name) => [name, name]), state[side], (name) => change({ [side]: name }), { name: side });
    const last = state.offset + page.pairs.length;
    const turn = (offset) => () => change({ offset });
    return place.replaceChildren(
      h("p", { class: "choose" }, h("label", {}, "Left (old) ", pick("left", left)), " ", h("label", {}, "Right (new) ", pick("right", right)), " ",
        h("span", { class: "faint" }, page.total > page.pairs.length ? `pairs ${state.offset + 1} to ${last} of ${page.total} ` : counted(page.total, "pair")),
        state.offset ? h("button", { click: turn(Math.max(0, state.offset - page.pairs.length)) }, "Before") : null, " ",
        last < page.total ? h("button", { click: turn(last) }, "Next") : null),
      h("div", { class: "pairs" }, page.pairs.map((pair) => figure(pair, state))));
  };
  await draw();
  return [place];
}

function figure(pair, { left, right }) {
  const [a, b] = [pair.left[left], pair.right[right]];
  const numbers = pair.numbers.filter(([, old, next]) => old !== next).slice(0, 4);
  return h("figure", {},
    isPicture(a) && isPicture(b) ? slider([address(a), address(b)], pair.name) : h("p", { class: "faint" }, "no two pictures"),
    h("figcaption", {}, pair.name, a?.blob && a.blob === b?.blob ? h("span", { class: "faint" }, " · equal") : null,
      numbers.map(([name, old, next]) => h("div", {}, `${name} ${old === null ? "~" : digits(old)} → ${next === null ? "~" : digits(next)}`))));
}

/** Two pictures, one above the other; the line between them follows the pointer, and the arrow keys of the range below. */
function slider([old, next], name) {
  const image = (src, which, kind) => h("img", {
    src, alt: `${which}: ${name}`, draggable: "false", class: kind, error: (event) => { event.target.alt = `the ${which} file is not kept any more`; },
  });
  const [above, below] = [image(old, "old", "above"), image(next, "new", null)];
  const line = h("span", { class: "line" });
  const range = h("input", { type: "range", min: 0, max: 100, value: 50, "aria-label": "how much of the old picture is seen", input: () => set(Number(range.value)) });
  const set = (share) => {
    range.value = share;
    above.style.clipPath = `inset(0 ${100 - share}% 0 0)`;
    line.style.left = `${share}%`;
  };
  const follow = (event) => {
    const box = frame.getBoundingClientRect();
    set(Math.min(100, Math.max(0, (100 * (event.clientX - box.left)) / box.width)));
  };
  const frame = h("div", {
    class: "slider",
    pointerdown: (event) => { frame.setPointerCapture(event.pointerId); follow(event); },
    pointermove: (event) => { if (event.buttons) follow(event); },
  }, below, above, line);
  const sizes = h("p", { class: "note", hidden: true });
  const loaded = () => {
    frame.classList.toggle("pixels", below.naturalWidth < 200);
    const size = (image) => `${image.naturalWidth} × ${image.naturalHeight}`;
    const [a, b] = [size(above), size(below)];
    sizes.hidden = !above.naturalWidth || !below.naturalWidth || a === b;
    sizes.textContent = `left ${a} px, right ${b} px`;
  };
  [above, below].forEach((image) => image.addEventListener("load", loaded));
  set(50);
  return h("div", {}, frame, range, sizes);
}
