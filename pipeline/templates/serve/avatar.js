// The avatar viewer: sliders that move an expression, the surface that follows at once, and the avatar's picture that follows when
// it has been computed. Knows nothing of how surfaces are drawn.

import { ask, choice, duration, get, h, keep, link, moment, put, sentence, table } from "./dom.js";
import { meshView, parsePly } from "./mesh.js";

/** Milliseconds of rest after which the fine surface and the picture are asked for. */
const REST = { fine: 250, picture: 400 };

/** By how much a camera may come nearer, and go farther away, than those that an avatar learned from; from elsewhere it has never seen a face. */
const MARGIN = { near: 0.95, far: 1.1 };

/** How far beyond those cameras a view still looks like theirs, radians. */
const BEYOND = 0.15;

/** More groups of moments than this are none. */
const GROUPS = 200;

/** The viewer of a run, or a list of those that have one. */
export async function avatar(place, [run], fields, signal) {
  if (!run) return list(place, signal);
  const waits = h("p", { class: "faint" }, "asking the stages what there is to see…");
  place.append(h("h1", {}, "Avatar"), waits);
  let told;
  try {
    told = await get("avatar", { run }, signal);
  } finally {
    waits.remove();
  }
  const one = told.avatars.find((each) => each.name === fields.get("avatar")) ?? told.avatars[0];
  const others = told.avatars.map((each) => [each.name, each.name]);
  place.append(h("p", { class: "path" }, h("a", { href: link(["run", run]) }, told.recipe), " / ",
    others.length > 1 ? choice(others, one.name, (name) => { location.hash = link(["avatar", run], { avatar: name }); }, { name: "avatar", "aria-label": "avatar" }) : one.name));
  viewer(place, run, one, fields, signal);
}

async function list(place, signal) {
  const { runs: found } = await get("runs", { avatar: 1, limit: 500 }, signal);
  place.append(h("h1", {}, "Avatar"), found.length
    ? table(["Run", "Recipe"], found.map((one) => h("tr", {}, h("td", { class: "whole" }, h("a", { href: link(["avatar", one.run]) }, moment(one.started))), h("td", {}, one.typed))))
    : h("p", {}, "No run of this workspace has tracked a head yet. `effigy run avatar.yaml` does."));
}

/** What the address says of a view; what it does not say, or says of another avatar, is as it is in the beginning. */
function remembered(told, fields) {
  const number = (text, low, high, otherwise) => {
    const value = text === null || text === "" ? NaN : Number(text);
    return value >= low && value <= high ? value : otherwise;
  };
  const first = told.moments[0]?.row ?? 0;
  const mean = fields.get("mean") === "1" || !told.moments.length;
  const row = number(fields.get("row"), 0, Infinity, first);
  const along = (fields.get("along") ?? "").split(",");
  const actions = fields.getAll("action").map((text) => text.split(":"));
  const known = (name) => (told.actions ?? []).find((one) => one.name === name);
  return {
    row: !mean && told.moments.some((one) => one.row === row) ? row : first,
    mean,
    along: told.directions.map((_, i) => number(along[i] ?? null, -told.reach, told.reach, 0)),
    gaze: (told.eyes?.gaze ?? []).map((most, i) => number((fields.get("gaze") ?? "").split(",")[i] ?? null, -most, most, 0)),
    lids: told.eyes?.lids ? number(fields.get("lids"), ...told.eyes.lids, 0) : 0,
    actions: Object.fromEntries(actions.filter(([name]) => known(name)).map(([name, value]) => [name, number(value ?? null, 0, known(name).most, 0)])),
    pose: { about: number(fields.get("about"), -Math.PI, Math.PI, 0), above: number(fields.get("above"), -1.5, 1.5, 0), away: number(fields.get("away"), 0.3, 3, 1) },
  };
}

/** Between which distances the camera stays, as multiples of its own. */
const limits = (seen) => (seen ? { near: MARGIN.near * Math.min(1, seen.away[0]), far: MARGIN.far * Math.max(1, seen.away[1]) } : {});

