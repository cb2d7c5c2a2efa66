// The runs of a workspace, the one that is on, and one that is over: its graph, stages and facts. Knows no rows.

import { counted, drawing, duration, get, h, link, moment, number, table } from "./dom.js";

/** How often the run that is on is looked at. */
const EVERY = 1000;

/** Runs of a page. */
const PAGE = 100;

/** The runs, the last ones first, and above them the one that is on. */
export async function runs(place, _parts, fields, signal) {
  const offset = Number(fields.get("offset") ?? 0);
  const live = h("section");
  const list = h("section");
  place.append(live, list);
  let was = null;
  const look = async () => {
    const now = await get("live", {}, signal);
    live.replaceChildren(...(now.live ? progress(now) : []));
    const name = now.live ? `${now.live.pid} ${now.live.started}` : "";
    // when one begins or ends, what is over may have changed
    if (name !== was) list.replaceChildren(...over(await get("runs", { offset, limit: PAGE }, signal), offset, Boolean(now.live)));
    was = name;
  };
  await look();
  repeat(look, signal);
}

async function repeat(look, signal) {
  while (!signal.aborted) {
    await new Promise((done) => { setTimeout(done, EVERY); });
    if (signal.aborted || document.hidden) continue;
    // a server that does not answer may do so the next time
    await look().catch(() => {});
  }
}

function progress({ live, svg }) {
  const { stages } = live;
  const row = (stage) => {
    const total = stage.units;
    const share = total ? stage.ran / total : 1;
    return h("tr", { class: stage.state },
      h("td", {}, stage.name),
      h("td", {}, stage.state === "running" ? h("progress", { max: 1, value: share }) : null),
      h("td", { class: "number" }, stage.state === "running" ? `${Math.floor(stage.ran)} of ${total}` : stage.state),
      number(stage.cached || ""),
      h("td", { class: "faint" }, stage.note));
  };
  const known = ["done", "failed", "skipped"];
  const order = (stage) => (known.includes(stage.state) ? 1 : 0);
  const shown = [...stages].sort((a, b) => order(a) - order(b)).filter((stage) => stage.state === "running" || stage.ran > 0 || stage.state !== "done");
  return [
    h("h1", {}, `${live.recipe} is running`),
    h("p", { class: "summary" }, `${live.profile ? `profile ${live.profile}, ` : ""}process ${live.pid}, for ${duration((Date.now() - live.started) / 1000) || "a moment"}; `
      + `${counted(stages.filter((stage) => known.includes(stage.state)).length, "stage")} of ${live.graph.length} over`),
    table(["Stage", "", "Units", "Known", "Remark"], shown.map(row), { class: "live" }),
    live.remarks.length ? h("div", { class: "trouble" }, live.remarks.map((text) => h("p", {}, text))) : null,
    svg ? h("div", { class: "drawing" }, drawing(svg)) : null,
  ].filter(Boolean);
}

function over({ runs: all, total }, offset, on) {
  if (!total) return [h("h1", {}, "Runs"), h("p", {}, on ? "No run is over yet." : "This workspace has seen no run yet. `effigy run RECIPE` makes one.")];
  const row = (one) => h("tr", {},
    h("td", {}, h("a", { href: link(["run", one.run]) }, moment(one.started))),
    h("td", {}, one.recipe, one.profile ? h("span", { class: "faint" }, ` · ${one.profile}`) : null),
    h("td", {}, outcome(one.outcome)),
    number(one.executed), number(one.cached), number(one.failed || ""), number(duration(one.seconds)),
    h("td", {}, h("a", { href: link(["compare"], { new: one.run }) }, "compare"),
      one.avatar ? [" ", h("a", { href: link(["avatar", one.run]) }, "avatar")] : null),
    h("td", { class: "faint typed" }, one.typed));
  const turn = (to, text) => h("a", { href: link([], to ? { offset: to } : {}) }, text);
  const pages = total > PAGE || offset ? h("p", { class: "turn" }, `runs ${offset + 1} to ${Math.min(offset + PAGE, total)} of ${total} `,
    offset ? turn(Math.max(0, offset - PAGE), "Before") : null, " ", offset + PAGE < total ? turn(offset + PAGE, "Next") : null) : null;
  return [h("h1", {}, "Runs"), pages, table(["Started", "Recipe", "Outcome", numeral("Ran"), numeral("Known"), numeral("Failed"), numeral("Took"), "", "As it was called"], all.map(row))].filter(Boolean);
}

