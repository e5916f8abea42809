"""Every error sam-edge raises on purpose.

    SamEdgeError
    ├── CheckpointError     a checkpoint that is missing, damaged, unsafe or unknown
    ├── DownloadError       a checkpoint that could not be fetched, or another file in its place
    ├── CalibrationError    calibration pictures that are missing or cannot be read
    ├── ExportError         a conversion that failed
    ├── ParityError         an export that does not make the reference's masks
    ├── BundleError         a bundle or manifest that cannot be used
    │   └── IntegrityError  a file that is not the one that was exported
    ├── BackendError        an inference runtime that is missing or refuses a model
    │   └── CrashError      one that took its process down
    ├── DeviceError         a device that is not there
    ├── PromptError         points, boxes or masks that make no sense
    ├── ImageError          an image that is none, or of the wrong kind
    ├── OutputError         a place that cannot be written
    └── ServeError          a page that cannot be served

A message says what was wrong, what was expected and what to do. `exit_code` is what the command line
ends with: 2 where the input was wrong, 1 where the work failed.
"""


class SamEdgeError(Exception):
    """The root of the tree."""

    exit_code = 2


class CheckpointError(SamEdgeError):
    """A checkpoint that is missing, damaged, unsafe or unknown."""


class DownloadError(SamEdgeError):
    """A checkpoint that could not be fetched, or another file in its place."""

    exit_code = 1


class CalibrationError(SamEdgeError):
    """Calibration pictures that are missing or cannot be read."""


class ExportError(SamEdgeError):
    """A conversion that failed."""

    exit_code = 1


class ParityError(SamEdgeError):
    """An export that does not make the reference's masks."""

    exit_code = 1


class BundleError(SamEdgeError):
    """A bundle or manifest that cannot be used."""


class IntegrityError(BundleError):
    """A file that is not the one that was exported."""


class BackendError(SamEdgeError):
    """An inference runtime that is missing or refuses a model."""


class CrashError(BackendError):
    """A device's compiler or simulator that took its process down, which was one of its own."""

    exit_code = 1


class DeviceError(SamEdgeError):
    """A device that is not there."""


class PromptError(SamEdgeError):
    """Points, boxes or masks that make no sense."""


class ImageError(SamEdgeError):
    """An image that is none, or of the wrong kind."""


class OutputError(SamEdgeError):
    """A place that cannot be written."""


class ServeError(SamEdgeError):
    """A page that cannot be served."""


class SamEdgeWarning(UserWarning):
    """Something that was asked for could not be done, and the answer is right without it."""
