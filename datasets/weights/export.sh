#!/usr/bin/env bash
# Copies the backbone that the last run of a recipe of priors made into a folder in the diffusers layout, and prints the digest of
# each file and the first and last losses.
#
#   datasets/weights/export.sh EFFIGY FOLDER [RECIPE [WORKSPACE]]
set -euo pipefail
effigy=$1 folder=$2 recipe=${3:-pipeline/recipes/prior.yaml} workspace=${4:-.effigy}
show() { "$effigy" show "$recipe" "$1" --workspace "$workspace" --json --paths; }
backbone=$(show backbone) samples=$(show samples) losses=$(show vae && show unet)
mkdir -p "$folder"/{vae,unet,scheduler}
python3 - "$folder" "$backbone" "$losses" "$samples" <<'PY'
import hashlib, json, shutil, sys

folder = sys.argv[1]
backbone, losses, samples = ([json.loads(line) for line in text.splitlines()] for text in sys.argv[2:])
names = {
    ("vae", "config"): "vae/config.json",
    ("vae", "weights"): "vae/diffusion_pytorch_model.safetensors",
    ("unet", "config"): "unet/config.json",
    ("unet", "weights"): "unet/diffusion_pytorch_model.safetensors",
    ("scheduler", "config"): "scheduler/scheduler_config.json",
    ("null_prompt", "weights"): "null_prompt.safetensors",
}
for row in backbone:
    for column in ("config", "weights"):
        if row.get(column):
            target = f"{folder}/{names[row['component'], column]}"
            shutil.copyfile(row[column], target)
            print(hashlib.sha256(open(target, "rb").read()).hexdigest(), target)
for row in losses:
    if row.get("losses"):
        lines = open(row["losses"]).read().split()
        print(row["component"], lines[0], lines[-1])
print(len(samples), "samples; a contact sheet is in the run's report")
PY
echo "wrote $folder; its README.md, the card, is for you to bring up to date"
