"""How far P(chirp) of a real event moves with the window around it, and what holds it still.

Command: KFT_DATA=... KERAS_BACKEND=torch python tests/benchmarks/chirp_windows.py

A linear head on EfficientNet-Lite0 learns from 1,190 simulated images, alone and with three further
windows of each, and is asked about GW150914: in single windows up to 0.3 s from the event, and in
the mean over 7 windows within 0.15 s of a time that is up to 0.15 s off. The threshold is the
highest mean of quiet strain of the same detector before the event; strain after it says what that
is worth. Two minutes of one core.
"""

import os
import time
from pathlib import Path

import numpy as np

import kft
from kft import data

OFFSETS = np.linspace(-0.15, 0.15, 7)  # seconds: the windows that are averaged
WINDOWS = np.linspace(-0.3, 0.3, 13)  # seconds from the event, in the same steps


def main(images=1700):
    start = time.process_time()
    with np.load(Path(os.environ["KFT_DATA"], "gwosc", "GW150914.npz")) as file:
        event, rate = float(file["tevent"] - file["gps_start"]), int(file["fs"])
        strain = {name: file[name] for name in ("H1", "L1")}
    quiet = np.arange(4.5, 27.6, 0.5)
    quiet = quiet[np.abs(quiet - event) > 1.5]
    for shifts in (0, 3):
        simulated = data.load("gravitational_waves", images=images, shifts=shifts)
        backbone = kft.load("efficientnet_lite0", image_size=64)
        model = kft.Model(backbone, kft.heads.for_data(simulated))
        model = kft.fit(model, simulated, "linear_probe", verbose=0).model
        accuracy = kft.evaluate(model, simulated)["accuracy"]
        print(f"{shifts} further windows: accuracy on simulated images {accuracy}")
        for name, samples in strain.items():
            single = chirp(model, samples, rate, event + WINDOWS)
            means = np.lib.stride_tricks.sliding_window_view(single, len(OFFSETS)).mean(axis=1)
            times = (quiet[:, None] + OFFSETS).ravel()
            found = chirp(model, samples, rate, times).reshape(len(quiet), -1)
            before, after = found[quiet < event], found[quiet > event]
            threshold = before.mean(axis=1).max()
            print(
                f"{name}: P(chirp) of the event {single.min():.2f} to {single.max():.2f} in a "
                f"window, {means.min():.2f} to {means.max():.2f} in the mean of 7; quiet strain "
                f"up to {found.max():.2f} in a window; threshold {threshold:.2f} from the mean at "
                f"{len(before)} quiet places before it, which {(after.mean(1) > threshold).sum()} "
                f"of {len(after)} after it exceed, the highest with {after.mean(1).max():.2f}"
            )
    print(f"{time.process_time() - start:.0f} s of one core")


def chirp(model, samples, rate, times):
    return kft.predict(model, data.spectrogram(samples, rate, list(times)))[:, 0]


if __name__ == "__main__":
    main()