function viewer(place, run, told, fields, signal) {
  const { pose: begin, ...state } = remembered(told, fields);
  const surface = panel("Tracked surface");
  const canvas = h("canvas", { tabindex: 0, role: "img", "aria-label": "the surface; drag or use the arrow keys to turn it, + and - to come nearer or go away, Home for the front" });
  const nearer = (factor, text, name) => h("button", { type: "button", "aria-label": name, title: name, click: () => view?.nearer(factor) }, text);
  surface.frame.append(canvas, h("div", { class: "zoom" }, nearer(1.1, "+", "nearer"), nearer(1 / 1.1, "−", "farther away")));
  const picture = panel("Avatar");
  const image = h("img", { alt: "the avatar's picture", hidden: true });
  picture.frame.append(image);
  const beyond = h("p", { class: "note beyond", hidden: true }, "From here no picture was taken that the avatar learned from: what it shows is a guess.");
  picture.whole.append(beyond);
  let view = null;
  let changes = 0;
  const pose = () => view?.pose ?? begin;
  // what code a request is about; sliders at rest are left out
  const code = () => ({
    run, avatar: told.name, row: state.row, mean: state.mean ? 1 : undefined,
    along: state.along.some(Boolean) ? state.along.join(",") : undefined,
    gaze: state.gaze.some(Boolean) ? state.gaze.join(",") : undefined,
    lids: state.lids || undefined,
    action: Object.entries(state.actions).filter(([, value]) => value).map(([name, value]) => `${name}:${value}`),
  });
  // the address follows when somebody rests, for browsers let it change only so often
  const remember = rested(REST.picture, () => {
    if (signal.aborted) return;
    const { run: _, ...own } = code();
    const short = (value, otherwise) => (Math.abs(value - otherwise) < 1e-3 ? undefined : String(Number(value.toFixed(3))));
    const { about, above, away } = pose();
    keep(["avatar", run], { ...own, row: state.mean ? undefined : state.row, about: short(about, 0), above: short(above, 0), away: short(away, 1) });
  });
  const mesh = (sketch, after) => latest(surface, sketch ? "sketch" : "surface", signal, async () => {
    const asked = changes;
    const answer = await ask("mesh", { ...code(), sketch: sketch ? 1 : undefined }, signal);
    const surface = parsePly(await answer.arrayBuffer());
    // a fine surface of what was wanted before does not take the place of the sketch of what is wanted now
    if (sketch || asked === changes) view.show(surface);
  }, after);
  const drawn = latest(picture, "picture", signal, async () => {
    const { about, above, away } = pose();
    const answer = await ask("render", { ...code(), about, above, away }, signal);
    const old = image.src;
    image.src = URL.createObjectURL(await answer.blob());
    await image.decode();
    image.hidden = false;
    image.classList.toggle("pixels", image.naturalWidth < 200);
    if (old) URL.revokeObjectURL(old);
  });
  signal.addEventListener("abort", () => { if (image.src) URL.revokeObjectURL(image.src); });
  const refined = mesh(false);
  const fine = rested(REST.fine, () => view && refined());
  const later = told.renders ? rested(REST.picture, drawn) : () => {};
  // the picture that stands there is of what was wanted before
  const stale = () => {
    if (!told.renders) return;
    picture.busy(true);
    picture.say("computing the picture…");
    const outside = (angle, [low, high]) => angle < low - BEYOND || angle > high + BEYOND;
    const { seen } = told.camera;
    beyond.hidden = !seen || !(outside(pose().about, seen.about) || outside(pose().above, seen.above));
  };
  const render = () => { stale(); later(); };
  // what takes long begins when the sketch of what is wanted is there, and not beside it
  const sketched = mesh(true, () => { fine(); render(); });
  const changed = () => { changes += 1; stale(); remember(); if (view) sketched(); else render(); };
  const moved = () => { remember(); render(); };
  place.append(h("div", { class: "viewer" },
    h("div", {}, h("div", { class: "panels" }, surface.whole, told.renders ? picture.whole : null),
      h("p", { class: "note" }, "On the surface: drag, or the arrow keys, to turn; the wheel, two fingers, or + and − to come nearer; Home for the front. A slider goes back to 0 by a double click.")),
    controls(told, state, changed, () => view?.reset(), moved)));
  try {
    view = meshView(canvas, told.camera, moved, { pose: begin, signal, ...limits(told.camera.seen) });
    if (!view) surface.say("this browser has no WebGL, so only the avatar's picture is shown", true);
  } catch (error) {
    surface.say(error.message, true);
  }
  if (!told.renders) place.append(h("p", { class: "note" }, "This run tracked a head and trained no avatar of it."));
  stale();
  if (view) sketched(); else render();
}

