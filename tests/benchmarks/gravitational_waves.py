"""What simple classifiers make of "gravitational_waves", of the other detector and of real strain.

Command: KFT_DATA=... python tests/benchmarks/gravitational_waves.py

Prints the seconds that the simulation takes, accuracies on both detectors with the confusion
matrices, and what a forest says of GW150914 and of quiet strain around it, if KFT_DATA holds it.
"""

import os
import sys
import time
from pathlib import Path

import numpy as np
from sklearn.ensemble import ExtraTreesClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import confusion_matrix
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from kft import data

sys.path.insert(0, str(Path(__file__).parents[1]))
from test_gravitational_waves import features


def main(images=1700):
    simulated = {}
    for detector in ("design", "early"):
        start = time.process_time()
        simulated[detector] = data.load("gravitational_waves", images=images, detector=detector)
        print(f"{detector}: {images} images in {time.process_time() - start:.0f} s of one core")
    forests = {}
    for name in simulated:
        forests[name] = ExtraTreesClassifier(400, min_samples_leaf=2, random_state=0)
        linear = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=300))
        for model in (forests[name], linear):
            train = simulated[name].train
            model.fit(features(train.inputs), train.targets)
            for other, loaded in simulated.items():
                score = model.score(features(loaded.test.inputs), loaded.test.targets)
                print(f"{type(model).__name__} trained on {name}, tested on {other}: {score:.3f}")
    test = simulated["design"].test
    print(test.parameters.dtype.names[0], simulated["design"].classes)
    print(confusion_matrix(test.targets, forests["design"].predict(features(test.inputs))))
    if "KFT_DATA" in os.environ:
        ask_of_real_strain(forests["design"], simulated["design"].classes)


def ask_of_real_strain(forest, classes):
    with np.load(Path(os.environ["KFT_DATA"], "gwosc", "GW150914.npz")) as file:
        event, rate = float(file["tevent"] - file["gps_start"]), int(file["fs"])
        for name in ("H1", "L1"):
            times = [event, *[t for t in np.arange(4, 28, 0.25) if abs(t - event) > 1]]
            images = [data.spectrogram(file[name], rate, float(t)) for t in times]
            said = forest.predict_proba(features(images))
            print(name, "event:", dict(zip(classes, said[0].round(2).tolist(), strict=True)))
            chirps = (said[1:].argmax(axis=1) == 0).mean()
            print(f"{name} quiet: {chirps:.3f} of {len(said) - 1} images called chirp")


if __name__ == "__main__":
    main()
