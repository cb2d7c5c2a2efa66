// The runs of a workspace, the one that is on, and one that is over: its graph, stages and facts. Knows no rows.

import { counted, drawing, duration, get, h, link, moment, number, put, sentence, table } from "./dom.js";

/** How often the run that is on is looked at. */
const EVERY = 1000;

/** Runs of a page. */
const PAGE = 100;

/** More stages than this are drawn when somebody asks for it. */
const DRAWN = 60;

/** More warnings than these are folded away. */
const WARNED = 4;

/** More stages that wait for their turn are only named. */
const WAITING = 8;

/** The runs, the last ones first, and above them the one that is on. */
export async function runs(place, _parts, fields, signal) {
  const offset = Number(fields.get("offset") ?? 0);
  const silent = h("div");
  const live = progress();
  const list = h("section");
  place.append(silent, live.place, list);
  let was = null;
  let answered = Date.now();
  const look = async () => {
    try {
      const now = await get("live", { drawing: live.drawn() }, signal);
      live.show(now);
      const name = now.live ? `${now.live.pid} ${now.live.started}` : "";
      // when one begins or ends, what is over may have changed
      if (name !== was) list.replaceChildren(...over(await get("runs", { offset, limit: PAGE }, signal), offset, Boolean(now.live)));
      was = name;
      answered = Date.now();
      silent.replaceChildren();
    } catch (error) {
      if (error.name === "AbortError" || was === null) throw error;
      put(silent, h("div", { class: "trouble", role: "alert" },
        h("p", {}, `The server does not answer since ${moment(answered)}: what stands here is how it was then.`),
        h("p", { class: "faint" }, "Is `effigy serve` still running? This page asks on.")));
    }
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

/** Sets a text if it is another, so that nobody loses what he has selected. */
function write(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** The run that is on. Elements stay where they are from one second to the next, and only what is news in them changes. */
function progress() {
  const place = h("section");
  const title = h("h1");
  const summary = h("p", { class: "summary" });
  const remarks = h("div", { class: "trouble", hidden: true });
  const atWork = lines();
  const waiting = h("p", { class: "faint" });
  const ended = lines();
  const endedTitle = h("summary");
  const endedAll = h("details", {}, endedTitle, table(HEADINGS(), [], { class: "ended" }));
  const picture = h("div", { class: "drawing" });
  const graph = h("details", { class: "graph" }, h("summary", {}, "Graph of the stages"), picture);
  const running = table(HEADINGS(), [], { class: "live" });
  atWork.body = running.querySelector("tbody");
  ended.body = endedAll.querySelector("tbody");
  let shown = null;
  let name = null;
  const show = ({ live, svg, drawing: digest }) => {
    if (!live) {
      place.replaceChildren();
      [name, shown] = [null, null];
      return;
    }
    if (name !== live.started) {
      name = live.started;
      graph.open = live.of <= DRAWN;
      picture.replaceChildren();
      put(place, title, summary, remarks, running, waiting, endedAll, graph);
    }
    write(title, `${live.recipe} is running`);
    write(summary, `${live.profile ? `profile ${live.profile}, ` : ""}process ${live.pid}, for ${duration((Date.now() - live.started) / 1000) || "a moment"}; `
      + `${live.over} of ${counted(live.of, "stage")} done`);
    const on = live.stages.filter((stage) => stage.state === "running");
    const busy = on.filter((stage) => stage.working || stage.ran > 0);
    const idle = on.filter((stage) => !busy.includes(stage));
    const few = idle.length <= WAITING;
    atWork.show(few ? [...busy, ...idle] : busy);
    running.hidden = !on.length;
    write(waiting, few ? "" : `${counted(idle.length, "stage")} ready, waiting for their turn: ${idle.map((stage) => stage.name).join(", ")}`);
    const done = live.stages.filter((stage) => stage.state !== "running");
    endedAll.hidden = !done.length;
    write(endedTitle, `${counted(done.length, "stage")} over in this run`);
    ended.show([...done].reverse());
    remarks.hidden = !live.remarks.length;
    remarks.className = live.remarks.every((text) => text.startsWith("warning: ")) ? "trouble mild" : "trouble";
    if (remarks.children.length !== live.remarks.length || remarks.lastChild?.textContent !== live.remarks.at(-1)) put(remarks, live.remarks.map((text) => h("p", {}, text)));
    if (svg) {
      const [left, fresh] = [picture.scrollLeft, drawing(svg)];
      picture.replaceChildren(fresh);
      picture.scrollLeft = left;
      shown = digest;
    }
  };
  // a graph that nobody sees need not be sent
  const known = () => (!name ? undefined : graph.open ? shown ?? "first" : "none");
  return { place, show, drawn: known };
}

const HEADINGS = () => ["Stage", "State", numeral("Units"), numeral("Known"), "Remark"];

/** Rows of a table by the names of stages. */
function lines() {
  const rows = new Map();
  const line = (name) => {
    const bar = h("progress", { max: 1, "aria-label": `share of ${name} that is done` });
    const [share, state, units, known, note] = [h("span", { class: "share" }), h("span"), h("td", { class: "number" }), h("td", { class: "number" }), h("td", { class: "faint" })];
    const row = h("tr", {}, h("td", { class: "name" }, name), h("td", { class: "bar" }, bar, share, state), units, known, note);
    return { row, bar, share, state, units, known, note };
  };
  return {
    body: null,
    show(stages) {
      const names = stages.map((stage) => stage.name);
      for (const [name, { row }] of rows) if (!names.includes(name)) { row.remove(); rows.delete(name); }
      stages.forEach((stage, i) => {
        if (!rows.has(stage.name)) rows.set(stage.name, line(stage.name));
        const { row, bar, share, state, units, known, note } = rows.get(stage.name);
        // moved only if it stands elsewhere: what is moved loses the focus
        if (this.body.children[i] !== row) this.body.insertBefore(row, this.body.children[i] ?? null);
        const on = stage.state === "running";
        const waits = on && !stage.working && !stage.ran;
        const part = stage.units ? stage.ran / stage.units : 1;
        row.className = waits ? "waits" : stage.state;
        bar.hidden = share.hidden = !on || waits;
        bar.value = part;
        write(share, `${Math.floor(100 * part)} %`);
        write(state, waits ? "waits for its turn" : on ? "" : stage.state);
        write(units, on ? `${Math.floor(stage.ran)} of ${stage.units}` : String(Math.floor(stage.ran) || ""));
        write(known, String(stage.cached || ""));
        write(note, [stage.working > 1 ? `${stage.working} at once` : "", stage.note].filter(Boolean).join(" · "));
      });
    },
  };
}

function over({ runs: all, total }, offset, on) {
  if (!total) return [h(on ? "h2" : "h1", {}, "Runs"), h("p", {}, on ? "No run is over yet." : "This workspace has seen no run yet. `effigy run RECIPE` makes one.")];
  if (!all.length) return [h("h1", {}, "Runs"), h("p", {}, `There are only ${counted(total, "run")}. `, h("a", { href: link([]) }, "The last ones"))];
  const row = (one) => h("tr", {},
    h("td", { class: "whole" }, h("a", { href: link(["run", one.run]) }, moment(one.started))),
    h("td", {}, one.recipe, one.profile ? h("span", { class: "faint" }, ` · ${one.profile}`) : null),
    h("td", { class: "whole" }, outcome(one.outcome)),
    number(one.executed), number(one.cached), number(one.failed || ""), number(duration(one.seconds)),
    h("td", { class: "whole" }, h("a", { href: link(["compare"], { new: one.run }) }, "compare"),
      one.avatar ? [" ", h("a", { href: link(["avatar", one.run]) }, "avatar")] : null),
    h("td", { class: "faint typed" }, one.typed));
  const turn = (to, text) => h("a", { href: link([], to ? { offset: to } : {}) }, text);
  const pages = total > PAGE || offset ? h("p", { class: "turn" }, `runs ${offset + 1} to ${Math.min(offset + PAGE, total)} of ${total} `,
    offset ? turn(Math.max(0, offset - PAGE), "Before") : null, " ", offset + PAGE < total ? turn(offset + PAGE, "Next") : null) : null;
  return [h(on ? "h2" : "h1", {}, "Runs"), pages, table(["Started", "Recipe", "Outcome", numeral("Ran"), numeral("Known"), numeral("Failed"), numeral("Took"), "", "As it was called"], all.map(row))].filter(Boolean);
}

const numeral = (text) => h("th", { class: "number" }, text);

export const outcome = (word) => h("span", { class: `state ${word}` }, word);

/** A run that is over. */
export async function run(place, [name], _fields, signal) {
  const told = await get("run", { run: name }, signal);
  const rowsOf = (stage) => link(["rows", told.run, stage.name]);
  const row = (stage) => [h("tr", { id: `stage-${stage.name}` },
    h("td", { class: "name" }, stage.kept ? h("a", { href: rowsOf(stage) }, stage.name) : stage.name),
    h("td", { class: "faint" }, stage.kind),
    h("td", { class: "whole" }, outcome(stage.state)),
    number(stage.rows), number(stage.executed || ""), number(stage.cached || ""), number(stage.failed || ""), number(duration(stage.seconds)),
    h("td", {}, parameters(stage.params))), stage.failed ? h("tr", { class: "failures" }, h("td", { colspan: 9 }, failures(stage))) : null];
  const failed = told.stages.filter((stage) => stage.failed);
  const show = (stage) => () => place.querySelector(`[id="stage-${CSS.escape(stage.name)}"]`)?.scrollIntoView({ block: "start" });
  place.append(
    h("h1", {}, told.recipe, told.profile ? ` · ${told.profile}` : ""),
    h("p", { class: "summary" }, outcome(told.outcome), ` · ${moment(told.started)} · ${duration(told.seconds) || "no time"} · `
      + `${told.executed} ran, ${told.cached} known${told.failed ? `, ${told.failed} failed` : ""}`),
    h("p", {}, h("a", { href: link(["compare"], { new: told.run }) }, "Compare with another run"),
      told.avatar ? [" · ", h("a", { href: link(["avatar", told.run]) }, "See the avatar")] : null),
  );
  if (failed.length) {
    // a stage may go on without some of its units
    const ending = (stage) => (stage.state === "done" ? ` goes on without ${counted(stage.failed, "unit")} that failed, as it may` : ` failed: ${counted(stage.failed, "unit")}`);
    place.append(h("div", { class: failed.every((stage) => stage.state === "done") ? "trouble mild" : "trouble" },
      failed.map((stage) => h("p", {}, h("button", { class: "plain", click: show(stage) }, stage.name), `${ending(stage)}${why(stage)}`))));
  }
  const warned = told.warnings ?? [];
  if (warned.length) {
    place.append(h("details", { class: "trouble mild", open: warned.length <= WARNED }, h("summary", {}, counted(warned.length, "warning")), warned.map((text) => h("p", {}, text))));
  }
  if (told.svg) {
    const picture = h("div", { class: "drawing" }, linked(drawing(told.svg), told.stages.filter((stage) => stage.kept), rowsOf));
    place.append(h("details", { class: "graph", open: told.stages.length <= DRAWN }, h("summary", {}, "Graph of the stages"), picture));
  }
  place.append(
    h("h2", {}, "Stages"),
    table(["Stage", "Kind", "State", numeral("Rows"), numeral("Ran"), numeral("Known"), numeral("Failed"), numeral("Took"), "Parameters"], told.stages.map(row)),
    h("h2", {}, "Facts"),
    h("dl", {}, facts(told).flatMap(([term, text]) => [h("dt", {}, term), h("dd", {}, text)])),
  );
}

/** The first thing that a stage's failures say, for a line of its own. */
function why(stage) {
  const first = (stage.failures ?? []).map((one) => one.error ?? one.words.split("\n").at(-1)).find(Boolean);
  return first ? `. ${sentence(first)}` : ".";
}

/** What units that failed have left behind. */
function failures(stage) {
  const all = stage.failures ?? [];
  if (!all.length) return h("p", { class: "faint" }, "Nothing is kept of this failure any more: logs are those of the last run that had work for the stage.");
  const one = (failure) => h("div", { class: "failure" },
    h("p", {}, h("strong", {}, failure.unit === null ? "a unit" : `${failure.grain} ${failure.unit}`), failure.name ? ` (${failure.name})` : "", failure.error ? `: ${sentence(failure.error)}` : ""),
    failure.hint ? h("p", { class: "faint" }, `Hint: ${sentence(failure.hint)}`) : null,
    failure.words ? h("pre", {}, failure.words) : h("p", { class: "faint" }, "It wrote nothing to its log."),
    h("p", { class: "note" }, "The end of ", h("code", {}, failure.log)));
  return [all.map(one), stage.failed > all.length ? h("p", { class: "faint" }, `${counted(stage.failed - all.length, "more unit")} failed; \`effigy log ${stage.name}\` shows all.`) : null];
}

/** Boxes of the drawing lead to their rows, by the mouse and by the keyboard. A box says in its title what it is: `NAME: ...`. */
function linked(svg, stages, rowsOf) {
  // what is one picture to a screen reader has no links in it
  svg.setAttribute("role", "group");
  // where a line goes on is for the eye alone; read out, all these names are one long word
  for (const text of svg.querySelectorAll(":scope > text")) text.setAttribute("aria-hidden", "true");
  for (const title of svg.querySelectorAll("title")) {
    // and so are a box's name and what became of it, which its title says in words
    title.parentElement.setAttribute("role", "img");
    title.parentElement.setAttribute("aria-label", title.textContent);
    const stage = stages.find((one) => title.textContent.startsWith(`${one.name}: `));
    if (!stage) continue;
    const box = title.parentElement;
    const anchor = document.createElementNS(svg.namespaceURI, "a");
    anchor.setAttribute("href", rowsOf(stage));
    anchor.setAttribute("class", "leads");
    anchor.setAttribute("aria-label", title.textContent);
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
