"""Who a session's events belong to: the first event in log order that names a person as well signs the session in.

What the session did anonymously up to the time of that event counts as the person's, whether it was in the log before,
comes along in the same batch or arrives late; what it does anonymously afterwards stays the session's. A second person
in the same session joins nothing: a storefront begins a new session id when somebody signs out.

The same two statements run in every transaction that adds events, one by one or in bulk, so that the outcome hangs on
the order of the log alone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

_SIGN_IN: Final = """
INSERT INTO sign_ins (session_id, shopper, through_ms, position)
SELECT session_id, shopper, event_time_ms, position FROM events
WHERE position IN (
    SELECT min(position) FROM events
    WHERE position > {before} AND session_id IS NOT NULL AND substr(shopper, 1, 2) = 'u:'
    GROUP BY session_id)
ON CONFLICT (session_id) DO NOTHING"""

# The index events_by_shopper finds an anonymous session's events up to a time; a session that was joined has none left.
_JOIN: Final = """
UPDATE events SET shopper = (SELECT shopper FROM sign_ins WHERE sign_ins.session_id = events.session_id)
WHERE position IN (
    SELECT anonymous.position
    FROM (SELECT DISTINCT session_id FROM events WHERE position > {before} AND session_id IS NOT NULL) AS touched
    JOIN sign_ins ON sign_ins.session_id = touched.session_id
    JOIN events AS anonymous
        ON anonymous.shopper = 's:' || sign_ins.session_id AND anonymous.event_time_ms <= sign_ins.through_ms)"""


INDEX_PLANS: Final = ", ".join(
    f"set_config('{setting}', 'off', true)"
    for setting in ("enable_seqscan", "enable_hashjoin", "enable_mergejoin", "jit")
)
"""PostgreSQL's settings for a transaction that signs in: without statistics, as after a bulk load, its planner would
read the whole log for a handful of sessions."""


def sign_in(execute: Callable[[str], object], before: int | str, *, join: bool = True) -> None:
    """Signs in the sessions of the events above the position `before`, and gives the persons what is theirs.

    Args:
        execute: runs one SQL statement in the transaction that added the events.
        before: the position, or the placeholder of the one parameter that `execute` gives to each statement: a text
            that stays the same is planned once.
        join: False where no session that signs in has an anonymous event, as in a log without its index.
    """
    execute(_SIGN_IN.format(before=before))
    if join:
        execute(_JOIN.format(before=before))
