"""Hosts on a page: what the agent of the context tells, asked without waiting for it.

Without an agent nothing of other hosts is imported: its socket alone is looked for.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from ataraxis.shm.context import Context

if TYPE_CHECKING:
    from ataraxis.cluster.status import AgentWatch

SOCKET = ".agent"
"""The agent's socket in the context, as `ataraxis.cluster.door` names it."""
EVERY_S = 1.0
"""Least time between two questions, s."""
MOST_ROWS = 200
_TEXT = 200


class HostWatch:
    """Asks the agent of a context for its hosts, mirrors and edges, seldom.

    Parameters
    ----------
    context : Context
        The context.

    Examples
    --------
    >>> HostWatch(Context.of(None)).look()
    {}
    """

    def __init__(self, context: Context) -> None:
        self._context = context
        self._agent: AgentWatch | None = None

    def look(self) -> dict[str, Any]:
        """Return what it has told last, JSON-able; empty without an agent."""
        if self._agent is None:
            if not os.path.lexists(self._context.join(SOCKET)):
                return {}
            from ataraxis.cluster.status import AgentWatch

            self._agent = AgentWatch(self._context, EVERY_S)
        reading = self._agent.look()
        if reading is None:
            self.close()
            return {}
        rows = reading.as_dict()
        return {
            "state": reading.state,
            "problem": reading.problem[:_TEXT],
            "silent_s": round(reading.silent_s),
            "left_out": sum(max(len(found) - MOST_ROWS, 0) for found in rows.values()),
            **{key: _fitting(found) for key, found in rows.items()},
        }

    def close(self) -> None:
        """Leave the agent; the next `look` asks it again."""
        agent, self._agent = self._agent, None
        if agent is not None:
            agent.close()


def _fitting(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return so many rows as a page can show, with texts of bounded length."""
    return [
        {k: v[:_TEXT] if isinstance(v, str) else v for k, v in row.items()}
        for row in rows[:MOST_ROWS]
    ]
