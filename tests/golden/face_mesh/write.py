"""Writes face_mesh.safetensors: what TensorFlow Lite's own runtime says of a picture, for the face networks of the wheel mediapipe 0.10.14.
Usage: write.py WHEEL PICTURE OUT     (ai-edge-litert 2.3.0, numpy, pillow, safetensors)
PICTURE is a frame of a synthetic person, 192 x 280 px, from `capture_synthetic` and `extract_frames`."""
import sys
import zipfile

import numpy as np
from ai_edge_litert.interpreter import Interpreter
from PIL import Image
from safetensors.numpy import save_file


def run(wheel, entry, x):
    net = Interpreter(model_content=zipfile.ZipFile(wheel).read(entry), num_threads=1)
    net.allocate_tensors()
    net.set_tensor(net.get_input_details()[0]["index"], x[None].astype(np.float32))
    net.invoke()
    return [net.get_tensor(o["index"]).astype(np.float32).reshape(-1) for o in net.get_output_details()]


wheel, picture, out = sys.argv[1:]
image = Image.open(picture).convert("RGB")
assert image.size == (192, 280), image.size
square = Image.new("RGB", (280, 280))
square.paste(image, (44, 0))
whole = np.array(square.resize((128, 128), Image.Resampling.BOX))
face = np.array(image.crop((0, 66, 192, 258)))
codes, scores = run(wheel, "mediapipe/modules/face_detection/face_detection_short_range.tflite", whole / 127.5 - 1.0)
points, flag = run(wheel, "mediapipe/modules/face_landmark/face_landmark.tflite", face / 255.0)
outer, inner = points.reshape(-1, 3)[[263, 362], :2]
center, side = (outer + inner) / 2, 2.3 * np.linalg.norm(outer - inner)
box = (*(center - side / 2), *(center + side / 2))
eye = np.array(Image.fromarray(face).resize((64, 64), Image.Resampling.BILINEAR, box=box))
around, iris = run(wheel, "mediapipe/modules/iris_landmark/iris_landmark.tflite", eye / 255.0)
print("best score before the sigmoid", scores.max(), "presence before the sigmoid", flag, points[:3])
save_file({"whole": whole, "codes": codes, "scores": scores, "face": face, "points": points, "flag": flag,
           "eye": eye, "eye_around": around, "eye_iris": iris}, out)
