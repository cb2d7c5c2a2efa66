"""Writes face_descriptor.safetensors: what the npm package @vladmandic/face-api 1.7.15 itself says of two pictures, in Chromium on its cpu backend.
Usage: write.py PACKAGE FACE_MESH OUT     (numpy, safetensors; npm pack @vladmandic/face-api@1.7.15; chromium on the PATH)
FACE_MESH is face_mesh.safetensors, whose face is cut to 150 px, and once more elsewhere and mirrored in colour."""
import functools
import http.server
import json
import pathlib
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import threading

import numpy as np
from safetensors.numpy import load_file, save_file

package, face_mesh, out = sys.argv[1:]
face = load_file(face_mesh)["face"]
pictures = np.stack([face[21:171, 21:171], face[5:155, 30:180, ::-1]])
folder = pathlib.Path(tempfile.mkdtemp())
tarfile.open(package).extractall(folder, filter="data")
shutil.copy(pathlib.Path(__file__).parent / "write.html", folder)
pictures.tofile(folder / "face.bin")
handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=folder)
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
threading.Thread(target=server.serve_forever, daemon=True).start()
words = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=120000", "--dump-dom"]
page = subprocess.run([*words, f"http://127.0.0.1:{server.server_port}/write.html"], capture_output=True, text=True, check=True).stdout
descriptors = np.array(json.loads(re.search(r'<pre id="out">(.*?)</pre>', page, re.S)[1]), np.float32)
shutil.rmtree(folder)
assert descriptors.shape == (2, 128), descriptors.shape
save_file({"pictures": pictures, "descriptors": descriptors}, out)
print(descriptors[:, :3], np.linalg.norm(descriptors, axis=1))
