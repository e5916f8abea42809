"""The open sessions of a loaded model."""

from __future__ import annotations

import threading

from ..backends import Session
from ..errors import BackendError
from ..tasks.clip import Clip
from .opener import GraphOpener


class OpenGraphs:
    """Encoder and decoder, opened at once; the decoder's stages and CLIP, when they are first asked for.

    Safe to use from several threads.
    """

    def __init__(self, opener: GraphOpener) -> None:
        self.opener = opener
        self.encoder, self.decoder = opener.open("encoder", "decoder")
        self.users = 0
        self.is_retired = False
        self._lock = threading.Lock()
        self._clip_lock = threading.Lock()
        self._closed = False
        self._stages: tuple[Session, Session] | None = None
        self._clip: Clip | None = None

    def stages(self) -> tuple[Session, Session] | None:
        """Return the scorer and the upscaler; None where the decoder is whole, or after `close`."""
        with self._lock:
            if self._stages is None and self.opener.has_stages and not self._closed:
                scorer, upscaler = self.opener.open("scorer", "upscaler")
                self._stages = scorer, upscaler
            return self._stages

    def clip(self) -> Clip:
        """Return the bundle's CLIP; raises as `GraphOpener.clip`."""
        with self._clip_lock:
            if self._clip is None:
                if self._closed:
                    raise BackendError("this model was closed; load it again")
                self._clip = self.opener.clip()
            return self._clip

    def close(self) -> None:
        """Close all sessions."""
        self.encoder.close()
        self.decoder.close()
        with self._lock:
            self._closed = True
            for session in self._stages or ():
                session.close()
        with self._clip_lock:
            if self._clip is not None:
                self._clip.close()
