"""Services of a guarded trainer: built here; each owns its state and only reads the trainer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ..checkpoints.resume import ResumeSession
from ..checkpoints.trainer_view import TrainerView
from ..checkpoints.writer import CheckpointWriter
from ..runlog.injections import Injections
from .alert_service import AlertService
from .file_watcher import FileWatcher
from .finish import RunEnding
from .incident_service import IncidentService
from .logger_relay import LoggerRelay
from .loop import GuardedLoop
from .loss_errors import LossWatcher
from .next_steps import NextSteps
from .open_window import OpenWindow
from .precision import PrecisionPolicy
from .quarantine_keeper import QuarantineKeeper
from .reporter import Reporter
from .shutdown import ShutdownController
from .validation import ValidationPolicy


@dataclass(frozen=True, slots=True)
class Services:
    """The parts of a guarded trainer beside Ultralytics' own."""

    view: TrainerView
    injections: Injections
    next_steps: NextSteps
    losses: LossWatcher
    window: OpenWindow
    loggers: LoggerRelay
    alerts: AlertService
    reporter: Reporter
    quarantine: QuarantineKeeper
    files: FileWatcher
    incidents: IncidentService
    precision: PrecisionPolicy
    validation: ValidationPolicy
    resume: ResumeSession
    checkpoints: CheckpointWriter
    shutdown: ShutdownController
    loop: GuardedLoop
    ending: RunEnding

    @classmethod
    def of(cls, trainer: object, make_checkpoint: Callable[[int], object]) -> Services:
        """Build all services of a trainer.

        Args:
            trainer: The guarded trainer; nothing is read of it yet, but the faults in its class.
            make_checkpoint: Has Ultralytics make and write the checkpoint of a last whole epoch.
        """
        view = TrainerView(trainer)
        injections = Injections(type(trainer))
        next_steps = NextSteps(view, injections)
        loggers, alerts = LoggerRelay(view), AlertService(view)
        reporter = Reporter(view, next_steps, loggers=loggers, alerts=alerts)
        losses = LossWatcher(view)
        window = OpenWindow(view, losses)
        quarantine = QuarantineKeeper(view, injections, next_steps)
        files = FileWatcher(view, quarantine)
        precision = PrecisionPolicy(view)
        resume = ResumeSession(view, next_steps.filled)
        checkpoints = CheckpointWriter(view, collect_state=resume.collect, make_content=make_checkpoint)
        incidents = IncidentService(
            view,
            window=window,
            reporter=reporter,
            quarantine=quarantine,
            injections=injections,
            next_steps=next_steps,
        )
        validation = ValidationPolicy(view, incidents.look_into_validation)
        shutdown = ShutdownController(view, window=window, checkpoints=checkpoints, next_steps=next_steps)
        return cls(
            view=view,
            injections=injections,
            next_steps=next_steps,
            losses=losses,
            window=window,
            loggers=loggers,
            alerts=alerts,
            reporter=reporter,
            quarantine=quarantine,
            files=files,
            incidents=incidents,
            precision=precision,
            validation=validation,
            resume=resume,
            checkpoints=checkpoints,
            shutdown=shutdown,
            loop=GuardedLoop(
                view,
                window=window,
                reporter=reporter,
                files=files,
                validation=validation,
                injections=injections,
                resume=resume,
                checkpoints=checkpoints,
                shutdown=shutdown,
            ),
            ending=RunEnding(
                view,
                checkpoints=checkpoints,
                files=files,
                precision=precision,
                injections=injections,
                next_steps=next_steps,
                alerts=alerts,
                undo_resume=resume.undo,
            ),
        )
