"""The G-buffer of a torus of 102,400 triangles at 512^2: our rasteriser beside Mesa's llvmpipe and Open3D's ray casting, one thread each.

Depth, positions, normals and canonical coordinates of each pixel, as floats in memory, from the vertices' own; the mesh is new in every frame. Counts of covered pixels
are compared: rays and scan lines may differ on a silhouette.
"""
import shutil

from measure import example, find, per_round

SIDE, ROUNDS = 512, 20
# pixels of which one program says that they are covered and another that they are not
CLOSE = 5

PEER = """import os, sys
import numpy as np
peer, side, rounds = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
a, b = np.meshgrid(np.arange(320) * 2 * np.pi / 320, np.arange(160) * 2 * np.pi / 160, indexing="ij")
r = .55 + .25 * np.cos(b)
V = np.stack([r * np.cos(a), r * np.sin(a), .25 * np.sin(b)], -1).reshape(-1, 3)
V *= 1 + .04 * np.sin(17 * V[:, :1]) * np.sin(15 * V[:, 1:2])
at = lambda i, j: ((i % 320) * 160 + j % 160).ravel()
i, j = np.meshgrid(np.arange(320), np.arange(160), indexing="ij")
F = np.stack([at(i, j), at(i + 1, j), at(i + 1, j + 1), at(i, j), at(i + 1, j + 1), at(i, j + 1)], -1).reshape(-1, 3).astype(np.uint32)
n = np.cross(V[F[:, 1]] - V[F[:, 0]], V[F[:, 2]] - V[F[:, 0]])
N = np.zeros_like(V)
for k in range(3):
    np.add.at(N, F[:, k], n)
N /= np.linalg.norm(N, axis=1, keepdims=True)
X = np.concatenate([V, N, V[:, ::-1] * .5 + .5], 1).astype(np.float32)
f, sin, cos = side * 1.1, np.sin(.9), np.cos(.9)
R, t = np.array([[1, 0, 0], [0, cos, -sin], [0, sin, cos]]), np.array([0, 0, 1.9])
if peer == "open3d":
    import open3d.core as core
    from open3d.t.geometry import RaycastingScene
    v, u = np.mgrid[0:side, 0:side] + .5
    D = np.stack([(u - side / 2) / f, (v - side / 2) / f, np.ones_like(u)], -1).reshape(-1, 3) @ R
    rays = core.Tensor(np.concatenate([np.broadcast_to(-R.T @ t, D.shape), D], 1).astype(np.float32))
    positions = np.ascontiguousarray(X[:, :3])
    def run():
        scene = RaycastingScene(nthreads=1)
        scene.add_triangles(core.Tensor(positions), core.Tensor(F))
        cast = scene.cast_rays(rays, nthreads=1)
        depth = cast["t_hit"].numpy()
        hit = np.isfinite(depth)
        uv = cast["primitive_uvs"].numpy()[hit]
        corners = X[F[cast["primitive_ids"].numpy()[hit]]]
        out = np.zeros((side * side, 9), np.float32)
        out[hit] = corners[:, 0] * (1 - uv[:, :1] - uv[:, 1:]) + corners[:, 1] * uv[:, :1] + corners[:, 2] * uv[:, 1:]
        return hit.sum()
else:
    os.environ["LP_NUM_THREADS"] = "0"
    import moderngl
    gl = moderngl.create_context(standalone=True, backend="egl")
    assert "llvmpipe" in gl.info["GL_RENDERER"], gl.info["GL_RENDERER"]
    shader = gl.program(
        vertex_shader="#version 330\\nin vec3 p, n, a; uniform mat4 M, E; out vec3 P, Q, A; out float Z;"
        "void main() { P = p; Q = n; A = a; Z = (E * vec4(p, 1)).z; gl_Position = M * vec4(p, 1); }",
        fragment_shader="#version 330\\nin vec3 P, Q, A; in float Z; layout(location = 0) out vec4 x; layout(location = 1) out vec4 y; layout(location = 2) out vec4 z;"
        "void main() { x = vec4(P, Z); y = vec4(normalize(Q), 1); z = vec4(A, 1); }",
    )
    near, far = .1, 20.
    P = np.array([[2 * f / side, 0, 0, 0], [0, 2 * f / side, 0, 0], [0, 0, (far + near) / (far - near), -2 * far * near / (far - near)], [0, 0, 1, 0]])
    E = np.eye(4)
    E[:3, :3], E[:3, 3] = R, t
    shader["M"].write((P @ E).T.astype("f4").tobytes())
    shader["E"].write(E.T.astype("f4").tobytes())
    raw = X.tobytes()
    vertices = gl.buffer(raw, dynamic=True)
    mesh = gl.vertex_array(shader, [(vertices, "3f 3f 3f", "p", "n", "a")], gl.buffer(F.tobytes()))
    targets = [gl.texture((side, side), 4, dtype="f4") for _ in range(3)]
    frame = gl.framebuffer(targets, gl.depth_renderbuffer((side, side)))
    def run():
        vertices.write(raw)
        frame.use()
        frame.clear()
        gl.enable(moderngl.DEPTH_TEST)
        mesh.render()
        out = [np.frombuffer(target.read(), np.float32).reshape(-1, 4) for target in targets]
        return (out[1][:, 3] > 0).sum()
for _ in range(rounds):
    last = run()
print(len(F), last)
"""


def run(work, reps):
    """All of it; prints a table and gives back the figures."""
    ours, python = example("raster"), find("raster-python")
    if not ours:
        print("! SKIPPED: rasterisers; our example is not built (cargo build --workspace --examples)", flush=True)
        return []
    if not python:
        print("! SKIPPED: llvmpipe and Open3D are not installed (benches/peers/install.sh)", flush=True)
    folder = work / "raster"
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "in").mkdir(parents=True)
    programs = {"ours": lambda rounds: [ours, str(SIDE), str(rounds)]}
    for name in ["llvmpipe", "open3d"] if python else []:
        programs[name] = lambda rounds, name=name: [python, "-c", PEER, name, str(SIDE), str(rounds)]
    figures, said = per_round(programs, ROUNDS, reps, folder)
    results = []
    print(f"\n### G-buffer at {SIDE}^2, one thread: cpu ms for a frame\n")
    print("| | triangles | covered pixels | cpu ms | ratio of cpu: ours to it |\n|---|---|---|---|---|")
    for name, figure in figures.items():
        ratio = figures["ours"]["cpu"] / figure["cpu"]
        triangles, covered = map(int, said[name])
        print(f"| {name} | {triangles} | {covered} | {1000 * figure['cpu']:.1f} | {ratio:.2f} |", flush=True)
        results.append(dict(side=SIDE, engine=f"raster-{name}", triangles=triangles, covered=covered, **figure))
        if abs(covered - int(said["ours"][1])) > CLOSE:
            print(f"! {name}: covers other pixels than ours")
    shutil.rmtree(folder)
    return results
