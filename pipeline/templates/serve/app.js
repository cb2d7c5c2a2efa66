// Which view stands at which address of the page (what comes behind `#`), and changing from one to the next. Knows what views are
// called and nothing of what they show.

import { get, h, trouble } from "./dom.js";
import { run, runs } from "./runs.js";
import { rows } from "./rows.js";
import { compare } from "./compare.js";
import { avatar } from "./avatar.js";

// a view takes the parts of its address, the fields, and a signal that says when it is left; it fills the place it is given
const VIEWS = { "": runs, run, rows, compare, avatar };

let leave = new AbortController();

/** The parts of a path; one that is not encoded as addresses are is the name of nothing. */
function parts(path) {
  try {
    return path.split("/").map(decodeURIComponent);
  } catch {
    return [path];
  }
}

async function show() {
  leave.abort();
  leave = new AbortController();
  const { signal } = leave;
  const [path, query] = location.hash.replace(/^#\/?/, "").split("?");
  const [name, ...rest] = parts(path);
  const place = h("div");
  document.getElementById("view").replaceChildren(place);
  for (const anchor of document.querySelectorAll("nav a")) {
    const own = anchor.hash.replace(/^#\//, "");
    const here = own === name || (own === "" && ["run", "rows"].includes(name));
    if (here) anchor.setAttribute("aria-current", "page");
    else anchor.removeAttribute("aria-current");
  }
  document.title = ["effigy", name, ...rest].filter(Boolean).join(" · ");
  try {
    const view = Object.hasOwn(VIEWS, name) && VIEWS[name];
    if (view) await view(place, rest, new URLSearchParams(query), signal);
    else place.append(h("p", {}, "There is nothing at this address. "), h("a", { href: "#/" }, "All runs"));
  } catch (error) {
    if (error.name !== "AbortError") place.append(trouble(error));
  }
}

addEventListener("hashchange", show);
show();
get("runs", { limit: 0 }).then(({ workspace, version }) => {
  document.getElementById("workspace").textContent = `${workspace} · ${version}`;
}, () => {});
