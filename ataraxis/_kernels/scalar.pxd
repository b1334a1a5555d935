# Fast NumPy scalars, of scalar.h. The importing module must call import_array().
cdef extern from "scalar.h":
    object ax_scalar(int kind, const void *bytes, object dtype)