/** A square with a title and a line that says how it stands. */
function panel(title) {
  const status = h("span", { class: "status", role: "status" });
  const frame = h("div", { class: "frame" });
  const whole = h("figure", {}, h("figcaption", {}, h("strong", {}, title), " ", status), frame);
  return {
    whole, frame,
    say(text, bad = false) { status.textContent = text && bad ? sentence(text) : text; status.classList.toggle("bad", bad); },
    busy(on) { whole.classList.toggle("busy", on); },
  };
}

/** Does work, and says `what` it is, once at a time: who asks while it goes on has it done once more after that, with what is wanted then; and in the end something else. */
function latest(place, what, signal, work, after = () => {}) {
  let [busy, again] = [false, false];
  return async function go() {
    if (busy) { again = true; return; }
    busy = true;
    place.busy(true);
    place.say(`computing the ${what}…`);
    const begun = performance.now();
    try {
      await work();
      if (!again) place.say([what, duration((performance.now() - begun) / 1000)].filter(Boolean).join(", "));
    } catch (error) {
      if (error.name !== "AbortError") place.say([error.message, error.hint].filter(Boolean).map(sentence).join(" "), true);
    }
    busy = false;
    if (signal.aborted) return;
    if (!again) place.busy(false);
    if (again) { again = false; go(); } else after();
  };
}

/** Does work when nobody has asked for it for a while. */
function rested(milliseconds, work) {
  let timer = 0;
  return () => {
    clearTimeout(timer);
    timer = setTimeout(work, milliseconds);
  };
}

/** Moments by what stands first in their names, such as the frames of a sequence: `[title, [[row, text], ...]]` each. As much of the names
 * makes the title as leaves two moments to a group on average: a column of its own value in each row tells no groups apart. */
export function grouped(moments) {
  const parts = moments.map((one) => one.name.split(", "));
  // what all moments have in common tells none from another
  const common = new Set(parts.length > 1 ? parts[0].filter((part) => parts.every((others) => others.includes(part))) : []);
  const own = parts.map((all) => all.filter((part) => !common.has(part)));
  const by = (length) => {
    const groups = new Map();
    moments.forEach(({ row }, i) => {
      const name = own[i].slice(0, length).join(", ");
      if (!groups.has(name)) groups.set(name, []);
      groups.get(name).push([row, own[i].slice(length).join(", ") || `row ${row}`]);
    });
    return [...groups];
  };
  for (let length = Math.max(0, ...own.map((all) => all.length - 1)); length > 0; length--) {
    const groups = by(length);
    if (groups.length <= Math.min(GROUPS, moments.length / 2)) return groups;
  }
  return by(0);
}