const numeral = (text) => h("th", { class: "number" }, text);

export const outcome = (word) => h("span", { class: `state ${word}` }, word);

/** A run that is over. */
export async function run(place, [name], _fields, signal) {
  const told = await get("run", { run: name }, signal);
  const rowsOf = (stage) => link(["rows", told.run, stage.name]);
  const row = (stage) => h("tr", {},
    h("td", {}, stage.kept ? h("a", { href: rowsOf(stage) }, stage.name) : stage.name),
    h("td", { class: "faint" }, stage.kind),
    h("td", {}, outcome(stage.state)),
    number(stage.rows), number(stage.executed || ""), number(stage.cached || ""), number(stage.failed || ""), number(duration(stage.seconds)),
    h("td", {}, parameters(stage.params)));
  place.append(
    h("h1", {}, told.recipe, told.profile ? ` · ${told.profile}` : ""),
    h("p", { class: "summary" }, outcome(told.outcome), ` · ${moment(told.started)} · ${duration(told.seconds) || "no time"} · `
      + `${told.executed} ran, ${told.cached} known${told.failed ? `, ${told.failed} failed` : ""}`),
    h("p", {}, h("a", { href: link(["compare"], { new: told.run }) }, "Compare with another run"),
      told.avatar ? [" · ", h("a", { href: link(["avatar", told.run]) }, "See the avatar")] : null),
  );
  if (told.svg) place.append(h("div", { class: "drawing" }, linked(drawing(told.svg), told.stages.filter((stage) => stage.kept), rowsOf)));
  place.append(
    h("h2", {}, "Stages"),
    table(["Stage", "Kind", "State", numeral("Rows"), numeral("Ran"), numeral("Known"), numeral("Failed"), numeral("Took"), "Parameters"], told.stages.map(row)),
    h("h2", {}, "Facts"),
    h("dl", {}, facts(told).flatMap(([term, text]) => [h("dt", {}, term), h("dd", {}, text)])),
  );
}

/** Boxes of the drawing lead to their rows, by the mouse and by the keyboard. A box says in its title what it is: `NAME: ...`. */
function linked(svg, stages, rowsOf) {
  // what is one picture to a screen reader has no links in it
  svg.setAttribute("role", "group");
  for (const title of svg.querySelectorAll("title")) {
    const stage = stages.find((one) => title.textContent.startsWith(`${one.name}: `));
    if (!stage) continue;
    const box = title.parentElement;
    const anchor = document.createElementNS(svg.namespaceURI, "a");
    anchor.setAttribute("href", rowsOf(stage));
    anchor.setAttribute("class", "leads");
    box.replaceWith(anchor);
    anchor.append(box);
  }
  return svg;
}

function parameters(params = {}) {
  const all = Object.entries(params);
  if (!all.length) return "";
  return h("details", { class: "inline" }, h("summary", {}, counted(all.length, "parameter")),
    h("dl", {}, all.flatMap(([name, value]) => [h("dt", {}, name), h("dd", {}, JSON.stringify(value))])));
}

const facts = (told) => [
  ["called as", `effigy run ${told.typed}`],
  ["run", told.run],
  ["machine", `${told.host} · ${told.cpu} · ${counted(told.threads, "thread")}`],
  ["effigy", told.version],
  ...(told.commit ? [["commit", told.commit]] : []),
  ...told.software,
  ...(told.params.length ? [["parameters", told.params.map(([name, value]) => `${name} = ${value}`).join(", ")]] : []),
];
