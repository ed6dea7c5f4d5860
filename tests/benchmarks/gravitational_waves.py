"""What simple classifiers make of "gravitational_waves", of the other detector and of real strain.

Command: KFT_DATA=... python tests/benchmarks/gravitational_waves.py

Prints the seconds that the simulation takes, accuracies on both detectors, the confusion
matrix of the forest, and, if KFT_DATA holds it, what the forests and linear heads on
EfficientNet-Lite0 say of GW150914 and of quiet strain around it.
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

import kft
from kft import data
from kft.data.gravitational_waves.chirps import CLASSES

sys.path.insert(0, str(Path(__file__).parents[1]))
from spectrogram_features import features


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
    if "KFT_DATA" not in os.environ:
        return
    strain = real_strain()
    for name, loaded in simulated.items():
        forest = forests[name]
        ask(f"forest of {name}", strain, lambda x, f=forest: f.predict_proba(features(x)))
        model = kft.Model(kft.load("efficientnet_lite0", image_size=64), kft.heads.for_data(loaded))
        model = kft.fit(model, loaded, "linear_probe", verbose=0).model
        print(f"EfficientNet-Lite0 of {name}:", kft.evaluate(model, loaded)["accuracy"])
        ask(f"EfficientNet-Lite0 of {name}", strain, lambda x, m=model: kft.predict(m, x))


def real_strain():
    """Images of either detector: GW150914 first, then 88 of quiet strain."""
    found = {}
    with np.load(Path(os.environ["KFT_DATA"], "gwosc", "GW150914.npz")) as file:
        event, rate = float(file["tevent"] - file["gps_start"]), int(file["fs"])
        times = [event, *[t for t in np.arange(4, 28, 0.25) if abs(t - event) > 1]]
        for name in ("H1", "L1"):
            found[name] = [data.spectrogram(file[name], rate, float(t)) for t in times]
    return found


def ask(about, strain, predict):
    for name, images in strain.items():
        event, *quiet = predict(images)
        called = sum(said.argmax() == 0 for said in quiet)
        print(
            f"{about}, {name}: event {CLASSES[event.argmax()]}, P(chirp) {event[0]:.2f}; {called} "
            f"of {len(quiet)} quiet images called chirp, P up to {max(x[0] for x in quiet):.2f}"
        )


if __name__ == "__main__":
    main()
