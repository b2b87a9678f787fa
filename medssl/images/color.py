"""Colors as sRGB: by the profile that a picture brings."""

from __future__ import annotations

import io

from PIL import Image, ImageCms

SRGB = ImageCms.createProfile("sRGB")
SPACES = {"RGB ": ("RGB", "RGBA", "RGBX"), "CMYK": ("CMYK",), "GRAY": ("L",)}


def to_srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    """The image with its colors in sRGB where its ICC profile is another (Display P3, Adobe RGB); else as it is.

    A profile that cannot be read, or is of another color space than the pixels, is left aside, as viewers do.
    """
    if not profile:
        return image
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        space = source.profile.xcolor_space
        if image.mode not in SPACES.get(space, ()) or space == "GRAY":
            return image
        if "srgb" in (ImageCms.getProfileDescription(source) or "").lower():
            return image
        target = "RGB" if image.mode in ("CMYK", "RGBX") else image.mode
        if image.mode == "RGBA":
            red = ImageCms.profileToProfile(image.convert("RGB"), source, SRGB, outputMode="RGB")
            if red is not None:
                red.putalpha(image.getchannel("A"))
            return red or image
        return ImageCms.profileToProfile(image, source, SRGB, outputMode=target) or image
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError, AttributeError):
        return image
