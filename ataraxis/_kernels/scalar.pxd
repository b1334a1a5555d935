# NumPy's scalars, made quickly: scalar.h. Whoever takes it has imported NumPy's C-API.
cdef extern from "scalar.h":
    object ax_scalar(int kind, const void *bytes, object dtype)
