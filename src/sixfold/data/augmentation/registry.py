"""The augmentations: one row each, in the order in which they are applied."""

from sixfold.data.augmentation.colors import color_jitter
from sixfold.data.augmentation.erasing import TRIES as ERASE_TRIES
from sixfold.data.augmentation.erasing import cutout, erase
from sixfold.data.augmentation.mixing import draw_cutmix, draw_mixup
from sixfold.data.augmentation.moves import flip_rows
from sixfold.data.augmentation.randaugment import LARGEST, randaugment
from sixfold.data.augmentation.resized_crop import TRIES as CROP_TRIES
from sixfold.data.augmentation.resized_crop import resized_crop
from sixfold.data.augmentation.spec import Augmentation, Setting
from sixfold.data.augmentation.warps import rotate

DEFAULT_PAD = 4
"""Pixels, as usual for CIFAR-10 (He et al., "Deep residual learning", 2015, section 4.2)."""

ALPHA = Setting("ALPHA", 1.0, 0.01, 100)

AUGMENTATIONS: dict[str, Augmentation] = {
    "crop": Augmentation(
        what="pad by PAD black pixels and crop at random",
        settings=(Setting("PAD", DEFAULT_PAD, 1, 9999, whole=True),),
    ),
    "flip": Augmentation(what="mirror half of the images left to right"),
    "flip-alternate": Augmentation(
        what="mirror each image left to right in every other epoch, half of them in the first"
    ),
    "flip-rows": Augmentation(what="turn half of the images upside down", change=flip_rows),
    "resized-crop": Augmentation(
        what="enlarge a box of MIN to MAX of the area and of aspect ratio 3/4 to 4/3",
        settings=(Setting("MIN", 0.08, 0.01, 1), Setting("MAX", 1.0, 0.01, 1)),
        draws=lambda _: 2 * CROP_TRIES + 2,
        change=resized_crop,
    ),
    "rotate": Augmentation(
        what="turn by up to DEGREES either way",
        settings=(Setting("DEGREES", 15, 0.1, 180),),
        change=rotate,
    ),
    "color-jitter": Augmentation(
        what="change brightness, contrast and saturation by up to these parts, hue by HUE turns",
        settings=(
            Setting("BRIGHTNESS", 0.4, 0, 1),
            Setting("CONTRAST", 0.4, 0, 1),
            Setting("SATURATION", 0.4, 0, 1),
            Setting("HUE", 0.1, 0, 0.5),
        ),
        draws=lambda _: 8,
        change=color_jitter,
        any_range=False,
    ),
    "randaugment": Augmentation(
        what=f"N of fourteen operations, of magnitude M of {LARGEST}",
        settings=(Setting("N", 2, 1, 14, whole=True), Setting("M", 9, 0, LARGEST)),
        draws=lambda settings: 2 * int(settings[0]),
        change=randaugment,
        any_range=False,
    ),
    "erase": Augmentation(
        what="with probability P, fill a box with the mean colour",
        settings=(Setting("P", 0.25, 0.01, 1),),
        draws=lambda _: 2 * ERASE_TRIES + 3,
        change=erase,
    ),
    "cutout": Augmentation(
        what="fill a square of SIDE pixels with the mean colour",
        settings=(Setting("SIDE", 8, 1, 9999, whole=True),),
        draws=lambda _: 2,
        change=cutout,
    ),
    "mixup": Augmentation(
        what="blend with another image and its label; the share is from Beta(ALPHA, ALPHA)",
        settings=(ALPHA._replace(default=0.2),),
        mix=draw_mixup,
    ),
    "cutmix": Augmentation(
        what="paste a box of another image, and that part of its label",
        settings=(ALPHA,),
        mix=draw_cutmix,
    ),
}
