"""Frames of 16 videos of 1920 x 1080 px, H.264, into JPEG and PNG files: `extract_frames` beside OpenCV in Python, PyAV and ffmpeg.

The videos are made here, by ffmpeg. `effigy` is measured as a whole: its start, the hashing of what goes in and comes out, the
records; so are the others with their own start. Knows nothing of the graph of bench.py.
"""
import shutil
import subprocess
import time

from measure import find, measure, median

VIEWS, FRAMES = 16, 24

RECIPE = """recipe: r
stages:
  files: {{ files: "in/*.mp4" }}
  videos: {{ select: files, rename: {{ video: file }} }}
  frames: {{ stage: extract_frames, from: videos, every: 1, format: {format} }}
"""

# what a user would write
OPENCV = """import cv2, glob, os, sys
ext, par = sys.argv[1], [cv2.IMWRITE_JPEG_QUALITY, 95] if sys.argv[1] == "jpg" else []
for v in sorted(glob.glob("in/*.mp4")):
    c, k = cv2.VideoCapture(v), 0
    while True:
        ok, image = c.read()
        if not ok:
            break
        cv2.imwrite(f"out/{os.path.basename(v)}_{k:05d}.{ext}", image, par)
        k += 1
"""
PYAV = """import av, cv2, glob, os, sys
ext, par = sys.argv[1], [cv2.IMWRITE_JPEG_QUALITY, 95] if sys.argv[1] == "jpg" else []
for v in sorted(glob.glob("in/*.mp4")):
    with av.open(v) as c:
        c.streams.video[0].thread_type = "AUTO"
        for k, frame in enumerate(c.decode(video=0)):
            cv2.imwrite(f"out/{os.path.basename(v)}_{k:05d}.{ext}", frame.to_ndarray(format="bgr24"), par)
"""
FFMPEG = "for v in in/*.mp4; do {ffmpeg} -v error -y -i $v {options} out/$(basename $v)_%05d.{ext} || exit 1; done"


def make(folder, ffmpeg):
    """The videos: a moving test picture with noise, another hue for each view."""
    (folder / "in").mkdir(parents=True)
    for view in range(VIEWS):
        source = f"testsrc2=s=1920x1080:r=24,noise=alls=2:allf=t:all_seed={view},hue=h={view * 20}"
        subprocess.run(
            [ffmpeg, "-v", "error", "-f", "lavfi", "-i", source, "-frames:v", str(FRAMES), "-c:v", "libx264", "-preset",
             "veryfast", "-crf", "23", "-pix_fmt", "yuv420p", folder / f"in/cam_{view:02d}.mp4"],
            check=True,
        )


def run(work, reps):
    """All of it; prints a table and gives back the figures."""
    effigy, ffmpeg, python = find("effigy"), find("ffmpeg"), find("media-python")
    if not effigy or not ffmpeg:
        print("! SKIPPED: frames of videos; they need effigy and ffmpeg", flush=True)
        return []
    if not python:
        print("! SKIPPED: OpenCV in Python and PyAV are not installed (benches/peers/install.sh)", flush=True)
    folder = work / "frames"
    shutil.rmtree(folder, ignore_errors=True)
    make(folder, ffmpeg)
    time.sleep(0.1)
    count, results = VIEWS * FRAMES, []
    print(f"\n### {VIEWS} videos of 1080p, {count} frames: cpu ms and wall ms a frame\n")
    print("| | files | cpu ms | wall ms | MB a file | ratio of cpu: effigy to it |\n|---|---|---|---|---|---|")
    for ext, fmt, options in [("jpg", "jpeg", "-q:v 2"), ("png", "png", "")]:
        (folder / "r.yaml").write_text(RECIPE.format(format=fmt))
        cases = {"effigy": [effigy, "run", "r.yaml", "--quiet"]}
        if python:
            cases["opencv"] = [python, "-c", OPENCV, ext]
            cases["pyav"] = [python, "-c", PYAV, ext]
        cases["ffmpeg"] = ["sh", "-c", FFMPEG.format(ffmpeg=ffmpeg, options=options, ext=ext)]
        ours = None
        for name, command in cases.items():
            taken = []
            for _ in range(reps):
                for place in [".effigy", "out"]:
                    shutil.rmtree(folder / place, ignore_errors=True)
                (folder / "out").mkdir()
                taken.append(measure(command, folder))
            figure = median(taken)
            place = folder / (".effigy/blobs" if name == "effigy" else "out")
            files = [path.stat().st_size for path in place.rglob("*") if path.is_file()]
            assert figure["rc"] == 0 and len(files) == count, f"{name}: {len(files)} files, exit code {figure['rc']}"
            ours = ours or figure
            cpu, wall = 1000 * figure["cpu"] / count, 1000 * figure["wall"] / count
            ratio = ours["cpu"] / figure["cpu"]
            print(f"| {name} | {fmt} | {cpu:.1f} | {wall:.1f} | {sum(files) / count / 1e6:.2f} | {ratio:.2f} |", flush=True)
            results.append(dict(frames=count, format=fmt, engine=name, **figure))
    shutil.rmtree(folder)
    return results
