"""A made-up annotation file of the size and the shape of COCO's ``instances_train2017.json``."""

import json
from pathlib import Path

import numpy as np

IMAGES, ANNOTATIONS, CATEGORIES = 118_287, 860_001, 80  # of instances_train2017.json
WIDTH, HEIGHT = 640, 480
PERSONS = 0.3  # share of the first category; the others follow Zipf's law
CROWDS = 0.012
TEMPLATES = 400  # polygons for each size class
CLASSES = 16  # of sizes
MEDIAN_AREA, AREA_SPREAD = 2600, 1.9  # pixels, log-normal: about half of the objects are under 1 % of the photo


def write(path: Path, images: int = IMAGES, annotations: int = ANNOTATIONS, seed: int = 0) -> None:
    """Write the file; at full size it has some 450 MB. Larger objects have longer polygons: 24 points on average."""
    rng = np.random.default_rng(seed)
    areas = np.minimum(np.exp(rng.normal(np.log(MEDIAN_AREA), AREA_SPREAD, annotations)), 0.9 * WIDTH * HEIGHT)
    classes = np.clip(np.log2(areas).astype(int), 0, CLASSES - 1)
    templates = [[_polygon(rng, size) for _ in range(TEMPLATES)] for size in range(CLASSES)]
    chosen = rng.integers(0, TEMPLATES, annotations)
    owners = np.sort(rng.integers(1, images + 1, annotations))
    shares = 1 / np.arange(1, CATEGORIES)
    categories = rng.choice(CATEGORIES, annotations, p=[PERSONS, *((1 - PERSONS) * shares / shares.sum())]) + 1
    crowds = rng.random(annotations) < CROWDS
    with path.open("w") as file:
        file.write('{"info":{"description":"made up"},"licenses":[],"images":[')
        file.write(",".join(_image(number) for number in range(1, images + 1)))
        file.write('],"annotations":[')
        for index in range(annotations):
            text = templates[classes[index]][chosen[index]]
            shape = f'{{"counts":[{text}],"size":[{HEIGHT},{WIDTH}]}}' if crowds[index] else f"[[{text}]]"
            file.write(
                f'{"," * (index > 0)}{{"segmentation":{shape},"area":{areas[index]:.4f},"iscrowd":{crowds[index]:d},'
                f'"image_id":{owners[index]},"bbox":[217.62,240.54,38.99,57.75],"category_id":{categories[index]},'
                f'"id":{900_100_000_000 + index if crowds[index] else index + 1}}}'
            )
        names = [{"supercategory": "thing", "id": number, "name": f"thing {number}"} for number in range(1, 81)]
        file.write(f'],"categories":{json.dumps(names)}}}')


def _polygon(rng: np.random.Generator, size: int) -> str:
    """Numbers of a polygon of about ``2**size`` pixels."""
    points = max(4, round(float(rng.lognormal(np.log(3.2 + 1.75 * size), 0.45))))
    angles = np.sort(rng.random(points)) * 2 * np.pi
    radius = np.sqrt(2**size / np.pi) * rng.uniform(0.8, 1.2, points)
    x = np.clip(WIDTH / 2 + radius * np.cos(angles), 0, WIDTH)
    y = np.clip(HEIGHT / 2 + radius * np.sin(angles), 0, HEIGHT)
    return ",".join(f"{value:.2f}" for value in np.stack([x, y], axis=1).ravel())


def _image(number: int) -> str:
    name = f"{number:012d}.jpg"
    return (
        f'{{"license":3,"file_name":"{name}","coco_url":"http://images.cocodataset.org/train2017/{name}","height":'
        f'{HEIGHT},"width":{WIDTH},"date_captured":"2013-11-14 11:18:45","flickr_url":"http://farm9.staticflickr.com/'
        f'8186/{number:010d}_c6e3a7e2a5_z.jpg","id":{number}}}'
    )
