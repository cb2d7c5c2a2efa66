// A triangle mesh on a WebGL canvas: reading PLY files, a camera that is dragged around a point, light. Knows nothing of avatars or of
// the server.

const NUMBERS = {
  char: ["getInt8", 1], uchar: ["getUint8", 1], short: ["getInt16", 2], ushort: ["getUint16", 2],
  int: ["getInt32", 4], uint: ["getUint32", 4], float: ["getFloat32", 4], double: ["getFloat64", 8],
};

/** Positions and triangles of a binary PLY file. */
export function parsePly(buffer) {
  const head = new TextDecoder("latin1").decode(buffer.slice(0, 4096));
  const end = head.indexOf("end_header\n");
  if (!head.startsWith("ply\nformat binary_little_endian") || end < 0) throw new Error("the mesh is no binary PLY file");
  const elements = [];
  for (const line of head.slice(0, end).split("\n")) {
    const words = line.split(" ");
    if (words[0] === "element") elements.push({ name: words[1], count: Number(words[2]), properties: [] });
    if (words[0] === "property") elements.at(-1).properties.push({ name: words.at(-1), list: words[1] === "list", type: words.at(-2), counts: words[2] });
  }
  const data = new DataView(buffer);
  let at = end + "end_header\n".length;
  const read = (type) => {
    const [method, size] = NUMBERS[type];
    at += size;
    return data[method](at - size, true);
  };
  const positions = [];
  const triangles = [];
  for (const { name, count, properties } of elements) {
    for (let i = 0; i < count; i += 1) {
      for (const property of properties) {
        const values = Array.from({ length: property.list ? read(property.counts) : 1 }, () => read(property.type));
        if (name === "vertex" && ["x", "y", "z"].includes(property.name)) positions.push(values[0]);
        // a polygon as a fan
        if (name === "face" && property.list) for (let k = 2; k < values.length; k += 1) triangles.push(values[0], values[k - 1], values[k]);
      }
    }
  }
  return { positions: new Float32Array(positions), triangles: new Uint32Array(triangles) };
}

/** Unit normals of vertices: those of their triangles, weighed by area. */
export function normals({ positions, triangles }) {
  const out = new Float32Array(positions.length);
  for (let t = 0; t < triangles.length; t += 3) {
    const [a, b, c] = [triangles[t] * 3, triangles[t + 1] * 3, triangles[t + 2] * 3];
    const u = [0, 1, 2].map((k) => positions[b + k] - positions[a + k]);
    const v = [0, 1, 2].map((k) => positions[c + k] - positions[a + k]);
    const n = [u[1] * v[2] - u[2] * v[1], u[2] * v[0] - u[0] * v[2], u[0] * v[1] - u[1] * v[0]];
    for (const vertex of [a, b, c]) for (let k = 0; k < 3; k += 1) out[vertex + k] += n[k];
  }
  for (let i = 0; i < out.length; i += 3) {
    const length = Math.hypot(out[i], out[i + 1], out[i + 2]) || 1;
    for (let k = 0; k < 3; k += 1) out[i + k] /= length;
  }
  return out;
}

/**
 * Where a camera stands that looks at a point: `about` the vertical from in front and `above` the horizontal, radians; `away` is its
 * distance in the units of `distance`; `focal` its focal length over the side of the picture. The server draws with the same one.
 */
export const front = { about: 0, above: 0, away: 1 };

/** How far above or below a camera goes, radians. */
const ABOVE = 1.5;