/** Where to begin: the mean expression, or a group of tracked moments and one of these. There may be thousands. */
function beginning(moments, state, changed) {
  const groups = grouped(moments);
  const within = h("div", { class: "within" });
  const choose = (name, row = undefined) => {
    state.mean = name === "mean";
    const all = state.mean ? [] : groups[Number(name)][1];
    const at = Math.max(0, all.findIndex(([known]) => known === row));
    // the mean is of no moment; it has the pose of the first, wherever one comes from
    state.row = all[at]?.[0] ?? moments[0]?.row ?? 0;
    const shown = h("output", {}, all[at]?.[1] ?? "");
    const go = (place) => {
      const i = Math.min(all.length, Math.max(1, Math.round(Number(place)) || 1)) - 1;
      range.value = i + 1;
      [state.row, shown.textContent] = all[i];
      changed();
    };
    const moved = (event) => { go(event.target.value); exact.value = range.value; };
    const range = h("input", { type: "range", min: 1, max: all.length, value: at + 1, name: "place", "aria-label": "moment", input: moved });
    const exact = h("input", { type: "number", min: 1, max: all.length, value: at + 1, name: "number", "aria-label": "number of the moment", change: moved });
    put(within, all.length > 1 ? [range, exact, h("span", { class: "faint" }, `of ${all.length}`)] : null, all.length ? shown : null);
  };
  const options = [["mean", "mean expression"], ...groups.map(([title], i) => [String(i), title || "a tracked moment"])];
  const own = groups.findIndex(([, all]) => all.some(([row]) => row === state.row));
  const first = state.mean || !groups.length ? "mean" : String(Math.max(0, own));
  choose(first, state.row);
  return [h("label", {}, "Begin at ", choice(options, first, (name) => { choose(name); changed(); }, { name: "moment" })), within];
}

/** Sliders, and where they begin. Moves `state`, and says so by `changed`, or by `moved` where the surface stays as it is; `front` puts the camera in front. */
export function controls(told, state, changed, front, moved = changed) {
  const sliders = h("div");
  const fill = () => put(sliders,
    h("h2", {}, "Directions"),
    told.directions.length ? h("p", { class: "note" }, "In which the tracked expressions vary most, in standard deviations, with their share of the variance.")
      : h("p", { class: "note" }, "The tracked expressions do not vary."),
    told.directions.map((one, i) => slider([`${i + 1}`, `direction ${i + 1}, ${percent(one.share)} of the variance`], percent(one.share), -told.reach, told.reach, state.along[i], (value) => { state.along[i] = value; changed(); })),
    told.eyes?.gaze || told.eyes?.lids ? [
      h("h2", {}, "Eyes"),
      h("p", { class: "note" }, "What the avatar is told of eyes beside the expression: they are no part of the surface."),
      (told.eyes.gaze ?? []).map((most, i) => slider([["sideways", "up and down"][i], `gaze, ${["sideways", "up and down"][i]}, degrees`], "", -most, most, state.gaze[i], (value) => { state.gaze[i] = value; moved(); })),
      told.eyes.lids ? slider(["lids", "lids, from closed to wide open"], "", ...told.eyes.lids, state.lids, (value) => { state.lids = value; moved(); }) : null,
    ] : null,
    (told.actions ?? []).length ? [
      h("h2", {}, "ARKit actions"),
      h("p", { class: "note" }, "As the truth of this synthetic capture names them: what codes do, on average, when an action does."),
      told.actions.map((one) => slider([one.name, `action ${one.name}`], "", 0, one.most, state.actions[one.name] ?? 0, (value) => { state.actions[one.name] = value; changed(); })),
    ] : null);
  const reset = () => { state.along.fill(0); state.gaze?.fill(0); state.lids = 0; state.actions = {}; fill(); changed(); };
  fill();
  return h("div", { class: "controls" },
    beginning(told.moments, state, changed),
    h("p", {}, h("button", { click: reset, name: "reset" }, "Reset sliders"), " ", h("button", { click: front, name: "front" }, "Camera in front")),
    sliders);
}

/** A share; one that is small is not nothing. */
const percent = (share) => (share > 0 && share < 0.005 ? "< 1 %" : `${Math.round(100 * share)} %`);

function slider([name, label], remark, low, high, value, moved) {
  const shown = h("output", {}, String(value));
  const range = h("input", {
    type: "range", min: low, max: high, step: (high - low) / 60, value, name, "aria-label": label,
    input: () => { shown.textContent = String(Number(Number(range.value).toFixed(2))); moved(Number(Number(range.value).toFixed(3))); },
    dblclick: () => { range.value = 0; range.dispatchEvent(new Event("input")); },
  });
  return h("label", { class: remark ? "slide numbered" : "slide" }, h("span", {}, name), range, shown, remark ? h("span", { class: "faint" }, remark) : null);
}
