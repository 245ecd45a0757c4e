"""One loaded encoder in an actor, and what is done when encoding a unit ends the actor's process."""

from __future__ import annotations

import logging
import os

import numpy as np
import ray

from pipeline.encoders.base import Encoded, EncoderSpec, PreparedTexts, encode_each
from pipeline.encoders.isolating import NotIsolatedError, SpareProcess, encode_isolated
from pipeline.encoders.registry import build_encoder, restore
from pipeline.exceptions import ModelError, PipelineError, PoisonUnitError
from pipeline.ray_data.order import WorkOrder
from pipeline.ray_data.reporting import Reporting
from pipeline.ray_data.sharing import require_output
from pipeline.records import Unit

logger = logging.getLogger(__name__)


class Replica:
    """An encoder loaded as a run orders it, or why it could not be.

    The failure is raised when the first unit comes: raised in an actor's constructor it would only make Ray try again.
    """

    def __init__(self, order: WorkOrder, ledger: ray.actor.ActorHandle) -> None:
        self._order, self._ledger = order, ledger
        self.failure: PipelineError | None = None
        try:
            require_output(order)
            self._spec = restore(order.encoder)
            self._encoder = build_encoder(self._spec, order.device, order.threads, order.config.encoder.remote)
        except PipelineError as error:
            self.failure = error

    @property
    def spec(self) -> EncoderSpec:
        """What is loaded.

        Raises:
            PipelineError: why it is not.
        """
        if self.failure is not None:
            raise self.failure
        return self._spec

    def encode(self, unit: Unit, prepared: PreparedTexts, batches: Reporting, *, lost: int = 0) -> Encoded:
        """Encode a unit's texts; those of one that `lost` as many workers as it may, in a process beside this one.

        Raises:
            ModelError: the encoder returned something else than a float32 vector a text.
            PoisonUnitError: the process beside ends, too, and not for single rows.
            PipelineError: as the encoder raises it.
        """
        isolated = lost >= self._order.config.limits.unit_attempts
        found = (self._beside if isolated else self._here)(unit, prepared, batches)
        expected = (len(prepared.n_tokens), self.spec.dimension)
        if found.vectors.shape != expected or found.vectors.dtype != np.float32:
            given = f"{found.vectors.dtype} {found.vectors.shape}"
            raise ModelError(self.spec.model, f"returned {given}, not float32 {expected}")
        return found

    def _here(self, unit: Unit, prepared: PreparedTexts, batches: Reporting) -> Encoded:
        try:
            return encode_each(self._encoder, prepared, batches)
        except PipelineError:
            raise
        except Exception as error:
            # nothing may work in this process any more, as after a CUDA error; what ends a worker is counted
            logger.exception("unit %d: this replica ends, and another takes its place", unit.number)
            reason = f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
            ray.get(self._ledger.fail.remote(unit.number, reason))
            os._exit(1)

    def _beside(self, unit: Unit, prepared: PreparedTexts, batches: Reporting) -> Encoded:
        spare = SpareProcess(self._spec, self._order.device, self._order.threads)
        try:
            found = encode_isolated(spare, prepared, alive=batches.alive)
        except NotIsolatedError as error:
            lost = self._order.config.limits.unit_attempts
            raise PoisonUnitError(unit.number, lost, unit.pieces, str(error)) from error
        finally:
            spare.close()
        batches(len(found.vectors) - len(found.dead), int(np.delete(prepared.n_tokens, list(found.dead)).sum()))
        return found
