"""Writes multi_scale.safetensors and multi_scale.json: MS-SSIM of torchmetrics 1.9.0 and of pytorch-msssim 1.0.0 (torch 2.13.0), in double precision.

Sides are even, and odd at several scales, where the two packages differ in how they halve a picture.
"""
import json

import numpy as np
import torch
from pytorch_msssim import ms_ssim
from safetensors.numpy import save_file
from torchmetrics.functional.image import multiscale_structural_similarity_index_measure

random = np.random.default_rng(3)


def smooth(height, width, waves):
    y, x = np.mgrid[0:height, 0:width] / 100.0
    planes = [sum(a * np.sin(2 * np.pi * (f * x + g * y + p)) for a, f, g, p in random.uniform(0, 3, (waves, 4))) for _ in range(3)]
    image = np.stack(planes, -1)
    return (image - image.min()) / (image.max() - image.min())


images, expected = {}, {}
for name, height, width, noise, blur in [("even", 176, 192, 0.05, False), ("odd", 187, 201, 0.0, True)]:
    a = smooth(height, width, 6)
    b = (a + np.roll(a, 3, 1)) / 2 if blur else a + noise * random.standard_normal(a.shape)
    a, b = ((np.clip(v, 0, 1) * 255).round().astype(np.uint8) for v in (a, b))
    images |= {f"{name}.a": a, f"{name}.b": b}
    ta, tb = (torch.from_numpy(v).double().permute(2, 0, 1)[None] / 255 for v in (a, b))
    expected[name] = {
        "torchmetrics": multiscale_structural_similarity_index_measure(tb, ta, data_range=1.0).item(),
        "pytorch_msssim": ms_ssim(tb, ta, data_range=1.0).item(),
    }
save_file(images, "multi_scale.safetensors")
json.dump(expected, open("multi_scale.json", "w"), indent=1)
print(expected)