/** World to clip space, column by column. */
function projection({ focal, center, distance }, { about, above, away }) {
  const [sa, ca, sb, cb] = [Math.sin(about), Math.cos(about), Math.sin(above), Math.cos(above)];
  const [right, up, back] = [[ca, 0, -sa], [-sa * sb, cb, -ca * sb], [sa * cb, sb, ca * cb]];
  const d = distance * away;
  const [near, far] = [0.05 * d, 20 * d];
  const dot = (a, b) => a[0] * b[0] + a[1] * b[1] + a[2] * b[2];
  const shift = [-dot(right, center), -dot(up, center), -dot(back, center) - d];
  const rows = [[...right, shift[0]], [...up, shift[1]], [...back, shift[2]]];
  const depth = rows[2].map((v, i) => ((near + far) / (near - far)) * v + (i === 3 ? (2 * near * far) / (near - far) : 0));
  const all = [rows[0].map((v) => 2 * focal * v), rows[1].map((v) => 2 * focal * v), depth, rows[2].map((v) => -v)];
  return { matrix: new Float32Array([0, 1, 2, 3].flatMap((column) => all.map((row) => row[column]))), right, up, back };
}

const VERTEX = `#version 300 es
in vec3 position; in vec3 normal; uniform mat4 camera; out vec3 n;
void main() { n = normal; gl_Position = camera * vec4(position, 1.0); }`;

// a key light from above the left shoulder of the camera, a cool one from the other side, and a little from everywhere
const FRAGMENT = `#version 300 es
precision highp float;
in vec3 n; uniform vec3 right, up, back; out vec4 color;
void main() {
  vec3 m = normalize(n);
  if (dot(m, back) < -0.2) m = -m;
  float key = max(0.0, dot(m, normalize(back + 0.7 * up - 0.6 * right)));
  float fill = max(0.0, dot(m, normalize(0.5 * back + 0.9 * right)));
  float edge = pow(1.0 - max(0.0, dot(m, back)), 3.0);
  vec3 clay = vec3(0.80, 0.72, 0.65);
  vec3 light = vec3(0.22) + key * vec3(0.80, 0.78, 0.74) + fill * vec3(0.10, 0.13, 0.18);
  color = vec4(pow(clay * light + 0.10 * edge, vec3(0.85)), 1.0);
}`;

function program(gl) {
  const made = gl.createProgram();
  for (const [kind, text] of [[gl.VERTEX_SHADER, VERTEX], [gl.FRAGMENT_SHADER, FRAGMENT]]) {
    const shader = gl.createShader(kind);
    gl.shaderSource(shader, text);
    gl.compileShader(shader);
    gl.attachShader(made, shader);
  }
  gl.linkProgram(made);
  if (!gl.getProgramParameter(made, gl.LINK_STATUS)) throw new Error(`the shaders do not link: ${gl.getProgramInfoLog(made)}`);
  return made;
}

/** What a context draws with: made anew when the browser has taken the graphics memory away and given it back. */
function pencil(gl) {
  const shader = program(gl);
  gl.useProgram(shader);
  gl.enable(gl.DEPTH_TEST);
  const buffer = (target, name) => {
    const made = gl.createBuffer();
    gl.bindBuffer(target, made);
    if (name) {
      const place = gl.getAttribLocation(shader, name);
      gl.enableVertexAttribArray(place);
      gl.vertexAttribPointer(place, 3, gl.FLOAT, false, 0, 0);
    }
    return (data) => { gl.bindBuffer(target, made); gl.bufferData(target, data, gl.DYNAMIC_DRAW); };
  };
  return { shader, places: buffer(gl.ARRAY_BUFFER, "position"), directions: buffer(gl.ARRAY_BUFFER, "normal"), faces: buffer(gl.ELEMENT_ARRAY_BUFFER) };
}

/**
 * Shows meshes on a canvas until `signal` says that it is left. `moved` is called whenever somebody has turned or moved the camera, which begins
 * at `pose` and stays between `near` and `far` times its distance. `null` if there is no WebGL.
 */
