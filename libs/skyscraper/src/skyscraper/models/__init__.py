"""Detection models: fetched by package name, converted to ONNX with one interface, laid out as Triton wants them.

Every detector takes `images` (uint8 [n, H, W, 3], RGB, H and W multiples of 32) and gives `boxes` (float32 [n, K, 4]:
x_min, y_min, x_max, y_max in pixels of the input), `scores` (float32 [n, K], best class first) and `labels`
(int64 [n, K], index into COCO_LABELS). Pre-processing is inside the graph; the threshold and the suppression of
overlapping boxes are the client's (`skyscraper.models.detections`).
"""
