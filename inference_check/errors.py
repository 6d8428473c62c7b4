"""Why a copy could not be run, or cannot be the published model. Each message is one sentence."""


class InferenceError(Exception):
    """Root of this package's errors."""


class NotRun(InferenceError):
    """The copy could not be run here, and nothing follows for what it is."""


class WrongModel(InferenceError):
    """The copy's tensors or answers are none that the published model could have."""


class NotFinite(WrongModel):
    """NaN or Infinity came out of a layer, which ``place`` names."""

    def __init__(self, place: str) -> None:
        super().__init__(f"NaN or infinite values come out of {place}")
        self.place = place
