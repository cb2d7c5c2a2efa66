"""Writes the files of this folder: checkpoints by PyTorch itself, and a toy linear head as FLAME is published.

Needs numpy, scipy and torch (Debian's python3-torch 1.13.1 made the files that are here). Stands alone; no test runs it.
"""

import pickle
import sys
import types
from collections import OrderedDict
from pathlib import Path

import numpy as np
import scipy.sparse
import torch

HERE = Path(__file__).parent


def checkpoint():
    """Every way a tensor lies in a file: whole, a view, transposed, shared, scalar, empty, of each type."""
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.ReLU(), torch.nn.Linear(2, 1))
    optimizer = torch.optim.Adam(net.parameters(), lr=0.1)
    net(torch.ones(4, 3)).sum().backward()
    optimizer.step()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.copy_(torch.arange(parameter.numel()).reshape(parameter.shape) + 0.5)
    base = torch.arange(24, dtype=torch.float32).reshape(4, 6)
    content = {
        "epoch": 7,
        "decoder_state_dict": net.state_dict(),
        "optimizer": optimizer.state_dict(),
        "codes": (OrderedDict(weight=torch.arange(4.0)),),
        "views": {
            "row": base[1],
            "block": base[1:3, 2:5],
            "transposed": base.t(),
            "expanded": torch.tensor([3.0]).expand(2, 3),
            "scalar": torch.tensor(2.5),
            "empty": torch.zeros(0, 3),
            "parameter": torch.nn.Parameter(torch.tensor([1.0, -1.0])),
        },
        "types": {
            str(dtype).split(".")[1]: torch.tensor([0, 1, 2]).to(dtype)
            for dtype in [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32,
                          torch.int16, torch.int8, torch.uint8, torch.bool]
        },
        "list": [torch.tensor([1.0]), torch.tensor([2.0]), "text", None, 1.5, True],
        "mean": np.float64(0.25),
    }
    torch.save(content, HERE / "torch.tar")
    torch.save(content["views"], HERE / "torch_before_1_6.tar", _use_new_zipfile_serialization=False)


class Ch:
    """Stands in for chumpy's array: pickled by the same name, with the same attribute."""

    def __init__(self, x):
        self.x = x
        self._cache = {"drs": {}}
        self._dirty_vars = {"x"}
        self._itr = None


def rodrigues(r):
    angle = np.linalg.norm(r)
    if angle < 1e-12:
        return np.eye(3)
    x, y, z = r / angle
    k = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + np.sin(angle) * k + (1 - np.cos(angle)) * k @ k


def skinned(m, coefficients, pose):
    """SMPL's equations, a vertex at a time."""
    shaped = m["v_template"] + m["shapedirs"] @ coefficients
    joints = m["J_regressor"] @ shaped
    rotations = [rodrigues(r) for r in pose]
    bend = np.concatenate([(r - np.eye(3)).ravel() for r in rotations[1:]])
    corrected = shaped + m["posedirs"] @ bend
    chain = []
    for j, parent in enumerate(m["kintree_table"][0].astype(np.int32)):
        local = np.eye(4)
        local[:3, :3] = rotations[j]
        local[:3, 3] = joints[j] - (joints[parent] if parent >= 0 else 0)
        chain.append(chain[parent] @ local if parent >= 0 else local)
    out = np.zeros_like(corrected)
    for v, vertex in enumerate(corrected):
        for j, world in enumerate(chain):
            out[v] += m["weights"][v, j] * (world[:3, :3] @ (vertex - joints[j]) + world[:3, 3])
    return out, np.array([world[:3, 3] for world in chain])


def linear_head():
    r = np.random.default_rng(3)
    vertices, joints, shapes = 12, 4, 7
    regressor = r.random((joints, vertices)) * (r.random((joints, vertices)) < 0.4) + np.eye(joints, vertices)
    weights = r.random((vertices, joints))
    m = {
        "v_template": r.normal(size=(vertices, 3)),
        "shapedirs": 0.2 * r.normal(size=(vertices, 3, shapes)),
        "posedirs": 0.1 * r.normal(size=(vertices, 3, 9 * (joints - 1))),
        "J_regressor": regressor / regressor.sum(1, keepdims=True),
        # two children of joint 1, as FLAME's jaw and eyes are of its neck
        "kintree_table": np.array([[2**32 - 1, 0, 1, 1], [0, 1, 2, 3]], dtype=np.uint32),
        "weights": weights / weights.sum(1, keepdims=True),
        "f": np.array([[0, 1, 2], [3, 4, 5], [9, 10, 11]], dtype=np.uint32),
    }
    coefficients, pose = r.normal(size=(2, shapes)), r.normal(size=(2, joints, 3))
    pose[1, 2] = 0
    results = [skinned(m, c, p) for c, p in zip(coefficients, pose)]
    expected = {
        "coefficients": coefficients, "pose": pose,
        "vertices": np.array([v for v, _ in results]), "joints": np.array([j for _, j in results]),
    }
    np.savez(HERE / "linear_expected.npz", **expected)
    np.savez(HERE / "linear.npz", **m, bs_type=np.array("lrotmin"))

    # the published form: Python 2's protocol, chumpy arrays, a sparse regressor, Fortran order, other fields beside
    module = types.ModuleType("chumpy.ch")
    sys.modules["chumpy"], sys.modules["chumpy.ch"] = types.ModuleType("chumpy"), module
    module.Ch, Ch.__module__ = Ch, "chumpy.ch"
    published = dict(
        m,
        v_template=Ch(m["v_template"]),
        shapedirs=Ch(m["shapedirs"]),
        posedirs=np.asfortranarray(m["posedirs"]),
        J_regressor=scipy.sparse.csc_matrix(m["J_regressor"]),
        bs_type="lrotmin",
        bs_style="lbs",
        f=Ch(m["f"]),
    )
    for protocol in [2, 4]:
        with open(HERE / f"linear_protocol_{protocol}.pkl", "wb") as file:
            pickle.dump(published, file, protocol=protocol)


if __name__ == "__main__":
    checkpoint()
    linear_head()
