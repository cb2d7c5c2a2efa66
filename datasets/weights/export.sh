#!/usr/bin/env bash
# Copies the backbone that the last run of prior.yaml made into a folder in the diffusers layout.
#
#   datasets/weights/export.sh EFFIGY FOLDER
set -euo pipefail
effigy=$1 folder=$2
rows=$("$effigy" show pipeline/recipes/prior.yaml backbone --json --paths)
mkdir -p "$folder"/{vae,unet,scheduler}
python3 - "$folder" "$rows" <<'PY'
import json, shutil, sys
folder, rows = sys.argv[1], [json.loads(line) for line in sys.argv[2].splitlines()]
names = {
    ("vae", "config"): "vae/config.json",
    ("vae", "weights"): "vae/diffusion_pytorch_model.safetensors",
    ("unet", "config"): "unet/config.json",
    ("unet", "weights"): "unet/diffusion_pytorch_model.safetensors",
    ("scheduler", "config"): "scheduler/scheduler_config.json",
    ("null_prompt", "weights"): "null_prompt.safetensors",
}
for row in rows:
    for column in ("config", "weights"):
        if row.get(column):
            shutil.copyfile(row[column], f"{folder}/{names[row['component'], column]}")
PY
echo "wrote $folder"
