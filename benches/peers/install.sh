#!/usr/bin/env bash
# install.sh DIR: installs the peers of bench.py that Debian does not bring (make and ninja) under DIR, each in a place of its own,
# and links their programs into DIR/bin, where `make bench` looks. Uses pip and cargo; a peer that fails is left out, loudly.
set -u
dir=$(mkdir -p "${1:?usage: install.sh DIR}/bin" && cd "$1" && pwd)
for peer in snakemake redun dvc datachain; do
  if [ ! -x "$dir/venv/$peer/bin/$peer" ]; then
    python3 -m venv "$dir/venv/$peer" && "$dir/venv/$peer/bin/pip" install --quiet "$peer"
  fi
  if [ -x "$dir/venv/$peer/bin/$peer" ]; then ln -sf "$dir/venv/$peer/bin/$peer" "$dir/bin/$peer"; else echo "! $peer was not installed"; fi
done
# OpenCV and PyAV are libraries: their peer is a Python that has them
[ -x "$dir/venv/media/bin/python" ] || { python3 -m venv "$dir/venv/media" && "$dir/venv/media/bin/pip" install --quiet opencv-python-headless av; }
if "$dir/venv/media/bin/python" -c "import av, cv2" 2> /dev/null; then
  printf '#!/bin/sh\nexec "%s" "$@"\n' "$dir/venv/media/bin/python" > "$dir/bin/media-python" && chmod +x "$dir/bin/media-python"
else
  echo "! OpenCV and PyAV were not installed"
fi
[ -x "$dir/venv/cubes/bin/python" ] || { python3 -m venv "$dir/venv/cubes" && "$dir/venv/cubes/bin/pip" install --quiet scikit-image PyMCubes; }
if "$dir/venv/cubes/bin/python" -c "import mcubes, skimage" 2> /dev/null; then
  printf '#!/bin/sh\nexec "%s" "$@"\n' "$dir/venv/cubes/bin/python" > "$dir/bin/cubes-python" && chmod +x "$dir/bin/cubes-python"
else
  echo "! scikit-image and PyMCubes were not installed"
fi
# llvmpipe is Mesa's (Debian's libegl1 and libgl1-mesa-dri)
[ -x "$dir/venv/raster/bin/python" ] || { python3 -m venv "$dir/venv/raster" && "$dir/venv/raster/bin/pip" install --quiet moderngl open3d-cpu; }
if "$dir/venv/raster/bin/python" -c "import moderngl, open3d; moderngl.create_context(standalone=True, backend='egl')" 2> /dev/null; then
  printf '#!/bin/sh\nexec "%s" "$@"\n' "$dir/venv/raster/bin/python" > "$dir/bin/raster-python" && chmod +x "$dir/bin/raster-python"
else
  echo "! moderngl on Mesa's llvmpipe and Open3D were not installed"
fi
# torchmetrics and lpips bring torch, which is large (5 GB)
if [ ! -x "$dir/venv/scores/bin/python" ]; then
  python3 -m venv "$dir/venv/scores" && "$dir/venv/scores/bin/pip" install --quiet torch torchvision torchmetrics lpips
fi
if "$dir/venv/scores/bin/python" -c "import lpips, torchmetrics" 2> /dev/null; then
  printf '#!/bin/sh\nexec "%s" "$@"\n' "$dir/venv/scores/bin/python" > "$dir/bin/scores-python" && chmod +x "$dir/bin/scores-python"
else
  echo "! torchmetrics and lpips were not installed"
fi
# diffusers, on the libtorch that effigy builds with
if [ ! -x "$dir/venv/networks/bin/python" ]; then
  torch=$(sed -n 's/^torch_version=//p' "$(dirname "$0")/../../stages/setup.sh")
  python3 -m venv "$dir/venv/networks" && "$dir/venv/networks/bin/pip" install --quiet "torch==$torch" diffusers
fi
if "$dir/venv/networks/bin/python" -c "from diffusers import UNet2DConditionModel, ControlNetModel" 2> /dev/null; then
  printf '#!/bin/sh\nexec "%s" "$@"\n' "$dir/venv/networks/bin/python" > "$dir/bin/networks-python" && chmod +x "$dir/bin/networks-python"
else
  echo "! diffusers was not installed"
fi
[ -x "$dir/cargo/bin/b3sum" ] || cargo install --quiet --root "$dir/cargo" b3sum
if [ -x "$dir/cargo/bin/b3sum" ]; then ln -sf "$dir/cargo/bin/b3sum" "$dir/bin/b3sum"; else echo "! b3sum was not installed"; fi
for peer in make ninja time; do command -v $peer > /dev/null || echo "! $peer is missing: install make, ninja-build and time"; done
