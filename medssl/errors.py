"""The errors a caller of medssl may meet: one base class, a few named children."""


class MedSSLError(Exception):
    """Base of every error medssl raises on purpose; its text is fit to be shown to a user."""


class ImageError(MedSSLError):
    """A file or object cannot be used as an image."""


class DataError(MedSSLError):
    """A data folder or data set cannot be used as it is."""


class BackboneError(MedSSLError):
    """A backbone cannot be found, loaded or used."""


class BundleError(MedSSLError):
    """A head or bundle is incomplete, unmatched, unsafe or of an unknown schema."""


class LibraryError(MedSSLError):
    """The case library cannot be built or searched."""


class PretrainError(MedSSLError):
    """A pretraining run cannot start, go on, or be resumed as asked."""
