"""Names that are taken away also when SIGINT, SIGTERM or SIGHUP kills the process; see unlink_on_signal.h."""
from ataraxis._kernels.participants cimport Participant
from ataraxis._kernels.unlink_on_signal cimport ax_will, ax_will_make, ax_will_revoke

cdef class Will:
    """Take `path` away from the segment that `participant` takes part in if a signal kills us.

    Until `revoke`, or the last reference to the will goes.
    """

    cdef ax_will *will
    cdef Participant participant        # keeps the descriptor open

    def __cinit__(self, Participant participant not None, bytes path):
        self.participant = participant
        self.will = ax_will_make(
            participant.party.probe, participant.party.dev, participant.party.ino, participant.party.slots, path
        )
        if self.will == NULL:
            raise MemoryError("the path is too long, or there is no memory")

    def revoke(self):
        """Leave the name alone from here on."""
        if self.will != NULL:
            ax_will_revoke(self.will)
        self.will = NULL
        self.participant = None

    def __dealloc__(self):
        if self.will != NULL:
            ax_will_revoke(self.will)