export function meshView(canvas, camera, moved, { pose: begin = front, near = 0.3, far = 3, signal } = {}) {
  const gl = canvas.getContext("webgl2", { antialias: true });
  if (!gl) return null;
  let pen = pencil(gl);
  let mesh = null;
  const pose = { ...front };
  let due = 0;
  const draw = () => {
    due = 0;
    if (gl.isContextLost()) return;
    const side = Math.max(1, Math.round(canvas.clientWidth * devicePixelRatio));
    if (canvas.width !== side) canvas.width = canvas.height = side;
    gl.viewport(0, 0, side, side);
    gl.clear(gl.COLOR_BUFFER_BIT | gl.DEPTH_BUFFER_BIT);
    const { matrix, ...axes } = projection(camera, pose);
    gl.uniformMatrix4fv(gl.getUniformLocation(pen.shader, "camera"), false, matrix);
    for (const [name, axis] of Object.entries(axes)) gl.uniform3fv(gl.getUniformLocation(pen.shader, name), axis);
    gl.drawElements(gl.TRIANGLES, mesh?.triangles.length ?? 0, gl.UNSIGNED_INT, 0);
  };
  const ask = () => { due ||= requestAnimationFrame(draw); };
  const load = () => {
    if (!mesh || gl.isContextLost()) return;
    pen.places(mesh.positions);
    pen.directions(normals(mesh));
    pen.faces(mesh.triangles);
    ask();
  };
  const set = (change) => {
    const turn = 2 * Math.PI;
    Object.assign(pose, change);
    pose.about -= turn * Math.round(pose.about / turn);
    pose.above = Math.min(ABOVE, Math.max(-ABOVE, pose.above));
    pose.away = Math.min(far, Math.max(near, pose.away));
    ask();
  };
  const move = (change) => { set(change); moved(); };
  const by = (x, y) => move({ about: pose.about - x, above: pose.above + y });
  const nearer = (factor) => move({ away: pose.away / factor });
  // fingers and the mouse, by what the browser calls them
  const pointers = new Map();
  const apart = () => {
    const [a, b] = [...pointers.values()];
    return Math.hypot(a[0] - b[0], a[1] - b[1]) || 1;
  };
  const listen = (name, react, options = {}) => canvas.addEventListener(name, react, { signal, ...options });
  listen("pointerdown", (event) => {
    canvas.setPointerCapture(event.pointerId);
    pointers.set(event.pointerId, [event.clientX, event.clientY]);
  });
  listen("pointermove", (event) => {
    const was = pointers.get(event.pointerId);
    if (!was || !event.buttons) return;
    const before = pointers.size === 2 ? apart() : 0;
    pointers.set(event.pointerId, [event.clientX, event.clientY]);
    // two fingers come nearer, one turns: half a turn for a drag across the picture
    const scale = Math.PI / canvas.clientWidth;
    if (before) nearer(apart() / before);
    else if (pointers.size === 1) by((event.clientX - was[0]) * scale, (event.clientY - was[1]) * scale);
  });
  for (const name of ["pointerup", "pointercancel", "lostpointercapture"]) listen(name, (event) => pointers.delete(event.pointerId));
  listen("wheel", (event) => {
    event.preventDefault();
    nearer(Math.exp(-event.deltaY * 0.001));
  }, { passive: false });
  listen("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const keys = {
      ArrowLeft: () => by(0.1, 0), ArrowRight: () => by(-0.1, 0), ArrowUp: () => by(0, 0.1), ArrowDown: () => by(0, -0.1),
      "+": () => nearer(1.1), "-": () => nearer(1 / 1.1), Home: () => move({ ...front }),
    };
    if (keys[event.key]) { event.preventDefault(); keys[event.key](); }
  });
  // without this the browser gives nothing back
  listen("webglcontextlost", (event) => event.preventDefault());
  listen("webglcontextrestored", () => { pen = pencil(gl); load(); });
  const watcher = new ResizeObserver(ask);
  watcher.observe(canvas);
  // a browser has room for a dozen contexts and takes the oldest away from whoever has it
  signal?.addEventListener("abort", () => {
    watcher.disconnect();
    cancelAnimationFrame(due);
    gl.getExtension("WEBGL_lose_context")?.loseContext();
  });
  set(begin);
  return {
    pose, nearer,
    reset: () => move({ ...front }),
    show(next) { mesh = next; load(); },
  };
}
