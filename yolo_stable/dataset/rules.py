"""All rules of the data check: what each is called, how much it matters, why, and what to do.

The rules of one subject stand together; the functions that find them are in the modules named after the subject.
"""

from __future__ import annotations

from collections.abc import Iterable

from .finding import Finding, Rule, Severity

_E, _W, _I = Severity.ERROR, Severity.WARNING, Severity.INFO

_DROPPED = "Ultralytics leaves the whole image out of training, labels and all, with one line in the log."
_BACKGROUND = "An object that has no usable label teaches the model that it is background."

_RULES = (
    # ---- data.yaml and folders
    Rule("yaml-unreadable", _E, "Training cannot start.", "Mend the YAML at this place; most often it is an indent or a quote."),
    Rule("yaml-key", _E, "Training stops when it reads the description.", "Write the key as the message says."),
    Rule("names-nc", _E, "Training stops, or classes get names of others.", "Remove 'nc' and keep 'names' with ids from 0 without gaps."),
    Rule("names-twice", _W, "Two classes that mean the same compete for the same objects.", "Give each class a name of its own, or merge the two."),
    Rule("kpt-shape", _E, "A pose model cannot be built.", "Write 'kpt_shape: [number of keypoints, 2 or 3]'."),
    Rule("flip-idx", _E, "A mirrored image gets left and right mixed up, or training stops.", "List each keypoint's mirror image, every index once."),
    Rule("path-missing", _E, "Training stops, or goes without what is there.", "Mend the path; it is relative to 'path', and that to the data.yaml."),
    Rule("split-empty", _E, "There is nothing to train or to validate on.", "Put images there, or mend the path."),
    Rule("split-same", _E, "The score is measured on what was trained on, and says nothing.", "Give training and validation images of their own."),
    Rule("split-unlabelled", _E, "Ultralytics refuses to train without a single label.", "Put label files where the message says."),
    Rule("symlink-loop", _E, "The folder is read again and again; its images come up to forty times.", "Remove the link."),
    Rule("link-broken", _E, "The image is listed, and reading it fails.", "Restore what the link points to, or remove it."),
    Rule("list-entry-missing", _E, _DROPPED, "Remove the line, or restore the image."),
    Rule("case-clash", _W, "On Windows and macOS the two are one file, and one of them is lost when the data are copied.", "Rename one of them."),
    Rule("label-shared", _W, "Both images get the same labels, and for one of them they are probably wrong.", "Rename one image, and give it labels of its own."),
    Rule("image-ignored", _W, "Ultralytics does not read files with this ending; the image takes no part.", "Convert it to JPEG or PNG."),
    Rule("class-folders", _E, "Classes are numbered by folder in each split: with other folders the numbers mean other classes.", "Give every split the same class folders."),
    Rule("class-folder-empty", _W, "A class without examples cannot be learned.", "Add images, or remove the folder from every split."),
    Rule("image-stray", _W, "Only images inside class folders are read.", "Move it into the folder of its class."),
    # ---- image files
    Rule("image-empty", _E, _DROPPED, "Restore the file, or remove it with its label."),
    Rule("image-unreadable", _E, _DROPPED, "Restore the file, or remove it with its label."),
    Rule("image-truncated", _E, "The missing part is shown as grey or noise; Ultralytics rewrites such a JPEG in place.", "Restore the file from its source."),
    Rule("image-trailing", _W, "Ultralytics takes the JPEG for damaged and rewrites it in place, at another quality.", "Save the image anew."),
    Rule("image-extension", _W, "Programs that go by the ending read it wrongly or not at all.", "Rename the file to what it is."),
    Rule("image-format", _E, _DROPPED, "Convert it to JPEG or PNG."),
    Rule("image-rotated", _W, "Ultralytics turns the image upright. Labels that were drawn on the unturned pixels do not fit.", "Check one label by eye, then save the pixels upright without the tag."),
    Rule("image-cmyk", _W, "Converted to RGB without a colour profile: colours differ from those at inference.", "Convert it to RGB."),
    Rule("image-16bit", _W, "Only the high byte is kept: 12-bit data in 16-bit files become nearly black.", "Scale it to 8 bits yourself."),
    Rule("image-float", _E, "It is not scaled to 0..255: training fails, or the image is black.", "Scale it to 8 bits yourself."),
    Rule("image-grey", _I, "One channel is repeated three times; colour augmentation does next to nothing.", "Nothing, when inference sees grey images too; else set 'channels: 1'."),
    Rule("image-alpha", _W, "Transparency is dropped, and what was hidden under it shows.", "Flatten the image onto the background that is meant."),
    Rule("image-small", _E, _DROPPED, "Remove it, or take a larger original."),
    Rule("image-huge", _W, "Each reading takes long and much memory, in every loader worker.", "Cut it into tiles, or shrink it once."),
    Rule("image-aspect", _W, "Scaled to a square, the short side has a few pixels left.", "Cut it into tiles."),
    Rule("image-constant", _W, "There is nothing to see; with labels it teaches noise, and it makes batch statistics jump.", "Remove it with its label."),
    # ---- arrays beside images
    Rule("npy-not-finite", _E, "Ultralytics reads this array in place of the image, without a word: NaN pixels end training.", "Delete the .npy file."),
    Rule("npy-unreadable", _E, "Ultralytics deletes the file and reads the image.", "Delete the .npy file."),
    Rule("npy-mismatch", _E, "Ultralytics reads this array in place of the image: other size, channels or range of values.", "Delete the .npy file."),
    # ---- label files
    Rule("label-missing", _I, "The image is taken as background.", "Nothing, when there really is no object; else add the labels."),
    Rule("label-orphan", _W, "Labels without an image are not read; an image may be lost or misnamed.", "Restore the image, or remove the labels."),
    Rule("label-encoding", _E, _DROPPED, "Save the file as UTF-8 text."),
    Rule("label-parse", _E, _DROPPED, "Mend or remove the line: numbers with blanks between them."),
    Rule("label-columns", _E, _DROPPED, "Mend or remove the line, or choose the task that the labels are for."),
    Rule("label-not-finite", _E, _DROPPED, "Remove the line, and mend what wrote it."),
    Rule("class-fraction", _E, _DROPPED, "Write class ids as whole numbers."),
    Rule("class-range", _E, f"{_DROPPED} In a cache or a loader of your own it ends the process.", "Mend the id, or add the class to 'names'."),
    Rule("coordinate-negative", _E, _DROPPED, "Clip the box to the image; coordinates are fractions of width and height."),
    Rule("coordinate-above-one", _E, _DROPPED, "Clip the box to the image, or divide pixels by width and height."),
    Rule("box-zero-area", _E, f"No anchor can match it, so it is never learned. {_BACKGROUND}", "Draw the box again, or remove the line."),
    Rule("box-subpixel", _W, "At the size of training it is smaller than a pixel: nothing to see, noise to learn.", "Train on tiles or at a larger size, or remove the line."),
    Rule("box-over-edge", _W, "The part outside cannot be predicted; the loss pulls at it all the same.", "Clip the box to the image."),
    Rule("box-duplicate", _W, "Ultralytics removes exact copies; other tools count the object twice.", "Remove the line."),
    Rule("box-two-classes", _W, "The same box cannot be two things: the two labels push against each other.", "Keep the right one."),
    Rule("polygon-points", _E, f"Under three points there is no area. {_BACKGROUND}", "Draw the polygon again, or remove the line."),
    Rule("polygon-crossing", _W, "Where the outline crosses itself, inside and outside change places in the mask.", "Draw the outline again, or split it in two."),
    Rule("polygon-zero-area", _E, f"The mask is empty. {_BACKGROUND}", "Draw the polygon again, or remove the line."),
    Rule("keypoint-outside", _E, "A visible keypoint cannot lie outside the image; above 1.01 the whole image is left out.", "Set its visibility to 0, or mend it."),
    Rule("keypoint-visibility", _W, "Visibility is 0 (not labelled), 1 (hidden) or 2 (visible); other values weigh the loss.", "Write 0, 1 or 2."),
    # ---- all images together
    Rule("class-unused", _W, "A class without an example in training cannot be learned, and costs room in the head.", "Add examples, or remove the class."),
    Rule("class-unseen", _W, "It is asked for in validation, and never shown in training.", "Move some of its images to training."),
    Rule("class-imbalance", _W, "Rare classes hardly move the weights.", "Add or repeat images of the rare classes, or merge classes."),
    Rule("duplicate", _W, "The image counts as often as it is there.", "Keep one of them."),
    Rule("duplicate-across-splits", _E, "The score is partly measured on what was trained on.", "Remove it from training, or from validation."),
    Rule("near-duplicate", _I, "Copies that were scaled or compressed anew count as often as they are there.", "Look at both, and keep one."),
    Rule("near-duplicate-across-splits", _W, "Frames of one video on both sides make the score better than it is.", "Look at both; split by scene, not by image."),
    # ---- after augmentation
    Rule("augment-failed", _E, "Training stops at this image.", "Mend the image or its labels, or the augmentation."),
    Rule("augment-not-finite", _E, "NaN pixels end training.", "Mend the image, or leave the augmentation out."),
    Rule("augment-box", _E, "Boxes that leave the image, or have no size, spoil the loss.", "Mend the labels, or leave the augmentation out."),
)  # fmt: skip

RULES: dict[str, Rule] = {rule.id: rule for rule in _RULES}
"""Every rule by its id."""


def found(
    rule: str,
    path: object,
    message: str,
    *,
    line: int | None = None,
    severity: Severity | None = None,
    image: object = "",
    points: Iterable[tuple[float, float]] = (),
    others: Iterable[str] = (),
) -> Finding:
    """Make a finding.

    Args:
        rule: Id of the rule.
        path: The file or folder.
        message: The value against what is allowed.
        line: From 1, when there is one.
        severity: When it is not the rule's own.
        image: The image that shows it.
        points: What to outline in the image, in fractions of its size.
        others: All images that are the same.

    Examples:
        >>> found("image-empty", "a.jpg", "0 bytes").severity.value
        'error'
    """
    entry = RULES[rule]
    return Finding(entry, str(path), message, line, severity or entry.severity, str(image), tuple(points), tuple(others))
