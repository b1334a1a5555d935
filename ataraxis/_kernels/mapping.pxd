# A file mapped into memory.
cdef class Mapping:
    cdef char *base
    cdef Py_ssize_t bytes
