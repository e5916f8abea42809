"""Every error that sam-edge raises on purpose.

    SamEdgeError
    ├── CheckpointError     a checkpoint is missing, damaged, unsafe or of an unknown model
    ├── DownloadError       a checkpoint could not be fetched, or is not the expected file
    ├── CalibrationError    calibration images are missing or cannot be read
    ├── ExportError         a conversion failed
    ├── ParityError         an export does not make the reference's masks
    ├── BundleError         a bundle or its manifest cannot be used
    │   └── IntegrityError  a file is not the one that was exported
    ├── BackendError        an inference runtime is missing or refuses a model
    │   └── CrashError      an inference runtime ended the process that it ran in
    ├── DeviceError         a device is not available
    ├── PromptError         points, boxes, masks or texts are invalid
    ├── ImageError          an image is invalid
    ├── OutputError         a file or folder cannot be written
    └── ServeError          the page cannot be served

A message says what was wrong, what was expected and what to do. `exit_code` is the exit code of the command
line: 2 where the input was wrong, 1 where the work failed.
"""


class SamEdgeError(Exception):
    """Base class of all errors of sam-edge."""

    exit_code = 2


class CheckpointError(SamEdgeError):
    """A checkpoint is missing, damaged, unsafe or of an unknown model."""


class DownloadError(SamEdgeError):
    """A checkpoint could not be fetched, or is not the expected file."""

    exit_code = 1


class CalibrationError(SamEdgeError):
    """Calibration images are missing or cannot be read."""


class ExportError(SamEdgeError):
    """A conversion failed."""

    exit_code = 1


class ParityError(SamEdgeError):
    """An export does not make the reference's masks."""

    exit_code = 1


class BundleError(SamEdgeError):
    """A bundle or its manifest cannot be used."""


class IntegrityError(BundleError):
    """A file is not the one that was exported."""


class BackendError(SamEdgeError):
    """An inference runtime is missing or refuses a model."""


class CrashError(BackendError):
    """An inference runtime, such as a device's compiler or simulator, ended the process that it ran in."""

    exit_code = 1


class DeviceError(SamEdgeError):
    """A device is not available."""


class PromptError(SamEdgeError):
    """Points, boxes, masks or texts are invalid."""


class ImageError(SamEdgeError):
    """An image is invalid, or of the wrong kind."""


class OutputError(SamEdgeError):
    """A file or folder cannot be written."""


class ServeError(SamEdgeError):
    """The page cannot be served."""


class SamEdgeWarning(UserWarning):
    """Something that was asked for could not be done; results are correct without it."""
