"""The reconciliation that nobody has to ask for: which run is to be begun or carried on now."""

from datetime import datetime, timedelta

from sqlalchemy import func, select

from payment_worker.reconciling import pages, runs
from payment_worker.reconciling.desk import Desk
from payment_worker.reconciling.runs import Run
from shared.database import reading
from shared.models import Payment
from shared.settings import Settings
from shared.telemetry import get_logger

log = get_logger(__name__)

ACTOR = "scheduler"
# A run that has not moved for so long is nobody's: whoever did it has ended.
NOBODYS_AFTER = timedelta(minutes=5)


def turn(desk: Desk, settings: Settings) -> Run | None:
    """Carry on the scheduled run that was interrupted, or begin the next one when it is time.

    Returns the run that was finished, None when nothing was due or another process was quicker. Raises
    GatewayUnavailable; the run is carried on in a later turn.
    """
    if not settings.reconcile_every_h:
        return None
    run = _interrupted(desk) or _begun(desk, settings)
    if run is None:
        return None
    try:
        pages.carry_on(desk, run)
    except runs.Overtaken:
        return None
    if run.counts["open"]:
        log.error("the gateway's books differ from ours", open_breaks=run.counts["open"], run_id=str(run.id))
    else:
        log.info("the gateway's books and ours agree", run_id=str(run.id), counts=run.counts)
    return run


def _interrupted(desk: Desk) -> Run | None:
    idle = func.now() - NOBODYS_AFTER
    query = select(Run).where(Run.finished_at.is_(None), Run.scheduled, Run.moved_at < idle)
    with reading(desk.worker.sessions) as session:
        run = session.scalars(query.order_by(Run.id.desc()).limit(1)).one_or_none()
        session.expunge_all()
        return run


def _begun(desk: Desk, settings: Settings) -> Run | None:
    margin = timedelta(seconds=settings.reconcile_margin_s)
    with reading(desk.worker.sessions) as session:
        now = session.scalars(select(func.clock_timestamp())).one()
        latest = select(Run.began_at).where(Run.scheduled).order_by(Run.id.desc()).limit(1)
        last: datetime | None = session.scalars(latest).one_or_none()
        if last is None:  # a service is given time to have something to compare
            last = session.scalars(select(Payment.created_at).order_by(Payment.id).limit(1)).one_or_none()
    if last is None or now - last < timedelta(hours=settings.reconcile_every_h):
        return None
    since = now - timedelta(hours=settings.reconcile_back_h)
    return runs.begin(desk.worker.sessions, since, None, margin, actor=ACTOR, scheduled=True, heals=True)
