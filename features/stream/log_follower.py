"""A stream worker's place in the log: the rows of its shoppers follow the events, share by share."""

from __future__ import annotations

from sqlalchemy import Engine

from features import store
from features.log.event_log import EventLog
from features.online.shopper_rows import RowsToWrite, ShopperRows
from features.stream.shares import DividedShares, SoleShares, share_of
from features.stream.stream_positions import save_positions, share_positions
from features.stream.touched import touches_after

BATCH_EVENTS = 2_000


class LogFollower:
    """Follows the log for the shares that it owns."""

    def __init__(self, engine: Engine, feast: store.FeatureStore, shares: SoleShares | DividedShares) -> None:
        self._engine = engine
        self._log = EventLog(engine)
        self._shares = shares
        self.rows = ShopperRows(engine, feast)
        self.positions: dict[int, int] = {}
        """By share that is followed: the position through which its rows reflect the log."""
        self._saved: dict[int, int] = {}
        self.in_hand = RowsToWrite()
        """What is being written; after an error it may have been, also when the shares were lost meanwhile."""

    def share(self) -> None:
        """Takes and gives up shares, as many as its part is now, and moves on where a build has written rows."""
        surplus = self._shares.surplus()
        if surplus:
            self.save()
            self._shares.give_up(surplus)
        self._shares.take()
        durable = share_positions(self._engine)
        self.positions = {
            share: max(durable[share], self.positions.get(share, 0)) for share in sorted(self._shares.owned)
        }

    def follow(self) -> int:
        """Writes the rows that the next `BATCH_EVENTS` events touch; returns how many of them were still to do."""
        if not self.positions or self._log.last_position() <= min(self.positions.values()):
            return 0
        with self._shares.writing():
            touches = touches_after(self._engine, min(self.positions.values()), BATCH_EVENTS)
            if not touches:
                return 0
            through = touches[-1].position
            mine = [touch for touch in touches if touch.position > self.positions.get(share_of(touch.shopper), through)]
            self.in_hand = RowsToWrite(
                recent={touch.shopper for touch in mine if touch.recent},
                purchases={touch.shopper for touch in mine if touch.purchases},
                left={touch.shopper for touch in mine if touch.left},
            )
            self.rows.write(self.in_hand)
        self.in_hand = RowsToWrite()
        self.positions = {share: max(position, through) for share, position in self.positions.items()}
        return len(touches)

    def behind(self) -> int:
        """Positions of the log that are still to do."""
        last = self._log.last_position()
        return max([0, *(last - position for position in self.positions.values())])  # an erasure may take the last

    def save(self) -> None:
        """Makes the positions durable."""
        if self.positions != self._saved:
            save_positions(self._engine, self.positions)
            self._saved = dict(self.positions)
